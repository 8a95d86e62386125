"""Regions drawn over a picture, with names where there is room and a legend; Pillow and numpy alone.

    draw_segments(image, found).save("out.jpg")          # LabelMap or PanopticMap

Made to be read on any photograph: its own colours are toned down, so that those of the regions stand out; a dark line
with a bright one in it parts regions. A class is named once, in the largest of its regions; of a panoptic picture each
object is, and has a shade of its class's colour of its own. A class called background is left as the picture is.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from resnest.runtime.drawing import INK, RIM, Entry, Place, enlarged, is_free, with_legend
from resnest.runtime.label_map import Colour, LabelMap, in_percent
from resnest.runtime.palette import class_colours, shade
from resnest.runtime.panoptic_map import PanopticMap

FILL = 0.55  # of a region's colour over the picture
GREY = 0.6  # how far the picture goes to grey under it
COARSE = 320  # pixels of the longer side of the map in which room for names is looked for
TEXTS = ((1.0, 0.97), (0.75, 0.97), (0.75, 0.7))  # sizes that a name is tried in, and how much must lie in its region

BACKGROUND = "background"

Areas = NDArray[np.int32]
Mask = NDArray[np.bool_]


class Region(NamedTuple):
    """A part of the picture that has one colour and one name."""

    name: str
    colour: Colour


def draw_segments(image: Image.Image, found: LabelMap | PanopticMap) -> Image.Image:
    """The picture with its regions and their names, and a legend below it."""
    picture, factor = enlarged(image)
    areas, regions = _regions(found)
    picture = _painted(picture, areas.repeat(factor, 0).repeat(factor, 1), regions)
    _write_names(picture, areas, regions)
    return with_legend(picture, _legend(found))


def paint_segments(image: Image.Image, found: LabelMap | PanopticMap, side: int) -> Image.Image:
    """The picture with its regions alone, its longer side at most `side` pixels. Labels of no class stay unpainted."""
    areas, regions = _regions(found)
    small = image.convert("RGB")
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    rows, columns = (
        (np.arange(count) * whole // count) for count, whole in zip(small.size[::-1], areas.shape, strict=True)
    )
    return _painted(small, areas[rows[:, None], columns], regions)


def _regions(found: LabelMap | PanopticMap) -> tuple[Areas, list[Region]]:
    """Number of its region for each pixel (-1: none), and the regions: classes, or objects and kinds of stuff."""
    colours, names = class_colours(found.classes), found.classes.names
    if isinstance(found, LabelMap):
        shown = np.array([number if _is_shown(name) else -1 for number, name in enumerate(names)], np.int32)
        areas = np.where(found.labels < len(names), shown[np.minimum(found.labels, len(names) - 1)], np.int32(-1))
        return areas, [Region(name, own) for name, own in zip(names, colours, strict=True)]
    areas = np.full(found.ids.shape, -1, np.int32)
    regions: list[Region] = []
    seen = [0] * len(names)
    for segment in found.segments:
        areas[found.ids == segment.id] = len(regions)
        regions.append(Region(names[segment.label], shade(colours[segment.label], seen[segment.label])))
        seen[segment.label] += segment.label < found.classes.things
    return areas, regions


def _is_shown(name: str) -> bool:
    return name.lower() != BACKGROUND


def _legend(found: LabelMap | PanopticMap) -> list[Entry]:
    """Classes with their shares; things with their number, and stuff with its share."""
    colours, names = class_colours(found.classes), found.classes.names
    of_name = dict(zip(names, colours, strict=True))
    if isinstance(found, LabelMap):
        shares = {name: share for name, share in found.shares().items() if _is_shown(name)}
        return [Entry(f"{name}  {in_percent(share)}", of_name[name]) for name, share in shares.items()]
    things = found.classes.things
    stuff = [one for one in sorted(found.segments, key=lambda one: -one.area) if one.label >= things]
    counts = [(name, count) for name, count in found.counts().items() if name in names[:things]]
    return [
        *(Entry(f"{name}  {count}", of_name[name]) for name, count in counts),
        *(Entry(f"{names[one.label]}  {in_percent(one.area / found.ids.size)}", colours[one.label]) for one in stuff),
    ]


def _painted(picture: Image.Image, areas: Areas, regions: list[Region]) -> Image.Image:
    """Colours over a picture with less colour of its own, and lines between the regions."""
    colours = np.array([region.colour for region in regions] + [RIM], np.float32)[areas]  # (H, W, 3); -1: the last
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
    """With its neighbours, and theirs."""
    for _ in range(steps):
        wide = np.pad(mask, 1)
        mask = mask | wide[:-2, 1:-1] | wide[2:, 1:-1] | wide[1:-1, :-2] | wide[1:-1, 2:]
    return mask


def _write_names(picture: Image.Image, areas: Areas, regions: list[Region]) -> None:
    """The largest regions first: each name where it fits best, or nowhere."""
    pen = ImageDraw.Draw(picture)
    step = max(1, max(areas.shape) // COARSE)
    coarse = areas[::step, ::step]
    scale = step * picture.width / areas.shape[1]  # of a coarse pixel
    taken: list[Place] = []
    counts = np.bincount(coarse[coarse >= 0].reshape(-1), minlength=len(regions))
    for number in np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]:
        for share, room in TEXTS:
            size = round(max(12, min(picture.size) / 26) * share)
            font = ImageFont.load_default(size)
            wide, high = pen.textlength(regions[number].name, font) + size / 2, size * 1.3
            middle = _roomiest(coarse == number, wide / scale, high / scale, room)
            if middle is None:
                continue
            x, y = middle[0] * scale, middle[1] * scale
            spot = (x - wide / 2, y - high / 2, x + wide / 2, y + high / 2)
            if is_free(spot, taken):
                taken.append(spot)
                pen.text((x, y), regions[number].name, INK, font, "mm", stroke_width=max(1, size // 9), stroke_fill=RIM)
                break


def _roomiest(mask: Mask, wide: float, high: float, room: float) -> tuple[float, float] | None:
    """The middle x, y of the largest place of this shape, at least of this size, of which so much lies in the mask."""
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
    """The middle of the places of this size that lie in the mask, as one of them."""
    if wide >= sums.shape[1] or high >= sums.shape[0]:
        return None
    inside = sums[high:, wide:] - sums[:-high, wide:] - sums[high:, :-wide] + sums[:-high, :-wide]
    rows, columns = np.nonzero(inside >= room * wide * high)
    if not len(rows):
        return None
    nearest = int(np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2))
    return float(columns[nearest]) + wide / 2, float(rows[nearest]) + high / 2
