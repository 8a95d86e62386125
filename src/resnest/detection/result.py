"""Detection results: raw arrays from an engine, and the objects of one image.

raw = engine(images, sizes)               # RawDetections of a batch
found = Detections.of(raw, 0, name="x.jpg", size=image.size, preprocess=preprocess, classes=classes)
found.shown().counts()                    # {"RBC": 12, "WBC": 1}
found[found.labels == 1]                  # Detections of one class
found.to_coco(17)                         # COCO results
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.detection.paste import paste
from resnest.detection.preprocess import DetectionPreprocess
from resnest.runtime.palette import FIRST, Colour, colour, shade
from resnest.runtime.results import ALL, LIKELY, THRESHOLD, Result, Show, installed
from resnest.runtime.rle import RLE, decode

FEW = 20  # objects that have texts although there is one class


class RawDetections(NamedTuple):
    """Detections of N images, D each, best first; padding has the score 0."""

    boxes: NDArray[np.float32]  # (N, D, 4) x1, y1, x2, y2 in pixels of the network's input
    scores: NDArray[np.float32]  # (N, D)
    labels: NDArray[np.int64]  # (N, D) class numbers from 0
    masks: NDArray[np.float32] | None = None  # (N, D, 28, 28) probabilities within the box


class RawPanoptic(NamedTuple):
    """The detections of N images, and the logits of the semantic branch."""

    objects: RawDetections
    semantic: NDArray[np.float32]  # (N, 1 + S, H, W) logits in pixels of the input: any thing, then S kinds of stuff


class Classes(NamedTuple):
    """Names, ids and colours of the classes."""

    names: tuple[str, ...]  # (K,)
    ids: tuple[int, ...]  # (K,) what COCO files call them


@dataclass(frozen=True, eq=False)
class Detections(Result):
    """The detected objects of one picture, best first."""

    COLUMNS: ClassVar = {
        "image": "", "label": "", "score": ".6f", "x": ".2f", "y": ".2f", "width": ".2f", "height": ".2f",
    }  # fmt: skip
    OPTIONS: ClassVar = frozenset({"threshold"})

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
        """The detections of image `place` in an engine's batch, in pixels of the picture of this width and height.

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

    def __getitem__(self, which: int | slice | NDArray[Any]) -> Detections:
        """A selection of the objects: an index, indices, a slice, or a boolean mask."""
        numbers = np.atleast_1d(np.arange(len(self))[which])
        masks = None if self.masks is None else tuple(self.masks[number] for number in numbers)
        picked = {name: getattr(self, name)[numbers] for name in ("boxes", "labels", "scores")}
        return replace(self, masks=masks, **picked)

    def __iter__(self) -> Iterator[Detections]:
        """The objects one by one."""
        return (self[number] for number in range(len(self)))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the picture."""
        return self.width, self.height

    @property
    def class_names(self) -> list[str]:
        """Of each object, (M)."""
        return [self.classes.names[label] for label in self.labels]

    def shown(self, threshold: float = THRESHOLD) -> Detections:
        """The objects with at least this score; by default those that `text` and `draw` show."""
        return self[self.scores >= threshold]

    def counts(self) -> dict[str, int]:
        """Number of objects per class, the most frequent first."""
        counts = np.bincount(self.labels, minlength=len(self.classes.names))
        return {self.classes.names[k]: int(counts[k]) for k in np.argsort(-counts, kind="stable") if counts[k]}

    def rows(self, show: Show = ALL) -> list[dict[str, Any]]:
        """One row per object."""
        return [
            {"image": self.name, "label": one["label"], "score": one["score"]}
            | dict(zip(("x", "y", "width", "height"), one["bbox"], strict=True))
            for one in self.to_dict(show)["objects"]
        ]

    def text(self, show: Show = LIKELY) -> str:
        """x.jpg: 12 RBC, 1 WBC."""
        counts = self.shown(show.threshold).counts().items()
        return f"{self.name}: {', '.join(f'{count} {name}' for name, count in counts) or '-'}"

    def to_dict(self, show: Show = ALL) -> dict[str, Any]:
        """For JSON: boxes are x, y, width, height, masks COCO's compressed RLE."""
        found = self.shown(show.threshold)
        objects = [{"label": label, **one} for label, one in zip(found.class_names, found._objects(), strict=True)]
        return {"image": self.name, "width": self.width, "height": self.height, "objects": objects}

    def to_coco(self, image_id: int) -> list[dict[str, Any]]:
        """Entries of a COCO results file."""
        return [{"image_id": image_id, **one} for one in self._objects()]

    def to_supervision(self, show: Show = ALL) -> Any:
        """sv.Detections: class_id numbers classes from 0."""
        found = self.shown(show.threshold)
        masks = None
        if found.masks is not None:
            masks = np.array([decode(mask) for mask in found.masks], bool).reshape(-1, self.height, self.width)
        return installed("supervision").Detections(
            xyxy=found.boxes,
            mask=masks,
            confidence=found.scores,
            class_id=found.labels,
            data={"class_name": np.array(found.class_names, str)},
        )

    def _drawn(self, picture: Image.Image, show: Show) -> Image.Image:
        """Masks of one class have a colour per object, since objects touch."""
        from resnest.runtime.draw import Entry, draw_objects

        found = self.shown(show.threshold)
        single = len(self.classes.names) == 1
        apart = single and found.masks is not None
        places = {name: place for place, name in enumerate(self.classes.names)}
        legend = [Entry(f"{name}  {n}", None if apart else colour(places[name])) for name, n in found.counts().items()]
        texts = [f"{name} {score:.0%}" for name, score in zip(found.class_names, found.scores, strict=True)]
        return draw_objects(
            picture,
            found.boxes,
            texts=[] if single and len(found) > FEW else texts,
            colours=_object_colours(len(found)) if apart else [colour(int(label)) for label in found.labels],
            masks=found.masks,
            legend=legend,
        )

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


def _object_colours(count: int) -> list[Colour]:
    """Colours of touching objects of one class."""
    few = len(FIRST)
    return [shade(colour(number % few), number // few % 2) for number in range(count)]


def _short(value: np.float32) -> float:
    """Rounded to float32's digits."""
    return float(str(value))
