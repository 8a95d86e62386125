"""The region proposal network: class-agnostic object proposals (Ren et al., arXiv 1506.01497).

rpn = ProposalNetwork(256, spec)
proposals = rpn(levels, image_size, sizes)         # Proposals: boxes (N, P, 4), exists (N, P)
losses = rpn.losses(proposals, targets)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnest.detection import boxes as box_ops
from resnest.detection.boxes import Target, level_anchors, match, sample
from resnest.detection.spec import DetectorSpec
from resnest.network.pyramid import STRIDES

TORCHVISION_BETA = 1 / 9  # of its smooth L1 losses, here and in the heads; detectron2's are plain L1
MIN_SIDE = {"detectron2": 0.0, "torchvision": 1e-3}  # pixels, of a proposal


class Proposals(NamedTuple):
    """The best boxes of each image, and for the losses the outputs of every anchor."""

    boxes: Tensor  # (N, P, 4)
    exists: Tensor  # (N, P) bool: an image may have fewer
    anchors: Tensor  # (M, 4)
    logits: Tensor  # (N, M)
    deltas: Tensor  # (N, M, 4)


class ProposalNetwork(nn.Module):
    """A 3x3 convolution on every level, then objectness and deltas for each anchor."""

    def __init__(self, channels: int, spec: DetectorSpec) -> None:
        super().__init__()
        self.spec = spec
        shapes = len(spec.anchor_ratios)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.objectness = nn.Conv2d(channels, shapes, 1)
        self.deltas = nn.Conv2d(channels, 4 * shapes, 1)
        for module in (self.conv, self.objectness, self.deltas):
            nn.init.normal_(module.weight, std=0.01)  # Faster R-CNN, section 3.1.3
            assert module.bias is not None
            nn.init.zeros_(module.bias)

    def forward(self, levels: Sequence[Tensor], image_size: tuple[int, int], sizes: Tensor) -> Proposals:
        """Maps P2..P6, height and width of the padded images, (N, 2) heights and widths without padding."""
        logits, deltas = zip(*map(self._score, levels), strict=True)
        anchors = [self._anchors(index, level, image_size) for index, level in enumerate(levels)]
        with torch.no_grad():
            chosen = [
                self._choose([one[image] for one in logits], [one[image] for one in deltas], anchors, sizes[image])
                for image in range(len(sizes))
            ]
        boxes, exists = (torch.stack(column) for column in zip(*chosen, strict=True))
        return Proposals(boxes, exists, torch.cat(anchors), torch.cat(logits, 1), torch.cat(deltas, 1))

    def losses(self, found: Proposals, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Objectness loss and box loss of the anchors."""
        objectness, nearness, count = [], [], 0
        for logits, deltas, target in zip(found.logits, found.deltas, targets, strict=True):
            matched, kind = match(found.anchors, target.boxes, background=0.3, foreground=0.7, each_has_one=True)
            spec = self.spec
            foreground, background = sample(kind, count=spec.rpn_batch, positive=spec.rpn_positive)
            wanted = torch.cat([torch.ones_like(foreground), torch.zeros_like(background)]).to(logits.dtype)
            chosen = logits[torch.cat([foreground, background])]
            objectness.append(F.binary_cross_entropy_with_logits(chosen, wanted, reduction="sum"))
            truth = target.boxes[matched[foreground]] if len(foreground) else target.boxes[:0]
            true_deltas = box_ops.encode(found.anchors[foreground], truth, box_ops.RPN_WEIGHTS)
            nearness.append(box_loss(deltas[foreground], true_deltas, self.spec))
            count += len(wanted)
        # detectron2 divides by what could have been sampled, torchvision by what was
        norm = spec.rpn_batch * len(targets) if spec.preset == "detectron2" else max(count, 1)
        return {"rpn_objectness": torch.stack(objectness).sum() / norm, "rpn_box": torch.stack(nearness).sum() / norm}

    def _score(self, level: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) -> logits (N, H*W*A) and deltas (N, H*W*A, 4), ordered by position, then shape."""
        hidden = F.relu(self.conv(level))
        logits = self.objectness(hidden).permute(0, 2, 3, 1).flatten(1).float()
        deltas = self.deltas(hidden).permute(0, 2, 3, 1).reshape(logits.shape[0], -1, 4).float()
        return logits, deltas

    def _anchors(self, index: int, level: Tensor, image_size: tuple[int, int]) -> Tensor:
        height, width = level.shape[2], level.shape[3]
        strides = (STRIDES[index], STRIDES[index])
        if self.spec.preset == "torchvision":  # which divides sizes; another number where P6 is rounded up
            strides = (image_size[0] // height, image_size[1] // width)
        return level_anchors(self.spec, index, size=(height, width), strides=strides, like=level)

    def _choose(
        self, logits: Sequence[Tensor], deltas: Sequence[Tensor], anchors: Sequence[Tensor], size: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The proposals of one image: the best anchors of each level, decoded, after NMS."""
        spec = self.spec
        before, after = (pair[0 if self.training else 1] for pair in (spec.pre_nms, spec.post_nms))
        scores, boxes, levels = [], [], []
        for index, (one, change, anchor) in enumerate(zip(logits, deltas, anchors, strict=True)):
            top, places = one.topk(min(before, one.shape[0]))
            scores.append(top)
            boxes.append(box_ops.decode(change[places], anchor[places], box_ops.RPN_WEIGHTS))
            levels.append(torch.full_like(places, index))
        score, box, level = torch.cat(scores), box_ops.clip(torch.cat(boxes), size), torch.cat(levels)
        candidates = box_ops.has_size(box, MIN_SIDE[spec.preset]) & torch.isfinite(score)
        left = box_ops.nms_per_class(box, score, level, candidates, spec.rpn_nms)
        places, exists = box_ops.top_k(score, left, after)
        return box[places] * exists[:, None], exists


def box_loss(deltas: Tensor, target: Tensor, spec: DetectorSpec) -> Tensor:
    """L1 loss, summed; torchvision's is smooth near zero."""
    if spec.preset == "torchvision":
        return F.smooth_l1_loss(deltas, target, beta=TORCHVISION_BETA, reduction="sum")
    return F.l1_loss(deltas, target, reduction="sum")
