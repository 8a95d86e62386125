"""Reading a checkpoint file of any kind to tensors by their names in the file, without running code (promise P9).

    raw = read_checkpoint(Path("resnest50.pth"))
    raw.state["fc.weight"], raw.wrapper, raw.metadata

Kinds are recognised by their first bytes, never by their suffix: safetensors, torch's two formats, bare pickles
(detectron2), MXNet's .params, and a zip file around one of these.
"""

from __future__ import annotations

import dataclasses
import json
import re
import struct
import tempfile
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from resnest.checkpoints.folders import INDEX, check_whole, find_weights_file, shards_of
from resnest.checkpoints.lazy_tensor import Array, LazyTensor
from resnest.checkpoints.pickled import READ_ERRORS, check_zip, damaged, read_pickled
from resnest.errors import ResnestError, one_line
from resnest.files import WEIGHTS_NAME, digest_of

# --- Reader and writer of MXNet's and Gluon's binary `.params` files, without MXNet (facts, section 1.7) ---
# Little-endian throughout (mxnet/src/ndarray/ndarray.cc, NDArray::Save and ::Load):

LIST_MAGIC = 0x112
V1, V2, V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
DTYPES = (torch.float32, torch.float64, torch.float16, torch.uint8, torch.int32, torch.int8, torch.int64)
MAX_DIMENSIONS = 32  # numpy's and MXNet's limit; more means a damaged file


class _Cursor:
    """Reads numbers and bytes in sequence, never past the end."""

    def __init__(self, content: memoryview) -> None:
        self.content = content
        self.position = 0

    def take(self, size: int) -> memoryview:
        if size > len(self.content) - self.position:
            raise ValueError(f"cut short: {size} bytes wanted at byte {self.position} of {len(self.content)}")
        part = self.content[self.position : self.position + size]
        self.position += size
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
        if cursor.position != len(cursor.content):
            raise ValueError(f"{len(cursor.content) - cursor.position} bytes too many at its end")
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
        raise ValueError(f"an array of {dimensions} dimensions at byte {cursor.position}")
    shape = tuple(int(cursor.number(form)) for _ in range(dimensions))
    if any(not 0 <= size < 2**40 for size in shape):
        raise ValueError(f"an array of shape {shape}")
    return shape


# Where training checkpoints keep the weights, the averaged ones first (timm, mmengine, official, detectron2, others).
# A mapping under any other name is found by its content.
WRAPPERS = ("state_dict_ema", "ema_state_dict", "model_ema", "ema", "state_dict", "model", "net", "network", "weights")
AVERAGED = re.compile(r"(^|_)(ema|swa|averaged?|avg)(_|$)")
NO_WEIGHTS = re.compile(r"optim|scheduler|scaler")  # entries that have tensors under the names of weights, too
# Words that torch's and Lightning's wrappers put into names, at the front or where a part of a network was wrapped.
TORCH_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
LEAVES = (".weight", ".bias", ".running_mean", ".running_var")  # names that stand for tensors
MOST_WRAPPERS = 5  # one inside the other
SUFFIXES = (".params", ".pth", ".pt", ".pkl", ".safetensors")
MOST_UNPACKED = 4  # a checkpoint's tensors may take this many times the size of its file: more are expanded views
MAX_HEADER = 100_000_000  # bytes; the limit of safetensors itself


@dataclass
class RawCheckpoint:
    """Tensors under the names of the file."""

    path: Path
    state: dict[str, Tensor]
    metadata: dict[str, str] = field(default_factory=dict)  # of a safetensors file
    wrapper: str = ""  # the entry of a training checkpoint that held the weights, such as "state_dict_ema"
    content: Mapping[str, Any] = field(default_factory=dict)  # the rest of a training checkpoint; not its tensors
    hashes: tuple[str, str] | None = None  # sha256 and sha1 of the checkpoint in a zip file; None: those of the file


def read_checkpoint(path: Path) -> RawCheckpoint:
    """Named tensors of a file, of several with their list (*.index.json), or of a directory with one, on the CPU.

    Raises:
        ResnestError: missing, damaged, cut short, another kind of file, without tensors, or it would run code; or it
            holds several networks.
    """
    if path.is_dir():
        path = find_weights_file(path) or path / WEIGHTS_NAME
    if not path.is_file():
        raise ResnestError(f"there is no checkpoint at {path}")
    check_whole(path)
    try:
        raw = _read_shards(path) if path.name.endswith(INDEX) else _read(path)
        return dataclasses.replace(raw, state=_without_wrappers(raw))
    except ResnestError:
        raise
    except READ_ERRORS as error:
        raise damaged(path, error) from None


def _without_wrappers(raw: RawCheckpoint) -> dict[str, Tensor]:
    """Names as they were before parts of the network were compiled or sharded."""
    names = {name: ".".join(word for word in name.split(".") if word not in TORCH_WRAPPERS) for name in raw.state}
    if len(set(names.values())) < len(names):
        twice = next(name for name, plain in names.items() if plain != name and list(names.values()).count(plain) > 1)
        raise ResnestError(f"{raw.path} holds {names[twice]} twice, once as {twice}: save one network alone")
    return {names[name]: tensor for name, tensor in raw.state.items()}


def _read(path: Path, *, packed: bool = False) -> RawCheckpoint:
    with path.open("rb") as file:
        start = file.read(512)
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 2**40:  # a header's length, then JSON
        return _read_safetensors(path)
    if start[:2] == b"PK" and not packed and (inner := _packed(path)):
        return _read_packed(path, inner)
    if start[:2] == b"PK" or start[:1] == b"\x80":
        return _unwrap(path, read_pickled(path))
    if start[:8] == struct.pack("<Q", LIST_MAGIC):
        return RawCheckpoint(path, read_params(path))
    raise ResnestError(f"{path} {_what_else(path, start)}")


def _read_shards(index: Path) -> RawCheckpoint:
    """A model in several files, under the name of their list."""
    places, state = shards_of(index), {}
    for file in sorted(set(places.values())):
        held = _read(file).state
        lacking = next((name for name, place in places.items() if place == file and name not in held), None)
        if lacking:
            raise ResnestError(f"{file} lacks {lacking}, which {index.name} says is in it")
        state.update({name: tensor for name, tensor in held.items() if places.get(name) == file})
    return RawCheckpoint(index, state)


def read_torch_file(path: Path) -> Any:
    """Read a checkpoint of one of our runs: tensors and plain containers, all in memory.

    Raises:
        ResnestError: damaged, or it asks for code to be run.
    """
    try:
        check_zip(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except READ_ERRORS as error:
        raise damaged(path, error) from None


def _unwrap(path: Path, content: Any) -> RawCheckpoint:
    """Descend to the entry with tensors; the outermost mapping is kept for its metadata."""
    outermost, wrapper = content, ""
    for _ in range(MOST_WRAPPERS):
        name = _choose_entry(path, content) if isinstance(content, Mapping) else None
        if name is None:
            break
        content, wrapper = content[name], wrapper or name
    if not isinstance(content, Mapping):
        raise ResnestError(
            f"{path} holds a {type(content).__name__}, not named tensors: save the state_dict() of the network"
        )
    stored = {name: value for name, value in content.items() if isinstance(name, str) and _is_tensor(value)}
    unread = [name for name in content if isinstance(name, str) and name.endswith(LEAVES) and name not in stored]
    if unread and stored:
        raise ResnestError(
            f"{path}: {unread[0]} is of a kind that is not read here (sparse, complex, quantized, no tensor)"
        )
    if not stored:
        raise ResnestError(f"{path} holds no tensors (found: {', '.join(map(str, list(content)[:5])) or 'nothing'})")
    _check_size(path, stored)
    state = {name: value.tensor() for name, value in stored.items()}
    rest = outermost if wrapper and isinstance(outermost, Mapping) else {}
    return RawCheckpoint(path, state, wrapper=wrapper, content=rest)


def _choose_entry(path: Path, content: Mapping[Any, Any]) -> str | None:
    """The entry to go into: by a usual name, or the only one that holds weights; None: the weights are here.

    Raises:
        ResnestError: several hold weights, and no name says which ones are meant.
    """
    usual = next((name for name in WRAPPERS if _holds_tensors(content.get(name))), None)
    if usual is not None or _names_weights(content):
        return usual
    names = [name for name, value in content.items() if isinstance(name, str) and _holds_weights(name, value)]
    averaged = [name for name in names if AVERAGED.search(name)]
    if len(averaged or names) > 1:
        raise ResnestError(
            f"{path} holds {len(names)} networks ({', '.join(names)}): save the intended one in a file of its own"
        )
    return next(iter(averaged or names), None)


def _holds_tensors(value: object, depth: int = MOST_WRAPPERS) -> bool:
    """Whether a mapping contains tensors, directly or in a nested mapping under a usual name, or weights in another."""
    if not isinstance(value, Mapping) or not depth:
        return False
    if any(map(_is_tensor, value.values())):
        return True
    return any(_holds_tensors(value.get(name), depth - 1) for name in WRAPPERS) or _holds_weights("", value, depth)


def _holds_weights(name: str, value: object, depth: int = MOST_WRAPPERS) -> bool:
    """Whether an entry is a mapping with tensors under the names of weights, directly or in a nested mapping."""
    if not isinstance(value, Mapping) or not depth or NO_WEIGHTS.search(name):
        return False
    inner = ((str(key), entry) for key, entry in value.items() if isinstance(entry, Mapping))
    return _names_weights(value) or any(_holds_weights(key, entry, depth - 1) for key, entry in inner)


def _names_weights(content: Mapping[Any, Any]) -> bool:
    return any(isinstance(name, str) and name.endswith(LEAVES) and _is_tensor(value) for name, value in content.items())


def _is_tensor(value: object) -> bool:
    return isinstance(value, LazyTensor) or (isinstance(value, Array) and value.stored is not None)


def _check_size(path: Path, stored: Mapping[str, LazyTensor | Array]) -> None:
    wanted = 0
    for value in stored.values():
        view = value.stored if isinstance(value, Array) else value
        wanted += view.numel * view.storage.dtype.itemsize if view else 0
    if wanted > MOST_UNPACKED * path.stat().st_size:
        raise ResnestError(f"{path} was refused: its tensors would take {wanted:,} bytes, far more than the file has")


def _read_safetensors(path: Path) -> RawCheckpoint:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return RawCheckpoint(path, {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        with path.open("rb") as start:
            size, header = path.stat().st_size, int.from_bytes(start.read(8), "little")
            needed = _bytes_needed(start.read(header)) if header < MAX_HEADER else 0
        if MAX_HEADER > header > size - 8:
            raise ResnestError(f"{path} is cut short: its header alone has {header} bytes, the file {size}") from None
        if needed > size - 8 - header:
            whole = 8 + header + needed
            raise ResnestError(
                f"{path} is cut short: it has {size:,} of the {whole:,} bytes that its header says"
            ) from None
        raise ResnestError(f"{path} is damaged or no safetensors file: {one_line(error)}") from None


def _bytes_needed(header: bytes) -> int:
    """The bytes of all tensors, by the header of a safetensors file; 0 if it is none."""
    try:
        entries = json.loads(header).items()
        return int(max(entry["data_offsets"][1] for name, entry in entries if name != "__metadata__"))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return 0


def _packed(path: Path) -> str | None:
    """The one checkpoint inside a zip file; None if the zip file itself is one (torch's), or is damaged."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
    if any(name.endswith("/data.pkl") for name in names):
        return None
    members = [name for name in names if PurePosixPath(name).suffix in SUFFIXES]
    return members[0] if len(members) == 1 else None


def _read_packed(path: Path, name: str) -> RawCheckpoint:
    """Read the file inside a zip file, one level deep, under the zip file's name."""
    with tempfile.TemporaryDirectory() as folder:
        inner = unpack_member(path, Path(folder) / f"inner{PurePosixPath(name).suffix}")
        try:
            raw = _read(inner, packed=True)
        except ResnestError as error:
            raise ResnestError(str(error).replace(str(inner), str(path))) from None
        hashes = digest_of(inner, "sha256"), digest_of(inner, "sha1")
        state = {key: tensor.clone() for key, tensor in raw.state.items()}  # not of a file that is about to go
    return dataclasses.replace(raw, path=path, state=state, hashes=hashes)


def unpack_member(path: Path, target: Path) -> Path:
    """Write the one checkpoint inside the zip file to `target`, ignoring its path there.

    Raises:
        ResnestError: none, or it is damaged, or it claims to unpack to far more than weights ever do.
    """
    name = _packed(path)
    try:
        if name is None:
            raise ValueError("it does not hold exactly one checkpoint")
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(name).file_size > MOST_UNPACKED * path.stat().st_size:
                raise ValueError(f"{name} in it would unpack to {archive.getinfo(name).file_size:,} bytes")
            with archive.open(name) as source, target.open("wb") as out:
                while block := source.read(1 << 20):
                    out.write(block)
    except READ_ERRORS as error:
        raise ResnestError(f"{path} cannot be unpacked: {one_line(error)}") from None
    return target


def _what_else(path: Path, start: bytes) -> str:
    """Describes a file that is no checkpoint."""
    text = start.lstrip().lower()
    if not start:
        return "is empty: the download broke off, fetch it again"
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "is an HTML page, not weights: the link gave a web page, open it in a browser to see what it says"
    if text.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the file itself: run `git lfs pull` where it came from"
    if text.startswith((b"{", b"[")):
        return f"is JSON, not weights: {_excerpt(start)}"
    return "is damaged or no checkpoint of a kind known here (safetensors, torch .pth, pickle, MXNet .params)"


def _excerpt(start: bytes) -> str:
    return json.dumps(start[:60].decode("utf-8", "replace"))
