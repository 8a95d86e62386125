"""Drawing regions over a picture, with names where there is room and a legend; Pillow and numpy only.

    regions = Regions(areas, ["road", "sky"], [(128, 64, 128), (70, 130, 180)])
    draw_regions(image, regions, [Entry("road  31 %", (128, 64, 128))]).save("out.jpg")

Regions are readable on any photograph: its colours are toned down, so that those of the regions stand out, and regions
are separated by a dark line with a bright one in it. A name is drawn only where there is room for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from resnest.runtime.draw import INK, RIM, Entry, Rectangle, enlarged, is_free, with_legend
from resnest.runtime.palette import Colour

FILL = 0.55  # of a region's colour over the picture
GREY = 0.6  # how far the picture is desaturated under it
COARSE = 320  # pixels of the longer side of the map in which room for names is looked for
TEXTS = ((1.0, 0.97), (0.75, 0.97), (0.75, 0.7))  # sizes that a name is tried in, and how much must lie in its region

Areas = NDArray[np.int32]
Mask = NDArray[np.bool_]


class Regions(NamedTuple):
    """Regions of a picture, each with one colour and one name."""

    areas: Areas  # (H, W) number of its region for each pixel; -1: none
    names: list[str]  # (R)
    colours: list[Colour]  # (R)


def draw_regions(image: Image.Image, regions: Regions, legend: Sequence[Entry]) -> Image.Image:
    """The picture with its regions and their names, and a legend below it."""
    picture, factor = enlarged(image)
    picture = _painted(picture, regions.areas.repeat(factor, 0).repeat(factor, 1), regions.colours)
    _write_names(picture, regions)
    return with_legend(picture, legend)


def paint_regions(image: Image.Image, regions: Regions, side: int) -> Image.Image:
    """The picture with its regions, without names, its longer side at most `side` pixels."""
    small = image.convert("RGB")
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    rows, columns = (
        (np.arange(count) * whole // count) for count, whole in zip(small.size[::-1], regions.areas.shape, strict=True)
    )
    return _painted(small, regions.areas[rows[:, None], columns], regions.colours)


def _painted(picture: Image.Image, areas: Areas, own: list[Colour]) -> Image.Image:
    """Colours over a desaturated picture, and lines between the regions."""
    colours = np.array([*own, RIM], np.float32)[areas]  # (H, W, 3); -1: the last
    grey = np.asarray(picture.convert("L"), np.float32)[..., None]
    toned = np.asarray(picture, np.float32) * (1 - GREY) + grey * GREY
    fill = np.where(areas < 0, FILL / 2, FILL)[..., None].astype(np.float32)
    pixels = toned * (1 - fill) + colours * fill
    line = max(1, round(max(picture.size) / 1000))
    edge = _edges(areas)
    pixels[_grown(edge, line)] *= 0.35
    pixels[edge if line == 1 else _grown(edge, line - 1)] = 235
    return Image.fromarray(pixels.astype(np.uint8))


def _edges(areas: Areas) -> Mask:
    """Pixels whose right or lower neighbour is of another region."""
    edge = np.zeros(areas.shape, bool)
    edge[:, :-1] |= areas[:, :-1] != areas[:, 1:]
    edge[:-1] |= areas[:-1] != areas[1:]
    return edge


def _grown(mask: Mask, steps: int) -> Mask:
    """The mask dilated by this number of pixels."""
    for _ in range(steps):
        wide = np.pad(mask, 1)
        mask = mask | wide[:-2, 1:-1] | wide[2:, 1:-1] | wide[1:-1, :-2] | wide[1:-1, 2:]
    return mask


def _write_names(picture: Image.Image, regions: Regions) -> None:
    """Write names, the largest regions first: each where it fits best, or nowhere."""
    pen = ImageDraw.Draw(picture)
    areas, names = regions.areas, regions.names
    step = max(1, max(areas.shape) // COARSE)
    coarse = areas[::step, ::step]
    scale = step * picture.width / areas.shape[1]  # of a coarse pixel
    taken: list[Rectangle] = []
    counts = np.bincount(coarse[coarse >= 0].reshape(-1), minlength=len(names))
    for number in np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]:
        for relative, room in TEXTS:
            size = round(max(12, min(picture.size) / 26) * relative)
            font = ImageFont.load_default(size)
            wide, high = pen.textlength(names[number], font) + size / 2, size * 1.3
            middle = _roomiest(coarse == number, wide / scale, high / scale, room)
            if middle is None:
                continue
            x, y = middle[0] * scale, middle[1] * scale
            spot = (x - wide / 2, y - high / 2, x + wide / 2, y + high / 2)
            if is_free(spot, taken):
                taken.append(spot)
                pen.text((x, y), names[number], INK, font, "mm", stroke_width=max(1, size // 9), stroke_fill=RIM)
                break


def _roomiest(mask: Mask, wide: float, high: float, room: float) -> tuple[float, float] | None:
    """The centre x, y of the largest box of this shape, and at least this size, with this fraction in the mask."""
    sums = np.pad(mask, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    found = None
    low, top = 1.0, min(mask.shape[0] / high, mask.shape[1] / wide)
    factor = low
    while top - low > 0.05 or found is None:
        place = _fits(sums, max(1, round(wide * factor)), max(1, round(high * factor)), room)
        if place is None and found is None:
            return None
        if place is None:
            top = factor
        else:
            found, low = place, factor
        factor = (low + top) / 2
    return found


def _fits(sums: NDArray[np.int64], wide: int, high: int, room: float) -> tuple[float, float] | None:
    """The centre of the boxes of this size that are in the mask, nearest to their mean."""
    if wide >= sums.shape[1] or high >= sums.shape[0]:
        return None
    inside = sums[high:, wide:] - sums[:-high, wide:] - sums[high:, :-wide] + sums[:-high, :-wide]
    rows, columns = np.nonzero(inside >= room * wide * high)
    if not len(rows):
        return None
    nearest = int(np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2))
    return float(columns[nearest]) + wide / 2, float(rows[nearest]) + high / 2
