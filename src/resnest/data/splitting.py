"""What is held out of data that comes without a validation part: a share, or one of several folds, of whole groups.

    rule = Holdout(fraction=0.2, seed=0, group="folder:1", fold="0/5")
    train, val, notes = split(samples, rule, columns, "photos")

What is held out follows from hashes of the pictures' names and the seed, and from the classes: it is the same on every
machine and in every order of files.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from resnest.data.grouping import Columns, Groups, find_groups
from resnest.data.samples import Samples
from resnest.data.stratified import NEVER, Units, balanced, in_blocks, measured
from resnest.errors import ResnestError
from resnest.figures import counted

S = TypeVar("S", bound=Samples)
FOLD = re.compile(r"(\d+)/(\d+)")
MOST_NAMED = 3


class Holdout(NamedTuple):
    """How training holds images out of data without a validation part."""

    fraction: float = 0.2  # of each class; of no effect with a fold
    seed: int = 0
    group: str | None = None  # `data.group`
    fold: str | None = None  # `data.fold`, "0/5"


def parse_fold(fold: str) -> tuple[int, int]:
    """Number and count of "0/5". Raises ResnestError.

    >>> parse_fold("0/5")
    (0, 5)
    """
    found = FOLD.fullmatch(fold)
    if not found or int(found[2]) < 2:
        raise ResnestError(f"data.fold={fold}: expected a fold and their number, such as 0/5 for the first of five")
    number, count = int(found[1]), int(found[2])
    if number >= count:
        raise ResnestError(f"data.fold={fold}: folds count from 0, the last one is {count - 1}/{count}")
    return number, count


def split(samples: S, rule: Holdout, columns: Columns | None, where: str) -> tuple[S, S, tuple[str, ...]]:
    """The training and validation images, and notes on how they were chosen.

    Raises:
        ResnestError: images without a group, a single group, more folds than images or groups that may be held out.
    """
    groups = find_groups(rule.group, samples.keys, columns, where) if rule.group else _of_pictures(samples.keys)
    if groups and len(groups.distinct) == 1:
        raise ResnestError(
            f"data.group={rule.group}: all {len(samples):,} images of {where} are of one group, {groups.names[0]}:"
            " nothing would be left to validate on"
        )
    if groups is None and rule.fold is None:
        return *holdout(samples, rule.fraction, rule.seed), ()
    folds = _folds(samples, rule, groups, where)
    number = parse_fold(rule.fold)[0] if rule.fold else 1
    held_out = folds == number
    notes = [*_group_notes(groups, held_out, rule), *_fold_notes(samples, rule, groups, folds)]
    return samples.subset(np.flatnonzero(~held_out)), samples.subset(np.flatnonzero(held_out)), tuple(notes)


def _of_pictures(keys: Sequence[str]) -> Groups | None:
    """The samples of each picture, where a picture has several; None: each has one."""
    distinct = len(set(keys))
    return Groups(keys, f"picture, as {keys[0]}") if 1 < distinct < len(keys) else None


def _folds(samples: Samples, rule: Holdout, groups: Groups | None, where: str) -> NDArray[np.int64]:
    """(N,) the fold of each image; without folds 0 in training and 1 held out; `NEVER`: always in training."""
    count = parse_fold(rule.fold)[1] if rule.fold else 2
    names = samples.keys if groups is None else groups.distinct
    noun = "image" if groups is None else "group"
    _check_count(rule, len(names), noun, where)
    ranks = np.array([hash_of(name, rule.seed) for name in names], np.uint64)
    images, classes = samples.marks()
    if groups is None and len(images) == len(samples) and (images == np.arange(len(samples))).all():
        found = in_blocks(classes, ranks, count)
        free = int((found != NEVER).sum())
    else:
        own = np.arange(len(samples)) if groups is None else groups.numbers
        units = Units.of(own, images, classes)
        free = int((~units.alone).sum())
        if free < count:
            found = np.full(len(units), NEVER)
        elif rule.fold:
            found = balanced(units, [1 / count] * count, ranks, held_out=range(count))
        else:
            found = balanced(units, (1 - rule.fraction, rule.fraction), ranks, held_out=(1,))
            found = measured(units, found, 1)
        found = found[own]
    if free < count:
        raise ResnestError(
            f"{where}: {counted(free, f'{noun} can', f'{noun}s can')} be held out, and it takes {count}: each of the"
            f" other {len(names) - free} is the only {noun} with some class"
        )
    return found


def _check_count(rule: Holdout, count: int, noun: str, where: str) -> None:
    if rule.fold and (folds := parse_fold(rule.fold)[1]) > count:
        by = f" by data.group={rule.group}" if rule.group else ""
        raise ResnestError(
            f"data.fold={rule.fold}: {where} has {counted(count, noun, noun + 's')}{by}, too few for {folds} folds"
        )


def _group_notes(groups: Groups | None, held_out: NDArray[np.bool_], rule: Holdout) -> list[str]:
    if groups is None:
        return []
    inside = len(np.unique(groups.numbers[held_out]))
    count = len(groups.distinct)
    notes = [f"groups by {groups.told}: {count - inside:,} to train on and {inside:,} held out"]
    if count == len(groups.names):
        notes.append(f"each of the {count:,} groups has one image, so that data.group={rule.group} has no effect")
    return notes


def _fold_notes(samples: Samples, rule: Holdout, groups: Groups | None, folds: NDArray[np.int64]) -> list[str]:
    notes = [f"fold {rule.fold}"] if rule.fold else []
    never = np.flatnonzero(folds == NEVER)
    if len(never) and (rule.fold or groups):
        if groups is None:
            told = f"{counted(len(never), 'image is', 'images are')}"
            example = samples.keys[never[0]]
        else:
            alone = sorted({groups.names[index] for index in never.tolist()})
            told, example = counted(len(alone), "group is", "groups are"), alone[0]
        notes.append(f"{told} never held out, as no other has one of its classes, such as {example}")
    return notes


def note_of_leaks(train: Samples, val: Samples, group: str, columns: Columns | None, where: str) -> tuple[str, ...]:
    """Notes on groups that are in both of the data's own parts, which are left as they are. Raises as `find_groups`."""
    mine, theirs = (find_groups(group, part.keys, columns, where) for part in (train, val))
    both = sorted(set(mine.names) & set(theirs.names))
    told = f"groups by {mine.told}; the data's own parts are left as they are"
    if not both:
        return (f"{told}, and have no group in common",)
    images = sum(name in set(both) for name in theirs.names)
    many = counted(len(both), "group is", "groups are")
    named = ", ".join(both[:MOST_NAMED])
    return (
        f"{told}: {many} in both, such as {named}, with {images:,} of {len(val):,} validation images, whose figures say"
        " little about new groups",
    )


def holdout(samples: S, fraction: float, seed: int) -> tuple[S, S]:
    """Split one collection into training and validation, stratified by `Samples.groups`.

    Whether an image is held out follows from a hash of its key and the seed: the split is the same on every machine and
    in every order of files, and adding an image hardly changes it. A group of one image is used in training, and no
    larger group is held out completely.
    """
    held_out = np.zeros(len(samples), bool)
    ranks = np.array([hash_of(key, seed) for key in samples.keys], np.uint64)
    groups = samples.groups()
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        count = max(1, round(len(members) * fraction)) if len(members) > 1 else 0
        held_out[members[np.argsort(ranks[members], kind="stable")[:count]]] = True
    presence = samples.presence()
    if presence is not None:
        for label in np.flatnonzero(presence.any(0) & ~presence[~held_out].any(0)):
            members = np.flatnonzero(presence[:, label])
            held_out[members[np.argmax(ranks[members])]] = False
    return samples.subset(np.flatnonzero(~held_out)), samples.subset(np.flatnonzero(held_out))


def hash_of(name: str, seed: int) -> int:
    """A number below 2^64."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode(errors="surrogateescape")).digest()[:8], "big")
