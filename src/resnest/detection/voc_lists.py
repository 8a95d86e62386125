"""Pascal VOC's lists of images: the parts of a data set, in ImageSets/Main and ImageSets/Segmentation.

    handle = handle_of_lists(root, root / "ImageSets" / "Main", read)
    read_list(root / "ImageSets" / "Main" / "val.txt")      # ["2008_000008", ...]

The devkit also has a list for each class, such as cat_train.txt, with -1, 0 or 1 behind each image: whether it shows a
cat. These are no parts.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath

from resnest.data.formats import DatasetHandle, Read
from resnest.data.parts import WHOLE, is_plain, note_of_test, role_of
from resnest.data.samples import Samples
from resnest.errors import ResnestError
from resnest.runtime.band_files import PICTURES as SUFFIXES

FLAG = re.compile(r"(.*\S)\s+(?:-1|0|\+?1)")  # whether an image shows the class of the list
PAIR = re.compile(rf".*(?:{'|'.join(map(re.escape, SUFFIXES))})\s+(\S.*\.xml)", re.IGNORECASE)
TRAINVAL = "trainval"  # a list of all images but those of the test part


def handle_of_lists(
    root: Path,
    folder: Path,
    read: Callable[[Path | None], Samples],
    *,
    format: str = "voc",
    notes: tuple[str, ...] = (),
) -> DatasetHandle:
    """The data set of the lists in a folder; without any, all images. Raises ResnestError as `part_lists`.

    Args:
        read: the images of a list, or all.
        notes: on the data set, added to those on the lists.
    """
    lists, said = part_lists(folder)
    notes = (*said, *notes)

    def part(*names: str) -> Read | None:
        return next((partial(read, lists[name]) for name in names if name in lists), None)

    if val := part("val"):
        return DatasetHandle(format, str(root), train=part("train"), val=val, test=part("test"), notes=notes)
    if val := part("test"):
        notes = (note_of_test(lists["test"].name), *notes)
        return DatasetHandle(format, str(root), train=part(TRAINVAL, "train"), val=val, test=val, notes=notes)
    unsplit = part(TRAINVAL, "train", WHOLE) or partial(read, None)
    return DatasetHandle(format, str(root), unsplit=unsplit, notes=notes)


def part_lists(folder: Path) -> tuple[dict[str, Path], tuple[str, ...]]:
    """The lists of images in a folder by their part, `trainval` and `default` among them; a note if there is none.

    Names count as those of folders do: Train.txt, validation.txt, val2012.txt. Lists of one class, as red_train.txt,
    and others are not read.

    Raises:
        ResnestError: two lists of one part.
    """
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() == ".txt") if folder.is_dir() else []
    lists: dict[str, Path] = {}
    for file in files:
        part = _part_of(file.stem)
        if part in lists:
            raise ResnestError(f"{folder}: {lists[part].name} and {file.name} are both the {part} list: leave one")
        if part:
            lists[part] = file
    others = [file.name for file in files if file not in lists.values()]
    if others and lists.keys() <= {WHOLE}:
        return lists, (f"{folder.name} has no list of a part, only {', '.join(others[:3])}: not read",)
    return lists, ()


def _part_of(stem: str) -> str:
    """The part that a list is of; "" for a list of one class or another one."""
    if re.fullmatch("train_?val([0-9]*)", stem.lower()):
        return TRAINVAL
    role = role_of(stem)
    return role.part if role and is_plain(stem) else WHOLE if stem.lower() == WHOLE else ""


def read_list(path: Path, is_known: Callable[[str], bool] = lambda name: False) -> list[str]:
    """The images of a list such as ImageSets/Main/val.txt, one a line: names as of xml files, without suffix.

    A line is the whole name. Lists of one class have -1, 0 or 1 behind it; other tools write suffix and folder, or the
    picture and its annotation.

    Args:
        is_known: whether there is an annotation of this name, which decides what else is not certain.

    Raises:
        ResnestError: the file cannot be read; an image is listed twice; a line that can be two names.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ResnestError(f"{path} cannot be read ({error})") from None
    places: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name = _listed_name(line.strip(), is_known, f"{path}, line {number}")
        if name in places:
            raise ResnestError(f"{path}: lines {places[name]} and {number} are both of {name}")
        places[name] = number
    return list(places)


def _listed_name(line: str, is_known: Callable[[str], bool], where: str) -> str:
    """The name in a line; the first form that is known."""
    flagged = FLAG.fullmatch(line)
    forms = [line, flagged[1] if flagged else line]
    bare = [form for form in map(_bare, forms) if is_known(form)]
    if flagged and len(set(bare)) > 1:
        raise ResnestError(f"{where}: is it {bare[0]!r}, or {bare[1]!r} with {line.split()[-1]}? Rename one of them")
    return next((form for form in (*forms, *bare) if is_known(form)), _bare(forms[-1]))


def _bare(name: str) -> str:
    """Without folder and suffix; of a picture and its xml file, the latter."""
    if pair := PAIR.fullmatch(name):
        name = pair[1]
    path = PurePosixPath(name.replace("\\", "/"))
    return path.stem if path.suffix.lower() in (".xml", *SUFFIXES) else path.name
