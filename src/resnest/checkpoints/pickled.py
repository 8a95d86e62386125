"""Safe reader of `torch.save` files, in both formats, and of bare pickles; no code in them is run.

    content = read_pickled(Path("resnest50.pth"))      # whatever was saved; tensors as `LazyTensor`
    content["state_dict"]["fc.weight"].tensor()        # reads that one storage

A pickle is a program that calls what it names. `SafeUnpickler` runs nothing (promise P9): a name gets the rebuilder of
a tensor or an array, a plain container, or an inert stand-in, so that training checkpoints with an argparse.Namespace
or numpy values can be read all the same; names that no checkpoint needs end the reading. Methods may be named, as
mmengine's logs name those of their statistics, but not called. A network that was saved whole has its state
(`saved_modules`). Steps, names and copies are counted, so that a small file cannot take much time or memory.
"""

from __future__ import annotations

import io
import lzma
import pickle
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch

from resnest.checkpoints.lazy_tensor import (
    CONTAINERS,
    DTYPES,
    NUMPY,
    TORCH,
    Array,
    ArrayType,
    Refused,
    Storage,
    Unreadable,
)
from resnest.checkpoints.saved_modules import is_module_state, module_tensors
from resnest.errors import ResnestError, one_line

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # first object of a file that torch wrote before its zip format (torch 1.6)

# Who names one of these wants to act on the machine that loads the file.
# fmt: off
ACTING_MODULES = frozenset((
    "os", "posix", "nt", "sys", "subprocess", "shutil", "socket", "ctypes", "importlib", "runpy", "pty", "code",
    "codeop", "webbrowser", "urllib", "http",
))
ACTING_BUILTINS = frozenset((
    "eval", "exec", "compile", "open", "input", "breakpoint", "setattr", "delattr", "globals", "vars", "__import__",
))
# fmt: on

MOST_OPCODES = 1_000_000  # a training checkpoint of ResNeSt-269 with averaged weights takes a quarter of that
MOST_NAMES = 1000  # classes that are not loaded
SCALARS = (str, int, float, bool, bytes, type(None))  # what may be a key: hashing a nested tuple can take for ever


def read_pickled(path: Path) -> Any:
    """The content of a `torch.save` or pickle file: containers, numbers, text, `LazyTensor`s, arrays, stand-ins.

    A network that was saved whole is the mapping of its tensors.

    Raises:
        ResnestError: damaged, cut short, or it would act on this machine.
    """
    try:
        if not zipfile.is_zipfile(path):
            check_zip(path)
            return module_tensors(_read_stream(path))
        return module_tensors(_read_zip(path))
    except Refused as error:
        raise ResnestError(f"{path} would run code or fill the memory when loaded, and was refused: {error}") from None
    except READ_ERRORS as error:
        raise damaged(path, error) from None


def damaged(path: Path, error: Exception) -> ResnestError:
    """The error for a file that could not be read: not in the words of pickle and torch, which help nobody."""
    if isinstance(error, OSError) and error.errno:
        return ResnestError(f"{path} cannot be read: {one_line(error)}")
    why = one_line(error) if isinstance(error, Unreadable) else "it is cut short, or its bytes are not what they were"
    return ResnestError(f"{path} is damaged or no checkpoint: {why}")


def check_zip(path: Path) -> None:
    """Raises Unreadable for a file that begins as torch's zip files do and has not their end."""
    with path.open("rb") as file:
        if file.read(2) == b"PK" and not zipfile.is_zipfile(path):
            raise Unreadable("it is cut short: it begins as a zip file, whose end is missing")


# What a damaged pickle, and a stand-in put to a use that it was not made for, can raise.
READ_ERRORS = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    MemoryError,
    OverflowError,
    RecursionError,
    NotImplementedError,
    RuntimeError,
)


def _read_zip(path: Path) -> Any:
    """torch's format since 1.6: NAME/data.pkl, and NAME/data/KEY for each storage, none of them compressed."""
    archive = zipfile.ZipFile(path)
    members = archive.infolist()
    names = {info.filename for info in members}
    pickles = [name for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise Unreadable("a zip file without data.pkl, so not written by torch.save")
    root = pickles[0].removesuffix("/data.pkl")
    if f"{root}/constants.pkl" in names:
        raise Unreadable("a TorchScript program; save the state_dict() of the network instead")
    if any(info.compress_type != zipfile.ZIP_STORED for info in members):
        raise Refused("it has compressed members, which torch never writes and which may unpack to any size")
    if sum(info.file_size for info in members) > path.stat().st_size:
        raise Refused("its members overlap")
    if f"{root}/byteorder" in names and archive.read(f"{root}/byteorder") != b"little":
        raise Unreadable("big-endian tensors are not read here")
    storages: dict[str, Storage] = {}

    def find_storage(pid: Any) -> Storage:
        key, dtype, numel = _storage_id(pid)
        return _shared(storages, key, Storage(dtype, numel, lambda: archive.read(f"{root}/data/{key}")))

    content = archive.read(pickles[0])
    return SafeUnpickler(io.BytesIO(content), len(content), find_storage).load()


def _read_stream(path: Path) -> Any:
    """A bare pickle, or torch's format before 1.6: four pickles, a list of storage keys, then the storages."""
    with path.open("rb") as file:
        storages: dict[str, Storage] = {}

        def find_storage(pid: Any) -> Storage:
            key, dtype, numel = _storage_id(pid)
            return _shared(storages, key, Storage(dtype, numel, bytes))

        def load() -> Any:
            return SafeUnpickler(file, path.stat().st_size, find_storage).load()

        content = load()
        if content != LEGACY_MAGIC:
            return content
        load(), load()  # format version, sizes of C types
        content, keys = load(), load()
        for key in keys:
            storage = storages[key]
            count = int.from_bytes(file.read(8), "little")
            if count != storage.numel:
                cut = "it is cut short" if file.tell() >= path.stat().st_size else "its parts do not fit"
                raise Unreadable(f"{cut}: a storage has {count} elements, and its tensors declare {storage.numel}")
            size = count * storage.dtype.itemsize
            storage.read = _reader(path, file.tell(), size)
            file.seek(size, io.SEEK_CUR)
        missing = file.tell() - path.stat().st_size  # bytes; the last storages may be small, and a cut takes some whole
        if missing > 0:
            raise Unreadable(f"it is cut short: its last {missing:,} bytes are missing")
        if missing < 0:
            raise Unreadable(f"{-missing:,} bytes follow its last tensor")
        return content


def _reader(path: Path, start: int, size: int) -> Callable[[], bytes]:
    def read() -> bytes:
        if start + size > path.stat().st_size:
            raise Unreadable("it is cut short")
        with path.open("rb") as file:
            file.seek(start)
            return file.read(size)

    return read


def _storage_id(pid: Any) -> tuple[str, torch.dtype, int]:
    """("storage", type, key, device, elements), in the old format with a view of the storage, None for all of it."""
    if not isinstance(pid, tuple) or len(pid) not in (5, 6) or (len(pid) == 6 and pid[5] is not None):
        raise Unreadable("a storage of a kind that is not read here")
    _, dtype, key, _, numel = pid[:5]
    if not isinstance(dtype, torch.dtype) or not isinstance(key, str) or type(numel) is not int:
        raise Unreadable("a storage of a kind that is not read here")
    return key, dtype, numel


def _shared(storages: dict[str, Storage], key: str, storage: Storage) -> Storage:
    """The storage of a key, shared by every tensor that views it."""
    known = storages.setdefault(key, storage)
    if (known.dtype, known.numel) != (storage.dtype, storage.numel):
        raise Unreadable(f"storage {key[:20]!r} has two types or sizes")
    return known


class StandIn:
    """An inert placeholder for an object whose class is not loaded; accepts every call."""

    module_state: dict[str, Any] | None = None  # of a torch.nn.Module

    def __init__(self, *arguments: object, **keywords: object) -> None:
        pass

    def append(self, value: object) -> None:
        pass

    def extend(self, values: object) -> None:
        pass


NOTHING = StandIn()  # for every set: no weights lie in one


class Method:
    """A method that the file names. Checkpoints keep some among their settings; only a hostile file calls one."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *arguments: object, **keywords: object) -> None:
        raise Refused(f"it asks for {self.name}")


# The pure Python unpickler, since the one in C can be made to allocate any amount of memory by one opcode.
class SafeUnpickler(pickle._Unpickler):
    """`find_class` returns rebuilders, containers and stand-ins; nothing that runs code."""

    def __init__(self, file: Any, size: int, find_storage: Callable[[Any], Storage]) -> None:
        super().__init__(file, encoding="latin1")
        self.size = size  # bytes of the file, which no part of it can exceed
        self.find_storage = find_storage
        self.stand_ins: dict[str, type[StandIn]] = {}
        self.copied = 0

    def load(self) -> Any:
        """As in the base class, for a limited number of steps."""
        frame = pickle._Unframer(self._file_read, self._file_readline)  # type: ignore[attr-defined]
        self.__dict__.update(_unframer=frame, read=frame.read, readinto=frame.readinto, readline=frame.readline)
        self.metastack: list[list[Any]] = []
        self.stack: list[Any] = []
        self.append = self.stack.append
        self.proto = 0
        for _ in range(MOST_OPCODES):
            opcode = frame.read(1)
            if not opcode:
                raise Unreadable("it is cut short")
            try:
                self.dispatch[opcode[0]](self)
            except pickle._Stop as stop:  # type: ignore[attr-defined]
                return stop.value
        raise Refused(f"it has more than {MOST_OPCODES:,} steps")

    def find_class(self, module: str, name: str) -> Any:
        room = module.split(".")[0]
        if room in ACTING_MODULES or (room in ("builtins", "__builtin__") and name in ACTING_BUILTINS):
            raise Refused(f"it asks for {module}.{name}")
        if "." in name and name.rsplit(".", 1)[1][:1].islower():
            return Method(f"{module}.{name}")
        if room in ("builtins", "__builtin__") and name == "getattr":  # so protocols before 4 name a method
            return self._method
        if room == "numpy" and name in NUMPY:
            return NUMPY[name]
        if room == "torch":
            if name in DTYPES:
                return DTYPES[name]
            if name in TORCH:
                return TORCH[name]
        if (module, name) == ("collections", "OrderedDict"):
            return self._ordered_dict
        if room in ("builtins", "__builtin__") and name in CONTAINERS:
            return CONTAINERS[name]
        if (module, name) == ("_codecs", "encode"):
            return self._encode
        return self._stand_in(f"{module}.{name}")

    def _stand_in(self, name: str) -> type[StandIn]:
        if name not in self.stand_ins:
            if len(self.stand_ins) == MOST_NAMES:
                raise Refused(f"it names more than {MOST_NAMES} classes")
            self.stand_ins[name] = type(name, (StandIn,), {})
        return self.stand_ins[name]

    def _method(self, parent: object, name: object) -> Method:
        made = parent if isinstance(parent, type) else type(parent)
        if not issubclass(made, StandIn) or not isinstance(name, str):
            raise Refused("it asks for getattr")
        return Method(f"{made.__name__}.{name}")

    def _count(self, size: int) -> None:
        self.copied += size
        if self.copied > self.size:  # whatever is copied once is in the file once
            raise Refused("it copies more than the file holds")

    def _encode(self, text: object, encoding: object = "latin1") -> bytes:
        if not isinstance(text, str) or encoding != "latin1":
            raise Unreadable("text in an unknown encoding")
        self._count(len(text))
        return text.encode("latin1")

    def _ordered_dict(self, pairs: object = ()) -> OrderedDict[Any, Any]:
        made: OrderedDict[Any, Any] = OrderedDict()
        items = list(pairs.items()) if isinstance(pairs, dict) else pairs
        for pair in items if isinstance(items, list | tuple) else ():
            self._count(1)
            if isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[0], SCALARS):
                made[pair[0]] = pair[1]
        return made

    def persistent_load(self, pid: Any) -> Any:
        if isinstance(pid, tuple) and len(pid) == 4 and pid[0] == "module":  # a class and its source, before torch 1.6
            return pid[1]
        return self.find_storage(pid)

    # Each takes the place of the base class's method for the same opcode.

    def load_build(self) -> None:
        """Sets the state of arrays and of networks; that of other objects is ignored."""
        state = self.stack.pop()
        if isinstance(self.stack[-1], Array | ArrayType):
            self.stack[-1].take_state(state)
        elif isinstance(self.stack[-1], StandIn) and is_module_state(state):
            self.stack[-1].module_state = state

    def load_bytearray8(self) -> None:
        """The contents of an array in protocol 5; Python would allocate any size that the file claims."""
        size = int.from_bytes(self._unframer.read(8), "little")  # type: ignore[attr-defined]
        if size > self.size:
            raise Refused(f"it claims {size:,} bytes in one piece")
        self.append(self._unframer.read(size))  # type: ignore[attr-defined]

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set(self.stack[-1], [key, value])

    def load_setitems(self) -> None:
        items = self.pop_mark()  # type: ignore[attr-defined]
        self._set(self.stack[-1], items)

    def load_dict(self) -> None:
        items = self.pop_mark()  # type: ignore[attr-defined]
        self.append({})
        self._set(self.stack[-1], items)

    def _set(self, target: object, items: list[Any]) -> None:
        """Keys and values alternate; entries whose keys are not scalars are left out."""
        if isinstance(target, dict):
            for key, value in zip(items[::2], items[1::2], strict=True):
                if isinstance(key, SCALARS):
                    target[key] = value

    def load_empty_set(self) -> None:
        self.append(NOTHING)

    def load_additems(self) -> None:
        self.pop_mark()  # type: ignore[attr-defined]

    def load_frozenset(self) -> None:
        self.pop_mark()  # type: ignore[attr-defined]
        self.append(NOTHING)

    dispatch: ClassVar[dict[int, Any]] = {
        **pickle._Unpickler.dispatch,
        pickle.BUILD[0]: load_build,
        pickle.BYTEARRAY8[0]: load_bytearray8,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.DICT[0]: load_dict,
        pickle.EMPTY_SET[0]: load_empty_set,
        pickle.ADDITEMS[0]: load_additems,
        pickle.FROZENSET[0]: load_frozenset,
    }
