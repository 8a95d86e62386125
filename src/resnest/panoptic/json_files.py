"""COCO's panoptic json and its maps (cocodataset.org, format-data, section 4), also as masks of all classes.

    samples = read_panoptic(Path("coco/annotations/panoptic_val2017.json"))       # PanopticSamples

Classes are the things in the order of the file, then the stuff in its order. Images without annotation are left out.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnest.data.folders import locate_images, locate_maps
from resnest.data.stores import FolderStore
from resnest.detection.coco import MOST_CATEGORIES, CocoLists, Numbers, entry_id, indices_of, missing, short
from resnest.detection.coco_values import BadValue, whole
from resnest.detection.data import ObjectTable, is_marked
from resnest.detection.json_items import read_items
from resnest.detection.segmentations import Segmentations
from resnest.errors import ResnestError
from resnest.figures import counted
from resnest.panoptic.data import PanopticSamples, SegmentTable
from resnest.panoptic.result import VOID, PanopticClasses
from resnest.runtime.palette import Colour
from resnest.segmentation.card import IGNORED
from resnest.segmentation.data import PixelSamples
from resnest.segmentation.mask_values import MaskMeaning
from resnest.segmentation.result import PixelClasses


def read_panoptic(path: Path, *, only_stuff: bool = False) -> PanopticSamples:
    """Read a panoptic json, without its maps; one without things only if `only_stuff`, as masks need none.

    Raises:
        ResnestError: with file and image, for anything inconsistent.
    """
    reader = _Reader(path, only_stuff=only_stuff)
    read_items(path, {"images": reader.image, "annotations": reader.annotation, "categories": reader.category})
    return reader.done()


class _Reader(CocoLists):
    """Collects images, categories and segments."""

    def __init__(self, path: Path, *, only_stuff: bool) -> None:
        super().__init__(path)
        self.only_stuff = only_stuff
        self.things: list[int] = []
        self.stuff: list[int] = []
        self.colours: dict[int, Colour] = {}
        self.owners, self.counts = array("q"), array("q")
        self.maps: list[str] = []
        self.ids, self.kinds, self.crowd = array("q"), array("q"), bytearray()
        self.areas, self.boxes = array("d"), array("d")

    def category(self, item: Any) -> None:
        super().category(item)
        number = self.category_kind.number(item["id"], "categories")
        if item.get("isthing") not in (0, 1):
            raise ResnestError(
                f"{self.path}: category {entry_id(item)}: isthing is {short(item.get('isthing'))}: 1 is for things,"
                " 0 for stuff"
            )
        (self.things if item["isthing"] else self.stuff).append(number)
        colour = item.get("color")
        if isinstance(colour, list) and len(colour) == 3 and all(isinstance(part, int) for part in colour):
            self.colours[number] = (colour[0], colour[1], colour[2])

    def annotation(self, item: Any) -> None:
        try:
            self.owners.append(self.image_kind.number(item["image_id"], "annotations"))
            self.maps.append(str(item["file_name"]))
            segments = item["segments_info"]
            self.counts.append(len(segments))
            for segment in segments:
                self._segment(segment)
            numbers = self.ids[len(self.ids) - len(segments) :]
        except BadValue as error:
            raise ResnestError(f"{self.path}: the annotation of image {_owner(item)}: {error}") from None
        except ValueError as error:
            raise ResnestError(f"{self.path}: the annotation of image {_owner(item)}: iscrowd: {error}") from None
        except (KeyError, TypeError, OverflowError, AttributeError) as error:
            raise ResnestError(
                f"{self.path}: the annotation of image {_owner(item)}: {missing(error)}; needed are image_id, file_name"
                " and segments_info, each with integers id and category_id, area, and bbox of four numbers"
            ) from None
        if VOID in numbers or len(set(numbers)) < len(numbers):
            wrong = f"a segment has the id {VOID}, which is void" if VOID in numbers else "two segments have one id"
            raise ResnestError(f"{self.path}: the annotation of image {_owner(item)}: {wrong}")

    def _segment(self, segment: Any) -> None:
        self.ids.append(whole(segment["id"], "the segment id"))
        self.kinds.append(self.category_kind.number(segment["category_id"], "annotations"))
        box = segment["bbox"]
        if not isinstance(box, list) or len(box) != 4:
            raise TypeError(f"bbox {short(box)}")
        self.boxes.extend(box)
        self.areas.append(segment["area"])
        self.crowd.append(is_marked(segment.get("iscrowd")))

    def done(self) -> PanopticSamples:
        """Assemble the samples."""
        image_ids, sizes = self.images()
        classes = self._classes()
        images = self._images(image_ids)
        category_ids = np.array(classes.ids, np.int64)
        labels, strange = indices_of(np.array(self.kinds, np.int64), category_ids)
        counts = np.array(self.counts, np.int64)
        if len(strange):
            owner = self.owners[int(np.searchsorted(np.cumsum(counts), strange[0], side="right"))]
            raise ResnestError(
                f"{self.path}: the annotation of image {owner}: segment {self.ids[strange[0]]} has the category_id"
                f" {self.kinds[strange[0]]}, which is not among the categories"
            )
        table = SegmentTable(
            firsts=np.cumsum(counts) - counts,
            counts=counts,
            ids=np.array(self.ids, np.int64),
            labels=labels,
            category_ids=category_ids,
            crowd=np.frombuffer(bytes(self.crowd), np.uint8).astype(bool),
            areas=np.array(self.areas, np.float64),
            boxes=np.array(self.boxes, np.float64).reshape(-1, 4),
        )
        names = [self.names[index] for index in images]
        presence = np.zeros((len(images), len(classes.names)), bool)
        presence[table.owners(), labels] = True
        left_out = len(image_ids) - len(images)
        return PanopticSamples(
            store=FolderStore(locate_images(self.path, names)),
            keys=names,
            labels=presence,
            class_names=classes.names,
            category_ids=classes.ids,
            objects=_things(table, classes.things, image_ids[images], sizes[images]),
            notes=(f"left out: {counted(left_out, 'image', 'images')} without annotation",) if left_out else (),
            classes=classes,
            maps=FolderStore(locate_maps(self.path, self.maps)),
            map_keys=self.maps,
            segments=table,
        )

    def _classes(self) -> PanopticClasses:
        ids = [*self.things, *self.stuff]
        names = tuple(self.categories[number] for number in ids)
        if not (self.things or self.only_stuff):
            raise ResnestError(
                f"{self.path} lists no category that is a thing: write isthing 1 there for those with single objects"
                " (Datumaro writes 0 for all)"
            )
        if len(names) > MOST_CATEGORIES:
            raise ResnestError(f"{self.path} lists {len(names):,} categories: {MOST_CATEGORIES:,} at most")
        if len(set(names)) < len(names):
            twice = next(name for i, name in enumerate(names) if name in names[:i])
            raise ResnestError(f"{self.path}: two categories are called {twice!r}")
        coloured = len(self.colours) == len(ids)
        colours = tuple(self.colours[number] for number in ids) if coloured else ()
        return PanopticClasses(names, tuple(ids), len(self.things), colours)

    def _images(self, image_ids: Numbers) -> Numbers:
        """The image of each annotation."""
        owners = np.array(self.owners, np.int64)
        if not len(owners):
            raise ResnestError(f"{self.path} has no annotation")
        indices, strange = indices_of(owners, image_ids)
        if len(strange):
            raise ResnestError(f"{self.path}: image_id {owners[strange[0]]} of an annotation is not among the images")
        values, counts = np.unique(owners, return_counts=True)
        if counts.max() > 1:
            raise ResnestError(f"{self.path}: image {values[counts.argmax()]} has {counts.max()} annotations")
        return indices


def _things(table: SegmentTable, things: int, image_ids: Numbers, sizes: NDArray[np.int32]) -> ObjectTable:
    """The segments that are objects."""
    rows = np.flatnonzero(table.labels < things)
    counts = np.bincount(table.owners()[rows], minlength=len(table))
    boxes = table.boxes[rows].copy()
    boxes[:, 2:] += boxes[:, :2]
    return ObjectTable(
        image_ids=image_ids,
        sizes=sizes,
        firsts=np.cumsum(counts) - counts,
        counts=counts,
        boxes=boxes.astype(np.float32),
        labels=table.labels[rows],
        crowd=table.crowd[rows],
        areas=table.areas[rows],
        ids=table.ids[rows],
        segmentations=Segmentations.build(None for _ in rows),
    )


def _owner(item: Any) -> str:
    return short(item.get("image_id")) if isinstance(item, dict) else short(item)


# --- Panoptic maps as semantic masks of all classes, things and stuff, to train segmenters on ---


@dataclass(frozen=True, kw_only=True)
class PanopticPixels(PixelSamples):
    """Samples whose masks are panoptic maps, with classes by the category of a segment."""

    panoptic: PanopticSamples

    def mask(self, index: int) -> NDArray[np.uint8]:
        """The class of every pixel, (H, W), 255 for void. Raises BadImage: names the map."""
        truth = self.panoptic.truth(index)
        classes = [self.meaning.lookup.get(key, IGNORED) for key in truth.classes.ids]
        table = np.full(IGNORED + 1, IGNORED, np.uint8)
        table[: len(classes)] = classes
        mask: NDArray[np.uint8] = table[self.panoptic.labels_of(truth)]
        return mask

    def size(self, index: int) -> tuple[int, int]:
        """Width and height in the json."""
        width, height = map(int, self.panoptic.objects.sizes[index])
        return width, height

    def subset(self, indices: NDArray[np.int64]) -> PanopticPixels:
        base = super().subset(indices)
        assert isinstance(base, PanopticPixels)
        return replace(base, panoptic=self.panoptic.subset(indices))


def all_classes(samples: PanopticSamples) -> PanopticPixels:
    """The same images with things and stuff as classes. Raises ResnestError for more classes than a mask can hold."""
    count = len(samples.class_names)
    if count > IGNORED:
        raise ResnestError(f"a segmenter has {IGNORED} classes at most, and this data {count}")
    classes = PixelClasses(samples.classes.names, samples.classes.ids, samples.classes.colours)
    return PanopticPixels(
        store=samples.store,
        keys=samples.keys,
        class_names=samples.class_names,
        classes=classes,
        masks=samples.maps,
        mask_keys=samples.map_keys,
        meaning=MaskMeaning({key: label for label, key in enumerate(samples.classes.ids)}),
        notes=samples.notes,
        panoptic=samples,
    )
