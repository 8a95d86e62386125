"""FCOS (Tian et al., arXiv 1904.01355, 2006.09214): a box from every place inside an object, without anchors.

    net = FCOS(Backbone(spec, out_indices=FCOS.takes), DetectorSpec(kind="fcos"), num_classes=80)

Places near an object's centre learn it, on the level that suits its size; centreness ranks their boxes. Sources:
detectron2, modeling/meta_arch/fcos.py; torchvision, models/detection/fcos.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import generalized_box_iou_loss

from resnest.checkpoints.multipart import Rules
from resnest.detection.card import DetectorSpec
from resnest.detection.naming import Naming, State
from resnest.detection.one_stage import (
    STRIDES,
    DenseHead,
    LevelOutput,
    OneStage,
    by_anchor,
    class_rows,
    rules_of_branch,
    rules_of_levels,
    with_background,
    without_background,
)
from resnest.detection.rpn import Target

REACH = (4, 8)  # strides: the farthest side of an object that a level learns (arXiv 1904.01355, section 3.2)
FIRST_NORMALISER = 300.0  # detectron2's


class FCOSHead(DenseHead):
    """With the centreness of every place, from the branch of the boxes (arXiv 2006.09214, section 2.2)."""

    def __init__(self, spec: DetectorSpec, num_classes: int) -> None:
        super().__init__(spec, num_classes, anchors=1)
        self.centerness = nn.Conv2d(spec.fpn_channels, 1, 3, padding=1)
        self.initialise(spec.prior)

    def forward(self, level: Tensor) -> LevelOutput:
        logits, hidden = self.score(self.class_convs(level)), self.box_convs(level)
        return LevelOutput(
            by_anchor(logits, self.num_classes),
            by_anchor(self.deltas(hidden), 4),
            by_anchor(self.centerness(hidden), 1)[..., 0],
        )


class FCOS(OneStage):
    """One anchor a place, a square as large as the stride: its centre is the place, its side the unit of distances."""

    first_normaliser: ClassVar = FIRST_NORMALISER

    def build_head(self) -> DenseHead:
        return FCOSHead(self.spec, self.num_classes)

    def shapes(self, level: int) -> Tensor:
        half = STRIDES[level] / 2
        return torch.tensor([[-half, -half, half, half]])

    def scores(self, output: LevelOutput) -> Tensor:
        """The geometric mean of class and centreness (arXiv 2006.09214, equation 4)."""
        assert output.centerness is not None
        return (output.logits.sigmoid() * output.centerness.sigmoid()[..., None]).sqrt()

    def decode(self, deltas: Tensor, anchors: Tensor) -> Tensor:
        """From distances to left, top, right and bottom."""
        centre = (anchors[..., :2] + anchors[..., 2:]) / 2
        distances = F.relu(deltas) * (anchors[..., 2:3] - anchors[..., :1])
        return torch.cat([centre - distances[..., :2], centre + distances[..., 2:]], dim=-1)

    def losses(
        self, levels: list[Tensor], images: Tensor, sizes: Tensor, targets: Sequence[Target]
    ) -> dict[str, Tensor]:
        outputs, anchors = self.outputs(levels), self.anchors(levels, (images.shape[2], images.shape[3]))
        places = torch.cat(anchors)
        assert outputs.centerness is not None
        classes, boxes, centers, count = [], [], [], 0
        for image, target in enumerate(targets):
            matched = self.assign(anchors, target)
            objects = (matched >= 0).nonzero()[:, 0]
            labels = torch.full_like(matched, self.num_classes)
            labels[objects] = target.labels[matched[objects]]
            truth, found = target.boxes[matched[objects]], self.decode(outputs.deltas[image, objects], places[objects])
            classes.append(self.focal_loss(outputs.logits[image], labels))
            boxes.append(generalized_box_iou_loss(found, truth, reduction="sum"))
            wanted = centerness(places[objects], truth)
            centers.append(
                F.binary_cross_entropy_with_logits(outputs.centerness[image, objects], wanted, reduction="sum")
            )
            count += len(objects)
        losses = {"class": classes, "box": boxes, "centerness": centers}
        normaliser = self.count_objects(count)
        return {name: torch.stack(parts).sum() / normaliser for name, parts in losses.items()}

    @torch.no_grad()
    def assign(self, anchors: Sequence[Tensor], target: Target) -> Tensor:
        """The object that each place learns, or -1: anchors (M, 4) of each level -> (all M,).

        Near its centre, inside it, on the level of its size; the smallest of several.
        """
        boxes, every = target.boxes, torch.cat(list(anchors))
        if not len(boxes):
            return torch.full((len(every),), -1, device=every.device)
        x, y = ((every[:, :2] + every[:, 2:]) / 2)[:, None].unbind(-1)  # (M, 1)
        stride = (every[:, 2] - every[:, 0])[:, None]
        lower, upper = REACH[0] * stride, REACH[1] * stride
        lower[: len(anchors[0])] = 0
        upper[len(every) - len(anchors[-1]) :] = torch.inf
        x1, y1, x2, y2 = boxes.unbind(-1)  # (T,)
        sides = torch.stack([x - x1, y - y1, x2 - x, y2 - y])  # (4, M, T)
        aside = torch.maximum((x - (x1 + x2) / 2).abs(), (y - (y1 + y2) / 2).abs())
        farthest = sides.amax(0)
        learns = (aside < self.spec.center_radius * stride) & (sides.amin(0) > 0)
        learns &= (farthest > lower) & (farthest < upper)
        smallest, matched = ((x2 - x1) * (y2 - y1)).expand(len(every), -1).masked_fill(~learns, torch.inf).min(1)
        return matched.masked_fill(smallest == torch.inf, -1)


def centerness(anchors: Tensor, boxes: Tensor) -> Tensor:
    """1 in the middle of a box, 0 at its border (arXiv 1904.01355, equation 3): (M, 4), (M, 4) -> (M,)."""
    centre = (anchors[:, :2] + anchors[:, 2:]) / 2
    before, after = centre - boxes[:, :2], boxes[:, 2:] - centre  # left and top, right and bottom
    return (torch.minimum(before, after) / torch.maximum(before, after)).prod(1).sqrt()


# --- names in other code ---


def _rules(layout: str, state: State) -> Rules:
    ours = ("dense.class_convs", "dense.box_convs", "dense.score", "dense.deltas", "dense.centerness")
    if layout == "detectron2":
        theirs = tuple(f"head.{name}" for name in ("cls_subnet", "bbox_subnet", "cls_score", "bbox_pred", "ctrness"))
    else:
        classes, boxes = "head.classification_head", "head.regression_head"
        theirs = (
            f"{classes}.conv",
            f"{boxes}.conv",
            f"{classes}.cls_logits",
            f"{boxes}.bbox_reg",
            f"{boxes}.bbox_ctrness",
        )
    pairs = list(zip(ours, theirs, strict=True))
    branches = [rule for pair in pairs[:2] for rule in rules_of_branch(*pair, state)]
    return [*rules_of_levels(layout), *branches, *((f"{a}.{{leaf}}", f"{b}.{{leaf}}") for a, b in pairs[2:])]


NAMING = Naming(
    parts=("fpn", "dense"),
    known=("fpn.", "dense.", "head."),
    marks={
        "official": ("dense.score.", "dense.deltas.", "dense.centerness."),
        "detectron2": ("head.cls_score.", "head.bbox_pred.", "head.ctrness."),
        "torchvision": ("head.classification_head.", "head.regression_head.", "head.regression_head.bbox_ctrness."),
    },
    rules=_rules,
    rows=class_rows,
    from_torchvision=lambda name, tensor, state: without_background(name, tensor, anchors=1),
    to_torchvision=lambda name, tensor, state: with_background(name, tensor, anchors=1),
    added={"dense.normaliser": torch.tensor(FIRST_NORMALISER)},
)
