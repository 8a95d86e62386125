"""Samples of panoptic segmentation: images whose pixels belong to objects or stuff.

    samples = open_dataset("coco", task="panoptic").train                 # PanopticSamples
    samples.truth(0)                                                      # PanopticMap: ids and segments
    samples.annotations(0)                                                      # Objects, with masks and a semantic map

It is `DetectionSamples` too: `objects` holds the things, with masks made from the maps when they are needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.data.stores import Store, read_from
from resnest.detection.data import DetectionSamples, ImageTable, Objects
from resnest.errors import ResnestError
from resnest.panoptic.result import PanopticClasses, PanopticMap, Segment, described
from resnest.runtime import rle
from resnest.runtime.decode import BadImage, decode_stored
from resnest.runtime.palette import decode_ids
from resnest.segmentation.card import IGNORED

# --- The segments of a panoptic json, for all images, in arrays that worker processes share ---


@dataclass(frozen=True, eq=False)
class SegmentTable(ImageTable[list[dict[str, Any]]]):
    """The segments of a panoptic json, as columns."""

    firsts: NDArray[np.int64]  # (N,)
    counts: NDArray[np.int64]  # (N,)
    ids: NDArray[np.int64]  # (A,)
    labels: NDArray[np.int64]  # (A,) class numbers from 0
    category_ids: NDArray[np.int64]  # (K,) of the classes
    crowd: NDArray[np.bool_]  # (A,)
    areas: NDArray[np.float64]  # (A,) as the json has
    boxes: NDArray[np.float64]  # (A, 4) x, y, width, height, as the json has

    def of_image(self, index: int) -> list[dict[str, Any]]:
        first = int(self.firsts[index])
        return [self._row(row) for row in range(first, first + int(self.counts[index]))]

    def _row(self, row: int) -> dict[str, Any]:
        return {
            "id": int(self.ids[row]),
            "category_id": int(self.category_ids[self.labels[row]]),
            "iscrowd": int(self.crowd[row]),
            "area": float(self.areas[row]),
            "bbox": self.boxes[row].tolist(),
        }

    def subset(self, indices: NDArray[np.int64]) -> SegmentTable:
        return replace(self, firsts=self.firsts[indices], counts=self.counts[indices])

    def named_as(self, index: NDArray[np.int64], category_ids: Sequence[int]) -> SegmentTable:
        """With class k numbered `index[k]`."""
        return replace(self, labels=index[self.labels], category_ids=np.array(category_ids, np.int64))


@dataclass(frozen=True, kw_only=True)
class PanopticSamples(DetectionSamples):
    """`class_names` and `category_ids` are those of all classes, things first, as in `classes`."""

    task = "panoptic"
    has = "segments"

    classes: PanopticClasses
    maps: Store
    map_keys: Sequence[str]  # (N,) names of the PNG files
    segments: SegmentTable  # (N,) lists of COCO's entries: id, category_id, iscrowd, area, bbox

    def example(self, index: int) -> tuple[Image.Image, Any]:
        """Image `index` and its map. Raises BadImage."""
        return self.decode(index), self.truth(index)

    def truth(self, index: int) -> PanopticMap:
        """The ground truth of image `index`.

        Raises:
            BadImage: names the map: it cannot be read, has another size than the json has, an id that the json lacks,
                or none of an id that the json has.
        """
        key = self.map_keys[index]
        try:
            content = read_from(self.maps, key)
            ids = _ids(content, tuple(map(int, self.objects.sizes[index])), key)
            return described(ids, self.segments[index], self.classes, self.keys[index])
        except ResnestError as error:
            reason = error.reason if isinstance(error, BadImage) else str(error)
            raise BadImage(self.keys[index], f"its map {key}: {reason}") from None

    def labels_of(self, truth: PanopticMap) -> NDArray[np.uint8]:
        """The class of every pixel of a map, (H, W), 255 for void."""
        return _painted(truth, [segment.label for segment in truth.segments])

    def semantic(self, truth: PanopticMap) -> NDArray[np.uint8]:
        """The targets of the semantic branch, (H, W): 0 for things and crowds, then stuff classes, 255 for void.

        As detectron2 has it (datasets/prepare_panoptic_fpn.py).
        """
        things = self.classes.things
        return _painted(truth, [max(0, segment.label - things + 1) for segment in truth.segments])

    def annotations(self, index: int) -> Objects:
        """The things of image `index`, masks and boxes from its map, and the semantic map. Raises BadImage."""
        truth = self.truth(index)
        things = [segment for segment in truth.segments if segment.label < self.classes.things]
        height, width = truth.ids.shape
        return Objects(
            image_id=int(self.objects.image_ids[index]),
            width=width,
            height=height,
            boxes=np.array([_corners(segment) for segment in things], np.float32).reshape(-1, 4),
            labels=np.array([segment.label for segment in things], np.int64),
            crowd=np.array([segment.crowd for segment in things], bool),
            areas=np.array([segment.area for segment in things], np.float64),
            segmentations=[_outline(truth.ids, segment) for segment in things],
            ids=np.array([segment.id for segment in things], np.int64),
            semantic=self.semantic(truth),
        )

    def subset(self, indices: NDArray[np.int64]) -> PanopticSamples:
        base = super().subset(indices)
        assert isinstance(base, PanopticSamples)
        map_keys = [self.map_keys[index] for index in indices]
        return replace(base, map_keys=map_keys, segments=self.segments.subset(indices))

    def trainable(self, *, keep_empty: bool = False, masks: bool = False) -> PanopticSamples:
        """The images to train on, including those without things.

        Args:
            keep_empty: those without any segment too.
            masks: things have them always.

        Raises:
            ResnestError: no thing at all.
        """
        if not self.object_counts().any():
            raise ResnestError(f"none of the {len(self)} training images has a thing that is no crowd")
        return self if keep_empty else self.subset(np.flatnonzero(self.segments.counts))

    def check_boxes(self, part: str) -> None:
        """No check: boxes come from the maps."""

    def check_outlines(self, where: str = "") -> None:
        """No check: masks come from the maps."""

    def known_counts(self) -> NDArray[np.int64]:
        """Segments of each class, (K,)."""
        return np.bincount(self.segments.labels[self.segments.rows()], minlength=len(self.class_names))

    def check_validation(self, where: str) -> None:
        if not (~self.segments.crowd[self.segments.rows()]).any():
            raise ResnestError(f"{where} has no segment but crowds on any validation image: nothing to measure by")

    def with_used_classes(self) -> PanopticSamples:
        """Without the classes that no segment has."""
        used = np.unique(self.segments.labels[self.segments.rows()])
        if len(used) == len(self.class_names):
            return self
        index = np.zeros(len(self.class_names), np.int64)
        index[used] = np.arange(len(used))
        names, ids = (tuple(of[label] for label in used) for of in (self.class_names, self.category_ids))
        colours = tuple(self.classes.colours[label] for label in used) if self.classes.colours else ()
        return replace(
            self,
            labels=self.labels[:, used],
            class_names=names,
            category_ids=ids,
            classes=PanopticClasses(names, ids, int((used < self.classes.things).sum()), colours),
            objects=replace(self.objects, labels=index[self.objects.labels]),
            segments=self.segments.named_as(index, ids),
        )

    def describe_classes(self) -> str:
        return f"{super().describe_classes()}, {self.classes.things} of them things"

    def matched(self, val: DetectionSamples, where: str) -> tuple[PanopticSamples, PanopticSamples]:
        """With the training split's classes. Raises ResnestError if the validation split has others."""
        assert isinstance(val, PanopticSamples)
        if val.classes != self.classes:
            val = val.with_used_classes()
        return self, val.named_as(self.classes, f"{where}: the validation split")

    def aligned(self, card: Any, where: str) -> PanopticSamples:
        return self.with_used_classes().named_as(card.classes, where)

    def named_as(self, classes: PanopticClasses, where: str) -> PanopticSamples:
        """The same images with the class numbers of a model, or of another split.

        Raises:
            ResnestError: a class that is not among those, or is a thing here and stuff there.
        """
        if classes == self.classes:
            return self
        index_of = {name: label for label, name in enumerate(classes.names)}
        if strange := [name for name in self.class_names if name not in index_of]:
            more = f" and {len(strange) - 5} more" if len(strange) > 5 else ""
            raise ResnestError(f"{where} has classes that are not known: {', '.join(strange[:5])}{more}")
        index = np.array([index_of[name] for name in self.class_names], np.int64)
        for label, there in enumerate(index.tolist()):
            if (label < self.classes.things) != (there < classes.things):
                here = "a thing" if label < self.classes.things else "stuff"
                raise ResnestError(f"{where}: {self.class_names[label]} is {here} there, unlike in the model or data")
        return replace(
            self.renumbered(index, classes.names),
            classes=classes,
            category_ids=classes.ids,
            segments=self.segments.named_as(index, classes.ids),
        )


def _ids(content: bytes, size: tuple[int, ...], name: str) -> NDArray[np.int32]:
    """(H, W) segment ids. Raises BadImage."""
    image = decode_stored(content, name=name)
    if image.mode not in ("RGB", "RGBA"):
        raise BadImage(name, f"is a {image.mode} image: a map has colours, R + 256 G + 65536 B is the segment's id")
    if image.size != size:
        raise BadImage(name, f"has {image.width} x {image.height} pixels, and its image {size[0]} x {size[1]}")
    return decode_ids(np.asarray(image.convert("RGB")))


def _painted(truth: PanopticMap, values: Sequence[int]) -> NDArray[np.uint8]:
    """(H, W): a value for each segment, void 255."""
    ids = np.array([0, *(segment.id for segment in truth.segments)], np.int32)
    order = np.argsort(ids)
    painted: NDArray[np.uint8] = np.array([IGNORED, *values], np.uint8)[order][np.searchsorted(ids[order], truth.ids)]
    return painted


def _corners(segment: Segment) -> tuple[int, int, int, int]:
    x, y, width, height = segment.box
    return x, y, x + width, y + height


def _outline(ids: NDArray[np.int32], segment: Segment) -> rle.RLE:
    x, y, width, height = segment.box
    mask = ids[y : y + height, x : x + width] == segment.id
    return rle.encode(mask, left=x, top=y, size=(ids.shape[0], ids.shape[1]))
