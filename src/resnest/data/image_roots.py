"""Where the images lie that an annotation file names: decided once, by looking.

root = locate_images(Path("coco/annotations/instances_train2017.json"), ["000000000009.jpg"])     # coco/train2017
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from resnest.errors import ResnestError
from resnest.runtime.decode import SUFFIXES

TRIED = 20  # names that are looked for, spread over the list


def locate_images(annotations: Path, names: Sequence[str]) -> Path:
    """The first of the usual folders that has most of the images. Raises ResnestError where none has any."""
    return _best(_candidates(annotations), annotations, names, "image")


def _best(folders: Sequence[Path], annotations: Path, names: Sequence[str], what: str) -> Path:
    """The first of the folders that has most of the files."""
    step = max(1, len(names) // TRIED)
    some = list(names[::step])
    found = [sum((folder / name).is_file() for name in some) for folder in folders]
    if not max(found):
        looked = ", ".join(str(folder) for folder in folders)
        raise ResnestError(f"{annotations}: there is no {what} {some[0]} in {looked}")
    return folders[found.index(max(found))]


def _candidates(annotations: Path) -> list[Path]:
    """Below the annotations' folder, or beside it if it is called so: `images`, the folder, those of the part."""
    home = annotations.parent
    bases = [home.parent, home] if _is_annotations(home) else [home, home.parent]
    words = re.findall("[a-z]+[0-9]*", annotations.stem.lower())  # instances_train2017: instances, train2017
    parts = [*reversed(words), *(word.rstrip("0123456789") for word in reversed(words))]
    folders: list[Path] = []
    for base in bases:
        for folder in (base / "images", base):
            folders += [folder, *(folder / part for part in parts)]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()] or [home]


def locate_maps(annotations: Path, names: Sequence[str]) -> Path:
    """The folder of the PNG files that a panoptic json names. Raises ResnestError where none has any.

    It is called as the json is, beside it or a folder higher, or `panoptic`, perhaps with a folder for each part.
    """
    home, stem = annotations.parent, annotations.stem
    inner = (stem, f"panoptic/{stem.removeprefix('panoptic_')}", "panoptic")
    folders = [base / name for base in (home, home.parent) for name in inner]
    return _best([folder for folder in folders if folder.is_dir()] or [home], annotations, names, "map")


def locate_by_stem(annotations: Path, stems: Sequence[str]) -> tuple[Path, dict[str, str]]:
    """The folder that has most of the images that xml files are named after, and the file of each stem in it."""
    home = annotations.parent
    if _is_annotations(annotations):
        folders = [home / "JPEGImages", home / "images", annotations, home]
    else:
        folders = [annotations, annotations / "images", home / "images"]
    best: tuple[int, Path, dict[str, str]] = (0, annotations, {})
    for folder in folders:
        if folder.is_dir():
            files = stems_in(folder)
            found = sum(stem in files for stem in stems)
            best = (found, folder, files) if found > best[0] else best
    if not best[0]:
        looked = ", ".join(str(folder) for folder in folders)
        raise ResnestError(f"{annotations}: there is no image for {stems[0]}.xml in {looked}")
    return best[1:]


def stems_in(folder: Path) -> dict[str, str]:
    """The image files of a folder: stem -> name."""
    return {file.stem: file.name for file in sorted(folder.iterdir()) if file.suffix.lower() in SUFFIXES}


def _is_annotations(folder: Path) -> bool:
    return folder.name.lower() == "annotations"
