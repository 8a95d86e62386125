"""Pickled checkpoints, read without running any code that they hold (promise P9).

    content = read_pickled(Path("resnest50.pth"))      # whatever was saved; tensors as `Stored`
    content["state_dict"]["fc.weight"].tensor()        # reads that one storage

A pickle is a program that calls what it names. Here a name gets the rebuilder of a tensor or an array, a plain
container, or an inert stand-in, so that training checkpoints with an argparse.Namespace or numpy values can be read
all the same; names that no checkpoint needs end the reading. Nothing is read of a tensor until it is asked for.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from resnest.errors import ResnestError

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # first object of a file that torch wrote before its zip format (torch 1.6)

DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}
ARRAY_DTYPES = {
    "f8": torch.float64,
    "f4": torch.float32,
    "f2": torch.float16,
    "i8": torch.int64,
    "i4": torch.int32,
    "i2": torch.int16,
    "i1": torch.int8,
    "u1": torch.uint8,
    "b1": torch.bool,
}

# Who names one of these wants to act on the machine that loads the file.
# fmt: off
ACTING_MODULES = frozenset((
    "os", "posix", "nt", "sys", "subprocess", "shutil", "socket", "ctypes", "importlib", "runpy", "pty", "code",
    "codeop", "webbrowser", "urllib", "http",
))
ACTING_BUILTINS = frozenset((
    "eval", "exec", "compile", "open", "input", "breakpoint", "getattr", "setattr", "delattr", "globals", "vars",
    "__import__",
))
# fmt: on


class StandIn:
    """Takes the place of an object whose class is not loaded; takes everything, does nothing."""

    def __init__(self, *arguments: object, **keywords: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, value: object) -> None:
        pass

    def extend(self, values: object) -> None:
        pass

    def add(self, value: object) -> None:
        pass


class Refused(pickle.UnpicklingError):
    """The file asks for what no checkpoint needs."""


@dataclass
class Storage:
    """The flat memory that tensors are views of; read when it is first needed."""

    dtype: torch.dtype
    numel: int
    read: Callable[[], bytes]
    _flat: Tensor | None = None

    def flat(self) -> Tensor:
        if self._flat is None:
            content = self.read()
            if len(content) != self.numel * self.dtype.itemsize:
                raise pickle.UnpicklingError(f"a tensor has {len(content)} bytes instead of {self.numel} elements")
            self._flat = torch.frombuffer(bytearray(content), dtype=self.dtype) if content else torch.empty(0)
        return self._flat


@dataclass
class Stored:
    """A tensor that still lies in the file."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def __post_init__(self) -> None:
        counts = (self.storage.numel, self.offset, *self.shape, *self.stride)
        if any(type(count) is not int or count < 0 for count in counts) or len(self.shape) != len(self.stride):
            raise pickle.UnpicklingError("a tensor has an impossible shape")
        last = self.offset + sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))
        if self.numel and (last >= self.storage.numel or self.numel > self.storage.numel):
            raise Refused(f"a tensor of shape {self.shape} reaches beyond its {self.storage.numel} stored elements")

    @property
    def numel(self) -> int:
        count = 1
        for size in self.shape:
            count *= size
        return count

    def tensor(self) -> Tensor:
        if not self.numel:
            return torch.empty(self.shape, dtype=self.storage.dtype)
        return self.storage.flat().as_strided(self.shape, self.stride, self.offset)


class ArrayType:
    """A numpy dtype while it is being read: its code, and its byte order once the state has come."""

    def __init__(self, code: object, *_: object) -> None:
        self.code = str(code).lstrip("<=|")

    def take_state(self, state: Any) -> None:
        if state[1] == ">":
            raise pickle.UnpicklingError("big-endian arrays are not read here")

    @property
    def dtype(self) -> torch.dtype:
        if self.code not in ARRAY_DTYPES:
            raise pickle.UnpicklingError(f"arrays of type {self.code!r} are not weights")
        return ARRAY_DTYPES[self.code]


class Array:
    """A numpy array while it is being read, and afterwards a `Stored` in all but name."""

    stored: Stored | None = None

    def __init__(self, *_: object) -> None:
        pass

    def take_state(self, state: Any) -> None:
        _, shape, kind, fortran, raw = state
        if isinstance(kind, ArrayType) and kind.code in ARRAY_DTYPES:  # others, of objects or text, are no weights
            self.fill(raw, kind, tuple(shape), bool(fortran))

    def fill(self, raw: bytes | str, kind: ArrayType, shape: tuple[int, ...], fortran: bool = False) -> None:
        content = raw.encode("latin1") if isinstance(raw, str) else bytes(raw)  # text: pickled by Python 2
        storage = Storage(kind.dtype, len(content) // kind.dtype.itemsize, lambda: content)
        steps = [1] * len(shape)
        order = range(1, len(shape)) if fortran else range(len(shape) - 2, -1, -1)
        for axis in order:
            before = axis - 1 if fortran else axis + 1
            steps[axis] = steps[before] * max(shape[before], 1)
        self.stored = Stored(storage, 0, shape, tuple(steps))

    def tensor(self) -> Tensor:
        if self.stored is None:
            raise pickle.UnpicklingError("an array has no content")
        return self.stored.tensor()


def _rebuild_tensor(storage: Storage, offset: int, shape: Any, stride: Any, *_: object) -> Stored:
    if not isinstance(storage, Storage):
        raise pickle.UnpicklingError("a tensor without storage")
    return Stored(storage, offset, tuple(shape), tuple(stride))


def _rebuild_parameter(data: Any, *_: object) -> Any:
    return data


def _scalar(kind: ArrayType, raw: bytes | str = b"") -> Array:
    array = Array()
    if isinstance(kind, ArrayType) and kind.code in ARRAY_DTYPES:
        array.fill(raw, kind, ())
    return array


def _from_buffer(raw: bytes, kind: ArrayType, shape: Any, order: str = "C", *_: object) -> Array:
    array = Array()
    array.fill(raw, kind, tuple(shape), order == "F")
    return array


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"text in the encoding {encoding!r}")
    return text.encode("latin1")


_NUMPY = {"_reconstruct": Array, "scalar": _scalar, "dtype": ArrayType, "_frombuffer": _from_buffer}
_TORCH = {
    "_rebuild_tensor": _rebuild_tensor,
    "_rebuild_tensor_v2": _rebuild_tensor,
    "_rebuild_parameter": _rebuild_parameter,
    "_rebuild_parameter_with_state": _rebuild_parameter,
    "Size": tuple,
}
_CONTAINERS = {"OrderedDict": OrderedDict, "dict": dict, "list": list, "set": set, "frozenset": frozenset}


# The pure Python unpickler, since the one in C can be made to allocate any amount of memory by one opcode.
class SafeUnpickler(pickle._Unpickler):
    """`find_class` hands out rebuilders, containers and stand-ins; nothing that acts."""

    def __init__(self, file: Any, size: int, find_storage: Callable[[Any], Storage]) -> None:
        super().__init__(file, encoding="latin1")
        self.size = size  # bytes of the file, which no part of it can exceed
        self.find_storage = find_storage

    def find_class(self, module: str, name: str) -> Any:
        room = module.split(".")[0]
        if room in ACTING_MODULES or (room in ("builtins", "__builtin__") and name in ACTING_BUILTINS):
            raise Refused(f"it asks for {module}.{name}")
        if "." in name and name.rsplit(".", 1)[1][:1].islower():  # a method, where checkpoints name classes
            raise Refused(f"it asks for {module}.{name}")
        if room == "numpy" and name in _NUMPY:
            return _NUMPY[name]
        if room == "torch":
            if name in DTYPES:
                return DTYPES[name]
            if name in _TORCH:
                return _TORCH[name]
        if room in ("collections", "builtins", "__builtin__") and name in _CONTAINERS:
            return _CONTAINERS[name]
        if (module, name) == ("_codecs", "encode"):
            return _encode
        return type(f"{module}.{name}", (StandIn,), {})

    def persistent_load(self, pid: Any) -> Storage:
        return self.find_storage(pid)

    def load_build(self) -> None:
        """Attributes go to arrays alone; those of anything else say nothing about weights."""
        stack: list[Any] = self.stack  # type: ignore[attr-defined]
        state = stack.pop()
        if isinstance(stack[-1], Array | ArrayType):
            stack[-1].take_state(state)

    def load_bytearray8(self) -> None:
        """The contents of an array in protocol 5; Python would allocate whatever size the file claims."""
        read: Callable[[int], bytes] = self.read  # type: ignore[attr-defined]
        size = int.from_bytes(read(8), "little")
        if size > self.size:
            raise Refused(f"it claims {size:,} bytes in one piece")
        self.append(read(size))  # type: ignore[attr-defined]

    dispatch: ClassVar[dict[int, Any]] = {
        **pickle._Unpickler.dispatch,
        pickle.BUILD[0]: load_build,
        pickle.BYTEARRAY8[0]: load_bytearray8,
    }


def read_pickled(path: Path) -> Any:
    """What `torch.save` or `pickle.dump` wrote: containers, numbers, text, `Stored` tensors and arrays, stand-ins.

    Raises:
        ResnestError: damaged, cut short, or it would act on this machine.
    """
    try:
        return _read_zip(path) if zipfile.is_zipfile(path) else _read_stream(path)
    except Refused as error:
        raise ResnestError(f"{path} would run code or fill the memory when loaded, and was refused: {error}") from None
    except READ_ERRORS as error:
        raise ResnestError(f"{path} is damaged or no checkpoint: {said(error)}") from None


# What a damaged pickle, and a stand-in put to a use that it was not made for, can raise.
READ_ERRORS = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
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


def said(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _read_zip(path: Path) -> Any:
    """torch's format since 1.6: NAME/data.pkl, and NAME/data/KEY for each storage, none of them compressed."""
    archive = zipfile.ZipFile(path)
    members = archive.infolist()
    names = {info.filename for info in members}
    pickles = [name for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise pickle.UnpicklingError("a zip file without data.pkl, so not written by torch.save")
    root = pickles[0].removesuffix("/data.pkl")
    if f"{root}/constants.pkl" in names:
        raise pickle.UnpicklingError("a TorchScript program; save the state_dict() of the network instead")
    if any(info.compress_type != zipfile.ZIP_STORED for info in members):
        raise Refused("it has compressed members, which torch never writes and which may unpack to any size")
    if sum(info.file_size for info in members) > path.stat().st_size:
        raise Refused("its members overlap")
    if f"{root}/byteorder" in names and archive.read(f"{root}/byteorder") != b"little":
        raise pickle.UnpicklingError("big-endian tensors are not read here")
    storages: dict[str, Storage] = {}

    def find_storage(pid: Any) -> Storage:
        _, dtype, key, _, numel = pid[:5]
        if key not in storages:
            storages[key] = Storage(_storage_type(dtype), numel, lambda: archive.read(f"{root}/data/{key}"))
        return storages[key]

    content = archive.read(pickles[0])
    return SafeUnpickler(io.BytesIO(content), len(content), find_storage).load()


def _read_stream(path: Path) -> Any:
    """A bare pickle, or torch's format before 1.6: four pickles, a list of storage keys, then the storages."""
    with path.open("rb") as file:
        storages: dict[str, Storage] = {}

        def find_storage(pid: Any) -> Storage:
            _, dtype, key, _, numel, *_ = pid
            if key not in storages:
                storages[key] = Storage(_storage_type(dtype), numel, bytes)
            return storages[key]

        def load() -> Any:
            return SafeUnpickler(file, path.stat().st_size, find_storage).load()

        content = load()
        if content != LEGACY_MAGIC:
            return content
        load(), load()  # format version, sizes of C types
        content, keys = load(), load()
        for key in keys:
            storage = storages[key]
            size = int.from_bytes(file.read(8), "little") * storage.dtype.itemsize
            storage.read = _reader(path, file.tell(), size)
            file.seek(size, io.SEEK_CUR)
        return content


def _reader(path: Path, start: int, size: int) -> Callable[[], bytes]:
    def read() -> bytes:
        if start + size > path.stat().st_size:
            raise EOFError("it is cut short")
        with path.open("rb") as file:
            file.seek(start)
            return file.read(size)

    return read


def _storage_type(dtype: object) -> torch.dtype:
    if not isinstance(dtype, torch.dtype):
        raise pickle.UnpicklingError("a tensor of a type that is not read here")
    return dtype
