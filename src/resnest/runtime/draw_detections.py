"""Boxes and masks drawn into a picture, with a legend that counts them; Pillow and numpy alone.

    draw_detections(image, found.shown()).save("out.jpg")

Made to be read on any photograph: colours that colour-blind people tell apart, lines with a dark rim, texts on paper of
their class's colour. A text that would lie on another one is moved or left out, and so are all where one class has more
than a few objects: the legend says what there is. Masks of one class have a colour an object, since objects touch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from resnest.runtime.detections import Detections
from resnest.runtime.drawing import RIM, Entry, Place, enlarged, ink_on, is_free, with_legend
from resnest.runtime.label_map import Colour
from resnest.runtime.palette import FIRST, colour, shade
from resnest.runtime.rle import RLE, box, decode

FILL = 0.35  # of a mask's colour over the picture
FEW = 20  # objects that have texts although there is one class, and boxes although there are masks


def draw_detections(image: Image.Image, found: Detections) -> Image.Image:
    """The picture with its objects, and a legend below it."""
    picture, factor = enlarged(image)
    colours = _colours(found)
    width = _line_width(picture, found, factor)
    if found.masks is not None:
        picture = _with_masks(picture, found.masks, colours, factor, width)
    pen = ImageDraw.Draw(picture)
    boxes = found.boxes * factor
    if found.masks is None or len(found) <= FEW:
        for place in range(len(found))[::-1]:  # the best one on top
            _draw_box(pen, boxes[place], colours[place], width)
    if len(found.classes.names) > 1 or len(found) <= FEW:
        _write_labels(pen, found, boxes, colours, max(11, min(picture.size) // 40), picture.size)
    return with_legend(picture, _legend(found))


def _colours(found: Detections) -> list[Colour]:
    """Of each object."""
    if not _apart(found):
        return [colour(int(label)) for label in found.labels]
    few = len(FIRST)
    return [shade(colour(place % few), place // few % 2) for place in range(len(found))]


def _apart(found: Detections) -> bool:
    """Whether each object has a colour of its own."""
    return found.masks is not None and len(found.classes.names) == 1


def _line_width(picture: Image.Image, found: Detections, factor: int) -> int:
    """By the size of the picture, and thinner around small objects."""
    sides = (found.boxes[:, 2:] - found.boxes[:, :2]) * factor
    typical = float(np.median(sides)) if len(found) else 0.0
    return max(1, min(round(max(picture.size) / 400), round(typical / 12)))


def _with_masks(
    picture: Image.Image, masks: tuple[RLE, ...], colours: list[Colour], factor: int, width: int
) -> Image.Image:
    pixels = np.array(picture)
    for mask, own in zip(masks[::-1], colours[::-1], strict=True):
        left, top, wide, high = box(mask)
        inner = decode(mask)[top : top + high, left : left + wide].repeat(factor, 0).repeat(factor, 1)
        part = pixels[top * factor : (top + high) * factor, left * factor : (left + wide) * factor]
        part[inner] = (part[inner] * (1 - FILL) + np.array(own) * FILL).astype(np.uint8)
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
    found: Detections,
    boxes: NDArray[np.float32],
    colours: list[Colour],
    size: int,
    picture: tuple[int, int],
) -> None:
    """The best objects first: each where it lies on no other text, or nowhere."""
    font = ImageFont.load_default(size)
    taken: list[Place] = []
    for place in range(len(found)):
        text = f"{found.classes.names[found.labels[place]]} {found.scores[place]:.0%}"
        wide, high = pen.textlength(text, font) + size / 2, size * 1.3
        spot = _spot(boxes[place], wide, high, picture, taken)
        if spot is None:
            continue
        taken.append(spot)
        pen.rectangle(spot, fill=colours[place])
        pen.text((spot[0] + size / 4, spot[1] + high / 2), text, fill=ink_on(colours[place]), font=font, anchor="lm")


def _spot(
    corners: NDArray[np.float32], wide: float, high: float, picture: tuple[int, int], taken: list[Place]
) -> Place | None:
    """Above the box, within it, or below it, wholly in the picture."""
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


def _legend(found: Detections) -> list[Entry]:
    """Each class with the number of its objects."""
    apart = _apart(found)
    places = {name: place for place, name in enumerate(found.classes.names)}
    return [Entry(f"{name}  {n}", None if apart else colour(places[name])) for name, n in found.counts().items()]
