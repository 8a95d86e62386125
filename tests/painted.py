"""Painted scenes: a small COCO data set of coloured boxes, a detector that looks for the colours, and a real one.

data = paint(tmp_path / "data", 12)
found = Finder()(images, sizes)                     # DetectionOutput, wrong now and then, the same for the same image
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from resnest.detection.card import DetectionCard, DetectionPreprocess, DetectorSpec
from resnest.detection.detector import DetectionOutput, build_detector
from resnest.inference.model import Model
from resnest.runtime.rle import encode
from resnest.spec import Spec

NAMES, IDS = ("red", "green", "blue"), (3, 7, 20)
SIZES = ((96, 64), (64, 96), (70, 61))  # width, height
PREPROCESS = DetectionPreprocess(short=64, long=128, mean=(0, 0, 0), std=(1, 1, 1))
TINY = Spec(depths=(1, 1, 1, 1), planes=(8, 8, 8, 8), stem_width=4)
SMALL = DetectorSpec(
    masks=True,
    norm="none",
    fpn_channels=8,
    box_convs=0,
    box_channels=8,
    box_features=8,
    mask_convs=1,
    mask_channels=8,
    pre_nms=(50, 50),
    post_nms=(50, 50),
    score_threshold=0.01,
    max_detections=12,
)

# Settings of a run that takes a second, for `detect_small` and `instances_small`.
TINY_RUN = (
    "model.spec={planes: [8, 8, 8, 8], stem_width: 4}", "detector.fpn_channels=32", "detector.box_features=16",
    "detector.mask_channels=32", "detector.box_channels=32", "detector.pre_nms=[50, 50]", "detector.post_nms=[50, 50]",
    "detector.roi_batch=16", "detector.max_detections=20", "detector.anchor_sizes=[8, 16, 32, 64, 128]",
    "detection.short=[48, 64]", "detection.eval_short=64", "train.epochs=2", "train.log_every=1", "train.save_every=1",
    "train.batch_size=2", "data.workers=0", "optim.warmup_steps=2",
)  # fmt: skip


def paint(root: Path, count: int) -> Path:
    """COCO data with `count` validation pictures: up to a box of each colour in one, crowds, pictures with nothing."""
    for part, pictures in (("train", 4), ("val", count)):
        images, annotations = [], []
        rng = np.random.default_rng(pictures)
        (root / "images" / part).mkdir(parents=True)
        for number in range(pictures):
            width, height = SIZES[number % len(SIZES)]
            pixels = np.zeros((height, width, 3), np.uint8)
            for colour in range(3) if number % 5 != 4 else ():
                if rng.random() < 0.75:
                    annotations.append(_box(rng, pixels, colour, number, len(annotations) + 1))
            Image.fromarray(pixels).save(root / "images" / part / f"{number}.png")
            images.append({"id": number, "file_name": f"{part}/{number}.png", "width": width, "height": height})
        categories = [{"id": key, "name": name} for key, name in zip(IDS, NAMES, strict=True)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"instances_{part}.json").write_text(json.dumps(content))
    return root


def _box(rng: np.random.Generator, pixels: NDArray[np.uint8], colour: int, image: int, number: int) -> dict[str, Any]:
    height, width = pixels.shape[:2]
    x, y = int(rng.integers(0, width - 20)), int(rng.integers(0, height - 20))
    w, h = (int(side) for side in rng.integers(6, 20, 2))
    pixels[y : y + h, x : x + w, colour] = 255
    crowd = bool(rng.random() < 0.15)
    polygon = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    inner = np.ones((h, w), bool)
    return {
        "id": number,
        "image_id": image,
        "category_id": IDS[colour],
        "bbox": [x, y, w, h],
        "area": w * h,
        "iscrowd": int(crowd),
        "segmentation": encode(inner, left=x, top=y, size=(height, width)) if crowd else polygon,
    }


class Finder(nn.Module):
    """Finds the box around each colour; its corners and scores are off by an amount that each image decides."""

    def forward(self, images: Tensor, sizes: Tensor) -> DetectionOutput:
        boxes, scores = torch.zeros(len(images), 3, 4), torch.zeros(len(images), 3)
        masks = torch.zeros(len(images), 3, 28, 28)
        for place, image in enumerate(images.cpu()):
            rng = np.random.default_rng(int(image.double().sum() * 100))
            for colour in range(3):
                rows, columns = torch.nonzero(image[colour] > 0.5, as_tuple=True)
                if not len(rows):
                    continue
                box = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()
                boxes[place, colour] = box + torch.tensor(rng.normal(0, 1, 4), dtype=torch.float32)
                scores[place, colour] = float(rng.choice([0.3, 0.6, 0.9]))  # ties
                masks[place, colour] = torch.tensor(rng.random((28, 28)) < 0.9)
        order = scores.argsort(dim=1, descending=True, stable=True)
        labels = torch.arange(3).expand(len(images), 3)
        place = torch.arange(len(images))[:, None]
        return DetectionOutput(*(part[place, order] for part in (boxes, scores, labels, masks)))


def real_model(figures: dict[str, float] | None = None) -> Model:
    """A tiny Mask R-CNN with random weights."""
    torch.manual_seed(0)
    card = DetectionCard(
        architecture="resnest",
        spec=TINY,
        class_names=NAMES,
        preprocess=PREPROCESS,
        detector=SMALL,
        category_ids=IDS,
        figures=figures or {},
    )
    return Model(build_detector(TINY, SMALL, 3).eval(), card, "random")
