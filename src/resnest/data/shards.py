"""Labelled images in tar files, read in place through an index of their own: shards of WebDataset, or class folders.

    samples = read_shards([Path("train-000000.tar"), Path("train-000001.tar")])

A WebDataset sample is the files of one key, which is the path up to the first dot of the base name (webdataset's
rule): `KEY.jpg` with `KEY.cls` (a whole number) or `KEY.json` (with `label` or `cls`, a number or a class name). Tar
files without .cls and .json are class folders, `CLASS/image.jpg`. LabelledSamples keep their order.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from resnest.data.index_cache import cache_json, cached_json, from_columns
from resnest.data.labelled import LabelledSamples
from resnest.data.parts import PART_NAMES
from resnest.data.readers import Labelled, number_classes, read_class_names
from resnest.data.stores import Ranges, RangeStore
from resnest.data.tar import CutOff, Member, read_members
from resnest.errors import ResnestError
from resnest.progress import Progress
from resnest.runtime.decode import SUFFIXES

INDEX_FOLDER = ".resnest-index"  # beside the shards
VERSION = 1  # of an index; another one is built anew
IMAGES = {suffix[1:] for suffix in SUFFIXES}
MAX_LABEL = 1 << 20  # bytes of a .cls or .json
AGAIN = "copy or download it again"

OnBytes = Callable[[int], None]


@dataclass(frozen=True)
class Index:
    """The samples of one shard, column by column."""

    members: list[str]  # names of the images
    starts: list[int]
    sizes: list[int]
    labels: list[str]
    given: bool  # labels are given by .cls or .json, not by folders


@dataclass(frozen=True)
class Shards:
    """LabelledSamples of several shards before their classes are numbered."""

    store: RangeStore
    labelled: Labelled
    names: Mapping[str, str]  # what a list of classes beside the shards calls them

    def number(self, labelled: Labelled | None = None) -> LabelledSamples:
        return number_classes(self.store, self.labelled if labelled is None else labelled, self.names)


def read_shards(paths: Sequence[Path]) -> LabelledSamples:
    return scan_shards(paths).number()


def scan_shards(paths: Sequence[Path]) -> Shards:
    """Index what is not indexed yet, check the labels. Keys are `SHARD/MEMBER`.

    Raises:
        ResnestError: a shard that is cut off, damaged, compressed or empty; links in it; a sample without an image or
            without a label; a label outside the classes.
    """
    folder = paths[0].parent
    names = read_class_names(folder)
    if not names and folder.name in ("data", *PART_NAMES):
        names = read_class_names(folder.parent)
    by_name = {name: label for label, name in names.items()}
    ranges: list[Ranges] = []
    labelled: Labelled = []
    with Progress("indexing shards, bytes:", if_slow=True) as progress:
        progress.start(sum(path.stat().st_size for path in paths))
        for path in paths:
            index = open_index(path, progress.advance)
            for member, label in zip(index.members, index.labels, strict=True):
                if index.given and names and label not in names:
                    if label not in by_name:
                        raise _outside(path, member, label, names)
                    label = by_name[label]
                labelled.append((f"{path.name}/{member}", label))
            ranges.append((index.starts, index.sizes))
    return Shards(RangeStore.build(paths, [key for key, _ in labelled], ranges), labelled, names)


def _outside(path: Path, member: str, label: str, names: Mapping[str, str]) -> ResnestError:
    return ResnestError(
        f"{path}: sample {member} has the label {label!r}, which is none of the {len(set(names.values()))} classes"
        f" listed beside the shards ({', '.join(list(names.values())[:3])}, ...)"
    )


# --- the index of one shard ---


def open_index(path: Path, on_bytes: OnBytes = lambda count: None) -> Index:
    """The index kept beside the shard or in the cache, or a new one if the shard has changed since."""
    try:
        now = path.stat()
    except OSError as error:
        raise ResnestError(f"{path} cannot be read: {error.strerror}") from None
    stamp = {"version": VERSION, "shard": path.name, "bytes": now.st_size, "mtime_ns": now.st_mtime_ns}
    beside = path.parent / INDEX_FOLDER / f"{path.name}.json"
    if (index := _from_json(cached_json(path, beside, stamp))) is not None:
        return index
    index = build_index(path, on_bytes)
    cache_json(path, beside, {**stamp, **asdict(index)})
    return index


def _from_json(content: dict[str, Any] | None) -> Index | None:
    same = ("members", "starts", "sizes", "labels")
    return from_columns(Index, content, same, texts=("members", "labels"), numbers=("starts", "sizes"))


def build_index(path: Path, on_bytes: OnBytes = lambda count: None) -> Index:
    """One pass over the headers of a tar file; only labels are read."""
    groups: dict[str, dict[str, Member]] = {}  # key -> suffix -> member
    images: list[Member] = []
    try:
        for member in read_members(path):
            on_bytes(member.size)
            base = member.name.rpartition("/")[2]
            if base.startswith((".", "__")) or "." not in base:
                continue  # nobody's sample: ._1.jpg of macOS, __main__ of webdataset, README
            if PurePosixPath(base).suffix.lower() in SUFFIXES:
                images.append(member)
            key, suffix = _key_and_suffix(member.name)
            if suffix in groups.setdefault(key, {}):
                raise ResnestError(f"{path}: {key}.{suffix} is in it twice")
            groups[key][suffix] = member
    except CutOff as cut:
        raise ResnestError(f"{path} is cut off {cut}; {_last_whole(groups, cut.name)}: {AGAIN}") from None
    except OSError as error:
        raise ResnestError(f"{path} cannot be read: {error.strerror or error}") from None
    if not groups:
        raise ResnestError(f"{path} holds no image: expected KEY.jpg with KEY.cls or KEY.json, or CLASS/image.jpg")
    if any("cls" in group or "json" in group for group in groups.values()):
        return _index_groups(path, groups)
    return _index_folders(path, images)


def _last_whole(groups: dict[str, dict[str, Member]], cut: str) -> str:
    wanted = {"cls", "json"} if any({"cls", "json"} & set(group) for group in groups.values()) else IMAGES
    for key in reversed(groups):
        found = set(groups[key])
        if key != _key_and_suffix(cut)[0] and found & IMAGES and found & wanted:
            return f"the last whole sample is {key}"
    return "no sample is whole"


def _key_and_suffix(name: str) -> tuple[str, str]:
    folder, slash, base = name.rpartition("/")
    key, _, suffix = base.partition(".")
    return f"{folder}{slash}{key}", suffix.lower()


def _index_groups(path: Path, groups: dict[str, dict[str, Member]]) -> Index:
    images, labels = [], []
    with path.open("rb") as file:
        for key, group in groups.items():
            found = [member for suffix, member in group.items() if suffix in IMAGES]
            if len(found) != 1:
                what = "no image" if not found else f"{len(found)} images"
                raise ResnestError(
                    f"{path}: sample {key} has {what}, only {', '.join(f'.{suffix}' for suffix in group)}"
                )
            if "cls" in group:
                label = _label_of_cls(path, key, _content(file.fileno(), path, group["cls"]))
            elif "json" in group:
                label = _label_of_json(path, key, _content(file.fileno(), path, group["json"]))
            else:
                raise ResnestError(f"{path}: sample {key} has no label: neither {key}.cls nor {key}.json is there")
            images.append(found[0])
            labels.append(label)
    return _columns(images, labels, given=True)


def _index_folders(path: Path, images: list[Member]) -> Index:
    for member in images:
        if "/" not in member.name:
            raise ResnestError(
                f"{path}: {member.name} has no label: neither a .cls or .json of its name nor a class folder is there"
            )
    if not images:
        raise ResnestError(f"{path} holds no image (looked for {', '.join(SUFFIXES)})")
    return _columns(images, [member.name.split("/")[-2] for member in images], given=False)


def _columns(images: list[Member], labels: list[str], *, given: bool) -> Index:
    names, starts, sizes = ([member[column] for member in images] for column in range(3))
    return Index(names, starts, sizes, labels, given)  # type: ignore[arg-type]


def _content(descriptor: int, path: Path, member: Member) -> bytes:
    if member.size > MAX_LABEL:
        raise ResnestError(f"{path}: {member.name} has {member.size:,} bytes, too many for a label")
    return os.pread(descriptor, member.size, member.start)


def _label_of_cls(path: Path, key: str, content: bytes) -> str:
    text = content.strip()
    if not text.isdigit():
        raise ResnestError(f"{path}: {key}.cls holds {_shown(text)}, not a whole number from 0 on")
    return str(int(text))


def _label_of_json(path: Path, key: str, content: bytes) -> str:
    try:
        row = json.loads(content)
    except (ValueError, RecursionError):
        raise ResnestError(f"{path}: {key}.json is not JSON ({_shown(content)})") from None
    label = next((row[name] for name in ("label", "cls") if name in row), None) if isinstance(row, dict) else None
    if type(label) is int and label >= 0:
        return str(label)
    if isinstance(label, str) and label:
        return label
    said = "no label or cls in it" if label is None else f"the label {_shown(label)}"
    raise ResnestError(f"{path}: {key}.json has {said}, expected a whole number from 0 on or a class name")


def _shown(value: object) -> str:
    text = repr(value.decode("utf-8", "replace") if isinstance(value, bytes) else value)
    return text if len(text) <= 40 else f"{text[:37]}..."
