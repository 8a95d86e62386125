"""An unpickler that runs nothing (promise P9).

    content = SafeUnpickler(file, size, find_storage).load()

A pickle is a program that calls what it names. Here a name gets the rebuilder of a tensor or an array, a plain
container, or an inert stand-in, so that training checkpoints with an argparse.Namespace or numpy values can be read
all the same; names that no checkpoint needs end the reading. Steps, names and copies are counted, so that a small
file cannot take much time or memory.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, ClassVar

from resnest.checkpoints.stored import CONTAINERS, DTYPES, NUMPY, TORCH, Array, ArrayType, Refused, Storage

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

MOST_OPCODES = 1_000_000  # a training checkpoint of ResNeSt-269 with averaged weights takes a quarter of that
MOST_NAMES = 1000  # classes that are not loaded
SCALARS = (str, int, float, bool, bytes, type(None))  # what may be a key: hashing a nested tuple can take for ever


class StandIn:
    """Takes the place of an object whose class is not loaded; takes everything, does nothing."""

    def __init__(self, *arguments: object, **keywords: object) -> None:
        pass

    def append(self, value: object) -> None:
        pass

    def extend(self, values: object) -> None:
        pass


# The pure Python unpickler, since the one in C can be made to allocate any amount of memory by one opcode.
class SafeUnpickler(pickle._Unpickler):
    """`find_class` hands out rebuilders, containers and stand-ins; nothing that acts."""

    def __init__(self, file: Any, size: int, find_storage: Callable[[Any], Storage]) -> None:
        super().__init__(file, encoding="latin1")
        self.size = size  # bytes of the file, which no part of it can exceed
        self.find_storage = find_storage
        self.stand_ins: dict[str, type[StandIn]] = {}
        self.copied = 0

    def load(self) -> Any:
        """As the base class does, for a limited number of steps."""
        frame = pickle._Unframer(self._file_read, self._file_readline)  # type: ignore[attr-defined]
        self.__dict__.update(_unframer=frame, read=frame.read, readinto=frame.readinto, readline=frame.readline)
        self.metastack: list[list[Any]] = []
        self.stack: list[Any] = []
        self.append = self.stack.append
        self.proto = 0
        for _ in range(MOST_OPCODES):
            opcode = frame.read(1)
            if not opcode:
                raise EOFError("it is cut short")
            try:
                self.dispatch[opcode[0]](self)
            except pickle._Stop as stop:  # type: ignore[attr-defined]
                return stop.value
        raise Refused(f"it has more than {MOST_OPCODES:,} steps")

    def find_class(self, module: str, name: str) -> Any:
        room = module.split(".")[0]
        if room in ACTING_MODULES or (room in ("builtins", "__builtin__") and name in ACTING_BUILTINS):
            raise Refused(f"it asks for {module}.{name}")
        if "." in name and name.rsplit(".", 1)[1][:1].islower():  # a method, where checkpoints name classes
            raise Refused(f"it asks for {module}.{name}")
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

    def _count(self, size: int) -> None:
        self.copied += size
        if self.copied > self.size:  # whatever is copied once is in the file once
            raise Refused("it copies more than the file holds")

    def _encode(self, text: object, encoding: object = "latin1") -> bytes:
        if not isinstance(text, str) or encoding != "latin1":
            raise pickle.UnpicklingError("text in an unknown encoding")
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

    def persistent_load(self, pid: Any) -> Storage:
        return self.find_storage(pid)

    # Each takes the place of the base class's method for the same opcode.

    def load_build(self) -> None:
        """Attributes go to arrays alone; those of anything else say nothing about weights."""
        state = self.stack.pop()
        if isinstance(self.stack[-1], Array | ArrayType):
            self.stack[-1].take_state(state)

    def load_bytearray8(self) -> None:
        """The contents of an array in protocol 5; Python would allocate whatever size the file claims."""
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
        """Keys and values in turn; entries with other keys than scalars are left out."""
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


NOTHING = StandIn()  # for every set: no weights lie in one
