"""The points of the objects in one picture.

poses = predict("x.jpg")
poses.points, poses.point_scores, poses.scores       # (M, K, 2), (M, K), (M,)
poses.shown(0.3).to_coco(17)                         # entries of a COCO results file
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from resnest.keypoints.points import PointLayout
from resnest.runtime.draw import RIM, Entry, enlarged, with_legend
from resnest.runtime.palette import Colour, colour
from resnest.runtime.results import ALL, LIKELY, Result, Show, installed

HALF = 0.5  # pixel: COCO's files number pixels, coordinates here are continuous
DRAWN = 0.2  # least score of a point that is drawn
THICK = 110  # of the picture's longer side to the width of a line
MOST_NAMED = 24  # points that a legend names


@dataclass(frozen=True, eq=False)
class Poses(Result):
    """The objects of one picture, best first, each with its points."""

    COLUMNS: ClassVar = {
        "image": "", "object": "d", "object_score": ".6f", "label": "", "score": ".6f", "x": ".2f", "y": ".2f",
    }  # fmt: skip
    OPTIONS: ClassVar = frozenset({"threshold"})

    name: str  # the picture's path as it was given
    width: int
    height: int
    layout: PointLayout
    thing: str
    category_id: int
    boxes: NDArray[np.float64]  # (M, 4) that were looked at: x1, y1, x2, y2
    points: NDArray[np.float64]  # (M, K, 2) in pixels of the picture, continuous
    point_scores: NDArray[np.float32]  # (M, K) the heatmaps' peaks
    scores: NDArray[np.float64]  # (M,)

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, which: int | slice | NDArray[Any]) -> Poses:
        """A selection of the objects: an index, indices, a slice, or a boolean mask."""
        numbers = np.atleast_1d(np.arange(len(self))[which])
        names = ("boxes", "points", "point_scores", "scores")
        return replace(self, **{name: getattr(self, name)[numbers] for name in names})

    def __iter__(self) -> Iterator[Poses]:
        return (self[number] for number in range(len(self)))

    @property
    def size(self) -> tuple[int, int]:
        return self.width, self.height

    def reduced(self, size: tuple[int, int]) -> Poses:
        """The same in a smaller picture of this width and height."""
        scale = np.array([size[0] / self.width, size[1] / self.height])
        boxes = self.boxes * np.tile(scale, 2)
        return replace(self, width=size[0], height=size[1], boxes=boxes, points=self.points * scale)

    def shown(self, threshold: float = LIKELY.threshold) -> Poses:
        """The objects with at least this score."""
        return self[self.scores >= threshold]

    def rows(self, show: Show = ALL) -> list[dict[str, Any]]:
        """One row per point."""
        shown = self.shown(show.threshold)
        return [
            {"image": self.name, "object": number, "object_score": float(score), "label": name}
            | {"score": float(value), "x": float(x), "y": float(y)}
            for number, (score, points, values) in enumerate(
                zip(shown.scores, shown.points, shown.point_scores, strict=True), start=1
            )
            for name, (x, y), value in zip(self.layout.names, points, values, strict=True)
        ]

    def text(self, show: Show = LIKELY) -> str:
        """x.jpg: 3 person, 41 of 51 points."""
        shown = self.shown(show.threshold)
        seen = int((shown.point_scores >= DRAWN).sum())
        if not len(shown):
            return f"{self.name}: -"
        return f"{self.name}: {len(shown)} {self.thing}, {seen} of {shown.point_scores.size} points"

    def to_dict(self, show: Show = ALL) -> dict[str, Any]:
        """For JSON: boxes are x, y, width, height; points continuous pixels by name, with their scores."""
        shown = self.shown(show.threshold)
        objects = [
            {"label": self.thing, "score": _short(score), "bbox": _sides(box), "points": self._named(points, values)}
            for score, box, points, values in zip(
                shown.scores, shown.boxes, shown.points, shown.point_scores, strict=True
            )
        ]
        return {"image": self.name, "width": self.width, "height": self.height, "objects": objects}

    def _named(self, points: NDArray[np.float64], values: NDArray[np.float32]) -> dict[str, list[float]]:
        rows = zip(self.layout.names, points, values, strict=True)
        return {name: [round(float(x), 2), round(float(y), 2), _short(value)] for name, (x, y), value in rows}

    def to_coco(self, image_id: int) -> list[dict[str, Any]]:
        """Entries of a COCO results file: points count pixels from 0, and 1 stands for their visibility.

        Without boxes, as COCO's own: pycocotools would take areas from them that it takes from points.
        """
        flat = np.concatenate([self.points - HALF, np.ones((*self.points.shape[:2], 1))], axis=2)
        return [
            {
                "image_id": image_id,
                "category_id": self.category_id,
                "score": _short(score),
                "keypoints": [round(float(value), 2) for value in points.ravel()],
            }
            for score, points in zip(self.scores, flat, strict=True)
        ]

    def to_supervision(self, show: Show = ALL) -> Any:
        """sv.KeyPoints."""
        shown = self.shown(show.threshold)
        return installed("supervision").KeyPoints(
            xy=shown.points.astype(np.float32),
            confidence=shown.point_scores,
            class_id=np.zeros(len(shown), int),
            data={"class_name": np.array([self.thing] * len(shown), str)},
        )

    def _drawn(self, picture: Image.Image, show: Show) -> Image.Image:
        from resnest.runtime.fonts import drawn_names

        shown = self.shown(show.threshold)
        picture, factor = enlarged(picture)
        draw_points(picture, self.layout, shown.points * factor, shown.point_scores >= DRAWN)
        names = drawn_names(self.layout.names)[:MOST_NAMED]
        legend = [Entry(f"{self.thing}  {len(shown)}"), *(Entry(name, colour(k)) for k, name in enumerate(names))]
        return with_legend(picture, legend)


def draw_points(
    picture: Image.Image, layout: PointLayout, points: NDArray[np.floating], seen: NDArray[np.bool_]
) -> None:
    """Skeletons and points into a picture: (M, K, 2) in its pixels, (M, K) which are drawn. Each point its colour."""
    pen = ImageDraw.Draw(picture)
    width = _width(picture, points, seen)
    for places, known in zip(points, seen, strict=True):
        for one, other in layout.skeleton:
            if known[one] and known[other]:
                ends = [tuple(map(float, places[end])) for end in (one, other)]
                pen.line(ends, fill=RIM, width=width + 2)
                pen.line(ends, fill=_between(colour(one), colour(other)), width=width)
        for k in np.flatnonzero(known).tolist():
            x, y = map(float, places[k])
            radius = 1.2 * width
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour(k), outline=RIM)


def _width(picture: Image.Image, points: NDArray[np.floating], seen: NDArray[np.bool_]) -> int:
    """Of a line: thin where objects are small."""
    spans = [np.ptp(own[known], axis=0).max() for own, known in zip(points, seen, strict=True) if known.sum() > 1]
    usual = max(picture.size) / THICK
    return max(1, round(min(usual, float(np.median(spans)) / 10)) if spans else round(usual))


def _between(one: Colour, other: Colour) -> Colour:
    red, green, blue = ((a + b) // 2 for a, b in zip(one, other, strict=True))
    return red, green, blue


def _sides(box: Sequence[float] | NDArray[np.float64]) -> list[float]:
    x1, y1, x2, y2 = map(float, box)
    return [round(x1, 2), round(y1, 2), round(x2 - x1, 2), round(y2 - y1, 2)]


def _short(value: Any) -> float:
    return round(float(value), 6)
