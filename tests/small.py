"""A tiny network of each task, with random weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

import resnest
from resnest.keypoints.card import HeadSpec
from resnest.panoptic.card import PanopticSpec
from resnest.panoptic.model import build_panoptic

SPEC = resnest.Spec(depths=(1, 1, 1, 1), planes=(8, 16, 32, 64), stem_width=4)
HEADS: dict[str, Any] = {
    "fpn_channels": 8, "box_convs": 1, "box_channels": 8, "box_features": 16, "mask_convs": 1, "mask_channels": 8,
    "score_threshold": 0.0, "max_detections": 5,
}  # fmt: skip
NETWORKS: dict[str, Callable[[], Any]] = {
    "classification": lambda: resnest.create_model(SPEC, num_classes=3),
    "detection": lambda: resnest.create_detector(SPEC, resnest.DetectorSpec(**HEADS), num_classes=3),
    "segmentation": lambda: resnest.create_segmenter(SPEC, resnest.SegmenterSpec(channels=8), num_classes=3),
    "panoptic": lambda: build_panoptic(
        SPEC, resnest.DetectorSpec(masks=True, **HEADS), PanopticSpec(channels=8), num_classes=3, things=2
    ),
    "keypoints": lambda: resnest.create_pose_net(SPEC, HeadSpec(channels=8), num_classes=3),
}


def small(task: str) -> Any:
    """In evaluation mode."""
    torch.manual_seed(0)
    return NETWORKS[task]().eval()
