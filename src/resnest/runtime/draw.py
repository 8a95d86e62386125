"""Labels, boxes, masks and regions drawn into a picture; Pillow and numpy only.

    draw_labels(image, [("rose", 0.91), ("tulip", 0.06)]).save("out.jpg")
    draw_objects(image, boxes, texts=["RBC 91%"], colours=[(230, 159, 0)], legend=[Entry("RBC  1", (230, 159, 0))])

Objects are readable on any photograph: lines have a dark rim, texts a background of their colour. A text that would
overlap another is moved or left out; the legend lists all classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from resnest.runtime.fonts import text_width, write
from resnest.runtime.palette import Colour
from resnest.runtime.rle import RLE, area, paint
from resnest.runtime.shown import shown

INK, FAINT, PAPER, RIM, BAR = (255, 255, 255), (150, 156, 164), (18, 22, 28), (16, 16, 16), (72, 140, 255)
LEAST_SIDE = 640  # pixels: smaller pictures are enlarged, by integers
TALLEST = 32_000  # pixels: a JPEG has 65,535 at most
MASK_FILL = 0.35  # of a mask's colour over the picture
BAND = 64  # rows that are painted at once
FEW = 20  # objects that have boxes although there are masks, and texts although there is one class

Rectangle = tuple[float, float, float, float]  # left, top, right, bottom


class Entry(NamedTuple):
    """An entry of the legend."""

    text: str
    colour: Colour | None = None


def draw_labels(image: Image.Image, ranking: Sequence[tuple[str, float]]) -> Image.Image:
    """The picture with a panel below it: one line per label, with a bar of its score.

    Pictures under 320 pixels are enlarged so that the text stays readable, tall strips less. Without labels the panel
    says so.
    """
    scale = max(1.0, min(320 / image.width, TALLEST / image.height))
    picture = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    size = max(14, picture.width // 32)
    row, pad = round(size * 1.7), size // 2
    canvas = Image.new("RGB", (picture.width, picture.height + row * max(1, len(ranking)) + 2 * pad), PAPER)
    canvas.paste(picture, (0, 0))
    pen = ImageDraw.Draw(canvas)
    for index, (label, score) in enumerate(ranking):
        top = picture.height + pad + index * row
        _draw_row(pen, size, (pad, top, picture.width - pad, top + row), label, score)
    if not ranking:
        write(pen, (pad, picture.height + pad), "no label", size, fill=FAINT)
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
    """The picture with its objects, the best box and the smallest mask on top, and perhaps a legend below it.

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
    picture = shown(image)
    if factor > 1:
        picture = picture.resize((image.width * factor, image.height * factor), Image.Resampling.BICUBIC)
    return picture, factor


def with_legend(picture: Image.Image, entries: Sequence[Entry]) -> Image.Image:
    """A panel below with each entry and its colour, in as many lines as needed; without entries it says so."""
    size = max(14, picture.width // 45)
    pad, row = size // 2, round(size * 1.6)
    positions, x, y = [], pad, pad
    for text, colour in entries:
        wide = round((size * 1.5 if colour else 0) + text_width(text, size) + 2 * pad)
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
        write(pen, (x + (size * 1.5 if colour else 0), top + size / 2), text, size, fill=INK, anchor="lm")
    if not entries:
        write(pen, (pad, picture.height + pad), "nothing found", size, fill=FAINT)
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


def _draw_row(pen: ImageDraw.ImageDraw, size: int, box: tuple[int, int, int, int], label: str, score: float) -> None:
    left, top, right, bottom = box
    percent = f"{score:.1%}"
    room = right - left - text_width("100.0%  ", size)
    while text_width(label, size) > room and len(label) > 2:
        label = label[:-2] + "\N{HORIZONTAL ELLIPSIS}"
    thickness = max(2, (bottom - top) // 10)
    write(pen, (left, top), label, size, fill=INK)
    write(pen, (right, top), percent, size, fill=INK, anchor="ra")
    line = bottom - thickness - 1
    pen.rectangle((left, line, left + max(1, round((right - left) * score)), line + thickness - 1), fill=BAR)


def _line_width(picture: Image.Image, boxes: NDArray[np.float32]) -> int:
    """Line width by the size of the picture, thinner around small objects."""
    return max(1, min(round(max(picture.size) / 400), round(_typical_side(boxes) / 12)))


def _typical_side(boxes: NDArray[np.float32]) -> float:
    return float(np.median(boxes[:, 2:] - boxes[:, :2])) if len(boxes) else 0.0


def _with_masks(
    picture: Image.Image, masks: Sequence[RLE], colours: Sequence[Colour], factor: int, width: int
) -> Image.Image:
    """Each pixel in the colour of its smallest mask, with a line around what can be seen of each mask.

    So a small object is never hidden by a large one (detectron2's order), and one pass blends, whatever the number.
    """
    owners = np.zeros((picture.width // factor, picture.height // factor), np.min_scalar_type(len(masks)))  # (W, H)
    for number in sorted(range(len(masks)), key=lambda one: -area(masks[one])):
        paint(owners, masks[number], number + 1)
    owners = np.ascontiguousarray(owners.T)  # (H, W); 0: no mask
    if factor > 1:
        owners = owners.repeat(factor, 0).repeat(factor, 1)
    lines = _apart(owners, width)
    full = _table([(0, 0, 0), *colours], np.uint8)
    added = _table([[round(part * MASK_FILL) for part in colour] for colour in [(0, 0, 0), *colours]], np.uint8)
    fade = [round(value * (1 - MASK_FILL)) for value in range(256)] * 3
    for rows, band in _bands(picture):
        there = owners[rows]
        owned = there > 0
        if owned.any():
            pixels = _packed(band)
            np.copyto(pixels, _packed(band.point(fade)) + added[there], where=owned)
            np.copyto(pixels, full[there], where=lines[rows] & owned)
            picture.paste(_unpacked(pixels), (0, rows.start))
    return picture


def _bands(picture: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """Rows and the picture of them, one band after the other: few enough for a processor's cache."""
    for top in range(0, picture.height, BAND):
        rows = slice(top, min(top + BAND, picture.height))
        yield rows, picture.crop((0, top, picture.width, rows.stop))


# A pixel's bytes, or its 16-bit values, as one number: numpy copies and adds those much faster. Sums must fit.


def _packed(picture: Image.Image) -> NDArray[np.uint32]:
    """(H, W) the red, green and blue of each pixel as one number."""
    return np.array(picture.convert("RGBA")).view(np.uint32)[..., 0]


def _unpacked(pixels: NDArray[np.uint32]) -> Image.Image:
    return Image.fromarray(pixels[..., None].view(np.uint8)).convert("RGB")


def _table(colours: Sequence[Sequence[int]], kind: type[np.uint8] | type[np.uint16]) -> NDArray[Any]:
    """(K) each colour as one number of four bytes, or of four times 16 bits."""
    four = np.zeros((len(colours), 4), kind)
    four[:, :3] = colours
    return four.view(np.uint32 if kind is np.uint8 else np.uint64)[:, 0]


def _apart(owners: NDArray[np.unsignedinteger[Any]], steps: int) -> NDArray[np.bool_]:
    """The pixels that have another owner within so many steps in their row or column; beyond the picture is none."""
    same = []
    for axis in (0, 1):
        lines = np.pad(owners if axis == 0 else owners.T, ((steps, steps), (0, 0)))
        equal, covered = lines[1:] == lines[:-1], 1
        while covered < 2 * steps:
            step = min(covered, 2 * steps - covered)
            equal = equal[:-step] & equal[step:]
            covered += step
        same.append(equal if axis == 0 else equal.T)
    inside: NDArray[np.bool_] = same[0] & same[1]
    return ~inside


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
    size = _text_size(boxes, texts, picture)
    taken: list[Rectangle] = []
    for corners, text, own in zip(boxes, texts, colours, strict=True):
        wide, high = text_width(text, size) + size / 2, size * 1.3
        spot = _spot(corners, wide, high, picture, taken)
        if spot is None:
            continue
        taken.append(spot)
        pen.rectangle(spot, fill=own)
        write(pen, (spot[0] + size / 4, spot[1] + high / 2), text, size, fill=ink_on(own), anchor="lm")


def _text_size(boxes: NDArray[np.float32], texts: Sequence[str], picture: tuple[int, int]) -> int:
    """Of labels: small beside small objects, and of more than `FEW` objects no wider than a typical one."""
    side = _typical_side(boxes)
    most = min(min(picture) // 40, round(side / 2))
    if len(boxes) > FEW:
        unit = float(np.median([text_width(text, 100) for text in texts[:FEW]])) / 100 + 0.5  # width at size 1
        most = min(most, round(side / unit))
    return max(11, most)


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
RIM_LIGHT = 0.35  # of what is under the dark line
BORDER = 235  # of the bright line
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
    areas = regions.areas.repeat(factor, 0).repeat(factor, 1) if factor > 1 else regions.areas
    picture = _painted(picture, areas, regions.colours)
    _write_names(picture, regions)
    return with_legend(picture, legend)


def paint_regions(image: Image.Image, regions: Regions, side: int) -> Image.Image:
    """The picture with its regions, without names, its longer side at most `side` pixels."""
    small = shown(image)
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    rows, columns = (
        (np.arange(count) * full // count) for count, full in zip(small.size[::-1], regions.areas.shape, strict=True)
    )
    return _painted(small, regions.areas[rows[:, None], columns], regions.colours)


def _painted(picture: Image.Image, areas: Areas, own: list[Colour]) -> Image.Image:
    """Colours over a desaturated picture, and lines between the regions."""
    line = max(1, round(max(picture.size) / 1000))
    bright = _edges(areas) if line == 1 else _grown(_edges(areas), line - 1)
    dark = _grown(bright, 1)
    mixed = [_Mix(own, REGION_FILL), _Mix(own, REGION_FILL / 2)]  # of regions, of none
    for rows, band in _bands(picture):
        void, rim = areas[rows] < 0, dark[rows]
        pixels, grey = np.asarray(band.convert("RGBA")), np.asarray(band.convert("L"))
        fills = [
            mix.over(pixels, grey, areas[rows]) for mix, there in zip(mixed, (~void, void), strict=True) if there.any()
        ]
        if len(fills) == 2:
            np.copyto(fills[0], fills[1], where=void)
        fills[0][rim] = (fills[0][rim].view(np.uint8) * RIM_LIGHT).astype(np.uint8).view(np.uint32)
        np.copyto(fills[0], _table([[BORDER] * 3], np.uint8), where=bright[rows])
        picture.paste(_unpacked(fills[0]), (0, rows.start))
    return picture


class _Mix:
    """Colours of regions over a desaturated picture, in 16-bit numbers: 256 times those of the pixels."""

    def __init__(self, own: list[Colour], fill: float) -> None:
        self.light = round(256 * (1 - GREY) * (1 - fill))
        self.greys = _table([[round(256 * GREY * (1 - fill) * value)] * 3 for value in range(256)], np.uint16)
        self.added = _table([[round(256 * fill * part) for part in colour] for colour in [*own, RIM]], np.uint16)

    def over(self, pixels: NDArray[np.uint8], grey: NDArray[np.uint8], areas: Areas) -> NDArray[np.uint32]:
        """(B, W, 4) red, green, blue and more, greys (B, W), regions (B, W), -1 for none -> (B, W) packed."""
        wide = pixels * np.uint16(self.light)
        wide[..., 3] = 0
        packed = wide.view(np.uint64)[..., 0]
        packed += self.greys[grey]
        packed += self.added[areas]
        wide >>= 8
        return wide.astype(np.uint8).view(np.uint32)[..., 0]


def _edges(areas: Areas) -> Mask:
    """Pixels whose right or lower neighbour is of another region."""
    edge = np.zeros(areas.shape, bool)
    edge[:, :-1] |= areas[:, :-1] != areas[:, 1:]
    edge[:-1] |= areas[:-1] != areas[1:]
    return edge


def _grown(mask: Mask, steps: int) -> Mask:
    """The mask dilated by this number of pixels."""
    for _ in range(steps):
        wide = mask.copy()
        for inner, outer in ((wide, mask), (wide.T, mask.T)):
            inner[1:] |= outer[:-1]
            inner[:-1] |= outer[1:]
        mask = wide
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
            wide, high = text_width(names[number], size) + size / 2, size * 1.3
            middle = _roomiest(coarse == number, wide / scale, high / scale, room)
            if middle is None:
                continue
            x, y = middle[0] * scale, middle[1] * scale
            spot = (x - wide / 2, y - high / 2, x + wide / 2, y + high / 2)
            if is_free(spot, taken):
                taken.append(spot)
                rim = {"stroke_width": max(1, size // 9), "stroke_fill": RIM}
                write(pen, (x, y), names[number], size, fill=INK, anchor="mm", **rim)
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
