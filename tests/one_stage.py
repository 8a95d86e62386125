"""Small RetinaNets and FCOSs with random weights that find something, and objects for them to learn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from painted import IDS, NAMES, PREPROCESS, TINY
from resnest.detection.card import DetectionCard, DetectorSpec
from resnest.detection.detector import build_detector
from resnest.detection.one_stage import OneStage
from resnest.detection.rpn import Target

SMALL: dict[str, Any] = {"fpn_channels": 8, "head_convs": 1, "candidates": 50, "max_detections": 12, "norm": "none"}
CASES: dict[str, dict[str, Any]] = {
    "retinanet": {},
    "retinanet, giou, group": {"kind": "retinanet", "box_loss": "giou", "head_norm": "group", "p6_from": "p5"},
    "retinanet, torchvision's": {"kind": "retinanet", "preset": "torchvision", "box_loss": "smooth_l1"},
    "fcos": {},
    "fcos, no norm": {"kind": "fcos", "head_norm": "none", "deform": (False, True, True, True)},
    "fcos, torchvision's": {"kind": "fcos", "preset": "torchvision"},
}
ONE_STAGE = ("retinanet", "fcos")
SPEC = replace(TINY, attention_norm="layer")
SIZES = torch.tensor([[64, 96], [61, 70]])


def build(case: str, **changes: Any) -> Any:
    """With weights that find something."""
    torch.manual_seed(0)
    spec = DetectorSpec(**{"kind": case, "score_threshold": 0.02, **SMALL, **CASES[case], **changes})
    net = build_detector(SPEC, spec, 3, zero_gamma=False)
    assert isinstance(net, OneStage)
    for module in net.dense.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.3)
    return net


def target(*boxes: tuple[float, float, float, float], size: tuple[int, int] = (64, 96)) -> Target:
    return Target(torch.tensor(boxes).reshape(-1, 4).float(), torch.arange(len(boxes)) % 3, size)


def card_of(spec: DetectorSpec) -> DetectionCard:
    return DetectionCard(
        architecture="resnest", spec=SPEC, class_names=NAMES, preprocess=PREPROCESS, detector=spec, category_ids=IDS
    )
