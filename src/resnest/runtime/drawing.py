"""What pictures with objects and pictures with regions share: their size, texts that read on any colour, the legend.

picture, factor = enlarged(image)
with_legend(picture, [Entry("road  31 %", (128, 64, 128)), Entry("sky  22 %", (70, 130, 180))]).save("out.jpg")
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from resnest.runtime.label_map import Colour

INK, FAINT, PAPER, RIM = (255, 255, 255), (150, 156, 164), (18, 22, 28), (16, 16, 16)
LEAST_SIDE = 640  # pixels: smaller pictures are enlarged, by whole numbers

Place = tuple[float, float, float, float]  # left, top, right, bottom


class Entry(NamedTuple):
    """Of a legend."""

    text: str
    colour: Colour | None = None


def enlarged(image: Image.Image) -> tuple[Image.Image, int]:
    """The picture in RGB, in a size to look at, and what its sides were multiplied by."""
    factor = max(1, -(-LEAST_SIDE // max(image.size)))
    picture = image.convert("RGB")
    if factor > 1:
        picture = picture.resize((image.width * factor, image.height * factor), Image.Resampling.BICUBIC)
    return picture, factor


def ink_on(colour: Colour) -> Colour:
    """Black or white, whichever reads better (luma of ITU-R BT.601)."""
    red, green, blue = colour
    return RIM if 0.299 * red + 0.587 * green + 0.114 * blue > 110 else INK


def is_free(spot: Place, taken: Iterable[Place]) -> bool:
    """Whether it lies on none of the others."""
    return not any(overlap(spot, other) for other in taken)


def overlap(one: Place, other: Place) -> bool:
    """Whether they share more than a border."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def with_legend(picture: Image.Image, entries: Sequence[Entry]) -> Image.Image:
    """A panel below: each entry with its colour, as many lines as it takes; without entries it says so."""
    size = max(14, picture.width // 45)
    font = ImageFont.load_default(size)
    pad, row = size // 2, round(size * 1.6)
    pen = ImageDraw.Draw(picture)
    places, x, y = [], pad, pad
    for text, colour in entries:
        wide = round((size * 1.5 if colour else 0) + pen.textlength(text, font) + 2 * pad)
        if x + wide > picture.width and x > pad:
            x, y = pad, y + row
        places.append((x, y))
        x += wide
    canvas = Image.new("RGB", (picture.width, picture.height + y + row + pad), PAPER)
    canvas.paste(picture, (0, 0))
    pen = ImageDraw.Draw(canvas)
    for (text, colour), (x, y) in zip(entries, places, strict=True):
        top = picture.height + y
        if colour:
            pen.rectangle((x, top, x + size, top + size), fill=colour)
        pen.text((x + (size * 1.5 if colour else 0), top + size / 2), text, fill=INK, font=font, anchor="lm")
    if not entries:
        pen.text((pad, picture.height + pad), "nothing found", fill=FAINT, font=font)
    return canvas
