"""Reader and writer of MXNet's and Gluon's binary `.params` files, without MXNet (facts, section 1.7).

    arrays = read_params(Path("resnest50-bcfefe1d.params"))     # name -> tensor
    write_params(Path("mine.params"), arrays)

Little-endian throughout (mxnet/src/ndarray/ndarray.cc, NDArray::Save and ::Load):

    u64 0x112   u64 0   u64 count   count x array   u64 count   count x (u64 length, name)
    array: u32 magic, [i32 storage type = 0], shape, i32 device type, i32 device index, i32 dtype, values
    shape: u32 dimensions, then one i64 each (magic V1, V2), i32 dimensions in V3; without a magic, what stands in
           its place is the number of dimensions, and each is a u32
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from resnest.errors import ResnestError

LIST_MAGIC = 0x112
V1, V2, V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
DTYPES = (torch.float32, torch.float64, torch.float16, torch.uint8, torch.int32, torch.int8, torch.int64)
MAX_DIMENSIONS = 32  # numpy's and MXNet's limit; more means a damaged file


class _Cursor:
    """Reads numbers and bytes in sequence, never past the end."""

    def __init__(self, content: memoryview) -> None:
        self.content = content
        self.place = 0

    def take(self, size: int) -> memoryview:
        if size > len(self.content) - self.place:
            raise ValueError(f"cut short: {size} bytes wanted at byte {self.place} of {len(self.content)}")
        part = self.content[self.place : self.place + size]
        self.place += size
        return part

    def number(self, form: str) -> Any:
        return struct.unpack("<" + form, self.take(struct.calcsize(form)))[0]


def read_params(path: Path) -> dict[str, Tensor]:
    """Names and tensors, without the prefixes `arg:` and `aux:` of MXNet's Module.

    Raises:
        ResnestError: another format, cut short, sparse or unnamed arrays.
    """
    try:
        cursor = _Cursor(memoryview(path.read_bytes()))
        if cursor.number("Q") != LIST_MAGIC:
            raise ValueError("the magic number 0x112 is missing")
        cursor.number("Q")
        arrays = [_read_array(cursor) for _ in range(_count(cursor))]
        names = [bytes(cursor.take(cursor.number("Q"))).decode() for _ in range(_count(cursor))]
        if len(names) != len(arrays):
            raise ValueError(f"{len(arrays)} arrays, but {len(names)} names")
        if cursor.place != len(cursor.content):
            raise ValueError(f"{len(cursor.content) - cursor.place} bytes too many at its end")
        plain = [name.removeprefix("arg:").removeprefix("aux:") for name in names]
        if len(set(plain)) < len(plain):
            raise ValueError("two arrays with one name")
    except (OSError, ValueError, OverflowError) as error:
        raise ResnestError(f"{path} is damaged or no MXNet .params file: {error}") from None
    return {name: array for name, array in zip(plain, arrays, strict=True) if array is not None}


def write_params(path: Path, arrays: Mapping[str, Tensor]) -> None:
    """Write arrays in the format of MXNet 1.5 and later (V2).

    Raises:
        ResnestError: a type that the format does not know, such as bfloat16.
    """
    with path.open("wb") as file:
        file.write(struct.pack("<QQQ", LIST_MAGIC, 0, len(arrays)))
        for name, array in arrays.items():
            if array.dtype not in DTYPES:
                raise ResnestError(
                    f"{name} is {array.dtype}, which .params files cannot hold: convert to float32 first"
                )
            shape = array.shape or (1,)  # a shape without dimensions means an empty array there
            cpu = (1, 0)
            file.write(struct.pack("<IiI", V2, 0, len(shape)))
            file.write(struct.pack(f"<{len(shape)}q3i", *shape, *cpu, DTYPES.index(array.dtype)))
            file.write(array.detach().cpu().contiguous().numpy().tobytes())
        file.write(struct.pack("<Q", len(arrays)))
        for name in arrays:
            encoded = name.encode()
            file.write(struct.pack("<Q", len(encoded)) + encoded)


def _count(cursor: _Cursor) -> int:
    count = int(cursor.number("Q"))
    if count > len(cursor.content):
        raise ValueError(f"it claims {count} entries")
    return count


def _read_array(cursor: _Cursor) -> Tensor | None:
    magic = cursor.number("I")
    if magic in (V2, V3) and (kind := cursor.number("i")) != 0:
        raise ValueError(f"a sparse array (storage type {kind}), which weights never are")
    shape = _read_shape(cursor, magic)
    if shape is None:
        return None
    cursor.take(8)  # device type and index: where it lay when it was saved
    flag = cursor.number("i")
    if not 0 <= flag < len(DTYPES):
        raise ValueError(f"an unknown type ({flag})")
    count = 1
    for size in shape:
        count *= size
    values = cursor.take(count * DTYPES[flag].itemsize)
    return (
        torch.frombuffer(bytearray(values), dtype=DTYPES[flag]).view(shape)
        if count
        else torch.empty(0, dtype=DTYPES[flag])
    )


def _read_shape(cursor: _Cursor, magic: int) -> tuple[int, ...] | None:
    """The shape; None for an array without one."""
    if magic in (V1, V2):
        dimensions, form = cursor.number("I"), "q"
    elif magic == V3:
        dimensions, form = cursor.number("i"), "q"
    else:
        dimensions, form = magic, "I"
    if dimensions == -1 or (dimensions == 0 and magic != V3):
        return None
    if not 0 <= dimensions <= MAX_DIMENSIONS:
        raise ValueError(f"an array of {dimensions} dimensions at byte {cursor.place}")
    shape = tuple(int(cursor.number(form)) for _ in range(dimensions))
    if any(not 0 <= size < 2**40 for size in shape):
        raise ValueError(f"an array of shape {shape}")
    return shape
