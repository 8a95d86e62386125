"""Colours for any number of classes, as distinguishable as possible for colour-blind people.

    colour(0), colour(41)               # (230, 159, 0), ...
    shade(colour(0), 1)                 # a lighter one

The first seven are Okabe and Ito's (jfly.uni-koeln.de/color) without black, the most different first. Each further
colour is the one of a grid that is farthest from all before it. The distance of two colours is their smallest in Oklab
(bottosson.github.io/posts/oklab) over normal vision and vision without red or green cones (Machado, Oliveira and
Fernandes 2009, table 1).
"""

from __future__ import annotations

import colorsys
from functools import cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]

FIRST = ((230, 159, 0), (86, 180, 233), (240, 228, 66), (204, 121, 167), (0, 158, 115), (213, 94, 0), (0, 114, 178))
MOST = 256  # then the first again
STEPS = 9  # of the grid, along each of red, green and blue
SHADES = (0.0, 0.5, -0.4, 0.25, -0.2, 0.7)  # of the way to white or, below 0, to black
LIGHT = (0.42, 0.93)  # Oklab's lightness: darker and lighter ones are hard to name

VISIONS = (
    ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
)
TO_CONES = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
TO_LAB = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)


class Coloured(Protocol):
    """Classes that may have colours of their own."""

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def colours(self) -> tuple[Colour, ...]: ...  # (K,), or none


def colour(number: int) -> Colour:
    """Colour of class `number`."""
    return _colours()[number % MOST]


def class_colours(classes: Coloured) -> list[Colour]:
    """The data set's colours, else ours."""
    return list(classes.colours) or [colour(number) for number in range(len(classes.names))]


def shade(base: Colour, number: int) -> Colour:
    """Colour of object `number` of a class with this colour: first the colour itself, then lighter and darker ones."""
    hue, light, full = colorsys.rgb_to_hls(*(part / 255 for part in base))
    step = SHADES[number % len(SHADES)]
    light = light + (1 - light) * step if step > 0 else light * (1 + step)
    red, green, blue = colorsys.hls_to_rgb(hue, light, full)
    return round(red * 255), round(green * 255), round(blue * 255)


@cache
def _colours() -> list[Colour]:
    axis = np.linspace(0, 255, STEPS).round()
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    light = _seen(grid)[0][:, 0]
    grid = grid[(light > LIGHT[0]) & (light < LIGHT[1])]
    seen, chosen = _seen(grid), list(FIRST)
    gap = np.min([_gaps(seen, _seen(np.array([colour], float))) for colour in FIRST], 0)
    while len(chosen) < MOST:
        best = int(gap.argmax())
        red, green, blue = (int(part) for part in grid[best])
        chosen.append((red, green, blue))
        gap = np.minimum(gap, _gaps(seen, seen[:, best : best + 1]))
    return chosen


def _gaps(seen: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """(V, N, 3), (V, 1, 3) -> (N,) the smallest distances over all kinds of vision."""
    gaps: NDArray[np.float64] = np.sqrt(((seen - other) ** 2).sum(-1)).min(0)
    return gaps


def _seen(colours: NDArray[np.float64]) -> NDArray[np.float64]:
    """Oklab coordinates of colours (N, 3) for each kind of vision, (V, N, 3)."""
    srgb = colours / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)  # sRGB, IEC 61966-2-1
    cones = np.clip(linear @ np.swapaxes(VISIONS, 1, 2), 0, 1) @ np.transpose(TO_CONES)
    seen: NDArray[np.float64] = np.cbrt(cones) @ np.transpose(TO_LAB)
    return seen


def encode_ids(ids: NDArray[np.int32]) -> NDArray[np.uint8]:
    """(H, W) -> (H, W, 3), COCO's PNG encoding."""
    return np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)


def decode_ids(pixels: NDArray[np.uint8]) -> NDArray[np.int32]:
    """(H, W, 3) -> (H, W)."""
    wide = pixels.astype(np.int32)
    ids: NDArray[np.int32] = wide[..., 0] + 256 * wide[..., 1] + 65536 * wide[..., 2]
    return ids
