"""A picture's boxes, looked at one by one: the crops that a keypoint model takes, and its points back in the picture.

    look = Look(pose, "street.jpg", picture, boxes)
    look.result(pose.run(look.prepared(0, 16)) + ...)             # Poses, the best object first

No torch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from resnest.errors import ResnestError
from resnest.keypoints.boxes import Boxes
from resnest.keypoints.card import KeypointCard
from resnest.keypoints.metrics import suppress
from resnest.keypoints.result import Poses
from resnest.runtime.engines.exported import Prepared
from resnest.runtime.predictor import ImagePredictor

MOST_BOXES = 1000  # of a request; COCO's fullest picture has 93 objects
FARTHEST = 1_000_000  # pixels
EXPECTED = "expected JSON, a list of [x, y, width, height] in pixels, as answers have them in bbox"


@dataclass(frozen=True, eq=False)
class Look:
    """What is looked at of a picture."""

    pose: ImagePredictor
    name: str
    picture: Image.Image
    boxes: Boxes

    @property
    def card(self) -> KeypointCard:
        assert isinstance(self.pose.card, KeypointCard)
        return self.pose.card

    @cached_property
    def windows(self) -> list[tuple[int, int, int, int]]:
        return [self.card.frame.window(box) for box in self.boxes.boxes]

    def __len__(self) -> int:
        return len(self.boxes.scores)

    def prepared(self, first: int, last: int) -> list[Prepared]:
        """The crops of some boxes, as the network takes them."""
        return [self.pose.prepare(self.picture.crop(window), self.name) for window in self.windows[first:last]]

    def result(self, crops: Sequence[Any]) -> Poses:
        """The objects in the picture, from the results of all crops; of those that are the same the better one."""
        rows = zip(crops, self.windows, self.boxes.boxes, self.boxes.scores, strict=True)
        parts = [
            replace(crop, boxes=box[None], points=crop.points + np.array([left, top]), scores=crop.scores * score)
            for crop, (left, top, *_), box, score in rows
        ]
        whole = suppress(joined(parts), self.card.head.nms) if parts else nobody(self.card, self.name)
        return replace(whole, name=self.name, width=self.picture.width, height=self.picture.height)


def joined(parts: list[Poses]) -> Poses:
    """The objects of one picture, the best first."""
    names = ("boxes", "points", "point_scores", "scores")
    rows: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    whole = replace(parts[0], **rows)
    return whole[np.argsort(-whole.scores, kind="stable")]


def nobody(card: KeypointCard, name: str) -> Poses:
    """The result of a picture without a box."""
    count = len(card.class_names)
    return Poses(
        name=name,
        width=1,
        height=1,
        layout=card.layout,
        thing=card.thing,
        category_id=card.category_id,
        boxes=np.zeros((0, 4)),
        points=np.zeros((0, count, 2)),
        point_scores=np.zeros((0, count), np.float32),
        scores=np.zeros(0),
    )


def read_boxes(text: str) -> Boxes:
    """Boxes that somebody gives for a picture; each counts as surely an object.

    >>> read_boxes("[[10, 20, 30, 40]]").boxes.tolist()
    [[10.0, 20.0, 40.0, 60.0]]

    Raises:
        ResnestError: they are no such list, not finite, without an area, or too many.
    """
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError):
        raise ResnestError(f"boxes: {EXPECTED}") from None
    if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == 4 for row in rows):
        raise ResnestError(f"boxes: {EXPECTED}")
    if len(rows) > MOST_BOXES:
        raise ResnestError(f"boxes: {len(rows):,} of them, {MOST_BOXES:,} are the most for a picture")
    for number, row in enumerate(rows):
        if not all(type(value) in (int, float) and abs(value) <= FARTHEST for value in row):
            raise ResnestError(f"boxes: box {number} has a value that is no number up to {FARTHEST:,}; {EXPECTED}")
        if row[2] <= 0 or row[3] <= 0:
            raise ResnestError(f"boxes: box {number} is {row[2]:g} wide and {row[3]:g} high: it has no area")
    return Boxes.of([(float(x), float(y), float(x + w), float(y + h), 1.0) for x, y, w, h in rows])


def clipped(boxes: Boxes, size: tuple[int, int]) -> Boxes:
    """What of the boxes is in a picture of this width and height: a crop of a million pixels a side would be one.

    Raises:
        ResnestError: nothing of a box is.
    """
    width, height = size
    for number, (x1, y1, x2, y2) in enumerate(boxes.boxes.tolist()):
        if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
            raise ResnestError(f"boxes: box {number} is outside the picture of {width} x {height} pixels")
    return boxes._replace(boxes=boxes.boxes.clip(0, [width, height, width, height]))
