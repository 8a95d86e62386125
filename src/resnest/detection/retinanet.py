"""RetinaNet (Lin et al., arXiv 1708.02002): anchors on every level, their classes learnt with the focal loss.

    net = RetinaNet(Backbone(spec, out_indices=RetinaNet.takes), DetectorSpec(kind="retinanet"), num_classes=80)

Sources: detectron2, modeling/meta_arch/retinanet.py; torchvision, models/detection/retinanet.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import generalized_box_iou_loss

from resnest.checkpoints.multipart import Rules, conv_norm
from resnest.detection import rpn as box_ops
from resnest.detection.naming import Naming, State
from resnest.detection.one_stage import (
    DenseHead,
    LevelOutput,
    OneStage,
    class_rows,
    rules_of_branch,
    rules_of_levels,
    with_background,
    without_background,
)
from resnest.detection.rpn import FOREGROUND, IGNORED, Target, match
from resnest.errors import ResnestError

WEIGHTS = (1.0, 1.0, 1.0, 1.0)  # of deltas
BETA = 0.1  # where smooth L1 becomes linear (detectron2's MODEL.RETINANET.SMOOTH_L1_LOSS_BETA)
FIRST_NORMALISER = 100.0  # detectron2's


class RetinaNet(OneStage):
    """Several anchors at each place, of `anchor_scales` sizes and all ratios."""

    first_normaliser: ClassVar = FIRST_NORMALISER

    def build_head(self) -> DenseHead:
        return DenseHead(self.spec, self.num_classes, self.spec.anchor_scales * len(self.spec.anchor_ratios))

    def shapes(self, level: int) -> Tensor:
        """By size, then ratio (detectron2's order); torchvision has whole pixels."""
        first, scales = self.spec.anchor_sizes[level], self.spec.anchor_scales
        sizes = [first * 2 ** (scale / scales) for scale in range(scales)]
        if self.spec.preset == "torchvision":
            sizes = [int(size) for size in sizes]
        return torch.cat([box_ops.anchor_shapes(self.spec, size) for size in sizes])

    def scores(self, output: LevelOutput) -> Tensor:
        return output.logits.sigmoid()

    def decode(self, deltas: Tensor, anchors: Tensor) -> Tensor:
        return box_ops.decode(deltas, anchors, WEIGHTS)

    def losses(
        self, levels: list[Tensor], images: Tensor, sizes: Tensor, targets: Sequence[Target]
    ) -> dict[str, Tensor]:
        outputs, anchors = self.outputs(levels), torch.cat(self.anchors(levels, (images.shape[2], images.shape[3])))
        classes, boxes, counts = [], [], []
        for logits, deltas, target in zip(outputs.logits, outputs.deltas, targets, strict=True):
            labels, objects, truth = self.assign(anchors, target)
            counted = labels >= 0
            classes.append(self.focal_loss(logits[counted], labels[counted]))
            boxes.append(self.box_loss(deltas[objects], anchors[objects], truth))
            counts.append(len(objects))
        if self.spec.preset == "torchvision":  # which averages over images, not over anchors
            shares = torch.stack(classes).new_tensor([1 / max(count, 1) / len(counts) for count in counts])
        else:
            shares = 1 / self.count_objects(sum(counts))
        return {"class": (torch.stack(classes) * shares).sum(), "box": (torch.stack(boxes) * shares).sum()}

    @torch.no_grad()
    def assign(self, anchors: Tensor, target: Target) -> tuple[Tensor, Tensor, Tensor]:
        """For anchors (M, 4): labels (M,), K for background and -1 for what does not count; objects' rows and boxes."""
        low, high = self.spec.match_iou
        matched, kind = match(anchors, target.boxes, background=low, foreground=high, low_quality=True)
        objects = (kind == FOREGROUND).nonzero()[:, 0]
        labels = torch.full_like(kind, self.num_classes)
        labels[kind == IGNORED] = -1
        labels[objects] = target.labels[matched[objects]]
        return labels, objects, target.boxes[matched[objects]]

    def box_loss(self, deltas: Tensor, anchors: Tensor, truth: Tensor) -> Tensor:
        """Sum over the anchors of objects: (M, 4) all."""
        if self.spec.box_loss == "giou":
            loss: Tensor = generalized_box_iou_loss(self.decode(deltas, anchors), truth, reduction="sum")
            return loss
        beta = BETA if self.spec.box_loss == "smooth_l1" else 0.0
        return F.smooth_l1_loss(deltas, box_ops.encode(anchors, truth, WEIGHTS), beta=beta, reduction="sum")


# --- names in other code ---

SIZES = 3  # of anchors a level, for each ratio: both code bases' own number


def _rules(layout: str, state: State) -> Rules:
    if layout == "detectron2":
        return [
            *rules_of_levels(layout),
            *rules_of_branch("dense.class_convs", "head.cls_subnet", state),
            *rules_of_branch("dense.box_convs", "head.bbox_subnet", state),
            ("dense.score.{leaf}", "head.cls_score.{leaf}"),
            ("dense.deltas.{leaf}", "head.bbox_pred.{leaf}"),
        ]
    rules = rules_of_levels(layout)
    for ours, theirs in (("class", "classification"), ("box", "regression")):
        branch = f"head.{theirs}_head.conv"
        if f"{branch}.2.weight" in state:  # torchvision before 0.13
            rules += rules_of_branch(f"dense.{ours}_convs", branch, state)
        else:
            rules += conv_norm(f"dense.{ours}_convs.{{i}}", f"{branch}.{{i}}.0", f"{branch}.{{i}}.1")
    return [
        *rules,
        ("dense.score.{leaf}", "head.classification_head.cls_logits.{leaf}"),
        ("dense.deltas.{leaf}", "head.regression_head.bbox_reg.{leaf}"),
    ]


def _from_torchvision(name: str, tensor: Tensor, state: State) -> Tensor:
    """torchvision has the anchors by ratio, then size, and the background as the first class."""
    anchors = len(state["head.regression_head.bbox_reg.bias"]) // 4
    return _turned(name, without_background(name, tensor, anchors), anchors, by_size=False)


def _to_torchvision(name: str, tensor: Tensor, state: State) -> Tensor:
    anchors = len(state["dense.deltas.bias"]) // 4
    return with_background(name, _turned(name, tensor, anchors, by_size=True), anchors)


def _turned(name: str, tensor: Tensor, anchors: int, *, by_size: bool) -> Tensor:
    """A predictor with its rows by ratio, then size, or the other way round."""
    if not name.startswith(("dense.score.", "dense.deltas.")):
        return tensor
    if anchors % SIZES:
        raise ResnestError(f"{anchors} anchors a place: torchvision's order is known of {SIZES} sizes a level alone")
    first, second = (SIZES, anchors // SIZES) if by_size else (anchors // SIZES, SIZES)
    rows: Tensor = tensor.unflatten(0, (first, second, -1))
    return rows.transpose(0, 1).flatten(0, 2)


NAMING = Naming(
    parts=("fpn", "dense"),
    known=("fpn.", "dense.", "head."),
    marks={
        "official": ("dense.score.", "dense.deltas."),
        "detectron2": ("head.cls_score.", "head.bbox_pred."),
        "torchvision": ("head.classification_head.", "head.regression_head."),
    },
    rules=_rules,
    rows=class_rows,
    from_torchvision=_from_torchvision,
    to_torchvision=_to_torchvision,
    added={"dense.normaliser": torch.tensor(FIRST_NORMALISER)},
)
