"""Small painted streets with a mask each, in the layout that docs/segmentation.md shows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

NAMES = ("sky", "road", "tree", "car")
COLOURS = ((135, 190, 235), (110, 110, 115), (40, 130, 50), (200, 40, 40))
IGNORED = 255


def street(rng: np.random.Generator, size: tuple[int, int] = (96, 64)) -> tuple[Image.Image, NDArray[np.uint8]]:
    """A picture of `size` (width, height) and the class of every pixel; a frame of one pixel does not count."""
    width, height = size
    mask = Image.new("L", size, 0)
    pen = ImageDraw.Draw(mask)
    horizon = int(height * rng.uniform(0.4, 0.6))
    pen.rectangle((0, horizon, width, height), fill=1)
    for _ in range(3):
        x, side = int(rng.integers(0, width)), int(rng.integers(height // 8, height // 4))
        pen.ellipse((x - side, horizon - side, x + side, horizon + side // 2), fill=2)
    x, y = int(rng.integers(width // 8, width * 3 // 4)), int(rng.uniform(horizon, height * 0.8))
    pen.rectangle((x, y, x + width // 6, y + height // 6), fill=3)
    pen.rectangle((0, 0, width - 1, height - 1), outline=IGNORED)
    labels = np.asarray(mask)
    colours = np.array([*COLOURS, *[(0, 0, 0)] * (IGNORED + 1 - len(COLOURS))])[labels]
    noisy = np.clip(colours + rng.normal(0, 12, colours.shape), 0, 255).astype(np.uint8)
    return Image.fromarray(noisy), labels


def write_streets(folder: Path, *, train: int = 12, val: int = 4, size: tuple[int, int] = (96, 64)) -> Path:
    """images/train/00.png and masks/train/00.png, the same below val, and classes.json."""
    rng = np.random.default_rng(0)
    for part, count in (("train", train), ("val", val)):
        for kind in ("images", "masks"):
            (folder / kind / part).mkdir(parents=True)
        for number in range(count):
            picture, labels = street(rng, size)
            picture.save(folder / "images" / part / f"{number:02}.png")
            Image.fromarray(labels).save(folder / "masks" / part / f"{number:02}.png")
    classes = [{"index": k, "name": name, "color": COLOURS[k]} for k, name in enumerate(NAMES)]
    (folder / "classes.json").write_text(json.dumps(classes), encoding="utf-8")
    return folder
