"""COCO json of keypoints: categories with names of points, annotations with x, y and visibility of each.

    samples = read_coco(Path("coco/annotations/person_keypoints_train2017.json"))

Coordinates of points are numbers of pixels from 0, as in COCO's files, while boxes are continuous: as detectron2 does
(data/datasets/coco.py), half a pixel is added to points here, and taken off where results are written. A category may
have `sigmas`, one a point, and `flip_pairs`, pairs of names, in addition to COCO's `keypoints` and `skeleton`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from resnest.data.formats import DatasetHandle
from resnest.data.samples import clean_name
from resnest.data.stores import FolderStore
from resnest.detection.coco import CocoLists, entry_id, indices_of, short
from resnest.detection.coco_values import BadValue, Ids
from resnest.detection.data import is_marked
from resnest.detection.formats.finding import by_part_files, of_files, with_suffix
from resnest.detection.formats.marks import WINDOW, kind_of
from resnest.detection.formats.pictures import find_pictures
from resnest.detection.json_items import read_items
from resnest.errors import ResnestError
from resnest.figures import counted
from resnest.keypoints.data import KeypointSamples, PeopleTable, PictureTable
from resnest.keypoints.points import PERSON_SIGMAS, USUAL_SIGMA, PointLayout

FORMAT = "coco-keypoints"
HALF = 0.5  # pixel: from the number of a pixel to its middle
AREA_OF_BOX = 0.53  # an object's share of its box, where nobody says its area (Ultralytics and mmpose, for their OKS)
VISIBLE = (0, 1, 2)  # not annotated, hidden, visible


def find_coco(path: Path, task: str | None = None) -> DatasetHandle | None:
    """A .json file, or one for each part: in `annotations`, in the folder itself, or in folders named by part."""
    if path.is_file():
        return DatasetHandle(FORMAT, str(path), unsplit=lambda: read_coco(path)) if holds_points(path) else None
    for folder in (path / "annotations", path):
        if files := _in(folder):
            return of_files(FORMAT, path, [str(file.relative_to(path)) for file in files], read_coco)  # type: ignore[arg-type]
    return by_part_files(FORMAT, path, lambda part: _in(part) or _in(part / "annotations"), read_coco)  # type: ignore[arg-type]


def _in(folder: Path) -> list[Path]:
    return [file for file in with_suffix(folder, ".json") if holds_points(file)]


def holds_points(path: Path) -> bool:
    """Whether a file is COCO json with keypoints, by its start and end."""
    if kind_of(path) != "coco":
        return False
    state = path.stat()
    return _holds_points(path, state.st_size, state.st_mtime_ns)


@lru_cache(1024)
def _holds_points(path: Path, size: int, changed: int) -> bool:
    with path.open("rb") as file:
        content = file.read(WINDOW)
        file.seek(max(0, size - WINDOW))
        return b'"keypoints"' in content + file.read(WINDOW)


def read_coco(path: Path) -> KeypointSamples:
    """Read COCO json with keypoints. Raises ResnestError, with the file and the annotation."""
    reader = KeypointReader(path)
    read_items(path, {"images": reader.image, "annotations": reader.annotation, "categories": reader.category})
    return reader.done()


class _Person(NamedTuple):
    """An annotation as the file has it."""

    id: int
    image: int
    category: int
    points: list[float] | None  # x, y, visibility of each point
    box: list[float] | None  # x, y, width, height
    area: float | None
    crowd: bool


class KeypointReader(CocoLists):
    """Collects images, categories and annotations, and checks them."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.people: list[_Person] = []
        self.kinds: dict[int, dict[str, Any]] = {}  # categories with points, by id
        self.own_kind = Ids("annotation")
        self.notes: list[str] = []

    def category(self, item: Any) -> None:
        super().category(item)
        number = next(reversed(self.categories))
        if item.get("keypoints"):
            self.kinds[number] = item

    def annotation(self, item: Any) -> None:
        try:
            number = self.own_kind.number(item.get("id", len(self.people) + 1), "annotations")
            image = self.image_kind.number(item["image_id"], "annotations")
            category = self.category_kind.number(item["category_id"], "annotations")
            points = _numbers(item.get("keypoints"), "keypoints") or None
            box = _numbers(item.get("bbox"), "bbox") or None
            if box and len(box) != 4:
                raise BadValue(f"bbox {short(item['bbox'])} is not four numbers x, y, width, height")
            area = item.get("area")
            area = float(area) if area is not None and math.isfinite(area) and area > 0 else None
            crowd = is_marked(item.get("iscrowd", 0))
        except (BadValue, ValueError) as error:
            raise self._bad(item, str(error)) from None
        except (KeyError, TypeError, AttributeError) as error:
            raise self._bad(item, f"{error}; needed are image_id, category_id, keypoints and bbox") from None
        self.people.append(_Person(number, image, category, points, box, area, crowd))

    def _bad(self, item: Any, what: str) -> ResnestError:
        return ResnestError(f"{self.path}: annotation {entry_id(item)}: {what}")

    def done(self) -> KeypointSamples:
        """Assemble the samples."""
        ids, sizes = self.images()
        found = find_pictures(self.path, self.names)
        number, layout = self._layout()
        people = [person for person in self.people if person.category in self.kinds]
        if left := len(self.people) - len(people):
            self.notes.append(f"{counted(left, 'object', 'objects')} of categories without points left out")
        owners, strange = indices_of(np.array([person.image for person in people], np.int64), ids)
        if len(strange):
            person = people[strange[0]]
            raise self._bad({"id": person.id}, f"image_id {person.image} is not among the images")
        table = self._table(people, owners, sizes, layout)
        return KeypointSamples.build(
            FolderStore(found.root),
            layout,
            PictureTable(found.names, ids, sizes.astype(np.int64)),
            table,
            thing=self.categories[number],
            category_id=number,
            notes=(*found.notes, *self.notes),
        )

    def _table(
        self, people: Sequence[_Person], owners: NDArray[np.int64], sizes: NDArray[np.int32], layout: PointLayout
    ) -> PeopleTable:
        count = len(layout.names)
        rows = np.zeros((len(people), count, 3))
        for row, person in zip(rows, people, strict=True):
            row[:] = self._points(person, count)
        visible = rows[..., 2].astype(np.int8)
        points = rows[..., :2] + HALF
        boxes, visible, unboxed = mend_boxes(corners_of([person.box for person in people]), points, visible)
        areas = np.array([person.area or np.nan for person in people], np.float64)
        areas, guessed = areas_of(areas, boxes)
        table = PeopleTable(
            pictures=owners,
            boxes=boxes,
            points=points,
            visible=visible,
            areas=areas,
            crowd=np.array([person.crowd for person in people], bool),
            ids=np.array([person.id for person in people], np.int64),
        )
        self.notes += [*unboxed, *guessed, *outside_notes(table, sizes, layout, str(self.path))]
        return table

    def _points(self, person: _Person, count: int) -> NDArray[np.float64]:
        """(K, 3) x, y, visibility; zeros of a crowd without points. Raises ResnestError."""
        if person.points is None:
            return np.zeros((count, 3))
        item = {"id": person.id}
        if len(person.points) != 3 * count:
            raise self._bad(
                item,
                f"keypoints has {len(person.points)} numbers: {count} points have {3 * count}, x, y and visibility",
            )
        rows = np.array(person.points).reshape(count, 3)
        odd = ~np.isin(rows[:, 2], VISIBLE)
        if odd.any():
            raise self._bad(
                item, f"visibility {rows[odd][0, 2]:g}: expected 0 (not annotated), 1 (hidden) or 2 (visible)"
            )
        return rows

    def _layout(self) -> tuple[int, PointLayout]:
        """The category that stands for all with points, and its points. Raises ResnestError."""
        used = {person.category for person in self.people}
        kinds = {key: item for key, item in self.kinds.items() if key in used} or self.kinds
        if not kinds:
            raise ResnestError(f"{self.path}: no category has keypoints, the names of its points")
        self.kinds = kinds
        (number, first), *others = kinds.items()
        for other, item in others:
            if item["keypoints"] != first["keypoints"]:
                raise ResnestError(
                    f"{self.path}: categories {self.categories[number]!r} and {self.categories[other]!r} have different"
                    " points: make a file of each, and train a model of each"
                )
        if others:
            self.notes.append(f"{len(kinds)} categories have the same points, and count as one")
        where = f"{self.path}: category {self.categories[number]!r}"
        try:
            return number, self._parsed(first)
        except (ResnestError, ValueError) as error:
            raise ResnestError(f"{where}: {error}") from None

    def _parsed(self, item: dict[str, Any]) -> PointLayout:
        names = tuple(clean_name(name) for name in item["keypoints"])
        layout = PointLayout.of(names, sigmas=_numbers(item.get("sigmas"), "sigmas"), skeleton=self._skeleton(item))
        if not item.get("sigmas") and not set(names) <= set(PERSON_SIGMAS):
            self.notes.append(usual_sigmas())
        if "flip_pairs" not in item:
            return layout
        place = {name: number for number, name in enumerate(names)}
        pairs = item["flip_pairs"]
        if not isinstance(pairs, list) or not all(
            isinstance(pair, list) and len(pair) == 2 and all(isinstance(name, str) for name in pair) for pair in pairs
        ):
            raise ValueError(f"flip_pairs {short(pairs)}: expected pairs of names of points")
        strange = next((name for pair in pairs for name in pair if name not in place), None)
        if strange is not None:
            raise ValueError(f"flip_pairs name {strange!r}, which is none of the points")
        ends = tuple((place[one], place[other]) for one, other in pairs)
        return PointLayout(names=names, sigmas=layout.sigmas, pairs=ends, skeleton=layout.skeleton)

    def _skeleton(self, item: dict[str, Any]) -> tuple[tuple[int, int], ...]:
        """COCO counts points from 1; a 0 shows that a file counts from 0."""
        lines = item.get("skeleton") or []
        if not isinstance(lines, list) or not all(
            isinstance(line, list) and len(line) == 2 and all(type(end) is int for end in line) for line in lines
        ):
            raise ValueError(f"skeleton {short(lines)}: expected pairs of numbers of points, from 1")
        first = 0 if any(0 in line for line in lines) else 1
        if first == 0:
            self.notes.append("the skeleton has a 0, and is read as counted from 0")
        return tuple((one - first, other - first) for one, other in lines)


def usual_sigmas() -> str:
    """The note on points without sigmas."""
    return (
        f"no sigmas: {USUAL_SIGMA} for each point, the mean of COCO's (set `sigmas` of the category, or"
        " keypoints.sigmas)"
    )


def _numbers(values: Any, what: str) -> list[float]:
    """Finite numbers, none if there are none. Raises BadValue."""
    if values is None:
        return []
    if not isinstance(values, list) or not all(
        type(value) in (int, float) and math.isfinite(value) for value in values
    ):
        raise BadValue(f"{what} {short(values)}: expected finite numbers")
    return [float(value) for value in values]


def corners_of(given: Sequence[Sequence[float] | None]) -> NDArray[np.float64]:
    """Corners (A, 4) of x, y, width, height; zeros where there is no box."""
    rows = [(0.0,) * 4 if box is None else (box[0], box[1], box[0] + box[2], box[1] + box[3]) for box in given]
    return np.array(rows, np.float64).reshape(-1, 4)


def mend_boxes(
    boxes: NDArray[np.float64], points: NDArray[np.float64], visible: NDArray[np.int8]
) -> tuple[NDArray[np.float64], NDArray[np.int8], list[str]]:
    """Boxes around the points of objects whose own have no area, what is left visible, and notes.

    Where points make no box either, there is nothing to cut out: the object then has no point.
    """
    boxes, visible = boxes.copy(), visible.copy()
    flat = np.flatnonzero((boxes[:, 2:] <= boxes[:, :2]).any(1) & (visible > 0).any(1))
    left = 0
    for row in flat.tolist():
        own = points[row][visible[row] > 0]
        low, high = own.min(0), own.max(0)
        if (high > low).all():
            boxes[row] = (*low, *high)
        else:
            visible[row], left = 0, left + 1
    around, notes = len(flat) - left, list[str]()
    if around:
        many = counted(around, "object", "objects")
        notes.append(f"the box around the points is taken for {many} without one, or with one of no area")
    if left:
        notes.append(f"left out: {counted(left, 'object', 'objects')} whose box has no area, nor have the points one")
    return boxes, visible, notes


def areas_of(areas: NDArray[np.float64], boxes: NDArray[np.float64]) -> tuple[NDArray[np.float64], list[str]]:
    """Areas, those that are not known by the box; a note on these."""
    unknown = np.isnan(areas)
    by_box = np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(1), 1.0) * AREA_OF_BOX
    many = counted(int(unknown.sum()), "object", "objects")
    return np.where(unknown, by_box, areas), [f"{AREA_OF_BOX} of the box is the area of {many} without one"] * bool(
        unknown.any()
    )


def outside_notes(people: PeopleTable, sizes: NDArray[Any], layout: PointLayout, where: str) -> list[str]:
    """A note on points outside their pictures. Raises ResnestError for one that is a picture's side away."""
    size = sizes[people.pictures].astype(np.float64)[:, None]  # (A, 1, 2)
    beyond = np.maximum(-people.points, people.points - size)
    out = (people.visible > 0) & (beyond > HALF).any(-1)
    far = (people.visible > 0) & (beyond > size).any(-1)
    if far.any():
        row, k = np.argwhere(far)[0]
        x, y = people.points[row, k]
        wide, high = size[row, 0]
        raise ResnestError(
            f"{where}: annotation {people.ids[row]}: {layout.names[k]} at ({x:g}, {y:g}) is far outside its picture of"
            f" {wide:g} x {high:g} pixels: are these coordinates of another size?"
        )
    if not out.any():
        return []
    many = counted(int(out.sum()), "point lies", "points lie")
    row = int(np.argwhere(out)[0][0])
    return [f"{many} outside the picture, as of annotation {people.ids[row]}: learned where a crop shows the place"]
