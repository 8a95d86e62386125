"""Parts of a data set (training, validation, test) by the words in names: of folders, of files, in a column of a CSV.

>>> choose_parts(["seg_pred", "seg_test", "seg_train"], "photos")
Parts(train='seg_train', val=None, test='seg_test', others=('seg_pred',))
>>> choose_splits(["train-000000.tar", "train-000001.tar", "val-000000.tar"])
SplitFiles(train=['train-000000.tar', 'train-000001.tar'], val=['val-000000.tar'], unsplit=[], test=[])
>>> choose_splits(["data/train-00000-of-00001.parquet"]).unsplit      # to be split
['data/train-00000-of-00001.parquet']

A word counts in any case and within a longer name: Training, seg_train, TrainSet, val2017. Where there is no validation
part, the test part is used as one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple

from resnest.errors import ResnestError

WORDS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "validate", "validating", "dev", "development", "eval", "evaluation"),
    "test": ("test", "testing"),
}
PART_OF = {word: part for part, words in WORDS.items() for word in words}
TITLES = {"train": "training", "val": "validation", "test": "test"}
VAL_KEYS = ("val", "valid", "validation", "test")  # of YOLO's yaml
WHOLE = "default"  # what Datumaro and CVAT call the one part of a set without parts
FILLERS = ("set", "images", "list")  # words beside a part's that say nothing
_BEHIND = re.compile(r"(?:set|data|images|imgs|s)$")  # trainset, testdata
_TOKENS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[^\W_A-Za-z]+")


class Role(NamedTuple):
    """The part that a name is of, and the rest of the name."""

    part: str
    rest: tuple[str, ...]


def role_of(name: str) -> Role | None:
    """None for a name without such a word, and for one with words of several parts.

    >>> role_of("seg_train"), role_of("TestSet"), role_of("train_or_test")
    (Role(part='train', rest=('seg',)), Role(part='test', rest=('set',)), None)
    """
    tokens = [token.lower() for token in _TOKENS.findall(name)]
    parts = [_part_of(token) for token in tokens]
    found = {part for part in parts if part}
    if len(found) != 1:
        return None
    rest = tuple(token for token, part in zip(tokens, parts, strict=True) if not part)
    if len(rest) + 1 == len(tokens) and tokens[parts.index(next(iter(found)))] not in PART_OF:
        rest = (*rest, "set")  # trainset, as train_set
    return Role(found.pop(), rest)


def part_named(text: str) -> str | None:
    """The part whose word this is; None for any other text.

    >>> part_named(" Training "), part_named("trian")
    ('train', None)
    """
    return PART_OF.get(text.strip().lower())


def is_plain(name: str) -> bool:
    """Whether a name is a part's and says nothing else.

    >>> is_plain("trainset"), is_plain("VAL2017"), is_plain("seg_train")
    (True, True, False)
    """
    role = role_of(name)
    return role is not None and all(word in FILLERS or word.isdecimal() for word in role.rest)


def _part_of(token: str) -> str | None:
    return PART_OF.get(token) or PART_OF.get(_BEHIND.sub("", token))


@dataclass(frozen=True)
class Parts:
    """The names of the parts among some names, and the other names."""

    train: str | None
    val: str | None
    test: str | None
    others: tuple[str, ...]

    @property
    def validation(self) -> str | None:
        return self.val or self.test


def choose_parts(names: Iterable[str], where: str) -> Parts | None:
    """The training part with its validation or test part, or these alone; None if no names are a pair of parts.

    A pair has the same rest of the name, as in `seg_train` and `seg_test`; names without a rest come first. Names with
    different rests are a pair only if they are the only two, or there is nothing but one for each part.

    Raises:
        ResnestError: two names for one part, or several pairs.
    """
    every = sorted(names)
    groups: dict[tuple[str, ...], dict[str, list[str]]] = {}
    for name in every:
        if role := role_of(name):
            groups.setdefault(role.rest, {}).setdefault(role.part, []).append(name)
    pairs = [rest for rest, found in groups.items() if "train" in found and len(found) > 1]
    if () in pairs:
        found = groups[()]
    elif len(pairs) == 1:
        found = groups[pairs[0]]
    elif pairs:
        several = ", ".join(groups[rest]["train"][0] for rest in pairs)
        raise ResnestError(f"{where} has several training parts, each with another part: {several}; give one")
    else:
        found = _without_pair(every, groups)
    if not found:
        return None
    for part, same in found.items():
        if len(same) > 1:
            raise _both(where, same[0], same[1], part)
    chosen = {part: same[0] for part, same in found.items()}
    others = tuple(name for name in every if name not in chosen.values())
    return Parts(chosen.get("train"), chosen.get("val"), chosen.get("test"), others)


def _both(where: str, name: str, other: str, part: str) -> ResnestError:
    return ResnestError(f"{where}: {name} and {other} are both called the {TITLES[part]} part: leave one of them there")


def _without_pair(names: list[str], groups: dict[tuple[str, ...], dict[str, list[str]]]) -> dict[str, list[str]]:
    """Parts where no two names have the same rest: nothing else may be there."""
    found: dict[str, list[str]] = {}
    for group in groups.values():
        for part, same in group.items():
            found.setdefault(part, []).extend(same)
    alone = sum(map(len, found.values())) == len(names) and all(len(same) == 1 for same in found.values())
    if not alone or ("train" in found and len(found) == 1):
        return {}
    return found if "train" in found or set(groups) == {()} else {}


def choose_folders(names: Iterable[str], where: str) -> Parts | None:
    """The parts among folders that all hold annotated pictures; a training part alone is the whole.

    As `choose_parts`; these folders are no classes, so that `train` and `val` are parts beside any others.

    Raises:
        ResnestError: two names for one part, or several pairs.
    """
    every = sorted(names)
    if parts := choose_parts(every, where):
        return parts
    found: dict[str, str] = {}
    for name, role in ((name, role) for name in every if (role := role_of(name))):
        if not is_plain(name) and (role.part != "train" or len(every) > 1):
            continue
        if role.part in found:
            raise _both(where, found[role.part], name, role.part)
        found[role.part] = name
    others = tuple(name for name in every if name not in found.values())
    return Parts(found.get("train"), found.get("val"), found.get("test"), others) if found else None


class SplitFiles(NamedTuple):
    """File names; either `unsplit`, or `val` and optionally `train`. `test` may be `val`."""

    train: list[str]
    val: list[str]
    unsplit: list[str]
    test: list[str]


def choose_splits(names: Iterable[str]) -> SplitFiles:
    """Parts by the files' folders, or else by a word of their names; a part may have several files.

    Without a validation part, the test part is used; without both, the training files are the whole. If only
    validation files are named, the rest is for training.

    Raises:
        ResnestError: folders that are several parts of one kind.
    """
    every = sorted(names)
    paths = [PurePosixPath(name) for name in every]
    folders = choose_parts({path.parent.name for path in paths} - {""}, "the data")
    words = [_word_of(path, folders) for path in paths]
    if folders is None:
        roles = [word or _part_in(path.name) for word, path in zip(words, paths, strict=True)]
        words = roles if len(set(roles) - {""}) > 1 else words  # trainset.tar and valset.tar, not trains.tar alone
    groups: dict[str, list[str]] = {}
    for word, name in zip(words, every, strict=True):
        groups.setdefault(word, []).append(name)
    test = next((groups[word] for word in WORDS["test"] if word in groups), [])
    val = next((groups[word] for word in WORDS["val"] if word in groups), test)
    train = next((groups[word] for word in (*WORDS["train"], "") if word in groups), [])
    return SplitFiles(train, val, [], test) if val else SplitFiles([], [], train, [])


def not_read(names: Iterable[str], files: SplitFiles) -> tuple[str, ...]:
    """A note on files that are in no part."""
    read = {name for part in files for name in part}
    return note_of_others([name for name in names if name not in read])


def note_of_others(names: Iterable[str]) -> tuple[str, ...]:
    """A note on what lies beside the parts."""
    every = list(names)
    shown = ", ".join(every[:5]) + (", ..." if len(every) > 5 else "")
    return (f"not read, as it is beside the parts: {shown}",) if every else ()


def note_of_test(name: str) -> str:
    """A note on a test part in place of a validation part."""
    return f"{name} is the validation part"


def _word_of(name: PurePosixPath, folders: Parts | None) -> str:
    """The part of a file's folder, or else the first word of a part in its name."""
    folder = name.parent.name
    if folders and folder:
        return next((part for part in TITLES if getattr(folders, part) == folder), "")
    if is_plain(folder):
        return _part_in(folder)
    return next((word for word in re.findall("[a-z]+", name.name.lower()) if word in PART_OF), "")


def _part_in(name: str) -> str:
    role = role_of(name)
    return role.part if role else ""
