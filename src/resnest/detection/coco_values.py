"""Ids, sizes and boxes of COCO json, as tools write them: numbers as text, whole numbers with a point, no box.

ids = Ids("image")
ids.number("12", "images")                 # 12; numbers among ids that are text are refused
whole(128.0, "width")                          # 128
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from resnest.detection.segmentations import BadSegmentation, SegmentationBuilder
from resnest.detection.units import outline_box

DIGITS = re.compile(r"-?[0-9]{1,18}")
LARGEST = 2**63


class BadValue(ValueError):
    """The defect of a value."""


def whole(value: Any, what: str) -> int:
    """An integer, also with a point and nothing behind it. Raises BadValue."""
    number = int(value) if isinstance(value, float) and value.is_integer() else value
    if type(number) is not int or not -LARGEST <= number < LARGEST:
        raise BadValue(f"{what} {_shown(value)} is no whole number of 64 bits")
    return number


class Ids:
    """The ids of one kind in a file: all numbers, or all text of digits, as pycocotools compares them."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.first: tuple[Any, str] | None = None  # an id, and the list that it is in

    def number(self, value: Any, where: str) -> int:
        """Raises BadValue: neither; text where others are numbers, or the reverse."""
        text = isinstance(value, str)
        if self.first is None:
            self.first = value, where
        elif text != isinstance(self.first[0], str):
            one, other = (self.first, (value, where)) if not text else ((value, where), self.first)
            raise BadValue(
                f"{self.what} ids are text in {one[1]!r}, as {_shown(one[0])}, and numbers in {other[1]!r}, as"
                f" {_shown(other[0])}: write them in one way"
            )
        if not text:
            return whole(value, f"the {self.what} id")
        if not DIGITS.fullmatch(value):
            raise BadValue(f"the {self.what} id {_shown(value)} is no whole number of 64 bits")
        return int(value)

    @property
    def are_text(self) -> bool:
        return self.first is not None and isinstance(self.first[0], str)


def box_around(segmentation: Any) -> list[float]:
    """x, y, width, height around an outline. Raises BadValue if it cannot be used."""
    try:
        outlines = SegmentationBuilder()
        outlines.add(segmentation)
        height, width = outlines.sizes.get(0, (1, 1))
        made = outlines.done()
        if defect := made.defect(0):
            raise BadValue(defect)
        box = outline_box(outline) if (outline := made.get(0, height, width)) else None
    except BadSegmentation as error:
        raise BadValue(str(error)) from None
    if box is None or not np.isfinite(box).all():
        raise BadValue("there is no outline to make it from")
    left, top, right, bottom = box.tolist()
    return [left, top, right - left, bottom - top]


def _shown(value: Any) -> str:
    text = f'"{value}"' if isinstance(value, str) else repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
