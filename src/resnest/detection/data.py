"""Samples of detection: images with objects, their boxes, classes and outlines.

    samples = open_dataset("bccd").train            # DetectionSamples
    samples.objects[0].boxes, samples.class_names, samples.category_ids

`labels` has the classes in each image, so that splitting and counting work as for multi-label data.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.data.samples import Samples, class_indices, describe_classes, describe_notes, rarest
from resnest.data.stores import Store
from resnest.detection.federated import Federation, of_one_version
from resnest.detection.segmentations import BAD, Segmentation, Segmentations
from resnest.detection.units import Misread, find_misread
from resnest.errors import ResnestError
from resnest.runtime.bands import read_picture

if TYPE_CHECKING:
    from resnest.detection.recipes import DetectionRecipe

T = TypeVar("T")
SET = ("1", "1.0", "true", "yes", "y", "t")  # marks of objects as tools write them
NOT_SET = ("0", "0.0", "false", "no", "n", "f", "", "none", "null", "unspecified", "unknown", "n/a")
MOST_TOLD = 5  # classes in a note
SMALLEST = 1e-5  # pixels a side: a box of less has no area (detectron2's filter_empty_instances)


class Objects(NamedTuple):
    """The annotations of one image."""

    image_id: int
    width: int
    height: int
    boxes: NDArray[np.float32]  # (M, 4) x1, y1, x2, y2, as annotated: perhaps outside the image
    labels: NDArray[np.int64]  # (M,) from 0
    crowd: NDArray[np.bool_]  # (M,) a crowd, or an ignored object: not used in training
    areas: NDArray[np.float64]  # (M,) as annotated: of the mask where there is one
    segmentations: list[Segmentation]  # (M,) polygons, {"size", "counts"} or None
    ids: NDArray[np.int64]  # (M,) of the annotations
    semantic: NDArray[np.uint8] | None = None  # (height, width): 0 any thing, 1.. kinds of stuff, 255 does not count
    negative: NDArray[np.int64] | None = None  # LVIS: classes that are not there; None: all without an object
    partial: NDArray[np.int64] | None = None  # LVIS: classes of which not every object is annotated; None: no class

    def inside(self) -> NDArray[np.float32]:
        """The boxes, clipped to the image, (M, 4)."""
        return clip(self.boxes, self.width, self.height)

    def trainable_mask(self) -> NDArray[np.bool_]:
        """Objects to train on, (M,): no crowd, and an area within the image."""
        return ~self.crowd & has_area(self.inside())


class ImageTable(Sequence[T]):
    """Annotations of many images, in arrays that worker processes share.

    Image i has `counts[i]` rows from row `firsts[i]` on; a selection (`subset`) shares the rows.
    """

    firsts: NDArray[np.int64]  # (N,)
    counts: NDArray[np.int64]  # (N,)

    @abstractmethod
    def subset(self, indices: NDArray[np.int64]) -> Self:
        """Those of some images, in the order given."""

    @abstractmethod
    def of_image(self, index: int) -> T:
        """The annotations of one image."""

    def __len__(self) -> int:
        return len(self.firsts)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.subset(np.arange(len(self))[index])
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self.of_image(index)

    def __iter__(self) -> Iterator[T]:
        return (self[index] for index in range(len(self)))

    def rows(self) -> NDArray[np.int64]:
        """The rows of these images, one image after the other."""
        before = np.cumsum(self.counts) - self.counts
        rows: NDArray[np.int64] = np.arange(self.counts.sum()) + np.repeat(self.firsts - before, self.counts)
        return rows

    def owners(self) -> NDArray[np.int64]:
        """The image of each of `rows()`."""
        return np.repeat(np.arange(len(self)), self.counts)


@dataclass(frozen=True, eq=False)
class ObjectTable(ImageTable[Objects]):
    """The objects of all images."""

    image_ids: NDArray[np.int64]  # (N,)
    sizes: NDArray[np.int32]  # (N, 2) width, height
    firsts: NDArray[np.int64]  # (N,)
    counts: NDArray[np.int64]  # (N,)
    boxes: NDArray[np.float32]  # (A, 4)
    labels: NDArray[np.int64]  # (A,)
    crowd: NDArray[np.bool_]  # (A,)
    areas: NDArray[np.float64]  # (A,)
    ids: NDArray[np.int64]  # (A,)
    segmentations: Segmentations
    federation: Federation | None = None  # LVIS: what is known of classes without an object

    def of_image(self, index: int) -> Objects:
        rows = slice(int(self.firsts[index]), int(self.firsts[index] + self.counts[index]))
        width, height = map(int, self.sizes[index])
        return Objects(
            image_id=int(self.image_ids[index]),
            width=width,
            height=height,
            boxes=self.boxes[rows],
            labels=self.labels[rows],
            crowd=self.crowd[rows],
            areas=self.areas[rows],
            segmentations=[self.segmentations.get(row, height, width) for row in range(rows.start, rows.stop)],
            ids=self.ids[rows],
            negative=self.federation.negative[index] if self.federation else None,
            partial=self.federation.partial[index] if self.federation else None,
        )

    def subset(self, indices: NDArray[np.int64]) -> ObjectTable:
        return replace(
            self,
            image_ids=self.image_ids[indices],
            sizes=self.sizes[indices],
            firsts=self.firsts[indices],
            counts=self.counts[indices],
            federation=self.federation.subset(indices) if self.federation else None,
        )

    def renumbered(self, index: NDArray[np.int64]) -> ObjectTable:
        """With class k called `index[k]`; -1 is a class without objects."""
        federation = self.federation.renumbered(index) if self.federation else None
        return replace(self, labels=index[self.labels], federation=federation)

    def trainable_mask(self) -> NDArray[np.bool_]:
        """Which of `rows()` are used in training."""
        rows, sizes = self.rows(), self.sizes[self.owners()]
        return ~self.crowd[rows] & has_area(clip(self.boxes[rows], sizes[:, 0], sizes[:, 1]))

    def misread(self) -> Misread | None:
        """What the boxes look like, where they are not corners in pixels."""
        rows = self.rows()
        boxes, sizes = self.boxes[rows].astype(np.float64), self.sizes[self.owners()].astype(np.float64)
        return find_misread(boxes, sizes, self.segmentations.subset(rows))

    def crowds(self) -> int:
        """Crowds and ignored objects."""
        return int(self.crowd[self.rows()].sum())

    def presence(self, num_classes: int) -> NDArray[np.bool_]:
        """(N, K): the classes of each image's objects for training."""
        present = np.zeros((len(self), num_classes), bool)
        chosen = self.trainable_mask()
        present[self.owners()[chosen], self.labels[self.rows()[chosen]]] = True
        return present


@dataclass(frozen=True)
class DetectionSamples(Samples):
    """Images with objects."""

    task = "detection"
    has = "boxes"

    labels: NDArray[np.bool_]  # (N, K) which classes each image shows
    category_ids: tuple[int, ...]  # (K,) of the original annotations
    objects: ObjectTable
    notes: tuple[str, ...] = ()  # what is left out, and why
    frequency: tuple[str, ...] = ()  # (K,) LVIS: r, c or f, "" if unknown; (): not of this data

    @classmethod
    def build(
        cls,
        store: Store,
        keys: Sequence[str],
        class_names: tuple[str, ...],
        category_ids: tuple[int, ...],
        objects: ObjectTable,
        notes: tuple[str, ...] = (),
        frequency: tuple[str, ...] = (),
    ) -> DetectionSamples:
        """The samples, with `labels` from the objects."""
        labels = objects.presence(len(class_names))
        return cls(store, keys, class_names, labels, category_ids, objects, notes, frequency)

    def decode(self, index: int) -> Image.Image:
        """Image `index`, oriented as its annotations. Raises BadImage."""
        width, height = map(int, self.objects.sizes[index])
        content = self.read(index)
        return read_picture(content, self.bands, name=self.keys[index], annotated=(width, height), exif=self.exif)

    def example(self, index: int) -> tuple[Image.Image, Objects]:
        return self.decode(index), self.objects[index]

    def sizes(self) -> NDArray[np.int64]:
        return self.objects.sizes.astype(np.int64)

    def fingerprinted(self) -> tuple[NDArray[Any], ...]:
        table = self.objects
        rows = table.rows()
        known = self.objects.federation.fingerprinted() if self.objects.federation else ()
        return table.sizes, table.counts, table.boxes[rows], table.labels[rows], table.crowd[rows], *known

    def presence(self) -> NDArray[np.bool_]:
        return self.labels

    def groups(self) -> NDArray[np.int64]:
        """The rarest class of each image's objects; without any, K."""
        return rarest(self.labels)

    def counts(self) -> NDArray[np.int64]:
        counts: NDArray[np.int64] = self.labels.sum(0, dtype=np.int64)
        return counts

    def names_of(self, index: int) -> tuple[str, ...]:
        return tuple(self.class_names[label] for label in np.flatnonzero(self.labels[index]))

    @property
    def left_out(self) -> tuple[str, ...]:
        return self.notes

    def describe(self, val: DetectionSamples | None = None) -> str:
        parts = (self,) if val is None else (self, val)
        objects = " and ".join(f"{part.object_counts().sum():,}" for part in parts)
        return f"{self.describe_classes()}, {objects} objects{describe_notes(self, val, *_set_aside(parts))}"

    def describe_classes(self) -> str:
        return describe_classes(len(self.class_names))

    def check(self, where: str) -> None:
        if not self.labels.any():
            crowds = " (crowds do not count)" if self.objects.crowd.any() else ""
            raise ResnestError(f"{where}: no training image has an object with an area{crowds}")

    def check_validation(self, where: str) -> None:
        if not self.labels.any():
            crowds = " (crowds do not count)" if self.objects.crowd.any() else ""
            raise ResnestError(f"{where}: no validation image has an object{crowds}: nothing to measure by")

    def annotations(self, index: int) -> Objects:
        """The annotations of image `index`, for training."""
        objects: Objects = self.objects[index]
        return objects

    def subset(self, indices: NDArray[np.int64]) -> DetectionSamples:
        chosen = [self.keys[index] for index in indices]
        return replace(self, keys=chosen, labels=self.labels[indices], objects=self.objects.subset(indices))

    def with_objects(self) -> DetectionSamples:
        """Without the images that have no object for training."""
        empty = ~self.labels.any(1)
        if not empty.any():
            return self
        crowds = self.subset(np.flatnonzero(empty)).objects.crowds()
        within = f" with {crowds:,} crowds or difficult objects" if crowds else ""
        note = f"{empty.sum():,} images{within} and no other object are not trained on"
        left = self.subset(np.flatnonzero(~empty))
        return replace(left, notes=(*left.notes, note if within else note.replace(" and no other", " without an")))

    def for_training(self, recipe: DetectionRecipe) -> DetectionSamples:
        return self.trainable(keep_empty=recipe.detection.keep_empty, masks=recipe.detector.masks)

    def for_validation(self, recipe: DetectionRecipe) -> DetectionSamples:
        self.check_boxes("validation")
        if recipe.detector.masks:
            self.check_outlines("validation images: ")
        return self

    def trainable(self, *, keep_empty: bool = False, masks: bool = False) -> DetectionSamples:
        """The images to train on.

        Args:
            keep_empty: those without objects too.
            masks: of every object an outline is needed.

        Raises:
            ResnestError: no object at all; one without an outline; boxes that are not in pixels.
        """
        if not self.labels.any():
            raise ResnestError(
                f"none of the {len(self)} training images has an object that is no crowd and has an area"
            )
        self.check_boxes("training")
        if masks:
            self.check_outlines()
        return self if keep_empty else self.with_objects()

    def check_boxes(self, part: str) -> None:
        """Raises ResnestError if the boxes are certainly not corners in pixels."""
        if (misread := self.objects.misread()) and misread.certain:
            raise ResnestError(f"{part} images: {misread.describe(int(self.objects.counts.sum()))}")

    def has_outlines(self) -> bool:
        """Whether any object has one."""
        return bool(self.objects.segmentations.outlined[self.objects.rows()].any())

    def check_outlines(self, where: str = "") -> None:
        """Raises ResnestError if an object that counts has a box and no outline; the message starts with `where`."""
        rows, usable = self.objects.rows(), self.objects.trainable_mask()
        missing = usable & ~self.objects.segmentations.outlined[rows]
        if missing.any():
            index = int(np.argmax(missing))
            defect = self.objects.segmentations.defect(int(rows[index]))
            raise ResnestError(
                f"{where}{missing.sum()} of {usable.sum()} objects have no segmentation, as annotation"
                f" {self.objects.ids[rows[index]]} of {self.keys[self.objects.owners()[index]]}"
                f"{f' ({defect})' if defect else ''}: choose a detector without masks"
            )

    def object_counts(self) -> NDArray[np.int64]:
        """Objects of each class, (K,), for training."""
        chosen = self.objects.rows()[self.objects.trainable_mask()]
        return np.bincount(self.objects.labels[chosen], minlength=len(self.class_names))

    def matched(self, val: DetectionSamples, where: str) -> tuple[DetectionSamples, DetectionSamples]:
        """With the training split's classes and ids in its order, followed by further ones."""
        names = list(dict.fromkeys((*self.class_names, *val.class_names)))
        index_of = {name: i for i, name in enumerate(names)}
        ids = list(self.category_ids)
        theirs, taken, last = dict(zip(val.class_names, val.category_ids, strict=True)), set(ids), max(ids)
        for name in names[len(ids) :]:
            wanted = theirs[name] if theirs[name] not in taken else last + 1
            ids.append(wanted)
            taken.add(wanted)
            last = max(last, wanted)

        def renumber(part: DetectionSamples) -> DetectionSamples:
            index = np.array([index_of[name] for name in part.class_names], np.int64)
            return replace(part.renumbered(index, tuple(names)), category_ids=tuple(ids))

        return renumber(self), renumber(val)

    def aligned(self, card: Any, where: str) -> DetectionSamples:
        if (misread := self.objects.misread()) and misread.certain:
            raise ResnestError(f"{where}: {misread.describe(int(self.objects.counts.sum()))}")
        if card.detector.masks and self.has_outlines():
            self.check_outlines(f"{where}: ")
        used = self.with_used_classes()
        index, notes = used._by_ids(card)
        if index is None:
            with of_one_version(self.frequency):
                index = class_indices(used.class_names, card, where)
        aligned = replace(used.renumbered(index, card.class_names), category_ids=card.category_ids)
        return replace(aligned, notes=(*self.notes, *notes))

    def _by_ids(self, card: Any) -> tuple[NDArray[np.int64] | None, tuple[str, ...]]:
        """The places of classes that are called by their ids, where the model has names for these ids; and a note."""
        called = tuple(map(str, self.category_ids)) == self.class_names
        places = {key: place for place, key in enumerate(card.category_ids)}
        if not self.class_names or not called or {*self.class_names} & {*card.class_names}:
            return None, ()
        if not places.keys() >= {*self.category_ids}:
            return None, ()
        index = np.array([places[key] for key in self.category_ids], np.int64)
        told = [f"{name} is {card.class_names[place]}" for name, place in zip(self.class_names, index, strict=True)]
        shown = ", ".join(told[:MOST_TOLD]) + (", ..." if len(told) > MOST_TOLD else "")
        return index, (f"classes by the category ids that the model was trained with: {shown}",)

    def with_used_classes(self) -> Self:
        """Without the classes that no object has, such as the one above all others in Roboflow's exports."""
        labels = self.objects.labels[self.objects.rows()]
        kept = np.unique(labels)
        index = np.full(len(self.class_names), -1, np.int64)
        index[kept] = np.arange(len(kept))
        return replace(
            self,
            labels=self.labels[:, kept],
            class_names=tuple(self.class_names[label] for label in kept),
            category_ids=tuple(self.category_ids[label] for label in kept),
            objects=self.objects.renumbered(index),
            frequency=tuple(self.frequency[label] for label in kept) if self.frequency else (),
        )

    def renumbered(self, index: NDArray[np.int64], class_names: tuple[str, ...]) -> Self:
        """The same images with class k called `class_names[index[k]]`; an unknown category gets the id -1."""
        labels = np.zeros((len(self), len(class_names)), bool)
        labels[:, index] = self.labels
        ids = np.full(len(class_names), -1, np.int64)
        ids[index] = self.category_ids
        groups = dict(zip(index.tolist(), self.frequency, strict=False))
        return replace(
            self,
            labels=labels,
            class_names=class_names,
            category_ids=tuple(ids.tolist()),
            objects=self.objects.renumbered(index),
            frequency=tuple(groups.get(k, "") for k in range(len(class_names))) if groups else (),
        )


def _set_aside(parts: Sequence[DetectionSamples]) -> list[str]:
    """What of the annotations does not count in each part."""
    tables = [part.objects for part in parts]
    flat = [int((~table.trainable_mask() & ~table.crowd[table.rows()]).sum()) for table in tables]
    bad = [int((table.segmentations.kinds[table.rows()] == BAD).sum()) for table in tables]
    misread = [found.looks for table in tables if (found := table.misread())]
    kinds = (
        ([table.crowds() for table in tables], "crowds or difficult objects are ignored"),
        (flat, "boxes without an area in their image are not trained on"),
        (bad, "outlines cannot be used"),
    )
    lines = [f"{' and '.join(f'{count:,}' for count in counts)} {what}" for counts, what in kinds if any(counts)]
    return [*lines, *(f"boxes {looks}" for looks in misread[:1])]


def is_marked(value: Any) -> bool:
    """Whether a mark such as `iscrowd` or `difficult` is set. Raises ValueError for a value that says neither."""
    word = str(value).strip().lower() if not isinstance(value, float) or value % 1 else str(int(value))
    if word in SET:
        return True
    if word in NOT_SET:
        return False
    raise ValueError(f"{str(value)[:40]!r} is no mark of a crowd or a difficult object: expected 0 or 1")


def clip(boxes: NDArray[np.float32], width: Any, height: Any) -> NDArray[np.float32]:
    """Boxes (M, 4) clipped to images of this size, one for all or one each."""
    inside = np.empty_like(boxes)
    inside[:, 0::2] = np.clip(boxes[:, 0::2], 0, np.asarray(width, np.float32).reshape(-1, 1))
    inside[:, 1::2] = np.clip(boxes[:, 1::2], 0, np.asarray(height, np.float32).reshape(-1, 1))
    return inside


def has_area(boxes: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(M,)."""
    wide, high = boxes[:, 2] - boxes[:, 0] > SMALLEST, boxes[:, 3] - boxes[:, 1] > SMALLEST
    return np.logical_and(wide, high)
