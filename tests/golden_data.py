"""Data sets of the golden tests: one kind of painted scene, written in the form of each task.

    write_classification(root), write_multilabel(root), write_detection(root), write_segmentation(root),
    write_panoptic(root)                     # each returns what `data=` takes

The pixels follow from the numbers here alone: files are PNG, random numbers are RandomState's, whose stream numpy
promises not to change (NEP 19), and nothing of `resnest` is imported. So a golden value that moves is the product's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

THINGS, STUFF = ("red", "green", "blue"), ("sky", "sand")
IDS = (3, 7, 20, 41, 42)  # of the categories in COCO files
COLOURS = ((220, 30, 30), (30, 200, 60), (40, 60, 230), (150, 190, 230), (200, 180, 130))
SIZES = ((96, 64), (64, 96), (70, 61))  # width, height
IGNORED = 255  # in masks
TRAIN, VAL = 6, 3  # pictures of places


@dataclass(frozen=True)
class Scene:
    """A picture, the category of every pixel and the number of every pixel's segment; 255 and 0 where there is none."""

    picture: NDArray[np.uint8]  # (H, W, 3)
    labels: NDArray[np.uint8]  # (H, W)
    segments: NDArray[np.int32]  # (H, W)
    crowds: frozenset[int] = frozenset()  # segments

    def regions(self) -> Iterator[tuple[int, int, NDArray[np.bool_]]]:
        """Number, category and pixels of each segment."""
        for number in np.unique(self.segments[self.segments > 0]).tolist():
            pixels = self.segments == number
            yield number, int(self.labels[pixels][0]), pixels


def scene(seed: int, things: tuple[int, ...] | None = None) -> Scene:
    """Sky over sand and up to five things on them, the fifth a crowd; a frame that does not count."""
    rng = np.random.RandomState(seed)
    width, height = SIZES[seed % len(SIZES)]
    labels, segments = np.full((height, width), 3, np.uint8), np.full((height, width), 1000, np.int32)
    horizon = rng.randint(height // 3, height // 2)
    labels[horizon:], segments[horizon:] = 4, 70000
    crowds = set()
    chosen = rng.randint(0, len(THINGS), rng.randint(2, 6)).tolist() if things is None else things
    for number, thing in enumerate(chosen, start=1):
        wide, high = rng.randint(8, 30, 2)
        left, top = rng.randint(1, width - wide), rng.randint(1, height - high)
        labels[top : top + high, left : left + wide] = thing
        segments[top : top + high, left : left + wide] = number
        if number == 5:
            crowds.add(number)
    for edge in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
        labels[edge], segments[edge] = IGNORED, 0
    colours = np.zeros((256, 3))
    colours[: len(COLOURS)] = COLOURS
    picture = np.clip(colours[labels] + rng.randint(-20, 21, (height, width, 3)), 0, 255).astype(np.uint8)
    return Scene(picture, labels, segments, frozenset(crowds))


def scenes(train: int) -> Iterator[tuple[str, list[tuple[str, Scene]]]]:
    """Of each part, its name, and file names without ending with their scenes."""
    for part, first, count in (("train", 0, train), ("val", 500, VAL)):
        yield part, [(f"{number:03d}", scene(first + number)) for number in range(count)]


def write_classification(root: Path) -> Path:
    """Class folders in train/ and val/: the class is that of the things on the picture."""
    for part, count in (("train", 8), ("val", 4)):
        for thing, name in enumerate(THINGS):
            for number in range(count):
                shown = scene(1000 * (part == "val") + 100 * thing + number, things=(thing, thing))
                _save(root / part / name / f"{number:03d}.png", shown.picture)
    return root


def write_multilabel(root: Path) -> Path:
    """Pictures and labels.csv: a label for each colour of things that is on the picture."""
    lines = ["path,labels,split"]
    for number in range(32):
        subset = tuple(thing for thing in range(len(THINGS)) if (number * 5 + number // 8) >> thing & 1)
        shown = scene(2000 + number, things=subset)
        _save(root / f"{number:03d}.png", shown.picture)
        names = "|".join(THINGS[thing] for thing in subset if (shown.labels == thing).any())
        lines.append(f"{number:03d}.png,{names},{'train' if number < 20 else 'val'}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n", encoding="ascii")
    return root / "labels.csv"


def write_detection(root: Path, train: int = TRAIN) -> Path:
    """COCO instances: polygons, and run lengths of crowds; the last training picture has no object."""
    categories = [{"id": IDS[thing], "name": name} for thing, name in enumerate(THINGS)]
    for part, shown_here in scenes(train):
        images: list[dict[str, Any]] = []
        objects: list[dict[str, Any]] = []
        for number, (name, shown) in enumerate(shown_here, start=1):
            height, width = shown.labels.shape
            images.append({"id": number, "file_name": f"{part}/{name}.png", "width": width, "height": height})
            _save(root / "images" / part / f"{name}.png", shown.picture)
            for segment, category, pixels in shown.regions():
                if category < len(THINGS) and not (part == "train" and number == train):
                    crowd = segment in shown.crowds
                    outline = _runs(pixels) if crowd else _polygon(pixels)
                    objects.append({**_described(pixels, category, crowd), "image_id": number, "segmentation": outline})
        for number, one in enumerate(objects, start=1):
            one["id"] = number
        _write(
            root / "annotations" / f"instances_{part}.json",
            {"images": images, "annotations": objects, "categories": categories},
        )
    return root


def write_segmentation(root: Path, train: int = TRAIN) -> Path:
    """Pictures, masks of class numbers, and classes.json."""
    for part, shown_here in scenes(train):
        for name, shown in shown_here:
            _save(root / "images" / part / f"{name}.png", shown.picture)
            _save(root / "masks" / part / f"{name}.png", shown.labels)
    classes = zip((*THINGS, *STUFF), COLOURS, strict=True)
    _write(root / "classes.json", [{"index": k, "name": n, "color": c} for k, (n, c) in enumerate(classes)])
    return root


def write_binary(root: Path, train: int = TRAIN) -> Path:
    """Pictures, and masks in which things are 1, everything else 0, and 255 does not count."""
    for part, shown_here in scenes(train):
        for name, shown in shown_here:
            things = (shown.labels < len(THINGS)).astype(np.uint8)
            _save(root / "images" / part / f"{name}.png", shown.picture)
            _save(root / "masks" / part / f"{name}.png", np.where(shown.labels == IGNORED, IGNORED, things))
    return root


def write_panoptic(root: Path, train: int = TRAIN) -> Path:
    """COCO panoptic: annotations/panoptic_train.json, its folder of maps, and pictures in train/."""
    categories = [
        {"id": IDS[k], "name": name, "isthing": int(k < len(THINGS)), "color": COLOURS[k]}
        for k, name in enumerate((*THINGS, *STUFF))
    ]
    for part, shown_here in scenes(train):
        images, annotations = [], []
        path = root / "annotations" / f"panoptic_{part}.json"
        for number, (name, shown) in enumerate(shown_here, start=1):
            height, width = shown.labels.shape
            images.append({"id": number, "file_name": f"{part}/{name}.png", "width": width, "height": height})
            _save(root / part / f"{name}.png", shown.picture)
            bytes_of_ids = np.stack([shown.segments >> shift & 255 for shift in (0, 8, 16)], -1)
            _save(path.with_suffix("") / f"{name}.png", bytes_of_ids.astype(np.uint8))
            infos = [{"id": n, **_described(pixels, k, n in shown.crowds)} for n, k, pixels in shown.regions()]
            annotations.append({"image_id": number, "file_name": f"{name}.png", "segments_info": infos})
        _write(path, {"images": images, "annotations": annotations, "categories": categories})
    return root


def _described(pixels: NDArray[np.bool_], category: int, crowd: bool) -> dict[str, Any]:
    left, top, right, bottom = _box(pixels)
    box = [left, top, right - left, bottom - top]
    return {"category_id": IDS[category], "bbox": box, "area": int(pixels.sum()), "iscrowd": int(crowd)}


def _box(pixels: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero(pixels)
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def _polygon(pixels: NDArray[np.bool_]) -> list[list[int]]:
    """The box with its upper right corner cut off."""
    left, top, right, bottom = _box(pixels)
    cut = min(right - left, bottom - top) // 3
    return [[left, top, right - cut, top, right, top + cut, right, bottom, left, bottom]]


def _runs(pixels: NDArray[np.bool_]) -> dict[str, Any]:
    """Run lengths, column by column, zeros first."""
    flat = pixels.T.ravel()
    edges = np.flatnonzero(np.diff(flat, prepend=False))
    return {"size": list(pixels.shape), "counts": np.diff(edges, prepend=0, append=len(flat)).tolist()}


def _save(path: Path, pixels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="ascii")
