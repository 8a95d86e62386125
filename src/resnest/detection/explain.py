"""What of a detector can be explained: each object's score, by the maps that its pyramid is built on.

The number is the score's log odds, for the class alone: where a box lies is not explained. Values times their own
gradients keep one object apart from others of its class (as in ODAM, Zhao and Chan, ICLR 2023), where the mean
gradient of Grad-CAM would not.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou

from resnest.explanation.maps import STAGES
from resnest.explanation.targets import Asked, Target, TargetFinder, log_odds
from resnest.runtime.engines.exported import Prepared
from resnest.runtime.results import THRESHOLD


class ObjectTargets(TargetFinder):
    """Objects, the highest score first."""

    most: ClassVar[int] = 6

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(STAGES[stage - 1] for stage in self.net.takes)

    def run(self, pixels: Tensor, image: Prepared) -> Any:
        sizes = torch.tensor([self.inner(image)] * len(pixels), device=pixels.device)
        return self.net(pixels, sizes)

    def targets(self, outputs: Any, image: Prepared, asked: Asked) -> list[Target]:
        return object_targets(outputs, self.card.class_names, asked)

    def likelihoods(self, outputs: Any, target: Target) -> Tensor:
        return object_likelihoods(outputs, target)


def object_targets(found: Any, names: tuple[str, ...], asked: Asked) -> list[Target]:
    """Objects of the first image that people are shown; of classes that are asked for all, however low they score.

    Args:
        found: a DetectionOutput with a graph.
    """
    scores, labels = found.scores[0].detach(), found.labels[0].tolist()
    least = 0.0 if asked.classes else THRESHOLD
    chosen = [
        number
        for number in torch.argsort(scores, descending=True, stable=True).tolist()
        if scores[number] > 0 and scores[number] >= least and (not asked.classes or labels[number] in asked.classes)
    ]
    return [
        Target(
            label=names[labels[number]],
            index=labels[number],
            score=float(scores[number]),
            value=log_odds(found.scores[0, number]),
            what="log odds",
            box=_box(found.boxes[0, number]),
        )
        for number in chosen
    ]


def _box(row: Tensor) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = np.asarray(row.detach().cpu(), np.float64).tolist()
    return x1, y1, x2, y2


def object_likelihoods(found: Any, target: Target) -> Tensor:
    """Of each image the best score of an object of the class times its overlap (D-RISE, arXiv 2006.03204), (N,)."""
    assert target.box is not None
    own = torch.tensor([target.box], device=found.boxes.device)
    overlaps = torch.stack([box_iou(boxes, own)[:, 0] for boxes in found.boxes])  # (N, D)
    best: Tensor = (overlaps * found.scores * (found.labels == target.index)).amax(1)
    return best
