"""Small pictures with objects: COCO json, Pascal VOC xml, and the files that go with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco

from resnest.detection.transforms import Geometry

WIDTH, HEIGHT = 40, 30
SQUARE = [[4, 4, 14, 4, 14, 14, 4, 14]]


def coco_json() -> dict[str, Any]:
    """Four images: two kinds of outline, a crowd and a box of one pixel, only a crowd, nothing."""
    runs = {"size": [HEIGHT, WIDTH], "counts": [5 * HEIGHT, 2 * HEIGHT, 33 * HEIGHT]}
    crowd = {
        "size": [HEIGHT, WIDTH],
        "counts": coco.encode(np.ones((HEIGHT, WIDTH), np.uint8, order="F"))["counts"].decode(),
    }
    objects = [
        {"image_id": 40, "category_id": 9, "bbox": [4, 4, 10, 10], "area": 100, "segmentation": SQUARE},
        {"image_id": 7, "category_id": 2, "bbox": [1, 2, 1, 1], "segmentation": [[1, 2, 2, 2, 2, 3, 1, 3]]},
        {"image_id": 40, "category_id": 2, "bbox": [5, 0, 2, 30], "area": 60, "segmentation": runs, "iscrowd": 0},
        {"image_id": 7, "category_id": 9, "bbox": [0, 0, 40, 30], "area": 1200, "segmentation": crowd, "iscrowd": 1},
        {"image_id": 11, "category_id": 9, "bbox": [0, 0, 40, 30], "area": 1200, "segmentation": crowd, "iscrowd": 1},
    ]
    return {
        "images": [
            {"id": number, "file_name": f"{number}.png", "width": WIDTH, "height": HEIGHT} for number in (40, 7, 11, 3)
        ],
        "annotations": [{"id": 100 + place, **item} for place, item in enumerate(objects)],
        "categories": [{"id": 9, "name": "cat"}, {"id": 2, "name": "dog"}],  # holes, and not in order
    }


def many() -> dict[str, Any]:
    """Ten images with an object each."""
    content = coco_json()
    content["images"] = [{**content["images"][0], "id": number, "file_name": f"{number}.png"} for number in range(10)]
    content["annotations"] = [{**content["annotations"][0], "id": number, "image_id": number} for number in range(10)]
    return content


def picture(path: Path, number: int = 0, size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (number * 20, 0, 0)).save(path)


def pictures(folder: Path, content: dict[str, Any]) -> None:
    for item in content["images"]:
        picture(folder / item["file_name"], item["id"], (item["width"], item["height"]))


def write(path: Path, content: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def voc(stem: str, boxes: str = "", size: str = f"<width>{WIDTH}</width><height>{HEIGHT}</height>") -> str:
    return f"<annotation><filename>{stem}.png</filename><size>{size}</size>{boxes}</annotation>"


def voc_object(name: str, corners: tuple[Any, ...], more: str = "") -> str:
    sides = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=False)
    box = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
    return f"<object><name>{name}</name>{more}<bndbox>{box}</bndbox></object>"


def instances(root: Path, part: str, content: dict[str, Any]) -> Path:
    pictures(root / "images" / part, content)
    return write(root / "annotations" / f"instances_{part}.json", content)


def as_is(**changes: Any) -> Geometry:
    """Nothing moves, unless told."""
    whole = {"left": 0, "top": 0, "right": WIDTH, "bottom": HEIGHT, "width": WIDTH, "height": HEIGHT}
    return Geometry(**{**whole, **changes})
