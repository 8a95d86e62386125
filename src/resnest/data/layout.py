"""Where parts and classes are in a tree of folders, be it a folder or an archive.

    layout = find_layout(FolderTree(Path("photos")))
    layout.base, layout.parts           # "", Parts(train="train", val="val", ...) or None

The rule, for folders, zip and tar files alike: a folder that is alone is passed over (as archives of a folder have it);
then come the parts, if there are any; the first folders below are the classes, as in torchvision's ImageFolder, and
folders in them belong to their class. Where all of them have the same folders in them, as siteA/cat and siteB/cat, the
inner ones may be meant: that is said, and `data.format=inner-folders` reads them so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from resnest.data.parts import TITLES, Parts, choose_parts, note_of_others, note_of_test, role_of
from resnest.errors import ResnestError
from resnest.figures import counted

MOST_NAMED = 3
INNER = "inner-folders"  # the format's name where the last folders are the classes, and not the first
NO_CLASS = ("unlabeled", "unlabelled", "unsup", "extra", "pred", "prediction", "predictions", "holdout", "heldout")
NO_CLASSES = ("images", "labels", "masks", "annotations", "data")  # folders of annotated images
_LIKE_A_PART = re.compile(  # of cross-validation, and short for parts
    r"(?:k?fold|split|part|set|subset|batch|cv)[ _-]?\d+|trn|tst|vld|tr|ts|va", re.IGNORECASE
)
_YEAR = re.compile(r"(?:19|20)\d\d")  # folders of years are no folders of classes


class Tree(Protocol):
    """Folders by their path, "" for the root; those of the system are not in it."""

    where: str

    def folders(self, inside: str) -> list[str]: ...

    def holds_images(self, inside: str) -> bool: ...


@dataclass(frozen=True)
class Layout:
    """The folder of the classes, or of the parts and the folder of each part's classes."""

    base: str
    train: str | None = None
    val: str | None = None
    test: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def has_parts(self) -> bool:
        return self.val is not None


def find_layout(tree: Tree, *, labelled: bool = False, inner: bool = False) -> Layout:
    """Find parts and classes.

    Args:
        labelled: labels are given, so that parts have images and no class folders.
        inner: the last folders are the classes, so that the first ones may be called as anything.

    Raises:
        ResnestError: parts that are ambiguous; images in them without class folders.
    """
    base, passed = "", []
    while True:
        names = tree.folders(base)
        if (parts := choose_parts(names, _join(tree.where, base))) and (
            layout := _of_parts(tree, base, parts, labelled=labelled)
        ):
            return layout
        if len(names) != 1 or tree.holds_images(below := _join(base, names[0])) or not tree.folders(below):
            break
        base = below
        passed.append(names[0])
    if not (labelled or inner):
        _refuse_hidden_parts(tree, base, names)
    outside = [name for name in passed if not role_of(name)]
    return Layout(base, notes=(f"classes are the folders in {base}",) if outside else ())


def is_of_classes(tree: Tree) -> bool:
    """Whether there are two folders or more that hold images, in a part or not, and are called as classes may be."""
    try:
        layout = find_layout(tree)
    except ResnestError:
        return False
    base = layout.train or layout.val or layout.base
    names = tree.folders(base)
    held = [name for name in names if tree.holds_images(_join(base, name))]
    return len(held) > 1 and held == names and not any(name.lower() in NO_CLASSES for name in names)


def _of_parts(tree: Tree, base: str, parts: Parts, *, labelled: bool) -> Layout | None:
    """The layout with these parts; None if the names turn out to be classes."""
    if parts.train is None and parts.others:
        return None
    chosen = {part: name for part in TITLES if (name := getattr(parts, part))}
    roots = {part: _inner(tree, _join(base, name), name) for part, name in chosen.items()}
    if not labelled:
        bare = [part for part, root in roots.items() if not tree.folders(root)]
        if parts.train is None and bare:
            return None
        same = len({role.rest for name in chosen.values() if (role := role_of(name))}) == 1
        if "train" in bare and not same:
            return None  # bullet_train and crash_test: two classes
        if bare and not any(tree.holds_images(roots[part]) for part in bare):
            return None  # tar files, or nothing
        if bare == list(roots):
            names = " and ".join(chosen[part] for part in bare)
            raise ResnestError(
                f"{_join(tree.where, base)}: {names} have no folders of classes in them: expected"
                f" {chosen[bare[0]]}/CLASS/image.jpg, or a labels.csv with the columns path and label"
            )
    notes = note_of_others(parts.others)
    if parts.val is None:
        notes = (note_of_test(parts.test or ""), *notes)
    train, val, test = (roots.get(part) for part in ("train", "val", "test"))
    return Layout(base, train, val or test, test, notes)


def _inner(tree: Tree, root: str, name: str) -> str:
    """Within `seg_train/seg_train/CLASS` the inner folder, which is called as the part."""
    while (names := tree.folders(root)) and len(names) == 1 and not tree.holds_images(root):
        role, own = role_of(names[0]), role_of(name)
        if role is None or own is None or role.part != own.part:
            break
        root = _join(root, names[0])
    return root


def _refuse_hidden_parts(tree: Tree, base: str, names: Sequence[str]) -> None:
    """Raises ResnestError for parts that would become classes in silence, such as `train` beside `holdout`.

    A part has the folders of classes that another folder has, too, or stands beside something that is no class. A class
    that is called `train` has other classes beside it: at least two, with images in their folders.
    """
    inner = {name: set(tree.folders(_join(base, name))) for name in names} if len(names) > 1 else {}
    for name in inner:
        role = role_of(name)
        if len(inner[name]) < 2 or not (role or _LIKE_A_PART.fullmatch(name)) or all(map(_YEAR.fullmatch, inner[name])):
            continue
        beside = [other for other in names if other != name]
        same = [other for other in beside if inner[name] & inner[other]]
        if same and (role or any(map(_LIKE_A_PART.fullmatch, same))):
            raise ResnestError(
                f"{_join(tree.where, base)}: the folders {_listed([name, *same])} have the same folders in them"
                f" ({_listed(inner[name] & inner[same[0]])}). If they are parts, call them train, val and test; if they"
                f" are classes, rename {name}; if the inner ones are the classes, set data.format={INNER}"
            )
        if role is None or role.rest or tree.holds_images(_join(base, name)):
            continue
        classes = [other for other in beside if tree.holds_images(_join(base, other)) and other.lower() not in NO_CLASS]
        if len(beside) < 2 or len(classes) < len(beside):
            raise ResnestError(
                f"{_join(tree.where, base)} has the folder {name} with {_listed(inner[name])} in it, beside"
                f" {_listed(beside)}: {TITLES[role.part]} part or class? Leave one of them there, or add a folder"
                f" {'val' if role.part == 'train' else 'train'}; if it is a class, put its images directly into it"
            )


def _listed(names: Iterable[str]) -> str:
    every = sorted(names)
    return ", ".join(every[:MOST_NAMED]) + (", ..." if len(every) > MOST_NAMED else "")


def _join(above: str, name: str) -> str:
    return f"{above}/{name}" if above and name else above or name


@dataclass(frozen=True)
class ClassFolders:
    """Images with the folder of their class, and notes on the others."""

    labelled: list[tuple[str, str]]  # key, name of the folder
    notes: tuple[str, ...]


def label_by_folder(keys: Iterable[tuple[str, str]], where: str, *, inner: bool = False) -> ClassFolders:
    """Label images by the first folder of their path.

    Args:
        keys: key and path below the folder of the classes.
        inner: by the last one instead.

    Raises:
        ResnestError: parts below the classes; `inner`, and some images lie deeper than others.
    """
    keys = list(keys)
    if inner and len({path.count("/"): path for _, path in keys}) > 1:
        first, last = (by(keys, key=lambda item: item[1].count("/"))[1] for by in (min, max))
        raise ResnestError(
            f"{where}: data.format={INNER} needs all images equally deep, and there are {first} and {last}"
        )
    labelled: list[tuple[str, str]] = []
    beside: list[str] = []
    deeper: dict[str, str] = {}  # folders within those of classes, and one such class
    for key, path in keys:
        folder, *below = path.split("/")
        if not below:
            beside.append(path)
            continue
        labelled.append((key, below[-2] if inner and len(below) > 1 else folder))
        for name in below[:-1]:
            deeper.setdefault(name, folder)
    parts = {role.part: name for name in deeper if (role := role_of(name)) and not role.rest}
    if "train" in parts and len(parts) > 1:
        shown = " and ".join(parts.values())
        raise ResnestError(
            f"{where}: the folders {shown} lie below others, as in {deeper[parts['train']]}: expected"
            f" {parts['train']}/CLASS/image.jpg; give one folder that has parts, or put the parts above the classes"
        )
    notes = []
    if beside:
        notes.append(f"left out: {counted(len(beside), 'image', 'images')} in no class folder, such as {beside[0]}")
    if inner:
        notes.append("the class is the last folder")
    elif deeper and (same := _same_in_all(path for _, path in keys)):
        shown = _listed({folder for _, folder in labelled})
        notes.append(
            f"the classes are {shown}, which all have the folders {_listed(same)} in them: if these are the classes,"
            f" set data.format={INNER}"
        )
    elif deeper:
        some = [f"{folder}/{name}" for name, folder in list(deeper.items())[:MOST_NAMED]]
        shown = ", ".join(some) + (", ..." if len(deeper) > MOST_NAMED else "")
        notes.append(f"the class is the first folder, and folders in it are part of it: {shown}")
    return ClassFolders(labelled, tuple(notes))


def _same_in_all(paths: Iterable[str]) -> set[str]:
    """Two folders or more that are in all first folders, where no image lies directly in these; years are not meant."""
    inside: dict[str, set[str]] = {}
    for path in paths:
        folder, *below = path.split("/")
        inside.setdefault(folder, set()).add(below[0] if len(below) > 1 else "")
    same = set.intersection(*inside.values()) if len(inside) > 1 and "" not in set().union(*inside.values()) else set()
    return same if len(same) > 1 and not all(map(_YEAR.fullmatch, same)) else set()
