"""The objects of a large picture from those of its tiles: what several tiles show of an object becomes one.

Boxes of one class in two tiles are the same object if their parts in the area that both tiles see have an IoU of `SAME`
or more; or, as boxes of cut objects are poor, if at least this part of a box that a border cuts lies in the other one
(SAHI's intersection over the smaller one, which is taken here for cut boxes alone: a small object before a large one is
no part of it). Of the same object the box that no border cuts counts, of several the best one; if all are cut, their
union. It gets the best score of all. What scores less than half of that has no say in the box.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from resnest.detection.card import DetectionCard
from resnest.detection.predict import predict
from resnest.detection.result import Detections
from resnest.runtime.engines.exported import Engine, Prepared, Views
from resnest.runtime.rle import RLE, crop, encode
from resnest.runtime.tiles import Grid, Tile

SAME = 0.5  # of both boxes within what both tiles see, or of a cut box
SAY = 0.5  # of the best score: boxes below do not decide where the object is
NEAR = 0.01  # of a tile's side: a box that ends so near to its border is cut by it, as boxes are not exact

Floats = NDArray[np.float64]
Placed = tuple[int, int, RLE]  # a mask, and where the tile begins: left, top


class JoinedObjects:
    """Collects the objects of all tiles, in pixels of the picture."""

    def __init__(self, engine: Engine, card: DetectionCard, grid: Grid, name: str, views: Views | None) -> None:
        self.engine, self.card, self.grid, self.name, self.views = engine, card, grid, name, views
        self.found: list[tuple[Tile, Detections]] = []

    def add(self, images: Sequence[Prepared], tiles: Sequence[Tile]) -> None:
        self.found += zip(tiles, predict(self.engine, self.card, images, self.views), strict=True)

    def result(self) -> Detections:
        """The objects, best first."""
        width, height = self.grid.size
        boxes = np.concatenate([one.boxes + np.array(tile.box[:2] * 2, np.float32) for tile, one in self.found])
        labels = np.concatenate([one.labels for _, one in self.found])
        scores = np.concatenate([one.scores for _, one in self.found])
        owners = np.repeat(np.arange(len(self.found)), [len(one) for _, one in self.found])
        areas = np.array([tile.box for tile, _ in self.found], np.float64)  # (T, 4)
        groups = join(boxes.astype(np.float64), labels, scores, owners, areas, (width, height))
        kept = [(union(boxes[members]), scores[group].max(), labels[group[0]]) for group, members in groups]
        masks: tuple[RLE, ...] | None = None
        if all(one.masks is not None for _, one in self.found):
            placed = [(tile.box[0], tile.box[1], mask) for tile, one in self.found for mask in one.masks or ()]
            masks = tuple(joined_mask([placed[index] for index in members], (height, width)) for _, members in groups)
        joined = Detections(
            name=self.name,
            width=width,
            height=height,
            classes=self.card.classes,
            boxes=np.array([box for box, *_ in kept], np.float32).reshape(-1, 4),
            labels=np.array([label for *_, label in kept], np.int64),
            scores=np.array([score for _, score, _ in kept], np.float32),
            masks=masks,
        )
        return joined[np.argsort(-joined.scores, kind="stable")]


def union(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """(M, 4) -> (4) around all."""
    return np.concatenate([boxes[:, :2].min(0), boxes[:, 2:].max(0)])


def join(
    boxes: Floats,
    labels: NDArray[np.int64],
    scores: NDArray[np.float32],
    owners: NDArray[np.int64],
    areas: Floats,
    size: tuple[int, int],
) -> list[tuple[list[int], list[int]]]:
    """Groups of boxes that are one object; of each, all its boxes, and those that count.

    Args:
        boxes: (N, 4) x1, y1, x2, y2 in pixels of the picture.
        owners: (N) the tile of each.
        areas: (T, 4) the tiles.
        size: width and height of the picture.
    """
    cut = is_cut(boxes, areas[owners], size)
    partners = same_objects(boxes, labels, cut, owners, areas)
    free = np.ones(len(boxes), bool)
    groups = []
    for leader in np.argsort(-scores, kind="stable").tolist():
        if not free[leader]:
            continue
        group, waiting, tiles = [leader], [leader], {int(owners[leader])}
        free[leader] = False
        while waiting:
            member = waiting.pop(0)
            for other in sorted(partners[member], key=lambda one: -scores[one]):
                # what is not the leader's own partner is another view of the object: one of each tile
                if not free[other] or (member != leader and int(owners[other]) in tiles):
                    continue
                free[other] = False
                tiles.add(int(owners[other]))
                group.append(other)
                if cut[leader]:
                    waiting.append(other)
        heard = [member for member in group if scores[member] >= SAY * scores[leader]]
        whole = [member for member in heard if not cut[member]]
        groups.append((group, [max(whole, key=lambda one: float(scores[one]))] if whole else heard))
    return groups


def is_cut(boxes: Floats, tiles: Floats, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Whether a box ends at a border of its tile that is not one of the picture; boxes and tiles (N, 4)."""
    sides = tiles[:, 2:] - tiles[:, :2]
    margins = np.maximum(1, NEAR * np.concatenate([sides, sides], 1))
    at = np.abs(boxes - tiles) < margins
    return np.asarray((at & (tiles != np.array([0, 0, *size]))).any(1))


def same_objects(
    boxes: Floats, labels: NDArray[np.int64], cut: NDArray[np.bool_], owners: NDArray[np.int64], areas: Floats
) -> dict[int, list[int]]:
    """Of each box those of other tiles that show the same object."""
    partners: dict[int, list[int]] = defaultdict(list)
    order = np.argsort(owners, kind="stable")
    members = np.split(order, np.searchsorted(owners[order], np.arange(1, len(areas))))
    for one, other in neighbours(areas):
        ours, theirs = members[one], members[other]
        area = within(areas[one][None], areas[other])[0]
        overlaps = overlap(within(boxes[ours], area), within(boxes[theirs], area))
        overlaps = np.maximum(overlaps, part_of(boxes[ours], boxes[theirs]) * cut[ours][:, None])
        overlaps = np.maximum(overlaps, part_of(boxes[theirs], boxes[ours]).T * cut[theirs])
        overlaps *= labels[ours][:, None] == labels[theirs]
        for left, right in np.argwhere(overlaps >= SAME).tolist():
            partners[int(ours[left])].append(int(theirs[right]))
            partners[int(theirs[right])].append(int(ours[left]))
    return partners


def neighbours(areas: Floats) -> Iterator[tuple[int, int]]:
    """Tiles that share pixels, each pair once."""
    for one, area in enumerate(areas):
        later = within(areas[one + 1 :], area)
        for other in np.flatnonzero((later[:, 2:] > later[:, :2]).all(1)).tolist():
            yield one, one + 1 + other


def within(boxes: Floats, area: Floats) -> Floats:
    """The parts of boxes (N, 4) in an area (4); without area where there is none."""
    return np.concatenate([np.maximum(boxes[:, :2], area[:2]), np.minimum(boxes[:, 2:], area[2:])], 1)


def overlap(boxes: Floats, others: Floats) -> Floats:
    """IoU of all pairs, (N, M); 0 for boxes without area."""
    sides = np.minimum(boxes[:, None, 2:], others[None, :, 2:]) - np.maximum(boxes[:, None, :2], others[None, :, :2])
    shared = np.maximum(sides, 0).prod(-1)
    ours, theirs = (np.maximum(one[:, 2:] - one[:, :2], 0).prod(-1) for one in (boxes, others))
    shared *= (ours > 0)[:, None] & (theirs > 0)
    total = ours[:, None] + theirs - shared
    found: Floats = np.divide(shared, total, out=np.zeros_like(shared), where=total > 0)
    return found


def part_of(boxes: Floats, others: Floats) -> Floats:
    """How much of each box (N, 4) lies in each other one (M, 4): (N, M)."""
    sides = np.minimum(boxes[:, None, 2:], others[None, :, 2:]) - np.maximum(boxes[:, None, :2], others[None, :, :2])
    area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    return np.asarray(np.maximum(sides, 0).prod(-1) / area[:, None])


def joined_mask(masks: Sequence[Placed], size: tuple[int, int]) -> RLE:
    """The union of masks of tiles, in a picture of this height and width."""
    parts = [(left + x, top + y, mask) for left, top, (x, y, mask) in ((x, y, crop(rle)) for x, y, rle in masks)]
    left, top = min(x for x, _, _ in parts), min(y for _, y, _ in parts)
    right = max(x + mask.shape[1] for x, _, mask in parts)
    bottom = max(y + mask.shape[0] for _, y, mask in parts)
    canvas = np.zeros((bottom - top, right - left), bool)
    for x, y, mask in parts:
        canvas[y - top : y - top + mask.shape[0], x - left : x - left + mask.shape[1]] |= mask
    return encode(canvas, left=left, top=top, size=size)
