"""The result of a detector: raw arrays from an engine, what they mean for one image, and COCO json.

raw = engine(images, sizes)               # RawDetections of a batch
detections = Detections.of(raw, 0, name="x.jpg", size=image.size, preprocess=preprocess, classes=classes)
detections.shown().counts()               # {"RBC": 12, "WBC": 1}
detections[detections.labels == 1]        # Detections of one class
detections.to_coco(17)                    # COCO results
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.detection.card import Classes, DetectionPreprocess
from resnest.errors import ResnestError
from resnest.files import WRITTEN, check_replaceable, replacing, write_errors
from resnest.runtime.outputs import Placed
from resnest.runtime.palette import FIRST, Colour, colour, shade
from resnest.runtime.results import ALL, LIKELY, THRESHOLD, Asked, Result, Show, installed
from resnest.runtime.rle import RLE, area, crop, decode, encode

# --- Pasting a mask from its box into the picture, as detectron2 does ---
# A pixel of the picture takes the map's value at its centre: (x + 0.5 - x1) / (x2 - x1) * 28 - 0.5, between four values
# bilinearly, zeros around the map; from 0.5 on it belongs to the mask (detectron2, layers/mask_ops.py, which is torch's
# grid_sample with align_corners=False). Both axes are apart from each other, so two small matrices do it. Outside its
# box a map gives less than 0.5 everywhere, so that only the pixels of the box are computed.

MASK_THRESHOLD = 0.5  # of the probability


def paste(probabilities: NDArray[np.float32], box: Sequence[float], *, width: int, height: int) -> RLE:
    """The mask of one object in a picture of this size; empty for a box without area."""
    x1, y1, x2, y2 = map(float, box)
    left, top = max(0, math.floor(x1)), max(0, math.floor(y1))
    right, bottom = min(width, math.ceil(x2)), min(height, math.ceil(y2))
    inner = np.zeros((max(0, bottom - top), max(0, right - left)), bool)
    if inner.size and x2 > x1 and y2 > y1:
        inner = resample(probabilities, (x1, y1, x2, y2), (left, top, right, bottom)) >= MASK_THRESHOLD
    return encode(inner, left=left, top=top, size=(height, width))


def resample(
    probabilities: NDArray[np.float32], box: tuple[float, float, float, float], pixels: tuple[int, int, int, int]
) -> NDArray[np.float32]:
    """The map's values at the centres of these pixels (left, top, right, bottom; the last two not included)."""
    x1, y1, x2, y2 = box
    left, top, right, bottom = pixels
    rows = _weights(y1, y2, top, bottom, probabilities.shape[0])  # (h, 28)
    columns = _weights(x1, x2, left, right, probabilities.shape[1])  # (w, 28)
    return np.asarray(rows @ probabilities @ columns.T, np.float32)  # (h, w)


def _weights(start: float, end: float, first: int, last: int, count: int) -> NDArray[np.float32]:
    """Interpolation weights of `count` values over start..end at each pixel, (pixels, count)."""
    positions = (np.arange(first, last) + 0.5 - start) / (end - start) * count - 0.5
    near = 1 - np.abs(positions[:, None] - np.arange(count))
    weights: NDArray[np.float32] = np.maximum(near, 0).astype(np.float32)
    return weights


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
        index: int,
        *,
        name: str,
        size: tuple[int, int],
        preprocess: DetectionPreprocess,
        classes: Classes,
    ) -> Detections:
        """The detections of image `index` in an engine's batch, in pixels of the picture of this width and height.

        Boxes go back by what each side was really scaled by, and are clipped; those without area are left out.
        """
        width, height = size
        wide, high = preprocess.scaled_size(width, height)
        boxes = raw.boxes[index].astype(np.float64) * np.array([width / wide, height / high] * 2)
        boxes = np.clip(boxes, 0, [width, height] * 2)
        real = (raw.scores[index] > 0) & (boxes[:, 2:] > boxes[:, :2]).all(1)
        boxes = boxes[real]
        masks = None
        if raw.masks is not None:
            maps = raw.masks[index][real]
            masks = tuple(paste(mask, box, width=width, height=height) for mask, box in zip(maps, boxes, strict=True))
        return cls(
            name=name,
            width=width,
            height=height,
            classes=classes,
            boxes=boxes.astype(np.float32),
            labels=raw.labels[index][real].astype(np.int64),
            scores=raw.scores[index][real].astype(np.float32),
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

    def reduced(self, size: tuple[int, int]) -> Detections:
        """The same in a smaller picture of this width and height; masks by the middle of each pixel."""
        scale = np.array([size[0] / self.width, size[1] / self.height] * 2, np.float32)
        masks = None if self.masks is None else tuple(_reduced(mask, size) for mask in self.masks)
        return replace(self, width=size[0], height=size[1], boxes=self.boxes * scale, masks=masks)

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
            {"image": self.name, "label": entry["label"], "score": entry["score"]}
            | dict(zip(("x", "y", "width", "height"), entry["bbox"], strict=True))
            for entry in self.to_dict(show)["objects"]
        ]

    def text(self, show: Show = LIKELY) -> str:
        """x.jpg: 12 RBC, 1 WBC."""
        counts = self.shown(show.threshold).counts().items()
        return f"{self.name}: {', '.join(f'{count} {name}' for name, count in counts) or '-'}"

    def to_dict(self, show: Show = ALL) -> dict[str, Any]:
        """For JSON: boxes are x, y, width, height, masks COCO's compressed RLE."""
        shown = self.shown(show.threshold)
        objects = [{"label": label, **entry} for label, entry in zip(shown.class_names, shown._objects(), strict=True)]
        return {"image": self.name, "width": self.width, "height": self.height, "objects": objects}

    def to_coco(self, image_id: int) -> list[dict[str, Any]]:
        """Entries of a COCO results file."""
        return [{"image_id": image_id, **entry} for entry in self._objects()]

    def to_supervision(self, show: Show = ALL) -> Any:
        """sv.Detections: class_id numbers classes from 0."""
        shown = self.shown(show.threshold)
        masks = None
        if shown.masks is not None:
            masks = np.array([decode(mask) for mask in shown.masks], bool).reshape(-1, self.height, self.width)
        return installed("supervision").Detections(
            xyxy=shown.boxes,
            mask=masks,
            confidence=shown.scores,
            class_id=shown.labels,
            data={"class_name": np.array(shown.class_names, str)},
        )

    def _drawn(self, picture: Image.Image, show: Show) -> Image.Image:
        """Masks of one class have a colour per object, since objects touch."""
        from resnest.runtime.draw import Entry, draw_objects
        from resnest.runtime.fonts import drawn_names

        classes = self.classes._replace(names=drawn_names(tuple(self.classes.names)))
        shown = replace(self.shown(show.threshold), classes=classes)
        single = len(classes.names) == 1
        apart = single and shown.masks is not None
        labels = {name: label for label, name in enumerate(classes.names)}
        legend = [Entry(f"{name}  {n}", None if apart else colour(labels[name])) for name, n in shown.counts().items()]
        texts = [f"{name} {score:.0%}" for name, score in zip(shown.class_names, shown.scores, strict=True)]
        return draw_objects(
            picture,
            shown.boxes,
            texts=[] if single and len(shown) > FEW else texts,
            colours=_object_colours(len(shown)) if apart else [colour(int(label)) for label in shown.labels],
            masks=shown.masks,
            legend=legend,
        )

    def _objects(self) -> list[dict[str, Any]]:
        corner, opposite = self.boxes[:, :2], self.boxes[:, 2:]
        boxes = np.concatenate([corner, opposite - corner], 1)  # (M, 4) x, y, width, height
        objects: list[dict[str, Any]] = [
            {"category_id": self.classes.ids[label], "score": _short(score), "bbox": [_short(side) for side in box]}
            for label, score, box in zip(self.labels, self.scores, boxes, strict=True)
        ]
        for entry, mask in zip(objects, self.masks or (), strict=False):
            entry["segmentation"] = mask
        return objects


def _object_colours(count: int) -> list[Colour]:
    """Colours of touching objects of one class."""
    few = len(FIRST)
    return [shade(colour(number % few), number // few % 2) for number in range(count)]


def _reduced(mask: RLE, size: tuple[int, int]) -> RLE:
    left, top, inner = crop(mask)
    firsts, places = [], []
    for start, length, full, small in zip((left, top), inner.shape[::-1], mask["size"][::-1], size, strict=True):
        middles = ((np.arange(small) + 0.5) * full / small).astype(np.int64) - start
        inside = np.flatnonzero((middles >= 0) & (middles < length))
        firsts.append(int(inside[0]) if len(inside) else 0)
        places.append(middles[inside])
    columns, rows = places
    return encode(inner[rows[:, None], columns], left=firsts[0], top=firsts[1], size=size[::-1])


def _short(value: np.float32) -> float:
    """Rounded to float32's digits."""
    return float(str(value))


# --- COCO json of detections, for COCO's tools and labelling programs ---


class CocoFile:
    """COCO json with the pictures as `images` and detections as `annotations`, each with its `score`: a data set.

    Args:
        results_only: the detections alone, which is COCO's format of results: pycocotools' `loadRes` reads it.

    Pictures are numbered from 1 in their order unless they have numbers; `file_name` is the path as it was given.
    """

    HAS_IDS: ClassVar = True

    def __init__(self, path: str | Path, threshold: float = 0.0, *, results_only: bool = False) -> None:
        self.path, self.threshold, self.results_only = Path(path), threshold, results_only
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self.categories: list[dict[str, Any]] = []
        if not self.path.parent.is_dir():
            raise ResnestError(f"{path} cannot be written: there is no folder {self.path.parent}")
        if self.path.is_dir():
            raise ResnestError(f"{path} is a folder: name a file")
        check_replaceable(self.path)

    @classmethod
    def open(cls, path: Path, card: Any, show: Show, asked: Asked) -> CocoFile:
        if path.resolve() in {picture.resolve() for picture in asked.paths}:
            raise ResnestError(f"{path} is a picture that is looked at: take another file")
        return cls(path, show.threshold, results_only=asked.by_annotations)

    def add(self, result: Detections, picture: Placed | None = None) -> None:
        """Add the objects of a picture that score at least `threshold`."""
        number = picture.number if picture else len(self.images) + 1
        self.images.append({"id": number, "file_name": result.name, "width": result.width, "height": result.height})
        self.categories = [{"id": key, "name": name} for name, key in zip(*result.classes, strict=True)]
        for entry in result.shown(self.threshold).to_coco(number):
            pixels = area(entry["segmentation"]) if "segmentation" in entry else entry["bbox"][2] * entry["bbox"][3]
            self.annotations.append({"id": len(self.annotations) + 1, **entry, "area": pixels, "iscrowd": 0})

    def close(self) -> str:
        """Write the file; returns a summary. Raises ResnestError."""
        content = {
            "info": {"description": WRITTEN},  # at the start
            "images": self.images,
            "categories": self.categories,
            "annotations": self.annotations,
        }
        text = json.dumps(self.annotations if self.results_only else content, ensure_ascii=False)
        with write_errors(self.path), replacing(self.path) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")  # \udcff of a name is json, too
        kind = ", COCO's format of results" if self.results_only else ""
        return f"{len(self.annotations)} objects of {len(self.images)} pictures in {self.path}{kind}"
