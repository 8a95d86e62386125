"""Pictures whose class is one spot: red or blue, anywhere on grey noise. What a network looks at is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

SIDE, SPOT = 32, 10
COLOURS = {"red": (220, 40, 40), "blue": (40, 60, 220)}


def spotted(label: str, seed: int) -> tuple[Image.Image, tuple[int, int, int, int]]:
    """A picture, and the box of its spot."""
    rng = np.random.default_rng((seed, *label.encode()))
    pixels = rng.integers(90, 160, (SIDE, SIDE, 1), np.uint8).repeat(3, axis=2)
    left, top = (int(place) for place in rng.integers(0, SIDE - SPOT, 2))
    pixels[top : top + SPOT, left : left + SPOT] = COLOURS[label]
    return Image.fromarray(pixels), (left, top, left + SPOT, top + SPOT)


def write_spotted(folder: Path, count: int) -> Path:
    """A folder for each class."""
    for label in COLOURS:
        for seed in range(count):
            path = folder / label / f"{seed:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            spotted(label, seed)[0].save(path)
    return folder
