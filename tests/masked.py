"""Small pictures with masks: folders in every form that is read, and a panoptic json with its maps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.runtime.palette import encode_ids

WIDTH, HEIGHT = 40, 30
CLASSES = "sky\nroad 128 64 128\ntree\n"
COLOURS = ((0, 0, 200), (128, 64, 128), (0, 160, 0))
COLOURED = "".join(f"{name} {r} {g} {b}\n" for name, (r, g, b) in zip(("sky", "road", "tree"), COLOURS, strict=True))


def labels(number: int = 0, size: tuple[int, int] = (WIDTH, HEIGHT)) -> NDArray[np.uint8]:
    """Sky over road, a tree on the left, and a corner that does not count; the horizon falls with `number`."""
    width, height = size
    mask = np.zeros((height, width), np.uint8)
    mask[height // 2 + number :] = 1
    mask[5:15, 3:9] = 2
    mask[-3:, -4:] = 255
    return mask


def scene(mask: NDArray[np.uint8], number: int = 0) -> Image.Image:
    """A picture that shows its classes in their colours, and its number in a corner."""
    palette = np.zeros((256, 3), np.uint8)
    palette[:3] = COLOURS
    pixels = palette[mask]
    pixels[-1, -1] = number
    return Image.fromarray(pixels)


def picture(path: Path, number: int = 0, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    scene(labels(number, size), number).save(path)
    return path


def mask(path: Path, number: int = 0, *, plus: int = 0, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    """Class numbers; `plus` is added to all but 255."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = labels(number, size)
    Image.fromarray(np.where(values == 255, 255, values + plus).astype(np.uint8)).save(path)
    return path


def pairs(images: Path, masks: Path, count: int, *, ending: str = "", first: int = 0) -> None:
    """Pictures and masks of the same names."""
    for number in range(first, first + count):
        picture(images / f"{number}.png" if images != masks else images / f"{number}.jpg", number)
        mask(masks / f"{number}{ending}.png", number)


def text(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def folders(root: Path, train: int = 4, val: int = 2, classes: str = CLASSES) -> Path:
    """images/train, masks/train and the same with val."""
    pairs(root / "images" / "train", root / "masks" / "train", train)
    pairs(root / "images" / "val", root / "masks" / "val", val, first=train)
    text(root / "classes.txt", classes)
    return root


# Categories in no order: things are 7 and 3, stuff 20 and 11.
CATEGORIES = [
    {"id": 20, "name": "sea", "isthing": 0, "color": [0, 0, 200]},
    {"id": 7, "name": "cat", "isthing": 1, "color": [250, 0, 0]},
    {"id": 3, "name": "dog", "isthing": 1, "color": [0, 250, 0]},
    {"id": 11, "name": "sky", "isthing": 0, "color": [0, 0, 90]},
]
# Where segments lie: id, category, x, y, width, height, crowd; later ones on top
SEGMENTS: Sequence[tuple[int, int, int, int, int, int, int]] = (
    (70000, 11, 0, 0, 40, 15, 0),
    (300, 20, 0, 15, 40, 10, 0),
    (5, 7, 4, 6, 10, 14, 0),
    (6, 7, 20, 6, 12, 6, 1),
    (9, 3, 30, 3, 8, 20, 0),
)


def ids(segments: Sequence[tuple[int, ...]] = SEGMENTS) -> NDArray[np.int32]:
    painted = np.zeros((HEIGHT, WIDTH), np.int32)
    for number, _, x, y, width, height, _ in segments:
        painted[y : y + height, x : x + width] = number
    return painted


def info(segments: Sequence[tuple[int, ...]] = SEGMENTS) -> list[dict[str, Any]]:
    """What the json has of them."""
    painted = ids(segments)
    told = []
    for number, category, *_, crowd in segments:
        rows, columns = np.nonzero(painted == number)
        left, top = int(columns.min()), int(rows.min())
        box = [left, top, int(columns.max()) + 1 - left, int(rows.max()) + 1 - top]
        told.append({"id": number, "category_id": category, "area": len(rows), "bbox": box, "iscrowd": crowd})
    return told


def panoptic_json(count: int = 3) -> dict[str, Any]:
    """All segments; of the second image only the stuff."""
    images = [{"id": n, "file_name": f"{n}.png", "width": WIDTH, "height": HEIGHT} for n in range(count)]
    annotations = [
        {"image_id": n, "file_name": f"{n}.png", "segments_info": info(SEGMENTS[:2] if n == 1 else SEGMENTS)}
        for n in range(count)
    ]
    return {"images": images, "annotations": annotations, "categories": [dict(item) for item in CATEGORIES]}


def panoptic(root: Path, content: dict[str, Any] | None = None, part: str = "val2017") -> Path:
    """annotations/panoptic_val2017.json and its folder of maps, pictures in val2017."""
    content = panoptic_json() if content is None else content
    path = root / "annotations" / f"panoptic_{part}.json"
    (root / part).mkdir(parents=True)
    path.with_suffix("").mkdir(parents=True)
    for item in panoptic_json(len(content["images"]))["images"]:
        segments = SEGMENTS[:2] if item["id"] == 1 else SEGMENTS
        Image.fromarray(encode_ids(ids(segments))).save(path.with_suffix("") / item["file_name"])
        shown = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        shown[..., 0] = ids(segments) % 251
        shown[-1, -1] = item["id"]
        Image.fromarray(shown).save(root / part / item["file_name"])
    path.write_text(json.dumps(content), encoding="utf-8")
    return path
