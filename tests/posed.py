"""Small data sets of keypoints: coloured squares on dark pictures, whose corners are points."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIDE = 64  # pixels of a picture
NAMES = ["top_left", "top_right", "middle"]
CATEGORY: dict[str, Any] = {
    "id": 3, "name": "tile", "keypoints": NAMES, "skeleton": [[1, 3], [3, 2]], "sigmas": [0.1, 0.1, 0.1],
}  # fmt: skip


def squares(seed: int, count: int) -> list[tuple[int, int, int]]:
    """Left, top and side of one or two squares in each picture: (picture, ...) flattened as (index, left, side)."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        for place in range(1 + number % 2):
            rows.append((number, 4 + 32 * place + int(rng.integers(4)), int(rng.integers(18, 24))))
    return rows


def content(seed: int, count: int, part: str) -> tuple[dict[str, Any], list[np.ndarray[Any, Any]]]:
    """COCO json, and the pictures."""
    pictures = [
        np.random.default_rng((seed, number)).integers(0, 40, (SIDE, SIDE, 3), np.uint8) for number in range(count)
    ]
    annotations = []
    for number, left, side in squares(seed, count):
        top = 8 + (left * 7 + number) % 24
        pictures[number][top : top + side, left : left + side] = (200, 60, 60)
        pictures[number][top : top + side // 2, left : left + side // 2] = (60, 200, 60)
        x, y, right = left - 0.5, top - 0.5, left + side - 0.5  # COCO's points count pixels
        points = [x, y, 2, right, y, 2, (x + right) / 2, y + side / 2, 1]
        annotations.append(
            {"id": len(annotations) + 1, "image_id": number, "category_id": 3, "bbox": [left, top, side, side]}
            | {"area": side * side, "iscrowd": 0, "keypoints": points, "num_keypoints": 3}
        )
    images = [{"id": k, "file_name": f"{part}/{k:02d}.png", "width": SIDE, "height": SIDE} for k in range(count)]
    return {"images": images, "categories": [CATEGORY], "annotations": annotations}, pictures


def write_coco(folder: Path, *, train: int = 16, val: int = 8) -> Path:
    """annotations/keypoints_train.json and _val.json, images/train and images/val."""
    (folder / "annotations").mkdir(parents=True)
    for part, seed, count in (("train", 0, train), ("val", 1, val)):
        json_content, pictures = content(seed, count, part)
        (folder / "annotations" / f"keypoints_{part}.json").write_text(json.dumps(json_content))
        (folder / "images" / part).mkdir(parents=True)
        for number, pixels in enumerate(pictures):
            Image.fromarray(pixels).save(folder / "images" / part / f"{number:02d}.png")
    return folder


def write_yolo(folder: Path, *, numbers: int = 3, yaml: str = "") -> Path:
    """The same as YOLO-pose; `yaml` are further lines."""
    for part, seed, count in (("train", 0, 6), ("val", 1, 4)):
        json_content, pictures = content(seed, count, part)
        for kind in ("images", "labels"):
            (folder / kind / part).mkdir(parents=True)
        for number, pixels in enumerate(pictures):
            Image.fromarray(pixels).save(folder / "images" / part / f"{number:02d}.png")
            own = [one for one in json_content["annotations"] if one["image_id"] == number]
            lines = [_line(one, numbers) for one in own]
            (folder / "labels" / part / f"{number:02d}.txt").write_text("\n".join(lines) + "\n")
    shape = f"kpt_shape: [3, {numbers}]\nnames: [tile]\ntrain: images/train\nval: images/val\n"
    (folder / "data.yaml").write_text(shape + yaml)
    return folder


def _line(one: dict[str, Any], numbers: int) -> str:
    x, y, wide, high = one["bbox"]
    words = [0, (x + wide / 2) / SIDE, (y + high / 2) / SIDE, wide / SIDE, high / SIDE]
    for k in range(3):
        px, py, seen = one["keypoints"][3 * k : 3 * k + 3]
        words += [(px + 0.5) / SIDE, (py + 0.5) / SIDE, seen][:numbers]
    return " ".join(f"{word:.6f}" if isinstance(word, float) else str(word) for word in words)
