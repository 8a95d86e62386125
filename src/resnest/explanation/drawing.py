"""Maps and split attention as pictures.

overlay(picture, heat)                     # warm where a map speaks for its class, blue where it speaks against it
strip(weights)                             # a column for each channel: which split it uses
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from resnest.runtime.fonts import write

Floats = NDArray[np.float32]
Colour = tuple[int, int, int]

FOR = ((255, 214, 64), (206, 28, 28))  # of a weak and of the strongest value
AGAINST = ((126, 196, 240), (0, 68, 170))
SPLITS = ((0, 114, 178), (246, 245, 240), (213, 94, 0))  # the second split alone, both alike, the first alone
MOST = 0.85  # opacity of the strongest value
GREY = 0.85  # of the picture under the map: colours of its own would be read as the map's
PANEL = 360  # pixels of a panel's longer side, at least
COLUMNS = 4  # panels in a row
PAPER, INK, FAINT = (252, 252, 250), (26, 28, 30), (104, 109, 114)


def overlay(picture: Image.Image, heat: Floats, box: Sequence[float] | None = None) -> Image.Image:
    """A map over its picture.

    Args:
        heat: (H, W) of the picture; 0 is clear, its largest absolute value strongest.
        box: x1, y1, x2, y2, which is framed.
    """
    top = float(np.abs(heat).max())
    strength = np.asarray(np.abs(heat) / (top if top > 0 else 1), np.float32)
    colours = np.where((heat >= 0)[..., None], _ramp(FOR, strength), _ramp(AGAINST, strength))
    pixels = np.asarray(picture.convert("RGB"), np.float32)
    grey = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
    pixels = pixels * (1 - GREY) + grey[..., None] * GREY
    opacity = (MOST * strength)[..., None]
    drawn = Image.fromarray(np.rint(pixels * (1 - opacity) + colours * opacity).clip(0, 255).astype(np.uint8))
    if box is not None:
        pen, width = ImageDraw.Draw(drawn), max(1, round(max(drawn.size) / 240))
        pen.rectangle(tuple(box), outline=(0, 0, 0), width=2 * width)
        pen.rectangle(tuple(box), outline=(255, 255, 255), width=width)
    return drawn


def _ramp(ends: tuple[Colour, Colour], strength: Floats) -> Floats:
    low, high = (np.array(end, np.float32) for end in ends)
    return np.asarray(low + (high - low) * strength[..., None], np.float32)


def strip(weights: Floats, order: NDArray[np.int64]) -> Image.Image:
    """The attention of one block, (R, C): C pixels wide, one high, or with three splits and more R.

    Two splits: orange where a channel uses the first, blue where it uses the second. Else dark is much.

    Args:
        order: of the channels, (C,).
    """
    rows = weights[:, order]
    if len(rows) == 2:
        second, both, first = (np.array(colour, np.float32) for colour in SPLITS)
        share = rows[0][:, None]
        colours = np.where(
            share >= 0.5, both + (first - both) * (2 * share - 1), both + (second - both) * (1 - 2 * share)
        )[None]
    else:
        pale, dark = np.array(SPLITS[1], np.float32), np.array(SPLITS[0], np.float32)
        colours = pale + (dark - pale) * rows[..., None]
    return Image.fromarray(np.rint(colours).clip(0, 255).astype(np.uint8))


def activations(maps: Floats) -> list[Image.Image]:
    """The splits' own maps (R, h, w) as grey pictures, on one scale."""
    top = float(maps.max())
    pixels = np.rint(maps / top * 255 if top > 0 else maps).clip(0, 255).astype(np.uint8)
    return [Image.fromarray(plane) for plane in pixels]


def channel_order(weights: Floats, cardinality: int) -> NDArray[np.int64]:
    """Channels by the weight of the first split, the largest first, within each cardinal group; (C,)."""
    groups = np.arange(weights.shape[1]) // (weights.shape[1] // cardinality)
    return np.lexsort((-weights[0], groups))


def sheet(panels: Sequence[tuple[Image.Image, str, str]]) -> Image.Image:
    """Pictures of one size in rows, each above its title and a fainter line."""
    wide, high = panels[0][0].size
    size = max(13, round(max(wide, high) / 26))
    gap, text = size, round(3.4 * size)
    columns = min(COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    canvas = Image.new("RGB", (gap + columns * (wide + gap), gap + rows * (high + text)), PAPER)
    pen: Any = ImageDraw.Draw(canvas)
    for number, (picture, title, line) in enumerate(panels):
        left, top = gap + number % columns * (wide + gap), gap + number // columns * (high + text)
        canvas.paste(picture, (left, top))
        write(pen, (left, top + high + size), title, size, fill=INK, anchor="lm")
        write(pen, (left, top + high + 2.3 * size), line, round(0.85 * size), fill=FAINT, anchor="lm")
    return canvas


def panel_size(size: tuple[int, int]) -> tuple[int, int]:
    """Width and height of a picture in a panel: small ones are enlarged."""
    factor = max(1.0, PANEL / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))
