"""What a detector gives: raw arrays from an engine, and what they mean for one image.

raw = engine(images, sizes)               # RawDetections of a batch
found = Detections.of(raw, 0, name="x.jpg", size=image.size, card=card)
found.shown().counts()                    # {"RBC": 12, "WBC": 1}
found.to_dict()                           # ready for json.dumps; found.to_coco(17): COCO results
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from resnest.detection.preprocess import DetectionPreprocess
from resnest.runtime.masks import paste
from resnest.runtime.results import THRESHOLD
from resnest.runtime.rle import RLE


class RawDetections(NamedTuple):
    """Of N images, D places each, best first; a place without an object has the score 0."""

    boxes: NDArray[np.float32]  # (N, D, 4) x1, y1, x2, y2 in pixels of the network's input
    scores: NDArray[np.float32]  # (N, D)
    labels: NDArray[np.int64]  # (N, D) class numbers from 0
    masks: NDArray[np.float32] | None = None  # (N, D, 28, 28) probabilities within the box


class RawPanoptic(NamedTuple):
    """The objects of N images, and what their pixels are."""

    objects: RawDetections
    semantic: NDArray[np.float32]  # (N, 1 + S, H, W) logits in pixels of the input: any thing, then S kinds of stuff


class Classes(NamedTuple):
    """What labels mean."""

    names: tuple[str, ...]  # (K,)
    ids: tuple[int, ...]  # (K,) what COCO files call them


@dataclass(frozen=True, eq=False)
class Detections:
    """The objects found in one picture, best first."""

    name: str  # the picture's path as it was given
    width: int
    height: int
    classes: Classes
    boxes: NDArray[np.float32]  # (M, 4) x1, y1, x2, y2 in pixels of the picture
    labels: NDArray[np.int64]  # (M,)
    scores: NDArray[np.float32]  # (M,)
    masks: tuple[RLE, ...] | None = None  # of the whole picture

    @classmethod
    def of(
        cls,
        raw: RawDetections,
        place: int,
        *,
        name: str,
        size: tuple[int, int],
        preprocess: DetectionPreprocess,
        classes: Classes,
    ) -> Detections:
        """What an engine found in image `place` of a batch, in pixels of the picture, whose width and height is `size`.

        Boxes go back by what each side was really scaled by, and are clipped; those without area are left out.
        """
        width, height = size
        wide, high = preprocess.scaled_size(width, height)
        boxes = raw.boxes[place].astype(np.float64) * np.array([width / wide, height / high] * 2)
        boxes = np.clip(boxes, 0, [width, height] * 2)
        real = (raw.scores[place] > 0) & (boxes[:, 2:] > boxes[:, :2]).all(1)
        boxes = boxes[real]
        masks = None
        if raw.masks is not None:
            maps = raw.masks[place][real]
            masks = tuple(paste(one, box, width=width, height=height) for one, box in zip(maps, boxes, strict=True))
        return cls(
            name=name,
            width=width,
            height=height,
            classes=classes,
            boxes=boxes.astype(np.float32),
            labels=raw.labels[place][real].astype(np.int64),
            scores=raw.scores[place][real].astype(np.float32),
            masks=masks,
        )

    def __len__(self) -> int:
        return len(self.scores)

    def chosen(self, places: NDArray[Any]) -> Detections:
        """Some of the objects: by number, or one bool each."""
        numbers = np.arange(len(self))[places]
        masks = None if self.masks is None else tuple(self.masks[number] for number in numbers)
        picked = {name: getattr(self, name)[numbers] for name in ("boxes", "labels", "scores")}
        return replace(self, masks=masks, **picked)

    def shown(self, threshold: float = THRESHOLD) -> Detections:
        """What to show to people: the objects with this score or more."""
        return self.chosen(self.scores >= threshold)

    def counts(self) -> dict[str, int]:
        """Objects of each class that is there, the most frequent first."""
        counts = np.bincount(self.labels, minlength=len(self.classes.names))
        return {self.classes.names[k]: int(counts[k]) for k in np.argsort(-counts, kind="stable") if counts[k]}

    def to_dict(self) -> dict[str, Any]:
        """For JSON: boxes are x, y, width, height, masks COCO's compressed runs."""
        labels = [self.classes.names[label] for label in self.labels]
        objects = [{"label": label, **one} for label, one in zip(labels, self._objects(), strict=True)]
        return {"image": self.name, "width": self.width, "height": self.height, "objects": objects}

    def to_coco(self, image_id: int) -> list[dict[str, Any]]:
        """Entries of a COCO results file."""
        return [{"image_id": image_id, **one} for one in self._objects()]

    def _objects(self) -> list[dict[str, Any]]:
        corner, opposite = self.boxes[:, :2], self.boxes[:, 2:]
        boxes = np.concatenate([corner, opposite - corner], 1)  # (M, 4) x, y, width, height
        objects: list[dict[str, Any]] = [
            {"category_id": self.classes.ids[label], "score": _short(score), "bbox": [_short(side) for side in box]}
            for label, score, box in zip(self.labels, self.scores, boxes, strict=True)
        ]
        for one, mask in zip(objects, self.masks or (), strict=False):
            one["segmentation"] = mask
        return objects


def _short(value: np.float32) -> float:
    """As many digits as the 32 bits have."""
    return float(str(value))
