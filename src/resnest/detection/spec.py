"""The structure of a detector on a backbone: (cascade) R-CNN with a feature pyramid, with or without masks.

Faster R-CNN: arXiv 1506.01497. Mask R-CNN: 1703.06870. Cascade R-CNN: 1712.00726. Feature pyramid: 1612.03144.
Settings of the paper (arXiv 2004.08955, section 5.2 and its detectron2 configuration files) are the defaults.

    DetectorSpec(cascade=True, masks=True)          # Cascade Mask R-CNN
    DetectorSpec(preset="torchvision", norm="none", box_convs=0, box_fcs=2)      # torchvision's fasterrcnn_resnet50_fpn

Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from resnest.errors import ResnestError, unknown
from resnest.spec import GROUPS, MOST, HeadNorm

Preset = Literal["detectron2", "torchvision"]

LEVELS = 5  # P2 to P6 of the feature pyramid; RoIs are cut out of the first four
CASCADE_IOUS = (0.5, 0.6, 0.7)  # arXiv 1712.00726, section 5
CASCADE_WEIGHTS = ((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0))  # detectron2


@dataclass(frozen=True, kw_only=True)
class DetectorSpec:
    """The structure of a detector and the settings of its boxes; the defaults are the paper's.

    Raises:
        ResnestError: if the combination cannot be built.
    """

    cascade: bool = False  # three box heads at IoU 0.5, 0.6, 0.7, each starting from the boxes of the one before
    masks: bool = False  # a mask for each object
    preset: Preset = "detectron2"  # whose conventions where the two differ: see docs/detection.md
    deform: tuple[bool, bool, bool, bool] = (
        False,
        False,
        False,
        False,
    )  # deformable 3x3 (v2), by stage of the backbone
    deform_groups: int = 2
    fpn_channels: int = 256
    norm: HeadNorm = "batch"  # of pyramid and heads; group: for one device with few images a step
    anchor_sizes: tuple[float, ...] = (32, 64, 128, 256, 512)  # pixels, one a level
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)  # height to width
    rpn_batch: int = 256  # anchors sampled per image for the RPN's losses
    rpn_positive: float = 0.5  # of them, at most
    pre_nms: tuple[int, int] = (2000, 1000)  # proposals a level before suppression: training, evaluation
    post_nms: tuple[int, int] = (1000, 1000)  # an image, after it; the paper's cascades train with 2000
    rpn_nms: float = 0.7  # IoU
    roi_batch: int = 512  # proposals sampled per image for the heads' losses
    roi_positive: float = 0.25
    box_convs: int = 4  # 4conv1fc; torchvision's: 0 and 2
    box_fcs: int = 1
    box_channels: int = 256
    box_features: int = 1024
    mask_convs: int = 4  # 8 in the paper's "all tricks"
    mask_channels: int = 256
    score_threshold: float = 0.05  # of what is kept
    nms: float = 0.5  # IoU, class by class
    max_detections: int = 100  # an image

    def __post_init__(self) -> None:
        for name in ("deform", "anchor_sizes", "anchor_ratios", "pre_nms", "post_nms"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name, choices in (("preset", ("detectron2", "torchvision")), ("norm", ("batch", "group", "none"))):
            if getattr(self, name) not in choices:
                raise unknown(f"detector.{name}", str(getattr(self, name)), choices)
        self._check_counts()
        self._check_shares()

    def _check_counts(self) -> None:
        for name in ("deform_groups", "fpn_channels", "rpn_batch", "roi_batch", "box_channels", "box_features",
                     "mask_channels", "max_detections"):  # fmt: skip
            count = getattr(self, name)
            _require(count >= 1, f"{name}={count} must be 1 or more")
            # of what is drawn, a number that is never reached means all
            _require(count <= MOST or name in ("rpn_batch", "roi_batch"), f"{name}={count} must lie in 1 to {MOST}")
        for name in ("box_convs", "box_fcs", "mask_convs"):
            _require(getattr(self, name) >= 0, f"{name}={getattr(self, name)} must be 0 or more")
        for name, count in (("deform", 4), ("anchor_sizes", LEVELS), ("pre_nms", 2), ("post_nms", 2)):
            value = getattr(self, name)
            _require(len(value) == count, f"{name}={list(value)} must have {count} values")
        for name in ("anchor_sizes", "anchor_ratios", "pre_nms", "post_nms"):
            value = getattr(self, name)
            _require(bool(value) and min(value) > 0, f"{name}={list(value)} must all be more than 0")
        if self.norm == "group":
            for name in ("fpn_channels", "box_channels", "mask_channels"):
                width = getattr(self, name)
                _require(width % GROUPS == 0, f"{name}={width} with norm=group must be a multiple of {GROUPS}")

    def _check_shares(self) -> None:
        for name in ("rpn_positive", "rpn_nms", "roi_positive", "nms"):
            _require(0 < getattr(self, name) <= 1, f"{name}={getattr(self, name)} must lie in (0, 1]")
        _require(0 <= self.score_threshold < 1, f"score_threshold={self.score_threshold} must lie in [0, 1)")

    @property
    def title(self) -> str:
        """Its usual name.

        >>> DetectorSpec(cascade=True, masks=True).title
        'Cascade Mask R-CNN'
        """
        words = ["Cascade"] * self.cascade + ["Mask"] * self.masks
        return " ".join([*(words or ["Faster"]), "R-CNN"])


def _require(met: bool, message: str) -> None:
    if not met:
        raise ResnestError(f"this detector cannot be built: detector.{message}")
