"""The files of a YOLO data set: class names, and the pictures of each part.

    files = of_yaml(Path("pets/data.yaml"))       # files.names, files.sources["train"], files.notes
    pictures = list_pictures(files.sources["train"], files)

Ultralytics' data.yaml (ultralytics/data/utils.py, check_det_dataset), Darknet's obj.data as CVAT writes it, and folders
`images` and `labels` without either, with a classes.txt as of Label Studio and labelImg. Paths of another computer, as
in the yaml of a notebook, are read by their last parts that are here. `path` is looked for beside the yaml first, then
where the command runs, as Ultralytics does.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from resnest.data.folders import find_parts
from resnest.data.listing import files_below
from resnest.data.parts import TITLES, VAL_KEYS, note_of_others, role_of
from resnest.detection.formats.finding import MOST_LISTED, visible, with_suffix
from resnest.errors import ResnestError, one_line
from resnest.figures import counted
from resnest.runtime.band_files import PICTURES

USUAL = ("data.yaml", "dataset.yaml")  # of Ultralytics, Roboflow and CVAT; of FiftyOne
LISTS = ("classes.txt", "obj.names", "classes.names", "labels.txt", "predefined_classes.txt")
MAX_BYTES = 2**20  # of a yaml
NULL = ("", "~", "null", "Null", "NULL")  # yaml 1.2's words for nothing, here texts like all scalars


class TextLoader(yaml.BaseLoader):
    """All scalars as text: a class called `no` is no truth value. A key that comes twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} comes twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


@dataclass(frozen=True)
class YoloFiles:
    """A data set's files."""

    where: Path  # the yaml, or the folder
    names: Mapping[int, str] | None  # None: there is no list
    sources: Mapping[str, Sequence[Path]]  # part -> folders of pictures, or lists of them
    notes: list[str] = field(default_factory=list)

    def numbers(self) -> str:
        """How many classes there are and their numbers, for messages."""
        known = sorted(self.names or {})
        gaps = len(known) <= known[-1] - known[0]
        shown = ", ".join(map(str, known[:MOST_LISTED])) if gaps else f"{known[0]} to {known[-1]}"
        return f"{counted(len(known), 'class', 'classes')}: {shown}"


def yaml_in(folder: Path) -> Path | None:
    """The yaml of a data set in a folder. Raises ResnestError for several."""
    found = [file for file in with_suffix(folder, ".yaml", ".yml")[:MOST_LISTED] if is_yolo(file)]
    usual = [file for file in found if file.name in USUAL]
    if len(found) > 1 and len(usual) != 1:
        raise ResnestError(f"{folder} has several data sets: give one of {', '.join(file.name for file in found)}")
    return next(iter(usual or found), None)


def is_yolo(file: Path) -> bool:
    """Whether a yaml has class names, and a part."""
    content = _load(file)
    return bool({"names", "nc"} & set(content)) and bool({"train", *VAL_KEYS} & set(content))


def _load(file: Path) -> dict[str, Any]:
    """The content, all scalars as text: a class called `no` is no truth value. Empty if it is something else.

    Raises:
        ResnestError: a file with a usual name of a data set is no yaml.
    """
    try:
        content = file.read_bytes()
        found = yaml.load(content, Loader=TextLoader) if len(content) <= MAX_BYTES else None
    except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:
        if file.name in USUAL:
            raise ResnestError(f"{file} cannot be read as yaml ({one_line(error)})") from None
        return {}
    return found if isinstance(found, dict) else {}


def of_yaml(file: Path, *, points: bool = False) -> YoloFiles:
    """Raises ResnestError: key points unless `points`, names that do not fit, a path that is not there."""
    content = _load(file)
    if "kpt_shape" in content and not points:
        raise ResnestError(
            f"{file} has kpt_shape: these are key points (YOLO pose), for a recipe such as keypoints_small. For boxes"
            " export YOLO detection or COCO json"
        )
    notes: list[str] = []
    path = _entries(file, content, "path", "a path")
    bases, here = _bases(file, *path), Path.cwd().joinpath(*path) if path else None
    sources = {}
    for part in ("train", *VAL_KEYS):
        entries = _entries(file, content, part, "a path nor a list of paths")
        needed = part == "train" or not any(name in sources for name in VAL_KEYS)
        where = f"{file.name}: {part}"
        paths = [_find(entry, bases, notes, where) for entry in entries]
        if None in paths and needed:
            missing = entries[paths.index(None)]
            raise ResnestError(f"{file}: {part}: {missing} is not there, looked for in {' and '.join(map(str, bases))}")
        for entry, found in zip(entries, paths, strict=True):
            notes += _note_of_two(entry, found, here, where)
        if paths and None not in paths:
            sources[part] = [path for path in paths if path]
    return YoloFiles(file, _names(file, content), sources, notes)


def _entries(file: Path, content: Mapping[str, Any], key: str, wanted: str) -> list[str]:
    """The paths of a key, with forward slashes; one at most of `path`. Raises ResnestError for anything else."""
    given = content.get(key) or []
    given = given if isinstance(given, list) and key != "path" else [given] if given else []
    if not all(isinstance(entry, str) for entry in given):
        raise ResnestError(f"{file}: {key} is {'not' if key == 'path' else 'neither'} {wanted}")
    return [entry.strip().replace("\\", "/") for entry in given if entry.strip() not in NULL]


def _bases(file: Path, path: str = "") -> list[Path]:
    """Folders that paths of the yaml are relative to.

    They are `path`, which may be another computer's, and that of the yaml.
    """
    home = file.absolute().parent
    inner = [home / path, home / PurePosixPath(path).name, home.parent / path, Path.cwd() / path] if path else []
    return [folder for folder in dict.fromkeys([*inner, home]) if folder.is_dir()]


def _note_of_two(entry: str, found: Path | None, here: Path | None, where: str) -> list[str]:
    """What is read, if the folder where the command runs has it too: Ultralytics would read that one."""
    other = Path(os.path.abspath(here / entry)) if here else None
    if found is None or other is None or not other.exists() or other.samefile(found):
        return []
    return [f"{where}: {found} is read, and not {other}. If that is meant, make `path` an absolute path"]


def _find(entry: str, bases: Sequence[Path], notes: list[str], where: str) -> Path | None:
    """A file or folder; None if it is not there."""
    plain = entry[3:] if entry.startswith("../") else entry  # Roboflow writes ../train/images for train/images
    for choice in (entry, plain):
        for base in bases:
            if (base / choice).exists():
                return Path(os.path.abspath(base / choice))
    parts = [part for part in PurePosixPath(plain).parts if part not in ("..", ".", "/")]
    for first in range(1, len(parts)):
        tail = parts[first:]
        if len(tail) == 1 and tail[0].lower() in ("images", "labels"):
            break  # of which part?
        for base in bases:
            if (base / Path(*tail)).exists():
                notes.append(f"{where}: {entry} is not there, {'/'.join(tail)} is read")
                return base / Path(*tail)
    return None


def _names(file: Path, content: Mapping[str, Any]) -> dict[int, str]:
    """Names by number. Raises ResnestError."""
    names, count = content.get("names"), content.get("nc")
    if isinstance(names, str):
        listed = _find(names.replace("\\", "/"), [file.absolute().parent], [], "")
        names = read_names(listed) if listed and listed.is_file() else [part.strip() for part in names.split(",")]
    if names is None and count is not None and count.isdecimal():
        names = [f"class_{number}" for number in range(int(count))]  # as Ultralytics calls them
    pairs = list(names.items()) if isinstance(names, dict) else list(enumerate(names or []))
    if not pairs or not all(str(key).strip().isdecimal() and isinstance(name, str) for key, name in pairs):
        raise ResnestError(f"{file}: names is neither a list of class names nor a mapping of numbers to names")
    found = {int(key): name.strip() for key, name in pairs}
    if count is not None and count.strip() != str(len(found)):
        raise ResnestError(f"{file}: nc is {count}, but there are {len(found)} names")
    return found


def read_names(file: Path) -> dict[int, str]:
    """A list of class names, one a line."""
    try:
        lines = file.read_bytes().decode("utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ResnestError(f"{file} cannot be read ({error})") from None
    if not all(line.strip() for line in lines) or not lines:
        raise ResnestError(f"{file} has {'an empty line' if lines else 'no line'}: give a class name in each")
    return {number: line.strip() for number, line in enumerate(lines)}


def of_darknet(file: Path) -> YoloFiles:
    """Darknet's obj.data: lines of `train = data/train.txt`. Raises ResnestError."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ResnestError(f"{file} cannot be read ({error})") from None
    content = {key.strip(): value.strip() for key, sign, value in (line.partition("=") for line in lines) if sign}
    bases, notes = [file.absolute().parent], list[str]()
    sources = {}
    for part in ("train", *VAL_KEYS):
        if part in content:
            found = _find(content[part].replace("\\", "/"), bases, [], "")
            if found is None:
                raise ResnestError(f"{file}: {part}: {content[part]} is not there")
            sources[part] = [found]
    names = _find(content["names"].replace("\\", "/"), bases, [], "") if content.get("names") else None
    return YoloFiles(file, read_names(names) if names else None, sources, notes)


def in_folders(path: Path) -> YoloFiles | None:
    """Folders `images` and `labels` of the parts, either way round, or one with pictures and label files."""
    sources, notes = _by_part(path)
    if not sources:
        usual = (path / "images", path, path / "data")  # the last one is of FiftyOne's YOLOv4Dataset
        folders = [folder for folder in usual if folder.is_dir() and has_labels(folder)]
        sources = {"": folders[:1]} if folders else {}
    if not sources:
        return None
    is_part = role_of(path.name) is not None  # path is a part of a set
    if is_part and (above := yaml_in(path.parent)):
        return YoloFiles(path, _names(above, _load(above)), sources, notes)
    places = [path, path / "labels", path / "images", *(folder for folders in sources.values() for folder in folders)]
    places += [folder.parent for folders in sources.values() for folder in folders if folder != path]
    places += [path.parent] if is_part else []
    names = _list_in(list(dict.fromkeys(places)))
    if names is None and (named := _naming_yaml([path, path / "labels", *([path.parent] if is_part else [])])):
        return YoloFiles(path, _names(named, _load(named)), sources, notes)
    notes += [] if names else ["there is no classes.txt: classes are called by their numbers"]
    return YoloFiles(path, read_names(names) if names else None, sources, notes)


def _by_part(path: Path) -> tuple[dict[str, list[Path]], list[str]]:
    """The folders of the parts' pictures: `images/train`, or `train/images`, `train` or `train/data`; notes."""
    for home, inner in ((path / "images", ("",)), (path, ("images", "", "data"))):

        def pictures(name: str, home: Path = home, inner: tuple[str, ...] = inner) -> Path | None:
            folders = (home / name / place for place in inner)
            return next((folder for folder in folders if folder.is_dir() and has_labels(folder)), None)

        if parts := find_parts(home, lambda name: pictures(name) is not None):
            chosen = {part: pictures(name) for part in TITLES if (name := getattr(parts, part))}
            return {part: [folder] for part, folder in chosen.items() if folder}, list(note_of_others(parts.others))
    return {}, []


def _list_in(places: Sequence[Path]) -> Path | None:
    """The list of class names. Raises ResnestError for two of one name that differ, such as those of two parts."""
    found = next((place / name for place in places for name in LISTS if (place / name).is_file()), None)
    if found is None:
        return None
    for other in (place / found.name for place in places):
        if other.is_file() and read_names(other) != read_names(found):
            raise ResnestError(f"{found} and {other} have other class names: the numbers of which are meant?")
    return found


def _naming_yaml(folders: Sequence[Path]) -> Path | None:
    """A yaml that has names and no parts, as supervision writes it."""
    found = [folder / name for folder in folders for name in USUAL]
    return next((file for file in found if file.is_file() and {"names", "nc"} & set(_load(file))), None)


def has_labels(folder: Path) -> bool:
    """Whether some of the pictures directly in a folder have a label file of YOLO's."""
    pictures = [file for file in visible(folder) if file.suffix.lower() in PICTURES]
    return any(looks_like_yolo(label) for picture in pictures[:MOST_LISTED] if (label := label_of(picture)).is_file())


def looks_like_yolo(label: Path) -> bool:
    """Whether the first line of a file is a class number and four fractions, or more numbers."""
    try:
        with label.open("rb") as file:
            words = file.read(2**16).decode("utf-8-sig", "replace").strip().partition("\n")[0].split()
        return len(words) >= 5 and float(words[0]).is_integer() and all(-2 < float(word) < 2 for word in words[1:5])
    except (OSError, ValueError):
        return False


def label_of(picture: Path) -> Path:
    """The label file of a picture: in `labels` instead of the last `images` of its path; else beside it."""
    beside = picture.with_suffix(".txt")
    parts = list(beside.parts)
    places = [place for place, part in enumerate(parts[:-1]) if part == "images"]
    if not places:
        return beside
    parts[places[-1]] = "labels"
    other = Path(*parts)
    return beside if not other.is_file() and beside.is_file() else other


def read_label(file: Path) -> list[tuple[str, list[str]]]:
    """The place and the words of each line of a label file; none without the file. Raises ResnestError."""
    try:
        content = file.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise ResnestError(f"{file} cannot be read ({error})") from None
    lines = enumerate(content.splitlines(), 1)
    return [(f"{file}, line {number}", line.split()) for number, line in lines if line.strip()]


def list_pictures(sources: Sequence[Path], files: YoloFiles) -> tuple[list[Path], list[str]]:
    """The pictures in folders and their folders, and in lists, each once; notes. Raises ResnestError without any."""
    found: dict[Path, None] = {}
    notes: list[str] = []
    listed = 0
    for source in sources:
        pictures = _in_folder(source) if source.is_dir() else _in_list(source, files.where.absolute().parent, notes)
        listed += len(pictures)
        found.update(dict.fromkeys(pictures))
    if not found:
        raise ResnestError(f"{files.where}: there is no image in {', '.join(map(str, sources))}")
    if listed > len(found):
        notes.append(f"{listed - len(found):,} images are listed again, and read once")
    return list(found), notes


def _in_folder(folder: Path) -> list[Path]:
    return sorted(file for file in files_below(folder.absolute()) if file.suffix.lower() in PICTURES)


def _in_list(file: Path, home: Path, notes: list[str]) -> list[Path]:
    """The pictures of a list, relative to it; without first folders that are not here (CVAT writes data/)."""
    try:
        lines = [line.strip() for line in file.read_bytes().decode("utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ResnestError(f"{file} cannot be read as a list of images ({error})") from None
    names = [line.replace("\\", "/") for line in lines]
    if not names:
        return []
    folders, some = list(dict.fromkeys((file.absolute().parent, home))), names[:MOST_LISTED]
    for cut in range(len(PurePosixPath(names[0]).parts)):
        for folder in folders:
            if any((folder / Path(*PurePosixPath(name).parts[cut:])).is_file() for name in some):
                if cut:
                    gone = "/".join(PurePosixPath(names[0]).parts[:cut])
                    notes.append(f"images of {file.name} are read without {gone}/ before their names")
                return [_absolute(folder / Path(*PurePosixPath(name).parts[cut:])) for name in names]
    raise ResnestError(f"{file}: none of its images is there, such as {lines[0]}")


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))
