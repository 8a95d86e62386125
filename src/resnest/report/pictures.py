"""A picture of the page with frames on it: what a detector missed, and what it found where nothing is.

    marked_picture(image, "val/1.jpg", [Mark(box=(4, 8, 40, 60), kind="missed", text="Platelets")], "1 missed")

Frames are drawn by the page itself, as SVG above the picture: sharp at any size, and the pointer shows their texts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from PIL import Image

from resnest.report.page import clip, clip_path, escape
from resnest.report.parts import data_uri

LARGE = 480  # pixels of the longer side
MOST_MARKS = 400  # of a picture


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One frame."""

    box: tuple[float, float, float, float]  # x1, y1, x2, y2 in pixels of the picture
    kind: Literal["missed", "false"]
    text: str = ""  # class and score


def marked_picture(image: Image.Image, name: str, marks: Sequence[Mark], caption: str) -> str:
    """One picture with its frames and its file's name; `caption` is HTML."""
    width, height = image.size
    order = sorted(marks[:MOST_MARKS], key=_area, reverse=True)  # a small one lies above a large one
    frames = "".join(_frame(mark) for mark in order)
    return f"""<figure>
<div class="marked"><img src="{data_uri(image, LARGE)}" alt="{clip(name, 200)}">\
<svg viewBox="0 0 {width} {height}" aria-hidden="true">{frames}</svg></div>
<figcaption>{caption}<div class="file cut" title="{clip_path(name)}"><bdi>{clip_path(name)}</bdi></div></figcaption>
</figure>
"""


def _area(mark: Mark) -> float:
    left, top, right, bottom = mark.box
    area = (right - left) * (bottom - top)
    return area if math.isfinite(area) else 0.0


def _frame(mark: Mark) -> str:
    """Twice, the lower one dark and wider, so that it is seen on any picture."""
    left, top, right, bottom = (value if math.isfinite(value) else 0.0 for value in mark.box)
    shape = f'x="{left:.5g}" y="{top:.5g}" width="{max(right - left, 0):.5g}" height="{max(bottom - top, 0):.5g}"'
    title = f"<title>{escape(mark.kind)}: {clip(mark.text)}</title>"
    return f'<g class="{escape(mark.kind)}">{title}<rect {shape}/><rect {shape}/></g>'
