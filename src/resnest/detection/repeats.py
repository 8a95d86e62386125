"""Objects that are annotated twice: one image, class, box and outline. Each counts once.

    table, notes = without_repeats(table, keys)

An exporter that is run twice, or two sets that are merged, leave such copies. In an evaluation one of the two is always
missed. Ultralytics leaves them out too; of COCO's 2017 sets only the training part has some.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from resnest.detection.data import ObjectTable

MIX = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], np.uint64)  # odd numbers of many bits
SHIFT = np.uint64(29)


def without_repeats(table: ObjectTable, keys: Sequence[str]) -> tuple[ObjectTable, tuple[str, ...]]:
    """The objects, each once, and a note if some were there more often.

    The first of them stays; if it has no outline, the first that has one. Objects of one box with different outlines
    are different objects, and so are a crowd and a single object.
    """
    repeats = find_repeats(table)
    if not repeats:
        return table, ()
    kept = np.ones(len(table.labels), bool)
    kept[list(repeats)] = False
    rows = table.rows()
    chosen = rows[kept[rows]]
    counts = np.bincount(table.owners()[kept[rows]], minlength=len(table))
    row, first = min(repeats.items())
    owner = keys[table.owners()[np.flatnonzero(rows == row)[0]]]
    example = f"such as annotation {table.ids[row]}, which repeats {table.ids[first]} of {owner}"
    word = "annotations repeat others" if len(repeats) > 1 else "annotation repeats another"
    note = f"{len(repeats):,} {word} with the same class and box and {'are' if len(repeats) > 1 else 'is'} left out"
    smaller = replace(
        table,
        firsts=np.cumsum(counts) - counts,
        counts=counts,
        boxes=table.boxes[chosen],
        labels=table.labels[chosen],
        crowd=table.crowd[chosen],
        areas=table.areas[chosen],
        ids=table.ids[chosen],
        segmentations=table.segmentations.subset(chosen),
    )
    return smaller, (f"{note}, {example}",)


def find_repeats(table: ObjectTable) -> dict[int, int]:
    """The rows of objects that are there already, each with the row that stays."""
    rows, owners = table.rows(), table.owners()
    marks = _marks(owners, table.labels[rows], table.boxes[rows])
    order = np.argsort(marks, kind="stable")
    equal = np.flatnonzero(np.diff(marks[order]) == 0)
    repeats: dict[int, int] = {}
    stay: dict[tuple[object, ...], list[int]] = {}  # image, class, box -> rows with different outlines
    for place in np.unique(order[np.union1d(equal, equal + 1)]).tolist() if len(equal) else ():
        row, owner = int(rows[place]), int(owners[place])
        key = (owner, int(table.labels[row]), bool(table.crowd[row]), *table.boxes[row].tolist())
        _settle(table, row, owner, stay.setdefault(key, []), repeats)
    return repeats


def _settle(table: ObjectTable, row: int, owner: int, before: list[int], repeats: dict[int, int]) -> None:
    """Note a row as a repeat of one before with its outline, or the reverse; else as an object of its own."""
    width, height = map(int, table.sizes[owner])
    outline = table.segmentations.get(row, height, width)
    for place, other in enumerate(before):
        there = table.segmentations.get(other, height, width)
        if outline is None or outline == there:
            repeats[row] = other
            return
        if there is None:
            before[place], repeats[other] = row, row
            return
    before.append(row)


def _marks(owners: NDArray[np.int64], labels: NDArray[np.int64], boxes: NDArray[np.float32]) -> NDArray[np.uint64]:
    """A number for each object, (A,), equal for equal image, class and box."""
    corners = np.ascontiguousarray(boxes + np.float32(0)).view(np.uint32)  # -0 becomes 0
    marks: NDArray[np.uint64] = owners.astype(np.uint64) * MIX[0] + labels.astype(np.uint64) * MIX[1]
    for column in corners.T:
        marks = (marks ^ column.astype(np.uint64)) * MIX[2]
        marks ^= marks >> SHIFT
    return marks
