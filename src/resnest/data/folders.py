"""Files of data sets by their usual places, and the folder of the images in a list.

names = list_files(Path("shards"), "tar")        # in the folder, in `data`, or in folders named by part
root = locate_images(Path("coco/annotations/instances_train2017.json"), ["000000000009.jpg"])     # coco/train2017
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from resnest.data.listing import is_ignored
from resnest.data.parts import Parts, choose_folders, is_plain, role_of
from resnest.errors import ResnestError
from resnest.files import is_output
from resnest.runtime.band_files import PICTURES
from resnest.runtime.band_files import SUFFIXES as BANDS

ROBOFLOW = "_annotations.coco.json"  # how Roboflow exports COCO json, beside the images of each split
PANOPTIC = "panoptic"  # how names of files start that list segments
ENDINGS = {  # packed tars too, so that they are refused and not overlooked
    "tar": (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst"),
    "parquet": (".parquet",),
}
BESIDE_VOC = ("VOCcode", "results", "local", "annotations_cache")  # of VOCdevkit; the last one detectron writes
ANNOTATIONS = ("annotations", "labels")  # folders of one file of annotations for each image, apart from these
INNER = ("annotations", "images", "labels", "data")  # folders of a data set, beside its parts
PROSE = (".txt", ".md", ".pdf", ".html")  # suffixes of licences and the like
TRIED = 20  # names that are looked for, spread over the list


def find_parts(folder: Path, holds: Callable[[str], bool]) -> Parts | None:
    """The parts among the folders in a folder: train and Valid, seg_train and seg_test (`parts.choose_folders`).

    Args:
        holds: whether a folder of this name holds pictures that are annotated in the format that is looked for.

    Raises:
        ResnestError: two folders for one part.
    """
    called, others = part_folders(folder), other_folders(folder)
    found = [name for name in called if holds(name)]
    return choose_folders([*found, *filter(holds, others)], str(folder)) if found else None


def part_folders(folder: Path) -> list[str]:
    """The names of the folders in it that have a part in their name: train, Valid, seg_test."""
    return [name for name in _folders_in(folder) if role_of(name)]


def other_folders(folder: Path) -> list[str]:
    return [name for name in _folders_in(folder) if not role_of(name)]


def _folders_in(folder: Path) -> list[str]:
    children = folder.iterdir() if folder.is_dir() else ()
    return sorted(child.name for child in children if child.is_dir() and not is_ignored(child.name))


def is_of(kind: str, name: str) -> bool:
    return name.lower().endswith(ENDINGS[kind]) and not PurePosixPath(name).name.startswith(".")


def list_files(folder: Path, kind: str) -> list[str]:
    """Files of a kind in a folder, its folders named by split, or its folder `data`; names relative to it."""
    for base in (folder, folder / "data"):
        folders = (base, *(base / part for part in part_folders(base))) if base.is_dir() else ()
        files = [file for parent in folders for file in parent.iterdir() if is_of(kind, file.name)]
        if files:
            return sorted(file.relative_to(folder).as_posix() for file in files if file.is_file())
    return []


def list_coco(folder: Path) -> list[str]:
    """COCO annotation files in `annotations`, relative to the folder above it.

    Where some are called instances_*, as COCO's own, the others are captions or key points. Panoptic ones are of
    another kind.
    """
    names = [name for name in _list_json(folder) if not name.startswith(PANOPTIC)]
    names = [name for name in names if name.startswith("instances")] or names
    return [f"annotations/{name}" for name in names]


def list_panoptic(folder: Path) -> list[str]:
    """COCO's panoptic annotation files, relative to a folder."""
    return [f"annotations/{name}" for name in _list_json(folder) if name.startswith(PANOPTIC)]


def _list_json(folder: Path) -> list[str]:
    return sorted(file.name for file in (folder / "annotations").glob("*.json") if not file.name.startswith("."))


def holds_xml(folder: Path) -> bool:
    """Whether a folder has xml files, of images beside them unless it is called after annotations."""
    suffixes = {file.suffix.lower() for file in folder.iterdir()} if folder.is_dir() else set()
    return ".xml" in suffixes and (folder.name.lower() in ANNOTATIONS or bool(suffixes & set(PICTURES)))


def has_class_folders(folder: Path) -> bool:
    """Whether a subfolder that is not called by a part contains an image."""
    folders = (
        child
        for child in folder.iterdir()
        if child.is_dir()
        and not (is_ignored(child.name) or is_output(child))
        and child.name.lower() != "data"
        and not is_plain(child.name)
    )
    return any(file.suffix.lower() in PICTURES for child in folders for file in child.rglob("*"))


def only_folder(path: Path) -> Path | None:
    """The one folder in a folder without data of its own, such as VOC2012 in VOCdevkit, or of an unpacked zip."""
    if not path.is_dir():
        return None
    children = [child for child in path.iterdir() if not child.name.startswith((".", "__"))]
    folders = [child for child in children if child.is_dir() and child.name not in BESIDE_VOC]
    files = [
        child for child in children if child.is_file() and child.suffix.lower() not in (".txt", ".md", ".pdf", ".html")
    ]
    if len(folders) != 1 or files or folders[0].name in INNER or is_plain(folders[0].name):
        return None
    return folders[0]


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
    best, *others = (folder for folder, count in zip(folders, counts, strict=True) if count == max(counts))
    for other, name in ((other, name) for other in others for name in some):
        if (best / name).is_file() and (other / name).is_file() and _differ(best / name, other / name):
            raise ResnestError(
                f"{annotations}: {what} {name} is in {best} and, another file, in {other}: leave one of the two folders"
            )
    return best


def _differ(file: Path, other: Path) -> bool:
    """Whether two files have other bytes; those of one size are compared up to their first mebibyte."""
    if file.stat().st_size != other.stat().st_size:
        return True
    with file.open("rb") as one, other.open("rb") as two:
        return one.read(2**20) != two.read(2**20)


def _candidates(annotations: Path) -> list[Path]:
    """Below the annotations' folder, or beside it if it is called so: `images`, `data`, itself, those of the split."""
    home = annotations.parent
    bases = [home.parent, home] if _is_annotations(home) else [home, home.parent]
    stem = annotations.stem.lower()
    words = re.findall("[a-z]+[0-9]*", stem)  # instances_train2017: instances, train2017
    tails = [stem[match.end() :] for match in re.finditer("[^a-z0-9]+", stem)]  # instances_my_train: my_train
    parts = [*reversed(words), *tails, *(word.rstrip("0123456789") for word in reversed(words))]
    folders: list[Path] = []
    for base in bases:
        for folder in (base / "images", base / "data", base):
            inner = {name.lower(): name for name in _folders_in(folder)}
            folders += [folder, *(folder / inner[part] for part in parts if part in inner)]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()] or [home]


def locate_maps(annotations: Path, names: Sequence[str]) -> Path:
    """The folder of a panoptic json's PNG files. Raises ResnestError if none has any.

    It is called as the json is, beside it or a folder higher, or `panoptic`, perhaps with a folder for each split.
    """
    home, stem = annotations.parent, annotations.stem
    inner = (stem, f"panoptic/{stem.removeprefix('panoptic_')}", "panoptic")
    folders = [base / name for base in (home, home.parent) for name in inner]
    return _best([folder for folder in folders if folder.is_dir()] or [home], annotations, names, "map")


class NamedPictures(NamedTuple):
    """The pictures that annotations are of, in one folder."""

    root: Path
    names: list[str]  # of each annotation's picture, relative to `root`; there may be no such file
    alone: int  # pictures that no annotation is of
    notes: tuple[str, ...]  # what was decided


def locate_pictures(annotations: Path, wanted: Sequence[tuple[str, str]]) -> NamedPictures:
    """The pictures of annotation files, in the folder with most of them.

    Args:
        wanted: of each annotation its file's name without suffix, and the picture's name that it contains, or "".

    Raises:
        ResnestError: no picture is there; an annotation has two.
    """
    home = annotations.parent
    if annotations.name.lower() in ANNOTATIONS:
        folders = [home / "JPEGImages", home / "images", home / "data", annotations, home]
    else:
        folders = [annotations, annotations / "images", home / "images"]
    listed = [(folder, pictures_in(folder)) for folder in folders if folder.is_dir()]
    scores = [_score(pictures, wanted) for _, pictures in listed]
    if not scores or not max(scores):
        looked = ", ".join(str(folder) for folder in folders)
        raise ResnestError(f"{annotations}: there is no image for {wanted[0][0]}.xml in {looked}")
    root, pictures = listed[scores.index(max(scores))]
    if scores.count(max(scores)) > 1:
        other = listed[-1 - scores[::-1].index(max(scores))][0]
        raise ResnestError(f"{annotations}: are the pictures those in {root} or those in {other}? Leave one folder")
    stems = {stem for stem, _ in wanted}
    names, stale = [], 0
    for stem, name in wanted:
        found = picture_of(stem, pictures, name=name, where=annotations / f"{stem}.xml", others=stems)
        stale += bool(found) and name in pictures.get(Path(name).stem, ()) and found != name
        names.append(found or f"{stem}.jpg")
    notes = (f"{stale} annotations contain another picture's name than their own, which counts",) if stale else ()
    used = set(names)
    alone = sum(used.isdisjoint(files) for files in pictures.values())
    return NamedPictures(root, names, alone, notes)


def _score(pictures: Mapping[str, Sequence[str]], wanted: Sequence[tuple[str, str]]) -> int:
    """How well a folder's pictures fit annotations: by their stems, and once more by the names that they contain."""
    named = sum(name in pictures.get(Path(name).stem, ()) for _, name in wanted)
    return named + sum(stem in pictures for stem, _ in wanted)


def pictures_in(folder: Path, suffixes: Sequence[str] = PICTURES) -> dict[str, list[str]]:
    """The image files of a folder: stem -> names, several where they differ in their suffix."""
    found: dict[str, list[str]] = {}
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in suffixes and not file.name.startswith("."):
            found.setdefault(file.stem, []).append(file.name)
    return without_copies(found)


def without_copies(files: dict[str, list[str]]) -> dict[str, list[str]]:
    """Without files of bands beside a photograph of the same name: its original, or features of it."""
    for stem, names in files.items():
        photographs = [name for name in names if not name.lower().endswith(BANDS)]
        files[stem] = photographs or names
    return files


def picture_of(
    stem: str, pictures: Mapping[str, Sequence[str]], *, name: str = "", where: object, others: Collection[str] = ()
) -> str | None:
    """The one picture that an annotation or a mask is of; None if there is none.

    The picture has the annotation's stem. Of several, such as 001.jpg and its mask 001.png, it is the one that the
    annotation names. Without one, it is the picture of another stem that the annotation names.

    Args:
        pictures: as of `pictures_in`.
        name: of the picture, as the annotation has it; "": it has none.
        where: the annotation, in messages.
        others: stems of all annotations. A copied or renamed annotation often contains its first picture's name; this
            is recognised by that picture's own annotation.

    Raises:
        ResnestError: two pictures may be meant.
    """
    own = list(pictures.get(stem, ()))
    named = [file for file in (*own, *pictures.get(Path(name).stem, ())) if file.lower() == name.lower()]
    if len(own) > 1:
        own = [file for file in own if file in named] or own
    if named and own and named[0] not in own and Path(name).stem not in others:
        own.append(named[0])
    if len(own) > 1:
        raise ResnestError(f"{where}: is it of {own[0]} or of {own[1]}? Move the other one to another folder")
    return next(iter(own or named), None)


def _is_annotations(folder: Path) -> bool:
    return folder.name.lower() == "annotations"
