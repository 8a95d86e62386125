"""Small painted pictures of two classes that overlap, lesions and vessels, with their masks in whatever form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

WIDTH, HEIGHT = 40, 30
Mask = NDArray[np.uint8]


def lesion(number: int = 0) -> Mask:
    """0 and 1; the fourth picture of each part shows none."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    if number % 4 != 3:
        mask[4 : 14 + number % 3, 5:25] = 1
    return mask


def vessel(number: int = 0) -> Mask:
    """0 and 1, over a part of the lesion."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[:, 18 + number % 4 : 30] = 1
    return mask


def picture(number: int) -> Image.Image:
    """Red where the lesion is, blue where the vessel is, and its number in a corner."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[..., 0], pixels[..., 2] = lesion(number) * 220, vessel(number) * 220
    pixels[-1, -1, 1] = number
    return Image.fromarray(pixels)


def save(path: Path, values: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".tif":
        import tifffile

        tifffile.imwrite(path, values, photometric="minisblack")
    else:
        Image.fromarray(values).save(path)


Write = Callable[[Path, int], None]  # writes the masks of a picture: folder of the part, number


def by_class(folder: Path, number: int, *, yes: int = 255, ending: str = "", suffix: str = ".png") -> None:
    """A folder for each class; without a lesion there is no file of it."""
    for name, mask in (("lesion", lesion(number)), ("vessel", vessel(number))):
        if mask.any():
            end = f"_{name[0].upper()}" if ending else ""
            save(folder / name / f"{number}{end}{suffix}", mask * np.uint8(yes))


def stack(number: int) -> NDArray[np.uint8]:
    return np.stack([lesion(number), vessel(number)])


def write(root: Path, way: Write = by_class, classes: str = "", *, train: int = 8, val: int = 4) -> Path:
    for part, numbers in (("train", range(train)), ("val", range(train, train + val))):
        for number in numbers:
            path = root / "images" / part / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(number).save(path)
            way(root / "masks" / part, number)
    if classes:
        (root / "classes.txt").write_text(classes, encoding="utf-8")
    return root
