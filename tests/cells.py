"""A tiny data set of objects: twelve pictures with squares and discs, as COCO json with masks.

write_cells(tmp_path / "cells")           # cells/annotations/instances_train.json, ..._val.json, cells/images/00.png
"""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

WIDTH, HEIGHT = 96, 80
COLOURS = ((190, 60, 60), (70, 60, 160))
NAMES = ("square", "disc")


def write_cells(folder: Path) -> Path:
    """Eight to train on, four to validate on, three objects each."""
    rng = random.Random(0)
    (folder / "annotations").mkdir(parents=True)
    (folder / "images").mkdir()
    for part, numbers in (("train", range(8)), ("val", range(8, 12))):
        images, annotations = [], []
        for number in numbers:
            name = f"{number:02d}.png"
            picture, objects = _picture(rng)
            picture.save(folder / "images" / name)
            images.append({"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT})
            annotations += [{"id": 10 * number + k, "image_id": number, **one} for k, one in enumerate(objects, 1)]
        categories = [{"id": k, "name": name} for k, name in enumerate(NAMES, 1)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (folder / "annotations" / f"instances_{part}.json").write_text(json.dumps(content))
    return folder


def write_lvis(folder: Path) -> Path:
    """The same as LVIS v1: addresses in place of names, frequencies, and lists of classes without an object."""
    write_cells(folder)
    (folder / "images").rename(folder / "train2017")
    for part in ("train", "val"):
        content = json.loads((folder / "annotations" / f"instances_{part}.json").read_text())
        (folder / "annotations" / f"instances_{part}.json").unlink()
        for image in content["images"]:
            image["coco_url"] = f"http://images.cocodataset.org/train2017/{image.pop('file_name')}"
            shown = {one["category_id"] for one in content["annotations"] if one["image_id"] == image["id"]}
            image |= {"neg_category_ids": sorted({1, 2} - shown), "not_exhaustive_category_ids": sorted(shown)[:1]}
        for category, frequency in zip(content["categories"], "rf", strict=True):
            category["frequency"] = frequency
        (folder / "annotations" / f"lvis_v1_{part}.json").write_text(json.dumps(content))
    return folder


def _picture(rng: random.Random) -> tuple[Image.Image, list[dict[str, Any]]]:
    picture = Image.new("RGB", (WIDTH, HEIGHT), (225, 215, 205))
    pen, objects = ImageDraw.Draw(picture), []
    for place in range(3):
        side, kind = rng.randrange(16, 24), rng.randrange(2)
        x, y = 4 + 30 * place + rng.randrange(6), rng.randrange(4, HEIGHT - 28)
        outline = _outline(kind, x, y, side)
        pen.polygon(outline, fill=COLOURS[kind])
        objects.append(
            {
                "category_id": kind + 1,
                "bbox": [x, y, side, side],
                "area": side * side,
                "iscrowd": 0,
                "segmentation": [[number for point in outline for number in point]],
            }
        )
    return picture, objects


def _outline(kind: int, x: float, y: float, side: float) -> list[tuple[float, float]]:
    if kind == 0:
        return [(x, y), (x + side, y), (x + side, y + side), (x, y + side)]
    radius = side / 2
    angles = [2 * math.pi * k / 16 for k in range(16)]
    return [(x + radius + radius * math.cos(a), y + radius + radius * math.sin(a)) for a in angles]
