"""Labelled images in tar shards, of WebDataset or of class folders, read in place by an index.

    samples = read_shards([Path("train-000000.tar"), Path("train-000001.tar")])

A WebDataset sample is the files of one key, which is the path up to the first dot of the base name (webdataset's
rule): `KEY.jpg` with `KEY.cls` (an integer) or `KEY.json` (with `label` or `cls`, a number or a class name). Tar
files without .cls and .json are class folders, `CLASS/image.jpg` (`layout`). LabelledSamples keep their order.

The standard library reads the headers, but accepts a file that was truncated, or damaged, between two members.
So this module checks the end mark, and that every member is within the file.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

from resnest.data.class_names import read_class_names
from resnest.data.layout import Layout, find_layout
from resnest.data.listing import START, ArchiveTree, Listing, is_ignored, why_no_image
from resnest.data.parts import PART_OF
from resnest.data.readers import Archive
from resnest.data.samples import LabelledSamples
from resnest.data.stores import Ranges, RangeStore, cache_json, cached_json, file_stamp, from_columns
from resnest.errors import ResnestError
from resnest.progress import Progress
from resnest.runtime.decode import SUFFIXES

INDEX_FOLDER = ".resnest-index"  # beside the shards
VERSION = 3  # of an index; another one is built anew
IMAGES = {suffix[1:] for suffix in SUFFIXES}
FIELDS = ("label", "cls")  # of a .json, the first that is there
MAX_LABEL = 1 << 20  # bytes of a .cls or .json
AGAIN = "copy or download it again"
MAX_TAIL = 1 << 20  # bytes that are looked at after the end mark
PACKED = {  # first bytes -> what unpacks it
    b"\x1f\x8b": "gunzip",
    b"BZh": "bunzip2",
    b"\xfd7zXZ": "unxz",
    b"\x28\xb5\x2f\xfd": "unzstd",
}
REFUSED = {
    tarfile.LNKTYPE: "a hard link (tar --hard-dereference stores files in place of links)",
    tarfile.SYMTYPE: "a symbolic link, which is never followed (tar --dereference stores files in place of links)",
    tarfile.GNUTYPE_SPARSE: "a sparse file, which cannot be read in place",
}

OnBytes = Callable[[int], None]


@dataclass(frozen=True)
class Index:
    """The samples of one shard, column by column."""

    members: list[str]  # names of the images
    starts: list[int]
    sizes: list[int]
    labels: list[str]  # "" where they follow from folders
    given: bool  # labels are given by .cls or .json, not by folders
    others: list[str]  # members of class folders that are no images
    reasons: list[str]  # of each: why not; "" for a system's own file


def read_shards(paths: Sequence[Path]) -> LabelledSamples:
    """The whole of some shards that are one part."""
    archive = scan_shards(paths, whole=True)
    return archive.read("val" if archive.layout.has_parts else "")


def scan_shards(paths: Sequence[Path], *, whole: bool = False) -> Archive:
    """Index all shards, and check the labels. Keys are `SHARD/MEMBER`.

    Args:
        whole: the shards are one part; folders in them that are called by parts are not told apart.

    Raises:
        ResnestError: a shard that is truncated, damaged, compressed or empty; links in it; a sample without an image or
            without a label; a label outside the classes.
    """
    folder = paths[0].parent
    above = (folder.parent,) if folder.name.lower() in ("data", *PART_OF) else ()
    names = read_class_names(folder, *above)
    by_name = {name: label for label, name in names.items()}
    ranges: list[Ranges] = []
    where = str(paths[0]) if len(paths) == 1 else str(folder)
    listing = Listing(where)
    images: list[tuple[str, str]] = []
    given: dict[str, str] = {}
    with Progress("indexing shards, bytes:", if_slow=True) as progress:
        progress.start(sum(path.stat().st_size for path in paths))
        for path in paths:
            index = open_index(path, progress.advance)
            for member, label in zip(index.members, index.labels, strict=True):
                if index.given and names and label not in names:
                    if label not in by_name:
                        raise _outside(path, member, label, names)
                    label = by_name[label]
                if index.given:
                    given[f"{path.name}/{member}"] = label
                images.append((f"{path.name}/{member}", member))
            for member, reason in zip(index.others, index.reasons, strict=True):
                listing.leave_out(member, reason)
            ranges.append((index.starts, index.sizes))
    store = RangeStore.build(paths, [key for key, _ in images], ranges)
    tree = ArchiveTree(where, [member for _, member in images], listing.folders)
    layout = Layout("") if whole and given else find_layout(tree, labelled=bool(given))
    if whole and layout.train is not None:
        raise ResnestError(f"{where} has parts in it, and is one of several itself: give it alone")
    return Archive(store, listing, layout, names, images, given)


def _outside(path: Path, member: str, label: str, names: Mapping[str, str]) -> ResnestError:
    return ResnestError(
        f"{path}: sample {member} has the label {label!r}, which is none of the {len(set(names.values()))} classes"
        f" listed beside the shards ({', '.join(list(names.values())[:3])}, ...)"
    )


# --- the index of one shard ---


def open_index(path: Path, on_bytes: OnBytes = lambda count: None) -> Index:
    """The index saved beside the shard or in the cache, or a new one if the shard has changed."""
    stamp = file_stamp(path, version=VERSION, shard=path.name)
    beside = path.parent / INDEX_FOLDER / f"{path.name}.json"
    if (index := _from_json(cached_json(path, beside, stamp))) is not None:
        return index
    index = build_index(path, on_bytes)
    cache_json(path, beside, {**stamp, **asdict(index)})
    return index


def _from_json(content: dict[str, Any] | None) -> Index | None:
    same, texts = ("members", "starts", "sizes", "labels"), ("members", "labels", "others", "reasons")
    return from_columns(Index, content, same, texts=texts, numbers=("starts", "sizes"))


def build_index(path: Path, on_bytes: OnBytes = lambda count: None) -> Index:
    """Build an index in one pass over the headers of a tar file; only labels are read."""
    groups: dict[str, dict[str, Member]] = {}  # key -> suffix -> member
    members: list[Member] = []
    try:
        for member in read_members(path):
            on_bytes(member.size)
            members.append(member)
            base = member.name.rpartition("/")[2]
            if base.startswith("__") or "." not in base or any(map(is_ignored, member.name.split("/"))):
                continue  # not part of a sample: ._1.jpg of macOS, __main__ of webdataset, README
            key, suffix = _key_and_suffix(member.name)
            if suffix in groups.setdefault(key, {}):
                raise ResnestError(f"{path}: {key}.{suffix} is in it twice")
            groups[key][suffix] = member
    except CutOff as cut:
        raise ResnestError(f"{path} is cut off {cut}; {_last_complete(groups, cut.name)}: {AGAIN}") from None
    except OSError as error:
        raise ResnestError(f"{path} cannot be read: {error.strerror or error}") from None
    if any("cls" in group or "json" in group for group in groups.values()):
        return _index_groups(path, groups)
    return _index_folders(path, members)


def _last_complete(groups: dict[str, dict[str, Member]], cut: str) -> str:
    wanted = {"cls", "json"} if any({"cls", "json"} & set(group) for group in groups.values()) else IMAGES
    for key in reversed(groups):
        suffixes = set(groups[key])
        if key != _key_and_suffix(cut)[0] and suffixes & IMAGES and suffixes & wanted:
            return f"the last whole sample is {key}"
    return "no sample is whole"


def _key_and_suffix(name: str) -> tuple[str, str]:
    folder, slash, base = name.rpartition("/")
    key, _, suffix = base.partition(".")
    return f"{folder}{slash}{key}", suffix.lower()


def _index_groups(path: Path, groups: dict[str, dict[str, Member]]) -> Index:
    images, labels = [], []
    names: dict[str, str] = {}  # what .json calls the numbers of .cls
    with path.open("rb") as file:
        for key, group in groups.items():
            members = [member for suffix, member in group.items() if suffix in IMAGES]
            if len(members) != 1:
                what = "no image" if not members else f"{len(members)} images"
                raise ResnestError(
                    f"{path}: sample {key} has {what}, only {', '.join(f'.{suffix}' for suffix in group)}"
                )
            if "cls" in group:
                label = _label_of_cls(path, key, _content(file.fileno(), path, group["cls"]))
                if "json" in group and group["json"].size <= MAX_LABEL:
                    _compare(path, key, label, _content(file.fileno(), path, group["json"]), names)
            elif "json" in group:
                label = _label_of_json(path, key, _content(file.fileno(), path, group["json"]))
            else:
                raise ResnestError(f"{path}: sample {key} has no label: neither {key}.cls nor {key}.json is there")
            images.append(members[0])
            labels.append(label)
    return _columns(images, labels, given=True)


def _index_folders(path: Path, members: list[Member]) -> Index:
    images: list[Member] = []
    others: dict[str, str] = {}
    with path.open("rb") as file:
        for member in members:
            if any(map(is_ignored, member.name.split("/"))):
                others[member.name] = ""
            elif reason := why_no_image(member.name, partial(_start_of, file.fileno(), member)):
                others[member.name] = reason
            elif "/" not in member.name:
                raise ResnestError(
                    f"{path}: {member.name} has no label: neither a .cls or .json of its name nor a class folder is"
                    " there"
                )
            else:
                images.append(member)
    if not images:
        raise ResnestError(f"{path} holds no image: expected KEY.jpg with KEY.cls or KEY.json, or CLASS/image.jpg")
    index = _columns(images, [""] * len(images), given=False)
    return replace(index, others=list(others), reasons=list(others.values()))


def _start_of(descriptor: int, member: Member) -> bytes:
    return os.pread(descriptor, min(member.size, START), member.start)


def _columns(images: list[Member], labels: list[str], *, given: bool) -> Index:
    names, starts, sizes = ([member[column] for member in images] for column in range(3))
    return Index(names, starts, sizes, labels, given, [], [])  # type: ignore[arg-type]


def _content(descriptor: int, path: Path, member: Member) -> bytes:
    if member.size > MAX_LABEL:
        raise ResnestError(f"{path}: {member.name} has {member.size:,} bytes, too many for a label")
    return os.pread(descriptor, member.size, member.start)


def _label_of_cls(path: Path, key: str, content: bytes) -> str:
    text = content.strip()
    if not text.isdigit():
        raise ResnestError(f"{path}: {key}.cls holds {_shown(text)}, not an integer of 0 or more")
    return str(int(text))


def _compare(path: Path, key: str, label: str, content: bytes, names: dict[str, str]) -> None:
    """Raises ResnestError for a .json with another number than .cls, or with another name than it has had before."""
    try:
        row = json.loads(content)
    except (ValueError, RecursionError):
        return  # the label is given
    for told in [row[name] for name in FIELDS if name in row] if isinstance(row, dict) else ():
        text = str(told).strip() if type(told) in (int, str) else ""
        same = text == label or (text.isdecimal() and int(text) == int(label))
        if not text or same or (not text.isdecimal() and names.setdefault(label, text) == text):
            continue
        before = "" if text.isdecimal() else f", which was {_shown(names[label])} before"
        raise ResnestError(
            f"{path}: sample {key} has two labels, {label} in .cls{before}, and {_shown(told)} in .json: leave one"
        )


def _label_of_json(path: Path, key: str, content: bytes) -> str:
    try:
        row = json.loads(content)
    except (ValueError, RecursionError):
        raise ResnestError(f"{path}: {key}.json is not JSON ({_shown(content)})") from None
    label = next((row[name] for name in FIELDS if name in row), None) if isinstance(row, dict) else None
    if type(label) is int and label >= 0:
        return str(label)
    if isinstance(label, str) and label:
        return label
    problem = "no label or cls in it" if label is None else f"the label {_shown(label)}"
    raise ResnestError(f"{path}: {key}.json has {problem}, expected an integer of 0 or more or a class name")


def _shown(value: object) -> str:
    text = repr(value.decode("utf-8", "replace") if isinstance(value, bytes) else value)
    return text if len(text) <= 40 else f"{text[:37]}..."


# --- the members of a tar file, by their places ---


class Member(NamedTuple):
    """A regular file in a tar file."""

    name: str  # relative, without "." and ".."
    start: int  # byte in the tar file
    size: int


class CutOff(Exception):
    """A truncated file: the message gives the position, `name` the member, if it is inside one."""

    def __init__(self, where: str, name: str = "") -> None:
        super().__init__(where)
        self.name = name


def read_members(path: Path) -> Iterator[Member]:
    """Regular files in order; directories are skipped.

    Raises:
        ResnestError: no tar file, a compressed one, links or devices in it, names that lead out of it.
        CutOff: the end is missing.
    """
    with path.open("rb") as file:
        length = os.fstat(file.fileno()).st_size
        _check_start(path, file, length)
        position = 0
        try:
            with tarfile.open(fileobj=file, mode="r:", encoding="utf-8", errors="backslashreplace") as archive:
                while (info := archive.next()) is not None:
                    archive.members.clear()  # type: ignore[attr-defined]  # a list of a million would take a gigabyte
                    if info.size < 0 or archive.offset <= position:  # which the binary form of large sizes can say
                        raise tarfile.HeaderError("a negative size")
                    position = archive.offset  # of the next header
                    if info.offset_data + info.size > length:
                        short = info.offset_data + info.size - length
                        raise CutOff(f"in {info.name}, {short:,} bytes short", info.name)
                    if info.issparse() or info.type in REFUSED or not (info.isreg() or info.isdir()):
                        kind = tarfile.GNUTYPE_SPARSE if info.issparse() else info.type
                        raise ResnestError(f"{path}: {info.name} is {REFUSED.get(kind, 'neither a file nor a folder')}")
                    if info.isreg():
                        yield Member(_safe(path, info.name), info.offset_data, info.size)
        except (tarfile.TarError, RecursionError, MemoryError, OverflowError, ValueError) as error:
            if isinstance(error, ResnestError):
                raise
            if file.tell() >= length:
                raise CutOff(f"at byte {length:,}, before its end mark") from None
            if position == 0:
                raise ResnestError(f"{path} is not a tar file ({error})") from None
            raise _damaged(path, position) from None
        _check_end(path, file, position, length)


def _check_start(path: Path, file: BinaryIO, length: int) -> None:
    if not length:
        raise ResnestError(f"{path} is empty (0 bytes)")
    start = file.read(6)
    file.seek(0)
    for magic, command in PACKED.items():
        if start.startswith(magic):
            raise ResnestError(
                f"{path} is compressed, and single images can only be read from a plain tar: {command} it first"
                " (JPEG files hardly shrink)"
            )


def _check_end(path: Path, file: BinaryIO, position: int, length: int) -> None:
    """Only zeros may follow the end mark; files joined by `cat` have members there."""
    file.seek(position)
    tail = file.read(MAX_TAIL)
    if len(tail) < tarfile.BLOCKSIZE:
        raise CutOff(f"at byte {length:,}, before its end mark")
    if tail[: tarfile.BLOCKSIZE].strip(b"\0"):
        raise _damaged(path, position)
    if tail.strip(b"\0"):
        raise ResnestError(
            f"{path} goes on after its end mark at byte {position:,}: give the tar files that it was joined from"
        )


def _damaged(path: Path, position: int) -> ResnestError:
    return ResnestError(f"{path} is damaged at byte {position:,} (no valid header): {AGAIN}")


def _safe(path: Path, name: str) -> str:
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts:
        raise ResnestError(f"{path}: the member {name} leads out of the tar file: pack it from within its folder")
    return "/".join(parts)
