"""Data sets of keypoints from data that has none: landmarks derived from masks and from digits, as COCO json.

    python benchmarks/landmarks.py nuclei --data ../shared/data/nuclei --out nuclei-points
    python benchmarks/landmarks.py digits --out digit-points
    resnest train keypoints_small --data nuclei-points --out runs/points

`nuclei`: COCO json with masks as run lengths, one class. Of each nucleus the centre of its mask and the two ends of its
major axis, where the line through the centre along the mask's largest spread leaves the mask; the end with the smaller
x is the left one. Sigmas are our choice: COCO's of eyes and hips are between 0.025 and 0.107. What these sigmas ask for
has to be known of the truth, so

- the ends are annotated of masks at least LONG times as long as wide. Derived again from the mask with a noisy border
  (a pixel more or less), the ends of rounder ones agree by 0.84 to 0.92 (1 is the same place), those of longer ones by
  0.96;
- nor within STEEP of upright, where left and right would be chance;
- nuclei of less than LEAST_AREA pixels are left out: an end that is a pixel off counts 0.88 at 100 pixels, and 0.95 at
  256. They are two of five.

`digits`: scikit-learn's handwritten digits as cards, each enlarged, turned and put onto noise; their four corners.

These points are derived, and nobody placed them: figures on them say how well a network learns places, not how well it
agrees with people.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.runtime.rle import decode

LONG = 1.4  # length to width
STEEP = math.radians(20)
LEAST_AREA = 256  # pixels of a nucleus
HALF = 0.5  # COCO's points count pixels
NUCLEUS = {
    "id": 1,
    "name": "nucleus",
    "keypoints": ["left_end", "right_end", "centre"],
    "skeleton": [[1, 3], [3, 2]],
    "sigmas": [0.1, 0.1, 0.05],
}
CARD = {
    "id": 1,
    "name": "card",
    "keypoints": ["top_left", "top_right", "bottom_right", "bottom_left"],
    "skeleton": [[1, 2], [2, 3], [3, 4], [4, 1]],
    "sigmas": [0.05] * 4,
}
SCENES = {"train": 240, "val": 60}  # of digits
SIDE, CARDS = 192, 4  # pixels of a scene, cards in it at most


def of_nuclei(data: Path, out: Path) -> None:
    """Write out/annotations/keypoints_train.json and _val.json, and copy the pictures."""
    for part in ("train", "val"):
        content = json.loads((data / "annotations" / f"instances_{part}.json").read_text(encoding="utf-8"))
        annotations = [nucleus for item in content["annotations"] if (nucleus := landmarks(item))]
        write(out, part, content["images"], annotations, NUCLEUS)
        for image in content["images"]:
            target = out / "images" / image["file_name"]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(data / "images" / image["file_name"], target)


def landmarks(item: dict[str, Any]) -> dict[str, Any] | None:
    """A nucleus with its points; None of one that is too small."""
    mask = decode(item["segmentation"])
    if mask.sum() < LEAST_AREA:
        return None
    places = np.argwhere(mask)[:, ::-1].astype(np.float64)  # x, y of pixels, as COCO counts them
    centre = places.mean(0)
    values, vectors = np.linalg.eigh(np.cov(places.T))
    axis = vectors[:, 1] * (1 if vectors[0, 1] >= 0 else -1)  # to the right
    along = (places - centre) @ axis
    near = np.abs((places - centre) @ vectors[:, 0]) <= 1  # of the line
    ends = [centre + axis * along[near].min(), centre + axis * along[near].max()]
    clear = math.sqrt(values[1] / max(values[0], 1e-9)) >= LONG and abs(axis[0]) >= math.sin(STEEP)
    seen = 2 if clear else 0
    rows = [(*(ends[0] if clear else (0, 0)), seen), (*(ends[1] if clear else (0, 0)), seen), (*centre, 2)]
    kept = {name: item[name] for name in ("id", "image_id", "bbox", "area")}
    return {**kept, "iscrowd": 0, **points_of(rows), "category_id": 1}


def points_of(rows: list[tuple[float, float, int]]) -> dict[str, Any]:
    """COCO's fields."""
    flat = [number for x, y, seen in rows for number in (round(float(x), 2), round(float(y), 2), seen)]
    return {"keypoints": flat, "num_keypoints": sum(seen > 0 for *_, seen in rows)}


def of_digits(out: Path) -> None:
    """Write scenes of cards and their json."""
    from sklearn.datasets import load_digits

    digits = load_digits().images / 16  # (1797, 8, 8)
    rng = np.random.default_rng(0)
    for part, count in SCENES.items():
        images, annotations = list[Any](), list[Any]()
        for number in range(1, count + 1):
            scene = Image.fromarray(rng.integers(60, 130, (SIDE, SIDE, 3), np.uint8))
            for corners in _cards(scene, digits, rng):
                low, high = corners.min(0), corners.max(0)
                rows = [(x - HALF, y - HALF, 2) for x, y in corners.tolist()]
                sides = (high - low).tolist()
                box = {"bbox": [*low.tolist(), *sides], "area": float(np.hypot(*(corners[1] - corners[0])) ** 2)}
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": number, "category_id": 1, "iscrowd": 0}
                    | {**box, **points_of(rows)}
                )
            name = f"{part}/{number:04d}.png"
            (out / "images" / part).mkdir(parents=True, exist_ok=True)
            scene.save(out / "images" / name)
            images.append({"id": number, "file_name": name, "width": SIDE, "height": SIDE})
        write(out, part, images, annotations, CARD)


def _cards(scene: Image.Image, digits: NDArray[Any], rng: np.random.Generator) -> Iterator[NDArray[np.float64]]:
    """Paste cards into quarters of a scene; the corners of each, (4, 2)."""
    half = SIDE // 2
    for quarter in rng.choice(4, rng.integers(1, CARDS + 1), replace=False).tolist():
        side, turn = rng.uniform(36, 60), math.radians(rng.uniform(-35, 35))
        middle = np.array([quarter % 2, quarter // 2]) * half + half / 2 + rng.uniform(-6, 6, 2)
        cos, sin = math.cos(turn), math.sin(turn)
        square = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * side / 2
        corners = square @ np.array([[cos, sin], [-sin, cos]]) + middle
        pixels = (235 - 200 * digits[rng.integers(len(digits))]).astype(np.uint8)
        card = Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC)
        # from the scene to the card: turned back, in units of its 64 pixels
        scale = 64 / side
        a, b = cos * scale, sin * scale
        moves = (a, b, 32 - a * middle[0] - b * middle[1], -b, a, 32 + b * middle[0] - a * middle[1])
        how = (scene.size, Image.Transform.AFFINE, moves, Image.Resampling.BILINEAR)
        mask = Image.new("L", card.size, 255).transform(*how)
        scene.paste(card.convert("RGB").transform(*how), (0, 0), mask)
        yield corners


def write(out: Path, part: str, images: list[Any], annotations: list[Any], category: dict[str, Any]) -> None:
    folder = out / "annotations"
    folder.mkdir(parents=True, exist_ok=True)
    content = {"images": images, "categories": [category], "annotations": annotations}
    (folder / f"keypoints_{part}.json").write_text(json.dumps(content), encoding="utf-8")
    print(f"{part}: {len(annotations)} objects in {len(images)} pictures")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("nuclei", "digits"))
    parser.add_argument("--data", type=Path, help="of nuclei: the folder with annotations and images")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if args.kind == "digits":
        of_digits(args.out)
    elif args.data is None:
        parser.error("nuclei needs --data")
    else:
        of_nuclei(args.data, args.out)


if __name__ == "__main__":
    main()
