"""Toys of pictures that no camera makes: classes that only some bands, or only the lower bits, tell apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

SIDE = 64
CLASSES = ("soil", "water")
LOW, HIGH = 0x1210, 0x12F0  # of one upper byte


def scene(number: int, channels: int = 4, dtype: str = "uint16") -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """A picture (H, W, C), and its mask (H, W): water is what is high in the last band, by its lower byte alone."""
    rng = np.random.default_rng(number)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    top, left = rng.integers(4, SIDE // 2, 2)
    mask[top : top + SIDE // 2, left : left + SIDE // 2] = 1
    pixels = rng.integers(0x1200, 0x1300, (SIDE, SIDE, channels)).astype(np.float64)
    pixels[..., -1] = np.where(mask, HIGH, LOW) + rng.integers(-8, 8, mask.shape)
    if dtype == "uint8":
        pixels -= 0x1200
    elif dtype.startswith("float"):
        pixels /= 65535
    return pixels.astype(dtype), mask


def write_scene(path: Path, pixels: NDArray[Any]) -> None:
    """In the format of its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, pixels)
    elif path.suffix == ".tif":
        planes = np.moveaxis(pixels, -1, 0)
        tifffile.imwrite(path, planes, photometric="minisblack", planarconfig="separate")
    else:
        Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(path)


def write_masks(root: Path, count: int = 12, *, suffix: str = ".tif", **scenes: Any) -> Path:
    """A data set of pictures with masks."""
    for number in range(count):
        pixels, mask = scene(number, **scenes)
        write_scene(root / "images" / f"{number:02}{suffix}", pixels)
        (root / "masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(root / "masks" / f"{number:02}.png")
    (root / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    return root


def write_classes(root: Path, count: int = 8, *, suffix: str = ".tif", **scenes: Any) -> Path:
    """A data set of class folders: the whole picture is soil or water in its last band."""
    for number in range(count):
        pixels, mask = scene(number, **scenes)
        ends = [pixels[mask == k][0, -1] for k in (0, 1)]
        for k, name in enumerate(CLASSES):
            whole = pixels.copy()
            whole[..., -1] = ends[k]
            write_scene(root / name / f"{number:02}{suffix}", whole)
    return root
