"""Lazy tensors and arrays of a pickled file: their checked metadata, and reading on demand.

stored = LazyTensor(Storage(torch.float32, 4, read), offset=0, shape=(2, 2), stride=(2, 1))
stored.tensor()                 # reads the storage, once for all tensors that view it
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

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

MOST_DIMENSIONS = 16


class Refused(pickle.UnpicklingError):
    """The file uses something that no checkpoint needs."""


class Unreadable(pickle.UnpicklingError):
    """What is wrong with a file, in words for its user; other errors of reading have Python's and torch's."""


@dataclass
class Storage:
    """The flat memory that tensors are views of; read at its first use."""

    dtype: torch.dtype
    numel: int
    read: Callable[[], bytes]
    _flat: Tensor | None = None

    def flat(self) -> Tensor:
        if self._flat is None:
            content = self.read()
            if len(content) != self.numel * self.dtype.itemsize:
                raise Unreadable(f"a tensor has {len(content)} bytes instead of {self.numel} elements")
            self._flat = torch.frombuffer(bytearray(content), dtype=self.dtype) if content else torch.empty(0)
        return self._flat


@dataclass
class LazyTensor:
    """A tensor that is still in the file."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.shape) != len(self.stride) or len(self.shape) > MOST_DIMENSIONS:
            raise Unreadable("a tensor has an impossible shape")
        counts = (self.storage.numel, self.offset, *self.shape, *self.stride)
        if any(type(count) is not int or not 0 <= count < 2**48 for count in counts):
            raise Unreadable("a tensor has an impossible shape")
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
    """A numpy dtype during unpickling: its code, and its byte order once the state has been read."""

    def __init__(self, code: object, *_: object) -> None:
        self.code = code.lstrip("<=|") if isinstance(code, str) else ""

    def take_state(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1 and isinstance(state[1], str) and state[1] == ">":
            raise Unreadable("big-endian arrays are not read here")

    @property
    def dtype(self) -> torch.dtype:
        if self.code not in ARRAY_DTYPES:
            raise Unreadable(f"arrays of type {self.code!r} are not weights")
        return ARRAY_DTYPES[self.code]


class Array:
    """A numpy array during unpickling; afterwards it serves as a `LazyTensor`."""

    stored: LazyTensor | None = None

    def __init__(self, *_: object) -> None:
        pass

    def take_state(self, state: Any) -> None:
        _, shape, kind, fortran, raw = state
        if isinstance(kind, ArrayType) and kind.code in ARRAY_DTYPES:  # others, of objects or text, are no weights
            self.fill(raw, kind, _sizes(shape), bool(fortran))

    def fill(self, raw: bytes | str, kind: ArrayType, shape: tuple[int, ...], fortran: bool = False) -> None:
        if not isinstance(raw, str | bytes | bytearray):
            raise Unreadable("an array without bytes")
        content = raw.encode("latin1") if isinstance(raw, str) else raw  # text: pickled by Python 2
        storage = Storage(kind.dtype, len(content) // kind.dtype.itemsize, lambda: bytes(content))
        steps = [1] * len(shape)
        order = range(1, len(shape)) if fortran else range(len(shape) - 2, -1, -1)
        for axis in order:
            before = axis - 1 if fortran else axis + 1
            steps[axis] = steps[before] * max(shape[before], 1)
        self.stored = LazyTensor(storage, 0, shape, tuple(steps))
        if self.stored.numel * kind.dtype.itemsize != len(content):
            raise Unreadable(f"an array has {len(content)} bytes, which is not what its shape takes")

    def tensor(self) -> Tensor:
        if self.stored is None:
            raise Unreadable("an array has no content")
        return self.stored.tensor()


def _sizes(shape: object) -> tuple[int, ...]:
    if not isinstance(shape, tuple | list) or len(shape) > MOST_DIMENSIONS:
        raise Unreadable("a tensor has an impossible shape")
    return tuple(shape)


def _rebuild_tensor(storage: Storage, offset: int, shape: Any, stride: Any, *more: object) -> LazyTensor:
    """Raises Refused for more arguments (requires_grad, hooks, flags such as a negated view's): they change values."""
    if not isinstance(storage, Storage) or (len(more) > 2 and more[2]):
        raise Unreadable("a tensor of a kind that is not read here")
    return LazyTensor(storage, offset, _sizes(shape), _sizes(stride))


def _rebuild_parameter(data: Any, *_: object) -> Any:
    return data


def _scalar(kind: ArrayType, raw: bytes | str = b"") -> Array:
    array = Array()
    if isinstance(kind, ArrayType) and kind.code in ARRAY_DTYPES:
        array.fill(raw, kind, ())
    return array


def _from_buffer(raw: bytes, kind: ArrayType, shape: Any, order: object = "C", *_: object) -> Array:
    array = Array()
    if isinstance(kind, ArrayType) and kind.code in ARRAY_DTYPES:
        array.fill(raw, kind, _sizes(shape), isinstance(order, str) and order == "F")
    return array


def _itself(value: object = ()) -> object:
    """`torch.Size(x)`, `list(x)` and the like: the argument itself, without a copy."""
    if not isinstance(value, tuple | list | dict):
        raise Unreadable("a container of something that is none")
    return value


# What a pickle may call, by name.
NUMPY = {"_reconstruct": Array, "scalar": _scalar, "dtype": ArrayType, "_frombuffer": _from_buffer}
TORCH = {
    "_rebuild_tensor": _rebuild_tensor,
    "_rebuild_tensor_v2": _rebuild_tensor,
    "_rebuild_parameter": _rebuild_parameter,
    "_rebuild_parameter_with_state": _rebuild_parameter,
    "Size": _itself,
}
CONTAINERS = {"dict": _itself, "list": _itself, "tuple": _itself}
