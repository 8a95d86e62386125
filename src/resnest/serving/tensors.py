"""Tensors of the Open Inference Protocol: read from a request, written to an answer, as JSON or in binary.

    inputs = read_inputs(head, tail)          # {"image": Tensor("BYTES", (2,), [b"...", b"..."])}
    body, size = write(outputs, binary={"score"})

In binary a tensor's bytes follow the JSON, little-endian and in the order of the tensors; BYTES elements have their
length before them, in four bytes. In JSON, pictures are base64.
Sources: the protocol's REST specification (kserve/open-inference-protocol) and Triton's binary data extension.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from resnest.serving.limits import Refused

TYPES: dict[str, Any] = {"FP32": np.float32, "INT64": np.int64, "BOOL": np.bool_}  # and BYTES
TAKEN = ("BYTES", "FP32")  # of inputs
SIDES, LONGEST = 4, 2**63 - 1  # of a shape: no more are of any use, and their product is computed


class Tensor(NamedTuple):
    """A named tensor's content."""

    datatype: str
    shape: tuple[int, ...]
    data: Sequence[bytes] | NDArray[Any]  # BYTES: flat


def read_inputs(head: Any, tail: bytes) -> dict[str, Tensor]:
    """The inputs of a request's JSON, whose binary data are the `tail`. Raises Refused (400)."""
    if not isinstance(head, dict):
        raise Refused(400, "the request is no JSON object")
    inputs = head.get("inputs")
    if not isinstance(inputs, list) or not inputs or not all(isinstance(one, dict) for one in inputs):
        raise Refused(400, "inputs: expected a list of tensors")
    found: dict[str, Tensor] = {}
    position = 0
    for entry in inputs:
        name, datatype, shape = _declared(entry)
        if name in found:
            raise Refused(400, f"inputs: {name!r} is there twice")
        size = parameters_of(entry).get("binary_data_size")
        if size is None:
            found[name] = Tensor(datatype, shape, _from_json(name, datatype, shape, entry.get("data")))
            continue
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(tail) - position:
            raise Refused(400, f"input {name!r}: binary_data_size {str(size)[:20]} is not what the body holds")
        found[name] = Tensor(datatype, shape, _from_binary(name, datatype, shape, tail[position : position + size]))
        position += size
    if position != len(tail):
        raise Refused(400, f"{len(tail) - position} bytes of binary data belong to no input")
    return found


def _declared(entry: Mapping[str, Any]) -> tuple[str, str, tuple[int, ...]]:
    name, datatype, shape = entry.get("name"), entry.get("datatype"), entry.get("shape")
    if not isinstance(name, str) or not name or len(name) > 80:
        raise Refused(400, "inputs: each has a name")
    if datatype not in TAKEN:
        raise Refused(400, f"input {name!r}: datatype {str(datatype)[:40]!r} is not taken: expected BYTES or FP32")
    good = isinstance(shape, list) and 0 < len(shape) <= SIDES
    if not good or not all(type(side) is int and 0 < side <= LONGEST for side in shape or ()):
        raise Refused(400, f"input {name!r}: expected a shape of 1 to {SIDES} whole numbers above 0")
    return name, datatype, tuple(shape or ())


def parameters_of(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """The parameters of a request, or of one of its tensors. Raises Refused (400)."""
    parameters = entry.get("parameters")
    if parameters is not None and not isinstance(parameters, dict):
        raise Refused(400, "parameters: expected an object")
    return parameters or {}


def _from_json(name: str, datatype: str, shape: tuple[int, ...], data: Any) -> list[bytes] | NDArray[np.float32]:
    flat = list(_flat(name, data, len(shape)))
    if len(flat) != math.prod(shape):
        raise Refused(400, f"input {name!r}: shape {list(shape)} is not that of {len(flat)} values")
    if datatype == "BYTES":
        return [_base64(name, value) for value in flat]
    if not all(type(value) in (int, float) for value in flat):
        raise Refused(400, f"input {name!r}: expected numbers")
    try:
        return np.array(flat, np.float32).reshape(shape)
    except OverflowError:
        raise Refused(400, f"input {name!r}: a number is too large") from None


def _flat(name: str, data: Any, depth: int) -> Sequence[Any]:
    """Values of a flat list, or of lists nested as the shape says."""
    if not isinstance(data, list):
        raise Refused(400, f"input {name!r}: expected a list as data")
    level = data
    for _ in range(depth - 1):
        if not level or not all(isinstance(part, list) for part in level):
            break
        level = [value for part in level for value in part]
    return level


def _base64(name: str, value: Any) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise Refused(400, f"input {name!r}: expected base64 of the bytes of a picture") from None


def _from_binary(name: str, datatype: str, shape: tuple[int, ...], content: bytes) -> list[bytes] | NDArray[np.float32]:
    count = math.prod(shape)
    if datatype == "BYTES":
        return _elements(name, count, content)
    if len(content) != 4 * count:
        raise Refused(400, f"input {name!r}: {len(content)} bytes are not those of shape {list(shape)}")
    return np.frombuffer(content, "<f4").astype(np.float32).reshape(shape)


def _elements(name: str, count: int, content: bytes) -> list[bytes]:
    values, position = [], 0
    while position < len(content):
        size = int.from_bytes(content[position : position + 4], "little")
        value = content[position + 4 : position + 4 + size]
        if len(value) != size:
            raise Refused(400, f"input {name!r}: an element ends after the data")
        values.append(value)
        position += 4 + size
    if len(values) != count:
        raise Refused(400, f"input {name!r}: {len(values)} elements are not those of the shape")
    return values


def write(head: Mapping[str, Any], outputs: Mapping[str, Tensor], binary: set[str]) -> tuple[bytes, int | None]:
    """The body of an answer, and the length of its JSON if binary data follow."""
    entries, tail = [], b""
    for name, tensor in outputs.items():
        entry: dict[str, Any] = {"name": name, "datatype": tensor.datatype, "shape": [*tensor.shape]}
        if name in binary:
            content = _to_binary(tensor)
            entry["parameters"] = {"binary_data_size": len(content)}
            tail += content
        else:
            entry["data"] = _to_json(tensor)
        entries.append(entry)
    text = json.dumps({**head, "outputs": entries}, ensure_ascii=False).encode()
    return text + tail, len(text) if binary else None


def _to_binary(tensor: Tensor) -> bytes:
    if tensor.datatype == "BYTES":
        return b"".join(struct.pack("<I", len(value)) + value for value in tensor.data)
    values = np.asarray(tensor.data, TYPES[tensor.datatype])
    return values.astype(values.dtype.newbyteorder("<")).tobytes()


def _to_json(tensor: Tensor) -> list[Any]:
    if tensor.datatype == "BYTES":
        return [bytes(value).decode() for value in tensor.data]
    flat: list[Any] = np.asarray(tensor.data).ravel().tolist()
    return flat
