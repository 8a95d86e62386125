"""Masks that may overlap, drawn into a picture: translucent colours, and an outline around each; Pillow and numpy only.

    draw_masks(image, masks, colours=[(230, 159, 0)], legend=[Entry("vessel  8 %", (230, 159, 0))])

The picture is desaturated under the masks, so that their colours stand out. Where masks overlap their colours mix.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.runtime.draw import BAND, GREY, Entry, enlarged, with_legend
from resnest.runtime.palette import Colour
from resnest.runtime.shown import shown

FILL = 0.45  # of a mask's colour over the picture

Mask = NDArray[np.bool_]


def draw_masks(image: Image.Image, masks: Mask, colours: Sequence[Colour], legend: Sequence[Entry]) -> Image.Image:
    """The picture with masks (K, H, W) of its size, and a legend below it."""
    picture, factor = enlarged(image)
    masks = masks.repeat(factor, 1).repeat(factor, 2) if factor > 1 else masks
    return with_legend(_painted(picture, masks, colours), legend)


def paint_masks(image: Image.Image, masks: Mask, colours: Sequence[Colour], side: int) -> Image.Image:
    """The picture with its masks, its longer side at most `side` pixels."""
    small = shown(image)
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    rows, columns = (
        (np.arange(count) * full // count) for count, full in zip(small.size[::-1], masks.shape[1:], strict=True)
    )
    return _painted(small, masks[:, rows[:, None], columns], colours)


def _painted(picture: Image.Image, masks: Mask, colours: Sequence[Colour]) -> Image.Image:
    line = max(1, round(max(picture.size) / 640))
    for top in range(0, picture.height, BAND):
        first, last = max(top - line, 0), min(top + BAND + line, picture.height)  # lines reach over a band's edge
        part = picture.crop((0, top, picture.width, min(top + BAND, picture.height)))
        rows = slice(top - first, top - first + part.height)
        pixels = np.asarray(part.convert("RGB"), np.float32)
        seen = masks[:, first:last]
        if not seen[:, rows].any():
            continue
        grey = np.asarray(part.convert("L"), np.float32)[..., None]
        covered: Mask = np.any(seen[:, rows], axis=0, keepdims=True).transpose(1, 2, 0)  # (h, W, 1)
        pixels = np.where(covered, pixels + GREY * (grey - pixels), pixels)
        for mask, colour in zip(seen, colours, strict=True):
            inside = mask[rows]
            pixels[inside] += FILL * (np.array(colour, np.float32) - pixels[inside])
        for mask, colour in zip(seen, colours, strict=True):
            pixels[(mask & ~_eroded(mask, line))[rows]] = colour
        picture.paste(Image.fromarray(pixels.round().astype(np.uint8)), (0, top))
    return picture


def _eroded(mask: Mask, steps: int) -> Mask:
    """Without the pixels within so many steps of its edge, along rows and columns; beyond the picture is no edge."""
    for _ in range(steps):
        inner = mask.copy()
        inner[1:] &= mask[:-1]
        inner[:-1] &= mask[1:]
        inner[:, 1:] &= mask[:, :-1]
        inner[:, :-1] &= mask[:, 1:]
        mask = inner
    return mask
