"""Painted things and stuff: a small COCO panoptic data set, and a network that looks for the colours.

data = paint_segments(tmp_path / "data", 12)
found = SegmentFinder()(images, sizes)              # PanopticOutput, wrong now and then, the same for the same image
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from painted import SMALL, TINY
from resnest.detection.card import DetectionPreprocess
from resnest.detection.detector import DetectionOutput
from resnest.panoptic.card import PanopticCard, PanopticSpec
from resnest.panoptic.model import PanopticOutput
from resnest.panoptic.result import PanopticMap, write_panoptic
from segments import CLASSES, THINGS, described, random_truth

SIZES = ((96, 64), (64, 96), (72, 60))  # width, height
PREPROCESS = DetectionPreprocess(short=64, long=128, mean=(0, 0, 0), std=(1, 1, 1))
CELL = 4  # pixels a side of what maps are made of
COLOURS = np.array([(0, 0, 0), *CLASSES.colours], np.uint8)  # void first

# Settings of a run that takes a second, for `panoptic_small`, beside those of a detector's
TINY_PANOPTIC = ("panoptic.channels=8", "panoptic.stuff_area=16", "detector.score_threshold=0.01", "panoptic.score=0.1")


def painted(seed: int) -> PanopticMap:
    """A map that pictures are painted from; crowds, void, and now and then nothing at all."""
    width, height = SIZES[seed % len(SIZES)]
    small = random_truth(np.random.default_rng(seed), (height // CELL, width // CELL))
    ids = small.ids.repeat(CELL, 0).repeat(CELL, 1)
    labels = {one.id: one.label for one in small.segments}
    return described(ids, labels, frozenset(one.id for one in small.segments if one.crowd))


def paint_segments(root: Path, count: int, change: Callable[[PanopticMap], PanopticMap] = lambda one: one) -> Path:
    """COCO panoptic data: six pictures to train on, `count` to validate on; `change` is done to every map."""
    for part, seeds in (("train", range(100, 106)), ("val", range(count))):
        (root / part).mkdir(parents=True)
        maps = [change(replace(painted(seed), name=f"{part}/{seed}.png")) for seed in seeds]
        for one in maps:
            Image.fromarray(COLOURS[classes_of(one)]).save(root / one.name)
        write_panoptic(root / "annotations" / f"panoptic_{part}.json", enumerate(maps, start=1), maps[0].classes)
    return root


def classes_of(panoptic: PanopticMap) -> np.ndarray:
    """1 + the class of every pixel, 0 for void."""
    classes = np.zeros(panoptic.ids.shape, np.int64)
    for one in panoptic.segments:
        classes[panoptic.ids == one.id] = 1 + one.label
    return classes


class SegmentFinder(nn.Module):
    """The box around all things of a class, off by an amount that each image decides; stuff as it is painted."""

    panoptic = PanopticSpec(stuff_area=200)

    def forward(self, images: Tensor, sizes: Tensor) -> PanopticOutput:
        colours = torch.from_numpy(COLOURS).float() / 255
        nearest = (images.permute(0, 2, 3, 1)[..., None, :] - colours).abs().sum(-1).argmin(-1)  # (N, H, W)
        boxes, scores = torch.zeros(len(images), THINGS, 4), torch.zeros(len(images), THINGS)
        masks = torch.zeros(len(images), THINGS, 28, 28)
        for place, (image, classes) in enumerate(zip(images, nearest, strict=True)):
            rng = np.random.default_rng(int(image.double().sum() * 100))
            for label in range(THINGS):
                rows, columns = torch.nonzero(classes == 1 + label, as_tuple=True)
                if len(rows):
                    box = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()
                    boxes[place, label] = box + torch.tensor(rng.normal(0, 1, 4), dtype=torch.float32)
                    scores[place, label] = float(rng.choice([0.3, 0.6, 0.9]))  # ties
                    masks[place, label] = torch.tensor(rng.random((28, 28)) < 0.9)
        stuff = (nearest - THINGS).clamp(min=0)  # 0: void and any thing
        semantic = 5 * nn.functional.one_hot(stuff, 1 + len(CLASSES.names) - THINGS).permute(0, 3, 1, 2).float()
        labels = torch.arange(THINGS).expand(len(images), THINGS)
        return PanopticOutput(DetectionOutput(boxes, scores, labels, masks), semantic)


def panoptic_card() -> PanopticCard:
    """What belongs to a `SegmentFinder`."""
    return PanopticCard(
        architecture="resnest",
        spec=TINY,
        class_names=CLASSES.names,
        category_ids=CLASSES.ids,
        colours=CLASSES.colours,
        things=THINGS,
        preprocess=PREPROCESS,
        detector=SMALL,
        panoptic=SegmentFinder.panoptic,
    )
