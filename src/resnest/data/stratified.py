"""Stratified folds and hold-out splits: which images, or whole groups of them, are held out together.

    in_blocks(labels, ranks, 5)                        # (N,) fold of each image, of one class each
    balanced(Units.of(groups, *samples.marks()), (0.8, 0.2), ranks)   # (U,) part of each group

Both depend on ranks (hashes of names) and counts alone: on no order of files, and on no machine. What alone has a class
is in no fold (`NEVER`): held out, it would leave nothing to learn that class from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

NEVER = -1  # held out
PASSES = 10  # over all groups, each of which may move to another part, until none does
MOST_MOVED = 20_000  # groups up to which they may; of more, the first placing is even enough

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def in_blocks(labels: Integers, ranks: NDArray[np.uint64], folds: int) -> Integers:
    """The fold of each image, (N,): each class in its order of ranks, cut into blocks that differ by one at most.

    A new image hardly changes this: it moves those at the ends of its class's blocks. The larger blocks are given to
    the folds that are the smallest so far.
    """
    order = np.lexsort((ranks, labels))
    members = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1) if len(order) else []
    found, totals = np.full(len(labels), NEVER, np.int64), np.zeros(folds, np.int64)
    for own in members:
        if len(own) == 1:
            continue
        sizes = np.full(folds, len(own) // folds, np.int64)
        sizes[np.argsort(totals, kind="stable")[: len(own) % folds]] += 1
        found[own] = np.repeat(np.arange(folds), sizes)
        totals += sizes
    return found


@dataclass(frozen=True)
class Units:
    """Groups of images with their images of each class, as rows of a sparse matrix; the last column counts images."""

    firsts: Integers  # (U + 1,) of the groups' entries
    classes: Integers  # (E,)
    counts: Integers  # (E,)
    totals: Integers  # (K + 1,) of each class
    holders: Integers  # (K + 1,) groups that have it

    @classmethod
    def of(cls, groups: Integers, images: Integers, classes: Integers) -> Units:
        """From the group of each image, (N,), and pairs of an image and a class that it shows."""
        columns = int(classes.max(initial=-1)) + 2
        cells = np.concatenate([groups[images] * columns + classes, groups * columns + columns - 1])
        cells, counts = np.unique(cells, return_counts=True)
        rows, found = np.divmod(cells, columns)
        firsts = np.searchsorted(rows, np.arange(int(groups.max(initial=-1)) + 2))
        totals = np.bincount(found, counts, columns).astype(np.int64)
        return cls(firsts, found, counts.astype(np.int64), totals, np.bincount(found, minlength=columns))

    def __len__(self) -> int:
        return len(self.firsts) - 1

    def row(self, unit: int) -> tuple[Integers, Integers]:
        """The classes of a group and its images of each."""
        entries = slice(self.firsts[unit], self.firsts[unit + 1])
        return self.classes[entries], self.counts[entries]

    @property
    def sizes(self) -> Integers:
        """(U,) images."""
        return self.counts[self.firsts[1:] - 1]

    def having(self, label: int) -> list[int]:
        """The groups that have a class, the smallest first."""
        order, ends = self._by_class
        found: list[int] = order[ends[label] : ends[label + 1]].tolist()
        return found

    @cached_property
    def _by_class(self) -> tuple[Integers, Integers]:
        owners = np.repeat(np.arange(len(self)), np.diff(self.firsts))
        order = np.lexsort((self.sizes[owners], self.classes))
        return owners[order], np.searchsorted(self.classes[order], np.arange(len(self.totals) + 1))

    @property
    def alone(self) -> NDArray[np.bool_]:
        """(U,) whether a group is the only one that has some class."""
        single: NDArray[np.bool_] = np.logical_or.reduceat(self.holders[self.classes] == 1, self.firsts[:-1])
        return single


class Parts:
    """Parts that groups are put into, and how far they are from equal shares of every class.

    The distance is the sum over classes and parts of (share - wanted)^2 / wanted, as chi-square's. The groups that are
    never held out count for no part.
    """

    def __init__(self, units: Units, wanted: Sequence[float]) -> None:
        self.units = units
        self.wanted = np.array(wanted)[:, None]  # (P, 1)
        self.counts = np.zeros((len(wanted), len(units.totals)), np.int64)
        self.groups = np.zeros(len(wanted), np.int64)
        self.where = np.full(len(units), NEVER, np.int64)
        free = np.flatnonzero(~units.alone)
        self.free: list[int] = free.tolist()
        totals = np.zeros_like(units.totals)
        for unit in self.free:
            classes, counts = units.row(unit)
            totals[classes] += counts
        self.totals = np.maximum(totals, 1)

    def costs(self, unit: int) -> Floats:
        """(P,) what the distance grows by, with the group in each part."""
        classes, counts = self.units.row(unit)
        share = counts / self.totals[classes]
        short = self.counts[:, classes] / self.totals[classes] - self.wanted
        costs: Floats = (share / self.wanted * (2 * short + share)).sum(1)
        return costs.round(9)  # sums of other machines may differ in their last bits

    def put(self, unit: int, part: int) -> None:
        """Into a part, out of the one that it is in."""
        classes, counts = self.units.row(unit)
        for of, sign in ((self.where[unit], -1), (part, 1)):
            if of != NEVER:
                self.counts[of, classes] += sign * counts
                self.groups[of] += sign
        self.where[unit] = part

    def best(self, unit: int, among: Sequence[int] | Integers) -> int:
        return int(among[int(np.argmin(self.costs(unit)[among]))])

    def lacking(self, part: int) -> list[int]:
        """Classes that all other parts and the groups outside lack."""
        here = self.counts[part, :-1]
        return np.flatnonzero((here > 0) & (here == self.units.totals[:-1])).tolist()


def balanced(units: Units, wanted: Sequence[float], ranks: NDArray[np.uint64], *, held_out: Sequence[int]) -> Integers:
    """The part of each group, (U,), with shares of every class as near to the wanted ones as is found.

    Large groups and those of rare classes are placed first, each where the distance of `Parts` grows least; then groups
    move while that brings the parts nearer.

    Args:
        wanted: share of each part.
        held_out: the parts that are held out, each of which must leave every class to the rest.
    """
    parts = Parts(units, wanted)
    every = np.arange(len(wanted))
    for number, unit in enumerate(order := _hardest_first(parts, ranks)):
        empty = np.flatnonzero(parts.groups == 0)
        must = len(empty) >= len(order) - number  # no part stays empty
        parts.put(unit, parts.best(unit, empty if must and len(empty) else every))
    if len(order) <= MOST_MOVED:
        _improve(parts, order)
    for part in held_out:
        _give_back(parts, part)
    return parts.where


def _hardest_first(parts: Parts, ranks: NDArray[np.uint64]) -> list[int]:
    weights = np.zeros(len(parts.units))
    for unit in parts.free:
        classes, counts = parts.units.row(unit)
        weights[unit] = round(float(((counts / parts.totals[classes]) ** 2).sum()), 9)
    free = np.array(parts.free, np.int64)
    order: list[int] = free[np.lexsort((ranks[free], -weights[free]))].tolist()
    return order


def _improve(parts: Parts, order: Sequence[int]) -> None:
    every = np.arange(len(parts.groups))
    for _ in range(PASSES):
        moved = False
        for unit in order:
            before = int(parts.where[unit])
            if parts.groups[before] == 1:
                continue
            parts.put(unit, NEVER)
            costs = parts.costs(unit)
            after = parts.best(unit, every)
            after = after if costs[after] < costs[before] else before
            parts.put(unit, after)
            moved |= after != before
        if not moved:
            return


def _give_back(parts: Parts, part: int) -> None:
    """Move groups until the rest has every class, the smallest that have what it lacks."""
    others = [other for other in range(len(parts.groups)) if other != part]
    while lacking := parts.lacking(part):
        # one of two or more: what alone has a class is in no part
        unit = next(unit for unit in parts.units.having(lacking[0]) if parts.where[unit] == part)
        parts.put(unit, parts.best(unit, others))


def measured(units: Units, where: Integers, part: int) -> Integers:
    """`where` with at least one group of every class in a part, if two or more groups have it.

    The smallest group is moved there that leaves every class to the rest.
    """
    counts = np.zeros(len(units.totals), np.int64)
    for unit in np.flatnonzero(where == part).tolist():
        classes, images = units.row(unit)
        counts[classes] += images
    chosen = where.copy()
    for label in np.lexsort((np.arange(len(counts) - 1), units.totals[:-1])):
        if counts[label] or units.holders[label] < 2:
            continue
        for holder in units.having(int(label)):
            classes, images = units.row(holder)
            if chosen[holder] != NEVER and (counts[classes] + images < units.totals[classes]).all():
                chosen[holder] = part
                counts[classes] += images
                break
    return chosen
