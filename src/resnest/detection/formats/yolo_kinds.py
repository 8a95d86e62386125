"""Lines of YOLO label files that look like outlines, and may be rotated boxes or key points.

    kinds = Kinds()
    kinds.see((0.5, 0.5, 0.2, 0.4, 0.45, 0.35))         # the numbers of each object
    kinds.doubt()                                       # what all of them may be, or ""

Ultralytics writes all three as numbers behind the class; only its data.yaml tells them apart, and that is often lost.
"""

from __future__ import annotations

from collections.abc import Sequence

QUAD = 8  # numbers of an outline of four points, and of a rotated box
SQUARE = 0.002  # fraction by which the sides of an upright box may lean: labels are rounded
FEWEST = 3  # objects that have to look like key points, all of them
APART = 0.3  # distance of width and height, as a point, from the other points; a share of these points' extent
ROUNDED = 0.01  # fraction by which a box may exceed its picture, and a point its box


class Kinds:
    """What all objects of a data set have in common."""

    def __init__(self) -> None:
        self.count = self.apart = 0
        self.only_quads = self.upright = self.posed = True
        self.length = 0

    def see(self, numbers: Sequence[float]) -> None:
        self.only_quads &= len(numbers) == QUAD
        self.upright &= len(numbers) != QUAD or is_upright(numbers)
        self.posed &= self.length in (0, len(numbers)) and holds_points(numbers)
        self.apart += self.posed and _is_apart(numbers)
        self.count += 1
        self.length = len(numbers)

    def doubt(self) -> str:
        """What all objects may be other than boxes and outlines, and which export is read; "" without a doubt."""
        if self.posed and self.count >= FEWEST and self.apart > self.count / 2:
            points = (self.length - 4) // 2
            return (
                f"all {self.count:,} objects have {self.length} numbers that are a box with {points}"
                f" point{'s' * (points > 1)} within it. Key points (YOLO pose) need a data.yaml that has kpt_shape, and"
                " a recipe such as keypoints_small; for boxes export them as YOLO detection"
            )
        if self.only_quads and not self.upright:
            return (
                "all objects are four points that are no upright boxes. Rotated boxes (YOLO OBB) are not learned here:"
                " export them as YOLO detection"
            )
        return ""


def is_upright(points: Sequence[float]) -> bool:
    """Whether four points are the corners of an upright box."""
    xs, ys = sorted(points[0::2]), sorted(points[1::2])
    return max(xs[1] - xs[0], xs[3] - xs[2], ys[1] - ys[0], ys[3] - ys[2]) <= SQUARE


def holds_points(numbers: Sequence[float]) -> bool:
    """Whether the first four numbers are a box in the picture that holds the points behind it; 0 0 is no point."""
    x, y, width, height = numbers[:4]
    left, top, right, bottom = x - width / 2, y - height / 2, x + width / 2, y + height / 2
    points = _points(numbers)
    return (
        bool(points)
        and min(left, top) >= -ROUNDED
        and max(right, bottom) <= 1 + ROUNDED
        and all(left - ROUNDED <= px <= right + ROUNDED for px, _ in points)
        and all(top - ROUNDED <= py <= bottom + ROUNDED for _, py in points)
    )


def _is_apart(numbers: Sequence[float]) -> bool:
    """Whether width and height are far from the other points: the second point of an outline is among them."""
    points = [(numbers[0], numbers[1]), *_points(numbers)]
    gaps, sides = list[float](), list[float]()
    for second, values in zip(numbers[2:4], zip(*points, strict=True), strict=True):
        gaps.append(max(min(values) - second, second - max(values)))
        sides.append(max(values) - min(values))
    return max(gaps) > APART * max(sides)


def _points(numbers: Sequence[float]) -> list[tuple[float, float]]:
    """The points behind a box; those that were not seen are 0 0."""
    pairs = zip(numbers[4::2], numbers[5::2], strict=True)
    return [pair for pair in pairs if pair != (0.0, 0.0)]
