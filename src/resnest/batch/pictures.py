"""The pictures of a job: a file with one of them a line, since the names of millions would fill the memory.

    pictures = write_list(entries, Path("pictures.jsonl"))
    for entry in pictures.read(2000, 3000):
        source(entry)                    # what a predictor takes

An entry is the path of a file, or the place of one in a tar file. A picture that is named twice counts once.
"""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, NamedTuple, cast

import numpy as np

from resnest.data.listing import START, Listing, is_ignored
from resnest.data.shards import AGAIN, CutOff, read_members
from resnest.errors import ResnestError
from resnest.runtime.inputs import ImageInput


class InTar(NamedTuple):
    """The place of a picture in a tar file."""

    tar: str
    member: str
    start: int  # byte in the tar file
    size: int


Entry = str | InTar


def name_of(entry: Entry) -> str:
    """What a picture is called in results: its path, or TAR/MEMBER."""
    return entry if isinstance(entry, str) else f"{entry.tar}/{entry.member}"


def source(entry: Entry) -> ImageInput:
    """The picture for a predictor; nothing is read yet."""
    return entry if isinstance(entry, str) else cast(IO[bytes], _File(entry))


class _File:
    """A picture in a tar file as a file object, which is read in the thread that decodes it."""

    def __init__(self, place: InTar) -> None:
        self.place, self.name = place, name_of(place)

    def read(self, most: int) -> bytes:
        with open(self.place.tar, "rb") as file:
            return os.pread(file.fileno(), min(most, self.place.size), self.place.start)


def tar_entries(path: Path, found: Listing) -> Iterator[InTar]:
    """The pictures in a tar file, in its order; what is left out is noted in `found`.

    Raises:
        ResnestError: it is cut off, damaged or compressed, or has links in it.
    """
    try:
        with path.open("rb") as file:
            for member in read_members(path):
                if any(map(is_ignored, member.name.split("/"))):
                    found.leave_out(member.name, "")
                elif found.takes(member.name, partial(os.pread, file.fileno(), min(member.size, START), member.start)):
                    yield InTar(str(path), *member)
    except CutOff as cut:
        raise ResnestError(f"{path} is cut off {cut}: {AGAIN}") from None
    except OSError as error:
        raise ResnestError(f"{path} cannot be read: {error.strerror or error}") from None


@dataclass(frozen=True)
class PictureList:
    """Pictures in a file."""

    path: Path
    count: int
    sha256: str = ""  # of all lines that were listed, of a shard's list those of the others, too
    repeated: int = 0  # entries that had occurred before
    relative: bool = False  # whether paths are relative to the current folder

    def read(self, start: int, stop: int) -> Iterator[Entry]:
        """The pictures from number `start` up to `stop`."""
        with self.path.open("rb") as file:
            for line in islice(file, start, stop):
                value = json.loads(line)
                yield value if isinstance(value, str) else InTar(*value)


def write_list(entries: Iterable[Entry], path: Path, shard: tuple[int, int] = (1, 1)) -> PictureList:
    """Write the list, each picture once, or the part of it that shard i of n has. Takes 8 bytes of memory a picture.

    Raises:
        ResnestError: there is no picture; a tar file has two of one name.
        OSError: it cannot be written.
    """
    hashes = array("Q")
    relative = False
    with path.open("wb") as file:
        for entry in entries:
            hashes.append(_hash(name_of(entry)))
            relative = relative or not os.path.isabs(name_of(entry))
            file.write(_line(entry))
    if not hashes:
        raise ResnestError("there are no pictures")
    numbers, counts = np.unique(np.frombuffer(hashes, np.uint64), return_counts=True)
    doubtful = set(numbers[counts > 1].tolist())
    total = len(hashes)
    del hashes, numbers, counts
    lines = path.with_name(f"{path.name}.once")
    digest, count = hashlib.sha256(), 0
    with lines.open("wb") as file:
        for line in _once(PictureList(path, total), doubtful):
            digest.update(line)
            file.write(line)
            count += 1
    start, stop = (count * number // shard[1] for number in (shard[0] - 1, shard[0]))
    with lines.open("rb") as whole, path.open("wb") as file:
        file.writelines(islice(whole, start, stop))
    lines.unlink()
    return PictureList(path, stop - start, digest.hexdigest(), total - count, relative)


def _once(pictures: PictureList, doubtful: set[int]) -> Iterator[bytes]:
    """The lines of a list, without those of pictures that have occurred; only the `doubtful` hashes occur twice."""
    seen: dict[str, Entry] = {}
    for entry in pictures.read(0, pictures.count):
        name = name_of(entry)
        if doubtful and _hash(name) in doubtful:
            if name in seen and seen[name] != entry:
                raise ResnestError(f"{name} is twice in its tar file: pack it anew")
            if name in seen:
                continue
            seen[name] = entry
        yield _line(entry)


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(os.fsencode(name), digest_size=8).digest(), "little")


def _line(entry: Entry) -> bytes:
    return json.dumps(entry).encode() + b"\n"
