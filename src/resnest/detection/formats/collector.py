"""Objects of any annotation tool, put together and checked by the reader of COCO json.

    collector = Collector(Path("photos"))
    image = collector.image("a.jpg", (640, 480))
    collector.add(image, "dog", outline=[[4, 4, 14, 4, 14, 14]])
    samples = collector.done(root=Path("photos"))

Classes are numbered from 1 in the order of their names, as VOC's are, or by the numbers that the tool gives them.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from resnest.detection.coco import CocoReader
from resnest.detection.data import DetectionSamples
from resnest.detection.formats.pictures import Size
from resnest.errors import ResnestError
from resnest.runtime import rle

Polygons = list[list[float]]  # each x, y, x, y, ...
Corners = tuple[float, float, float, float]  # x1, y1, x2, y2
Tally = Counter[tuple[str, str]]  # of one thing, of several: how often

UNREADABLE = ("image that cannot be read is left out", "images that cannot be read are left out")
LEFT_OUT = ("point or line is left out", "points and lines are left out")


class Collector:
    """Collects images and objects.

    Args:
        where: file or folder of the annotations, for messages.
        names: names of the classes by their numbers, if objects are given by number.
    """

    def __init__(self, where: Path, names: Mapping[int, str] | None = None) -> None:
        self.reader = CocoReader(where)
        self.names = names
        self.numbers: dict[str, int] = {}  # of classes, in the order of their first objects

    def image(self, name: str, size: Size) -> int:
        """Add an image; returns its number."""
        number = len(self.reader.names) + 1
        self.reader.image({"id": number, "file_name": name, "width": size[0], "height": size[1]})
        return number

    def size(self, image: int) -> Size:
        width, height = self.reader.sizes[2 * image - 2 : 2 * image]
        return width, height

    def add(
        self,
        image: int,
        label: str | int,
        *,
        box: Corners | None = None,
        outline: Polygons | rle.RLE | None = None,
        ignored: bool = False,
    ) -> None:
        """Add an object; without a box it is the one around the outline. Raises ResnestError."""
        category = label if isinstance(label, int) else self.numbers.setdefault(label, len(self.numbers) + 1)
        left, top, right, bottom = box or outline_corners(outline)
        self.reader.annotation(
            {
                "id": len(self.reader.ids) + 1,
                "image_id": image,
                "category_id": category,
                "bbox": [left, top, right - left, bottom - top],
                "segmentation": outline,
                "iscrowd": int(ignored),
            }
        )

    def done(self, root: Path | None = None, notes: Sequence[str] = ()) -> DetectionSamples:
        """The samples; images are named relative to `root`, or searched. Raises ResnestError."""
        names = self.names or self._numbered()
        if not names:
            raise ResnestError(f"{self.reader.path}: none of {len(self.reader.names)} images has an object")
        for number, name in names.items():
            self.reader.category({"id": number, "name": name})
        samples = self.reader.done(root)
        return replace(samples, notes=(*samples.notes, *notes))

    def _numbered(self) -> dict[int, str]:
        """Names by their numbers, now in the order of names: by value if all are numbers."""
        numeric = all(name.isdecimal() for name in self.numbers)
        order = sorted(self.numbers, key=lambda name: (int(name) if numeric else 0, name))
        place = {self.numbers[name]: number for number, name in enumerate(order, 1)}
        self.reader.kinds = array("q", (place[kind] for kind in self.reader.kinds))
        return dict(enumerate(order, 1))


def outline_corners(outline: Polygons | rle.RLE | None) -> Corners:
    """The corners of the box around an outline."""
    if isinstance(outline, dict):
        x, y, width, height = rle.box(outline)
        return x, y, x + width, y + height
    xs = [x for polygon in outline or [] for x in polygon[0::2]]
    ys = [y for polygon in outline or [] for y in polygon[1::2]]
    return min(xs), min(ys), max(xs), max(ys)


def ellipse(x: float, y: float, across: float, up: float, turned: float = 0.0) -> list[float]:
    """The polygon of an ellipse with these radii, turned by an angle in radians; each side departs by 1/4 pixel."""
    radius = max(across, up, 1.0)
    count = max(12, math.ceil(math.pi / math.acos(1 - 0.25 / radius)))
    points: list[float] = []
    for step in range(count):
        angle = 2 * math.pi * step / count
        right, down = across * math.cos(angle), up * math.sin(angle)
        points += [
            x + right * math.cos(turned) - down * math.sin(turned),
            y + right * math.sin(turned) + down * math.cos(turned),
        ]
    return points


def finite(numbers: Sequence[object], count: int | None = None) -> bool:
    """Whether these are finite numbers, so many."""
    return (count is None or len(numbers) == count) and all(
        isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number) for number in numbers
    )


def notes_of(tally: Tally) -> list[str]:
    """The things that were counted, each as a note."""
    return [f"{number:,} {words[number > 1]}" for words, number in tally.items() if number > 0]
