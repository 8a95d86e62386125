"""Files that `torch.save` or `pickle.dump` wrote, in torch's two formats or bare; nothing of them is run.

content = read_pickled(Path("resnest50.pth"))      # whatever was saved; tensors as `Stored`
content["state_dict"]["fc.weight"].tensor()        # reads that one storage
"""

from __future__ import annotations

import io
import lzma
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from resnest.checkpoints.stored import Refused, Storage
from resnest.checkpoints.unpickling import SafeUnpickler
from resnest.errors import ResnestError, one_line

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # first object of a file that torch wrote before its zip format (torch 1.6)


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
        raise ResnestError(f"{path} is damaged or no checkpoint: {one_line(error)}") from None


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
                raise pickle.UnpicklingError(
                    f"a storage has {count} elements, and its tensors were told {storage.numel}"
                )
            size = count * storage.dtype.itemsize
            storage.read = _reader(path, file.tell(), size)
            file.seek(size, io.SEEK_CUR)
        if file.tell() != path.stat().st_size:
            raise pickle.UnpicklingError(f"it ends {file.tell() - path.stat().st_size:+,} bytes from where it should")
        return content


def _reader(path: Path, start: int, size: int) -> Callable[[], bytes]:
    def read() -> bytes:
        if start + size > path.stat().st_size:
            raise EOFError("it is cut short")
        with path.open("rb") as file:
            file.seek(start)
            return file.read(size)

    return read


def _storage_id(pid: Any) -> tuple[str, torch.dtype, int]:
    """("storage", type, key, device, elements), in the old format with a view of the storage, None for all of it."""
    if not isinstance(pid, tuple) or len(pid) not in (5, 6) or (len(pid) == 6 and pid[5] is not None):
        raise pickle.UnpicklingError("a storage of a kind that is not read here")
    _, dtype, key, _, numel = pid[:5]
    if not isinstance(dtype, torch.dtype) or not isinstance(key, str) or type(numel) is not int:
        raise pickle.UnpicklingError("a storage of a kind that is not read here")
    return key, dtype, numel


def _shared(storages: dict[str, Storage], key: str, storage: Storage) -> Storage:
    """The storage of a key, the same for every tensor that views it."""
    known = storages.setdefault(key, storage)
    if (known.dtype, known.numel) != (storage.dtype, storage.numel):
        raise pickle.UnpicklingError(f"storage {key[:20]!r} has two types or sizes")
    return known
