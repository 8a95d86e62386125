"""Splits of a data set by file names, and the folder of the images in a list.

>>> choose_splits(["train-000000.tar", "train-000001.tar", "val-000000.tar"])
SplitFiles(train=['train-000000.tar', 'train-000001.tar'], val=['val-000000.tar'], unsplit=[])
>>> choose_splits(["data/train-00000-of-00001.parquet"]).unsplit      # to be split
['data/train-00000-of-00001.parquet']

    root = locate_images(Path("coco/annotations/instances_train2017.json"), ["000000000009.jpg"])     # coco/train2017
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from resnest.errors import ResnestError
from resnest.runtime.decode import SUFFIXES

VAL_NAMES = ("val", "valid", "validation", "test")
SPLIT_NAMES = ("train", *VAL_NAMES)
ROBOFLOW = "_annotations.coco.json"  # how Roboflow exports COCO json, beside the images of each split
PANOPTIC = "panoptic"  # how names of files start that list segments
ENDINGS = {  # packed tars too, so that they are refused and not overlooked
    "tar": (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst"),
    "parquet": (".parquet",),
}
BESIDE_VOC = ("VOCcode", "results", "local", "annotations_cache")  # of VOCdevkit; the last one detectron writes
INNER = ("annotations", "images", "labels", "data", *SPLIT_NAMES)  # folders that are parts of a data set
PROSE = (".txt", ".md", ".pdf", ".html")  # suffixes of licences and the like
TRIED = 20  # names that are looked for, spread over the list


class SplitFiles(NamedTuple):
    """File names; either `unsplit`, or `val` and optionally `train`."""

    train: list[str]
    val: list[str]
    unsplit: list[str]


def choose_splits(names: Iterable[str]) -> SplitFiles:
    """Splits by a word of the file's name, or by its folder.

    Without a validation split, the training files are the whole; if only validation files are named, the rest is for
    training. Files of other splits are left out.
    """
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        groups.setdefault(_split_of(PurePosixPath(name)), []).append(name)
    val = next((groups[split] for split in VAL_NAMES if split in groups), [])
    train = groups.get("train") or groups.get("") or []
    return SplitFiles(train, val, []) if val else SplitFiles([], [], train)


def _split_of(name: PurePosixPath) -> str:
    if name.parent.name in SPLIT_NAMES:
        return name.parent.name
    return next((word for word in re.findall("[a-z]+", name.name.lower()) if word in SPLIT_NAMES), "")


def is_of(kind: str, name: str) -> bool:
    return name.lower().endswith(ENDINGS[kind]) and not PurePosixPath(name).name.startswith(".")


def list_files(folder: Path, kind: str) -> list[str]:
    """Files of a kind in a folder, its folders named by split, or its folder `data`; names relative to it."""
    for base in (folder, folder / "data"):
        folders = (base, *(base / split for split in SPLIT_NAMES))
        files = [file for parent in folders if parent.is_dir() for file in parent.iterdir() if is_of(kind, file.name)]
        if files:
            return sorted(file.relative_to(folder).as_posix() for file in files if file.is_file())
    return []


def list_coco(folder: Path) -> list[str]:
    """COCO annotation files, relative to a folder: `annotations/*.json`, else one in each folder named by split.

    Where some are called instances_*, as COCO's own, the others are captions or key points. Panoptic ones are of
    another kind.
    """
    names = [name for name in _list_json(folder) if not name.startswith(PANOPTIC)]
    names = [name for name in names if name.startswith("instances")] or names
    if names:
        return [f"annotations/{name}" for name in names]
    return [f"{split}/{ROBOFLOW}" for split in ("", *SPLIT_NAMES) if (folder / split / ROBOFLOW).is_file()]


def list_panoptic(folder: Path) -> list[str]:
    """COCO's panoptic annotation files, relative to a folder."""
    return [f"annotations/{name}" for name in _list_json(folder) if name.startswith(PANOPTIC)]


def _list_json(folder: Path) -> list[str]:
    return sorted(file.name for file in (folder / "annotations").glob("*.json") if not file.name.startswith("."))


def holds_xml(folder: Path) -> bool:
    """Whether a folder has xml files, of images beside them unless it is called after annotations."""
    suffixes = {file.suffix.lower() for file in folder.iterdir()} if folder.is_dir() else set()
    return ".xml" in suffixes and (folder.name.lower() == "annotations" or bool(suffixes & set(SUFFIXES)))


def holds_files(folder: Path) -> bool:
    """Whether a folder holds tar or parquet files and no folders."""
    children = [child for child in folder.iterdir() if not child.name.startswith(".")]
    return any(is_of(kind, child.name) for child in children for kind in ENDINGS) and not any(
        child.is_dir() for child in children
    )


def has_class_folders(folder: Path) -> bool:
    """Whether a subfolder that is not named by a split contains an image."""
    folders = (
        child
        for child in folder.iterdir()
        if child.is_dir() and not child.name.startswith(".") and child.name not in ("data", *SPLIT_NAMES)
    )
    return any(file.suffix.lower() in SUFFIXES for child in folders for file in child.rglob("*"))


def only_folder(path: Path) -> Path | None:
    """The one folder in a folder without data of its own, such as VOC2012 in VOCdevkit, or of an unpacked zip."""
    if not path.is_dir():
        return None
    children = [child for child in path.iterdir() if not child.name.startswith((".", "__"))]
    folders = [child for child in children if child.is_dir() and child.name not in BESIDE_VOC]
    files = [
        child for child in children if child.is_file() and child.suffix.lower() not in (".txt", ".md", ".pdf", ".html")
    ]
    return folders[0] if len(folders) == 1 and not files and folders[0].name not in INNER else None


def locate_images(annotations: Path, names: Sequence[str]) -> Path:
    """The first of the usual folders with most of the images. Raises ResnestError if none has any."""
    return _best(_candidates(annotations), annotations, names, "image")


def _best(folders: Sequence[Path], annotations: Path, names: Sequence[str], what: str) -> Path:
    """The first of the folders with most of the files."""
    step = max(1, len(names) // TRIED)
    some = list(names[::step])
    counts = [sum((folder / name).is_file() for name in some) for folder in folders]
    if not max(counts):
        looked = ", ".join(str(folder) for folder in folders)
        raise ResnestError(f"{annotations}: there is no {what} {some[0]} in {looked}")
    return folders[counts.index(max(counts))]


def _candidates(annotations: Path) -> list[Path]:
    """Below the annotations' folder, or beside it if it is called so: `images`, `data`, itself, those of the split."""
    home = annotations.parent
    bases = [home.parent, home] if _is_annotations(home) else [home, home.parent]
    words = re.findall("[a-z]+[0-9]*", annotations.stem.lower())  # instances_train2017: instances, train2017
    parts = [*reversed(words), *(word.rstrip("0123456789") for word in reversed(words))]
    folders: list[Path] = []
    for base in bases:
        for folder in (base / "images", base / "data", base):
            folders += [folder, *(folder / part for part in parts)]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()] or [home]


def locate_maps(annotations: Path, names: Sequence[str]) -> Path:
    """The folder of a panoptic json's PNG files. Raises ResnestError if none has any.

    It is called as the json is, beside it or a folder higher, or `panoptic`, perhaps with a folder for each split.
    """
    home, stem = annotations.parent, annotations.stem
    inner = (stem, f"panoptic/{stem.removeprefix('panoptic_')}", "panoptic")
    folders = [base / name for base in (home, home.parent) for name in inner]
    return _best([folder for folder in folders if folder.is_dir()] or [home], annotations, names, "map")


def locate_by_stem(annotations: Path, stems: Sequence[str]) -> tuple[Path, dict[str, str]]:
    """The folder with most of the images that xml files are named after, and the file of each stem in it."""
    home = annotations.parent
    if _is_annotations(annotations):
        folders = [home / "JPEGImages", home / "images", annotations, home]
    else:
        folders = [annotations, annotations / "images", home / "images"]
    best: tuple[int, Path, dict[str, str]] = (0, annotations, {})
    for folder in folders:
        if folder.is_dir():
            files = stems_in(folder)
            count = sum(stem in files for stem in stems)
            best = (count, folder, files) if count > best[0] else best
    if not best[0]:
        looked = ", ".join(str(folder) for folder in folders)
        raise ResnestError(f"{annotations}: there is no image for {stems[0]}.xml in {looked}")
    return best[1:]


def stems_in(folder: Path) -> dict[str, str]:
    """The image files of a folder: stem -> name."""
    return {file.stem: file.name for file in sorted(folder.iterdir()) if file.suffix.lower() in SUFFIXES}


def _is_annotations(folder: Path) -> bool:
    return folder.name.lower() == "annotations"
