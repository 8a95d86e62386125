"""Labels, boxes, masks and regions drawn into a picture; Pillow's built-in font, no OpenCV.

    draw_labels(image, [("rose", 0.91), ("tulip", 0.06)]).save("out.jpg")
    draw_objects(image, boxes, texts=["RBC 91%"], colours=[(230, 159, 0)], legend=[Entry("RBC  1", (230, 159, 0))])

Objects are readable on any photograph: lines have a dark rim, texts a background of their colour. A text that would
overlap another is moved or left out; the legend lists all classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from resnest.runtime.palette import Colour
from resnest.runtime.rle import RLE, box, decode

INK, FAINT, PAPER, RIM, BAR = (255, 255, 255), (150, 156, 164), (18, 22, 28), (16, 16, 16), (72, 140, 255)
LEAST_SIDE = 640  # pixels: smaller pictures are enlarged, by integers
MASK_FILL = 0.35  # of a mask's colour over the picture
FEW = 20  # objects that have boxes although there are masks, and texts although there is one class

Rectangle = tuple[float, float, float, float]  # left, top, right, bottom


class Entry(NamedTuple):
    """An entry of the legend."""

    text: str
    colour: Colour | None = None


def draw_labels(image: Image.Image, ranking: Sequence[tuple[str, float]]) -> Image.Image:
    """The picture with a panel below it: one line per label, with a bar of its score.

    Pictures under 320 pixels are enlarged so that the text stays readable. Without labels the panel says so.
    """
    scale = max(1.0, 320 / image.width)
    picture = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    size = max(14, picture.width // 32)
    font = ImageFont.load_default(size)
    row, pad = round(size * 1.7), size // 2
    canvas = Image.new("RGB", (picture.width, picture.height + row * max(1, len(ranking)) + 2 * pad), PAPER)
    canvas.paste(picture, (0, 0))
    pen = ImageDraw.Draw(canvas)
    for index, (label, score) in enumerate(ranking):
        top = picture.height + pad + index * row
        _draw_row(pen, font, (pad, top, picture.width - pad, top + row), label, score)
    if not ranking:
        pen.text((pad, picture.height + pad), "no label", fill=FAINT, font=font)
    return canvas


def draw_objects(
    image: Image.Image,
    boxes: NDArray[np.float32],
    *,
    texts: Sequence[str],
    colours: Sequence[Colour],
    legend: Sequence[Entry] | None = None,
    masks: Sequence[RLE] | None = None,
) -> Image.Image:
    """The picture with its objects, the best on top, and perhaps a legend below it.

    Args:
        boxes: (M, 4) x1, y1, x2, y2 in pixels, the best object first.
        texts: of each object, or none at all.
        legend: below the picture; None: no panel below it.
        masks: of the full picture; of more than `FEW` objects with masks, boxes are not drawn.
    """
    picture, factor = enlarged(image)
    boxes = boxes * factor
    width = _line_width(picture, boxes)
    if masks is not None:
        picture = _with_masks(picture, masks, colours, factor, width)
    pen = ImageDraw.Draw(picture)
    if masks is None or len(boxes) <= FEW:
        for corners, own in zip(boxes[::-1], colours[::-1], strict=True):
            _draw_box(pen, corners, own, width)
    if texts:
        _write_labels(pen, boxes, texts, colours, picture.size)
    return picture if legend is None else with_legend(picture, legend)


def enlarged(image: Image.Image) -> tuple[Image.Image, int]:
    """The picture in RGB, enlarged if it is small, and the factor."""
    factor = max(1, -(-LEAST_SIDE // max(image.size)))
    picture = image.convert("RGB")
    if factor > 1:
        picture = picture.resize((image.width * factor, image.height * factor), Image.Resampling.BICUBIC)
    return picture, factor


def with_legend(picture: Image.Image, entries: Sequence[Entry]) -> Image.Image:
    """A panel below with each entry and its colour, in as many lines as needed; without entries it says so."""
    size = max(14, picture.width // 45)
    font = ImageFont.load_default(size)
    pad, row = size // 2, round(size * 1.6)
    pen = ImageDraw.Draw(picture)
    positions, x, y = [], pad, pad
    for text, colour in entries:
        wide = round((size * 1.5 if colour else 0) + pen.textlength(text, font) + 2 * pad)
        if x + wide > picture.width and x > pad:
            x, y = pad, y + row
        positions.append((x, y))
        x += wide
    canvas = Image.new("RGB", (picture.width, picture.height + y + row + pad), PAPER)
    canvas.paste(picture, (0, 0))
    pen = ImageDraw.Draw(canvas)
    for (text, colour), (x, y) in zip(entries, positions, strict=True):
        top = picture.height + y
        if colour:
            pen.rectangle((x, top, x + size, top + size), fill=colour)
        pen.text((x + (size * 1.5 if colour else 0), top + size / 2), text, fill=INK, font=font, anchor="lm")
    if not entries:
        pen.text((pad, picture.height + pad), "nothing found", fill=FAINT, font=font)
    return canvas


def ink_on(colour: Colour) -> Colour:
    """Black or white, whichever has more contrast (luma of ITU-R BT.601)."""
    red, green, blue = colour
    return RIM if 0.299 * red + 0.587 * green + 0.114 * blue > 110 else INK


def is_free(spot: Rectangle, taken: Iterable[Rectangle]) -> bool:
    """Whether it overlaps none of the others."""
    return not any(overlap(spot, other) for other in taken)


def overlap(box: Rectangle, other: Rectangle) -> bool:
    """Whether they overlap in more than a border."""
    return box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]


def _draw_row(
    pen: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    box: tuple[int, int, int, int],
    label: str,
    score: float,
) -> None:
    left, top, right, bottom = box
    percent = f"{score:.1%}"
    room = right - left - pen.textlength("100.0%  ", font)
    while pen.textlength(label, font) > room and len(label) > 2:
        label = label[:-2] + "\N{HORIZONTAL ELLIPSIS}"
    thickness = max(2, (bottom - top) // 10)
    pen.text((left, top), label, fill=INK, font=font)
    pen.text((right, top), percent, fill=INK, font=font, anchor="ra")
    line = bottom - thickness - 1
    pen.rectangle((left, line, left + max(1, round((right - left) * score)), line + thickness - 1), fill=BAR)


def _line_width(picture: Image.Image, boxes: NDArray[np.float32]) -> int:
    """Line width by the size of the picture, thinner around small objects."""
    typical = float(np.median(boxes[:, 2:] - boxes[:, :2])) if len(boxes) else 0.0
    return max(1, min(round(max(picture.size) / 400), round(typical / 12)))


def _with_masks(
    picture: Image.Image, masks: Sequence[RLE], colours: Sequence[Colour], factor: int, width: int
) -> Image.Image:
    pixels = np.array(picture)
    for mask, own in zip(masks[::-1], colours[::-1], strict=True):
        left, top, wide, high = box(mask)
        inner = decode(mask)[top : top + high, left : left + wide].repeat(factor, 0).repeat(factor, 1)
        part = pixels[top * factor : (top + high) * factor, left * factor : (left + wide) * factor]
        part[inner] = (part[inner] * (1 - MASK_FILL) + np.array(own) * MASK_FILL).astype(np.uint8)
        part[inner & ~_shrunk(inner, width)] = own
    return Image.fromarray(pixels)


def _shrunk(mask: NDArray[np.bool_], steps: int) -> NDArray[np.bool_]:
    """Without its outermost pixels."""
    for _ in range(steps):
        wide = np.pad(mask, 1)
        mask = mask & wide[:-2, 1:-1] & wide[2:, 1:-1] & wide[1:-1, :-2] & wide[1:-1, 2:]
    return mask


def _draw_box(pen: ImageDraw.ImageDraw, corners: NDArray[np.float32], colour: Colour, width: int) -> None:
    left, top, right, bottom = (round(float(side)) for side in corners)
    right, bottom = max(right - 1, left), max(bottom - 1, top)
    if width > 1:
        pen.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=RIM, width=width + 2)
    pen.rectangle((left, top, right, bottom), outline=colour, width=width)


def _write_labels(
    pen: ImageDraw.ImageDraw,
    boxes: NDArray[np.float32],
    texts: Sequence[str],
    colours: Sequence[Colour],
    picture: tuple[int, int],
) -> None:
    """Write labels, the best objects first: each where it overlaps no other text, or nowhere."""
    size = max(11, min(picture) // 40)
    font = ImageFont.load_default(size)
    taken: list[Rectangle] = []
    for corners, text, own in zip(boxes, texts, colours, strict=True):
        wide, high = pen.textlength(text, font) + size / 2, size * 1.3
        spot = _spot(corners, wide, high, picture, taken)
        if spot is None:
            continue
        taken.append(spot)
        pen.rectangle(spot, fill=own)
        pen.text((spot[0] + size / 4, spot[1] + high / 2), text, fill=ink_on(own), font=font, anchor="lm")


def _spot(
    corners: NDArray[np.float32], wide: float, high: float, picture: tuple[int, int], taken: list[Rectangle]
) -> Rectangle | None:
    """A position above the box, within it, or below it, completely in the picture."""
    x1, y1, x2, y2 = map(float, corners)
    left = min(x1, picture[0] - wide)
    for x, y in ((left, y1 - high), (left, y1), (left, y2), (x2 - wide, y1 - high), (x2 - wide, y2)):
        spot = (x, y, x + wide, y + high)
        if y == y1 and y2 - y1 < 2 * high:
            continue  # it would hide what is in the box
        inside = x >= 0 and y >= 0 and spot[3] <= picture[1]
        if inside and is_free(spot, taken):
            return spot
    return None


# --- Drawing regions over a picture, with names where there is room and a legend; Pillow and numpy only ---
# Regions are readable on any photograph: its colours are toned down, so that those of the regions stand out, and
# regions are separated by a dark line with a bright one in it. A name is drawn only where there is room for it.

REGION_FILL = 0.55  # of a region's colour over the picture
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
        (np.arange(count) * full // count) for count, full in zip(small.size[::-1], regions.areas.shape, strict=True)
    )
    return _painted(small, regions.areas[rows[:, None], columns], regions.colours)


def _painted(picture: Image.Image, areas: Areas, own: list[Colour]) -> Image.Image:
    """Colours over a desaturated picture, and lines between the regions."""
    colours = np.array([*own, RIM], np.float32)[areas]  # (H, W, 3); -1: the last
    grey = np.asarray(picture.convert("L"), np.float32)[..., None]
    toned = np.asarray(picture, np.float32) * (1 - GREY) + grey * GREY
    fill = np.where(areas < 0, REGION_FILL / 2, REGION_FILL)[..., None].astype(np.float32)
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
    best = None
    low, top = 1.0, min(mask.shape[0] / high, mask.shape[1] / wide)
    factor = low
    while top - low > 0.05 or best is None:
        centre = _fits(sums, max(1, round(wide * factor)), max(1, round(high * factor)), room)
        if centre is None and best is None:
            return None
        if centre is None:
            top = factor
        else:
            best, low = centre, factor
        factor = (low + top) / 2
    return best


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
