"""COCO json: boxes, polygons, run lengths and crowds (cocodataset.org, format-data).

    samples = read_coco(Path("bccd/annotations/instances_train.json"))

Classes are numbered by their category id, in ascending order, as pycocotools and detectron2 do. Images with
`"suspect_incomplete": true`, whose annotations are known to lack objects, are left out. `CocoLists` reads what all
of COCO's json files have, images and categories.
"""

from __future__ import annotations

import json
import math
from array import array
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnest.data.samples import clean_name
from resnest.data.stores import FolderStore
from resnest.detection.coco_values import BadValue, Ids, box_around, whole
from resnest.detection.data import DetectionSamples, ObjectTable, is_marked
from resnest.detection.federated import NEGATIVE, FederatedBuilder
from resnest.detection.formats.pictures import Pictures, find_pictures, read_sizes
from resnest.detection.json_items import read_items
from resnest.detection.repeats import without_repeats
from resnest.detection.segmentations import SegmentationBuilder
from resnest.errors import ResnestError
from resnest.figures import counted

INCOMPLETE = "suspect_incomplete"
MARKS = ("iscrowd", "ignore", "difficult")  # ignore: CrowdHuman, MMDetection (CocoDataset); difficult: converted VOC
MOST_CATEGORIES = 65536  # the largest set, V3Det (arXiv 2304.03752), has 13,204; a mask head has an output for each

ROUNDED, DIFFERENT = 1.1, 1.5  # factors by which an area may exceed its box, and its mask may exceed it
HARDLY, ENOUGH = 0.1, 10  # share of a box, and the objects to judge by

Numbers = NDArray[np.int64]


def read_coco(path: Path) -> DetectionSamples:
    """Read COCO json. Raises ResnestError, with the file and the annotation, for anything inconsistent."""
    reader = CocoReader(path)
    read_items(path, {"images": reader.image, "annotations": reader.annotation, "categories": reader.category})
    return reader.done()


class CocoLists:
    """Collects images and categories in the file's order."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names: list[str] = []
        self.image_ids = array("q")
        self.sizes = array("i")
        self.incomplete = bytearray()
        self.categories: dict[int, str] = {}
        self.image_kind, self.category_kind = Ids("image"), Ids("category")

    def image(self, item: Any) -> None:
        """Add an image. Raises ResnestError if it is incomplete."""
        try:
            self.names.append(file_name(item))
            self.image_ids.append(self.image_kind.number(item["id"], "images"))
            self.sizes.extend(self._size(item))
        except BadValue as error:
            raise ResnestError(f"{self.path}: image {entry_id(item)}: {error}") from None
        except (KeyError, TypeError, OverflowError) as error:
            raise ResnestError(
                f"{self.path}: image {entry_id(item)}: {missing(error)}; needed are integers id, width and height,"
                " and file_name"
            ) from None
        self.incomplete.append(bool(item.get(INCOMPLETE)))

    def _size(self, item: Any) -> tuple[int, int]:
        """Width and height of an image."""
        width, height = whole(item["width"], "width"), whole(item["height"], "height")
        if min(width, height) < 1:
            raise BadValue("width and height must be 1 pixel or more")
        return width, height

    def category(self, item: Any) -> None:
        """Add a category. Raises ResnestError if it is incomplete, or its id is a duplicate."""
        try:
            number, name = self.category_kind.number(item["id"], "categories"), clean_name(item["name"])
        except ValueError as error:
            raise ResnestError(f"{self.path}: category {entry_id(item)}: {error}") from None
        except (KeyError, TypeError, OverflowError) as error:
            raise ResnestError(
                f"{self.path}: category {entry_id(item)}: {missing(error)}; needed are an integer id, and name"
            ) from None
        if number in self.categories:
            raise ResnestError(
                f"{self.path}: two categories have the id {number}: {self.categories[number]!r} and {name!r}"
            )
        self.categories[number] = name

    def images(self) -> tuple[Numbers, NDArray[np.int32]]:
        """Image ids, (N,), and width and height, (N, 2). Raises ResnestError: no image, or a duplicate id."""
        ids = np.array(self.image_ids, np.int64)
        if not len(ids):
            raise ResnestError(f"{self.path} lists no image")
        order = np.argsort(ids, kind="stable")
        if len(twice := np.flatnonzero(np.diff(ids[order]) == 0)):
            first, second = (self.names[order[row]] for row in (twice[0], twice[0] + 1))
            raise ResnestError(f"{self.path}: two images have the id {ids[order[twice[0]]]}: {first} and {second}")
        return ids, np.array(self.sizes, np.int32).reshape(-1, 2)


class CocoReader(CocoLists):
    """Collects images, categories and annotations, and checks them; readers of other formats give theirs to it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.ids, self.owners, self.kinds = array("q"), array("q"), array("q")
        self.boxes, self.areas, self.crowd = array("d"), array("d"), bytearray()
        self.without_area = self.without_box = 0
        self.own_kind = Ids("annotation")
        self.outlines = SegmentationBuilder()
        self.federated = FederatedBuilder(path)

    def image(self, item: Any) -> None:
        super().image(item)
        self.federated.image(item)

    def category(self, item: Any) -> None:
        super().category(item)
        self.federated.category(next(reversed(self.categories)), item)

    def annotation(self, item: Any) -> None:
        try:
            self.ids.append(self.own_kind.number(item.get("id", len(self.ids) + 1), "annotations"))
            self.owners.append(self.image_kind.number(item["image_id"], "annotations"))
            self.kinds.append(self.category_kind.number(item["category_id"], "annotations"))
            self.boxes.extend(self._box(item))
            area = item.get("area")
            self.areas.append(math.nan if area is None else area)
            self.without_area += area is None
            self.outlines.add(item.get("segmentation"))
        except BadValue as error:
            raise self._bad(item, str(error)) from None
        except (KeyError, TypeError, OverflowError, AttributeError) as error:
            raise self._bad(
                item, f"{missing(error)}; needed are integers image_id and category_id, and bbox of four numbers"
            ) from None
        self.crowd.append(self._is_ignored(item))

    def _is_ignored(self, item: dict[str, Any]) -> bool:
        """Whether any of the marks says so. Raises ResnestError for a value that is no mark."""
        ignored = False
        for mark in (mark for mark in MARKS if mark in item):
            try:
                ignored |= is_marked(item[mark])
            except ValueError as error:
                raise self._bad(item, f"{mark}: {error}") from None
        return ignored

    def _box(self, item: Any) -> list[float]:
        """x, y, width, height; without a box that around the outline."""
        box = item.get("bbox")
        if isinstance(box, list) and len(box) == 4:
            return box
        if box not in (None, []):
            raise BadValue(f"bbox {short(box)} is not four numbers x, y, width, height")
        try:
            around = box_around(item.get("segmentation"))
        except BadValue as error:
            raise BadValue(f"bbox is missing ({error}); needed are x, y, width, height") from None
        self.without_box += 1
        return around

    def _size(self, item: Any) -> tuple[int, int]:
        """0, 0 of an image without both, which is read from its file."""
        return super()._size(item) if {item.get("width"), item.get("height")} != {None} else (0, 0)

    def _bad(self, item: Any, what: str) -> ResnestError:
        image = f" (image id {item.get('image_id')})" if isinstance(item, dict) else ""
        return ResnestError(f"{self.path}: annotation {entry_id(item)}{image}: {what}")

    def done(self, root: Path | None = None) -> DetectionSamples:
        """Assemble the samples; `root` is the folder of their images if it is known."""
        image_ids, sizes = self.images()
        pictures = Pictures(root, self.names) if root else find_pictures(self.path, self.names)
        unread = self._read_sizes(sizes, pictures)
        category_ids, names = self._classes()
        frequency = self.federated.frequency(category_ids)
        owners = self._indices(np.array(self.owners, np.int64), image_ids, "image")
        labels = self._indices(np.array(self.kinds, np.int64), category_ids, "category")
        boxes = self._boxes()
        areas, replaced = settled_areas(np.array(self.areas), boxes, self.outlines.check(sizes[owners]))
        outlines = self.outlines.done()
        order = np.argsort(owners, kind="stable")
        counts = np.bincount(owners, minlength=len(image_ids))
        table = ObjectTable(
            image_ids=image_ids,
            sizes=sizes,
            firsts=np.cumsum(counts) - counts,
            counts=counts,
            boxes=boxes[order],
            labels=labels[order],
            crowd=np.frombuffer(bytes(self.crowd), np.uint8).astype(bool)[order],
            areas=areas[order],
            ids=np.array(self.ids, np.int64)[order],
            segmentations=outlines.subset(order),
            federation=self.federated.federation(category_ids),
        )
        table, repeated = without_repeats(table, pictures.names)
        samples = DetectionSamples.build(
            FolderStore(pictures.root),
            pictures.names,
            names,
            tuple(category_ids.tolist()),
            table,
            (*pictures.notes, *repeated, *self.notes(replaced - self.without_area), *self.federated.notes(frequency)),
            frequency,
        )
        samples = _without(samples, unread, "without width and height that cannot be read")
        return _without(samples, self._are_incomplete()[~unread], f"marked {INCOMPLETE}")

    def _are_incomplete(self) -> NDArray[np.bool_]:
        return np.frombuffer(bytes(self.incomplete), np.uint8).astype(bool)

    def _read_sizes(self, sizes: NDArray[np.int32], pictures: Pictures) -> NDArray[np.bool_]:
        """Fill in the sizes that the json lacks, in place; which images cannot be read, (N,)."""
        unread = np.zeros(len(sizes), bool)
        lacking = np.flatnonzero(sizes[:, 0] == 0).tolist()
        names = [pictures.names[index] for index in lacking]
        for index, size in zip(lacking, read_sizes(pictures.root, names) if names else (), strict=True):
            unread[index] = size is None
            sizes[index] = size or (1, 1)
        self.sized = len(lacking)
        return unread

    def notes(self, areas: int) -> tuple[str, ...]:
        """What was decided; `areas` of the objects are not as annotated."""
        boxed = counted(self.without_box, "object", "objects")
        said = (
            (areas, f"{areas:,} areas that box or mask contradicts are computed from these"),
            (
                self.without_box,
                f"the box around the outline is taken for {boxed} without one",
            ),
            (self.sized, f"sizes of {counted(self.sized, 'image', 'images')} are read from the files"),
            (self.image_kind.are_text or self.category_kind.are_text, "ids are text and are read as numbers"),
        )
        return tuple(note for holds, note in said if holds)

    def _classes(self) -> tuple[Numbers, tuple[str, ...]]:
        """Ids in ascending order, and names. Of categories with the same name, the used one counts."""
        used = set(self.kinds)
        names: dict[str, int] = {}
        for number, name in sorted(self.categories.items()):
            before = names.get(name)
            if before is not None and number in used and before in used:
                raise ResnestError(f"{self.path}: two categories are called {name!r}: {before} and {number}")
            if before is None or number in used:
                names[name] = number
        if not names:
            raise ResnestError(f"{self.path} lists no category")
        if len(names) > MOST_CATEGORIES:
            raise ResnestError(f"{self.path} lists {len(names):,} categories: {MOST_CATEGORIES:,} at most")
        ids = np.array(sorted(names.values()), np.int64)
        return ids, tuple(self.categories[number] for number in ids.tolist())

    def _indices(self, numbers: Numbers, known: Numbers, what: str) -> Numbers:
        """Indices of the values among the known ones."""
        indices, strange = indices_of(numbers, known)
        if len(strange):
            more = f" (and {len(strange) - 1} more)" if len(strange) > 1 else ""
            raise ResnestError(
                f"{self.path}: annotation {self.ids[strange[0]]}: {what}_id {numbers[strange[0]]} is not among the"
                f" {'images' if what == 'image' else 'categories'}{more}"
            )
        return indices

    def _boxes(self) -> NDArray[np.float32]:
        """x, y, width, height -> corners."""
        boxes = np.array(self.boxes, np.float64).reshape(-1, 4)
        ends = np.abs(boxes).max(1, initial=0) * 2  # float32 has to hold them
        broken = np.flatnonzero(~(ends < np.finfo(np.float32).max))
        if len(broken):
            raise ResnestError(
                f"{self.path}: annotation {self.ids[broken[0]]}: bbox {boxes[broken[0]].tolist()} is not four finite"
                " numbers of 32 bits: x, y, width, height"
            )
        boxes[:, 2:] += boxes[:, :2]
        return boxes.astype(np.float32)


def settled_areas(
    areas: NDArray[np.float64], boxes: NDArray[np.float32], masks: NDArray[np.float64]
) -> tuple[NDArray[np.float64], int]:
    """The areas that COCO's figures by size go by, and how many are not as annotated.

    An area is of the object's pixels: it may be less than its box's even where the json has no outline. One that is
    larger than box and mask, less than its mask, not positive or not finite is replaced; so are all areas of data
    without outlines if half of them are less than a tenth of their boxes'.

    Args:
        areas: (A,) as annotated.
        boxes: (A, 4) corners.
        masks: (A, 2) as of `SegmentationBuilder.check`.
    """
    wide, high = np.maximum(boxes[:, 2:] - boxes[:, :2], 0).astype(np.float64).T
    filled, borders = wide * high, wide + high + 1  # some tools count the pixels on borders, others do not
    largest, all_parts = masks.T
    outlined = all_parts > 0
    most = ROUNDED * np.fmax(filled, all_parts) + borders
    least = np.where(outlined, (largest - borders) / DIFFERENT, -np.inf)
    positive = (areas > 0) | ((areas == 0) & (filled == 0))
    wrong = ~(positive & (areas >= least) & (areas <= most))
    usual = ~wrong & (filled > borders)
    if not outlined.any() and usual.sum() >= ENOUGH and np.median(areas[usual] / filled[usual]) < HARDLY:
        wrong[:] = True
    return np.where(wrong, np.where(outlined, all_parts, filled), areas), int(wrong.sum())


def file_name(item: Any) -> str:
    """The file of an image. LVIS names it by its address only (v1), or as COCO's files of 2014 were called (v0.5)."""
    if "coco_url" in item and (NEGATIVE in item or "file_name" not in item):
        return "/".join(str(item["coco_url"]).split("/")[-2:])  # train2017/000000391895.jpg
    return str(item["file_name"])


def _without(samples: DetectionSamples, chosen: NDArray[np.bool_], what: str) -> DetectionSamples:
    """The samples without those images."""
    if not chosen.any():
        return samples
    if chosen.all():
        raise ResnestError(f"all {len(samples)} images {what}: nothing is left")
    left = samples.subset(np.flatnonzero(~chosen))
    return replace(left, notes=(*left.notes, f"left out: {counted(int(chosen.sum()), 'image', 'images')} {what}"))


def indices_of(numbers: Numbers, known: Numbers) -> tuple[Numbers, Numbers]:
    """Indices of the values among the known ones, and the positions of unknown values."""
    order = np.argsort(known, kind="stable")
    ranked = known[order]
    indices = np.minimum(np.searchsorted(ranked, numbers), len(known) - 1)
    return order[indices], np.flatnonzero(ranked[indices] != numbers)


def entry_id(item: Any) -> str:
    """The id of an entry, or how it starts."""
    if not isinstance(item, dict) or "id" not in item:
        return short(item)
    return item["id"][:60] if isinstance(item["id"], str) else short(item["id"])


def short(value: Any) -> str:
    """The start of some json."""
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def missing(error: Exception) -> str:
    """The defect of an entry that could not be read."""
    return f"{error.args[0]} is missing" if isinstance(error, KeyError) else f"not as expected ({error})"
