"""The kinds of detectors: names, where their networks are, and the settings that only some of them have. No torch.

KINDS["fcos"].title                                    # "FCOS"
KINDS["fcos"].usual["nms"]                             # 0.6, where a `DetectorSpec` says nothing

A new kind is a module with its network and the names of its tensors, and an entry here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Faster R-CNN: arXiv 1506.01497. Mask R-CNN: 1703.06870. Cascade R-CNN: 1712.00726. Feature pyramid: 1612.03144.
# RetinaNet: 1708.02002. FCOS: 1904.01355, as in 2006.09214: centreness beside the boxes, which are in units of stride.


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of detector."""

    title: str
    network: str  # import path of its class, a `Detector`
    naming: str  # import path of its `Naming`: its tensors in other code
    own: frozenset[str]  # those fields of a `DetectorSpec` that not all kinds have, and this one has
    usual: Mapping[str, Any] = field(default_factory=dict)  # of fields that are None
    free_size: bool = False  # whether exported files take any number of images of any size


ANCHORS = {"anchor_sizes", "anchor_ratios"}
RCNN = {
    "cascade", "masks", "rpn_batch", "rpn_positive", "pre_nms", "post_nms", "rpn_nms", "roi_batch", "roi_positive",
    "box_convs", "box_fcs", "box_channels", "box_features", "mask_convs", "mask_channels", "class_loss",
    "normed_classifier",
}  # fmt: skip
ONE_STAGE = {"p6_from", "head_convs", "head_norm", "candidates", "focal_alpha", "focal_gamma", "prior"}
THRESHOLDS = {"score_threshold": 0.05, "nms": 0.5}

# the usual values are detectron2's: configs/Base-RetinaNet.yaml and configs/common/models/{retinanet,fcos}.py
KINDS: Mapping[str, Kind] = {
    "rcnn": Kind(
        title="R-CNN",
        network="resnest.detection.rcnn:RCNN",
        naming="resnest.detection.rcnn_naming:NAMING",
        own=frozenset({*ANCHORS, *RCNN}),
        usual=THRESHOLDS,
    ),
    "retinanet": Kind(
        title="RetinaNet",
        network="resnest.detection.retinanet:RetinaNet",
        naming="resnest.detection.retinanet:NAMING",
        own=frozenset({*ANCHORS, *ONE_STAGE, "anchor_scales", "match_iou", "box_loss"}),
        usual={**THRESHOLDS, "head_norm": "none", "p6_from": "c5"},
        free_size=True,
    ),
    "fcos": Kind(
        title="FCOS",
        network="resnest.detection.fcos:FCOS",
        naming="resnest.detection.fcos:NAMING",
        own=frozenset({*ONE_STAGE, "center_radius"}),
        usual={"score_threshold": 0.2, "nms": 0.6, "head_norm": "group", "p6_from": "p5"},
        free_size=True,
    ),
}
