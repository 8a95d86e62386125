"""R-CNN: proposals, then one box head or a cascade of three, perhaps masks.

    net = RCNN(backbone, DetectorSpec(masks=True), num_classes=80)     # a `Detector`

Read `RCNN.find` first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from resnest.detection import rpn as box_ops
from resnest.detection.card import CASCADE_IOUS, CASCADE_WEIGHTS, DetectorSpec
from resnest.detection.detector import DetectionOutput, Detector
from resnest.detection.heads import BOX_POOLED, MASK_POOLED, BoxHead, MaskHead, mask_targets, roi_align_levels
from resnest.detection.rpn import FOREGROUND, ProposalNetwork, Target, match, sample
from resnest.network.pyramid import FeaturePyramid

MIN_SIDE = {"detectron2": 0.0, "torchvision": 1e-2}  # pixels, of an object


class SampledProposals(NamedTuple):
    """The sampled proposals of one image, for the losses of the heads."""

    boxes: Tensor  # (M, 4)
    labels: Tensor  # (M,), K for background
    matched: Tensor  # (M,) true object that each overlaps most


class RCNN(Detector):
    """Faster R-CNN, or by `spec` Cascade, Mask, Cascade Mask R-CNN."""

    def __init__(self, backbone: nn.Module, spec: DetectorSpec, num_classes: int) -> None:
        super().__init__(backbone, spec, num_classes)
        self.fpn = FeaturePyramid(backbone.channels, spec.fpn_channels, spec.norm)  # type: ignore[arg-type]
        self.rpn = ProposalNetwork(spec.fpn_channels, spec)
        weights = CASCADE_WEIGHTS if spec.cascade else (box_ops.HEAD_WEIGHTS,)
        self.box_heads = nn.ModuleList(BoxHead(spec.fpn_channels, spec, num_classes, factors) for factors in weights)
        self.mask_head = MaskHead(spec.fpn_channels, spec, num_classes) if spec.masks else None

    # --- using it ---

    def find(self, levels: list[Tensor], images: Tensor, sizes: Tensor) -> DetectionOutput:
        proposals = self.rpn(levels, (images.shape[2], images.shape[3]), sizes)
        scores, boxes = self.classify(levels, proposals.boxes, sizes)
        scores = scores * proposals.exists[..., None]
        chosen = [self.postprocess(*inputs) for inputs in zip(scores, boxes, sizes, strict=True)]
        return DetectionOutput(*(torch.stack(column) for column in zip(*chosen, strict=True)))

    def classify(self, levels: list[Tensor], proposals: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """Proposals (N, P, 4) -> scores (N, P, K), boxes (N, P, K, 4), or (N, P, 1, 4) of a cascade.

        The scores of a cascade are the mean of its heads', its boxes the last one's (arXiv 1712.00726, section 4).
        """
        count = proposals.shape[:2]
        scores: list[Tensor] = []
        boxes = proposals[:, :, None]  # (N, P, 1, 4)
        for head in self.box_heads:
            assert isinstance(head, BoxHead)
            start = self._clip(boxes[:, :, 0], sizes) if scores else proposals
            cut = roi_align_levels(levels, start, size=BOX_POOLED, preset=self.spec.preset)
            logits, deltas = head(cut)
            scores.append(head.class_loss.scores(logits).unflatten(0, count))
            boxes = head.decode(deltas, start.flatten(0, 1)).unflatten(0, count)
        return torch.stack(scores).mean(0), boxes

    def postprocess(self, scores: Tensor, boxes: Tensor, size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The detections of one image, after NMS per class.

        (P, K), (P, K or 1, 4) -> boxes (D, 4), scores (D,), labels (D,).
        """
        spec, kinds = self.spec, scores.shape[1]
        boxes = box_ops.clip(boxes, size).expand(-1, kinds, -1).reshape(-1, 4)  # (P*K, 4)
        flat = scores.reshape(-1)
        labels = torch.arange(kinds, device=boxes.device).repeat(scores.shape[0])
        candidates = (flat > spec.min_score) & box_ops.nonempty(boxes, MIN_SIDE[spec.preset])
        left = box_ops.nms_per_class(boxes, flat, labels, candidates, spec.max_iou)
        indices, exists = box_ops.top_k(flat, left, spec.max_detections)
        return boxes[indices] * exists[:, None], flat[indices] * exists, labels[indices]

    def predict_masks(self, levels: list[Tensor], boxes: Tensor, labels: Tensor) -> Tensor:
        """(N, D, 4), (N, D) -> probabilities (N, D, 28, 28) within the boxes."""
        assert self.mask_head is not None
        cut = roi_align_levels(levels, boxes, size=MASK_POOLED, preset=self.spec.preset)
        masks: Tensor = self.mask_head.of_class(self.mask_head(cut), labels.flatten()).float().sigmoid()
        return masks.reshape(*boxes.shape[:2], *masks.shape[1:])

    # --- learning ---

    def start_training(self, images: Tensor) -> None:
        for head in self.box_heads:
            assert isinstance(head, BoxHead)
            head.class_loss.start_training(images[: self.num_classes])

    def losses(
        self, levels: list[Tensor], images: Tensor, sizes: Tensor, targets: Sequence[Target]
    ) -> dict[str, Tensor]:
        proposals = self.rpn(levels, (images.shape[2], images.shape[3]), sizes)
        losses: dict[str, Tensor] = self.rpn.losses(proposals, targets)
        sampled = [self._sample(*inputs) for inputs in zip(proposals.boxes, proposals.exists, targets, strict=True)]
        losses |= self._box_losses(levels, sampled, targets, sizes)
        if self.mask_head is not None:
            losses["mask"] = self._mask_loss(levels, sampled, targets)
        return losses

    @torch.no_grad()
    def _sample(self, proposals: Tensor, exists: Tensor, target: Target) -> SampledProposals:
        """Sampled proposals of one image, with its ground-truth boxes among them, and their targets."""
        boxes = torch.cat([proposals[exists], target.boxes])
        matched, kind = match(boxes, target.boxes, background=0.5, foreground=0.5, low_quality=False)
        chosen = torch.cat(sample(kind, count=self.spec.roi_batch, positive=self.spec.roi_positive))
        return SampledProposals(boxes[chosen], self._labels(matched, kind, target)[chosen], matched[chosen])

    def _labels(self, matched: Tensor, kind: Tensor, target: Target) -> Tensor:
        if not len(target.labels):
            return torch.full_like(kind, self.num_classes)
        return torch.where(kind == FOREGROUND, target.labels[matched], self.num_classes)

    def _box_losses(
        self, levels: list[Tensor], sampled: list[SampledProposals], targets: Sequence[Target], sizes: Tensor
    ) -> dict[str, Tensor]:
        """Losses of one box head, or of a cascade's, where each starts from the boxes of the previous one."""
        losses: dict[str, Tensor] = {}
        moved: Sequence[Tensor] = []
        for stage, head in enumerate(self.box_heads):
            assert isinstance(head, BoxHead)
            if stage:
                sampled = [
                    self._match_next_stage(boxes, target, size, CASCADE_IOUS[stage])
                    for boxes, target, size in zip(moved, targets, sizes, strict=True)
                ]
            boxes, labels = (torch.cat(column) for column in ([s.boxes for s in sampled], [s.labels for s in sampled]))
            cut = self._cut([s.boxes for s in sampled], levels, BOX_POOLED)
            if self.spec.cascade:
                cut = _ScaleGradient.apply(cut, 1 / len(self.box_heads))
            logits, deltas = head(cut)
            truth = torch.cat([_matched_boxes(s, target) for s, target in zip(sampled, targets, strict=True)])
            name = f"{stage}" if self.spec.cascade else ""
            losses[f"class{name}"], losses[f"box{name}"] = head.losses(logits, deltas, boxes, labels, truth)
            moved = head.decode(deltas.detach(), boxes)[:, 0].split([len(s.boxes) for s in sampled])
        return losses

    @torch.no_grad()
    def _match_next_stage(self, boxes: Tensor, target: Target, size: Tensor, overlap: float) -> SampledProposals:
        """The previous head's boxes, matched for the next one: nothing is sampled, only empty boxes are dropped."""
        boxes = box_ops.clip(boxes, size)
        boxes = boxes[box_ops.nonempty(boxes, 0)]
        matched, kind = match(boxes, target.boxes, background=overlap, foreground=overlap, low_quality=False)
        return SampledProposals(boxes, self._labels(matched, kind, target), matched)

    def _mask_loss(self, levels: list[Tensor], sampled: list[SampledProposals], targets: Sequence[Target]) -> Tensor:
        assert self.mask_head is not None
        boxes, labels, masks = [], [], []
        for proposals, target in zip(sampled, targets, strict=True):
            assert target.masks is not None
            objects = (proposals.labels < self.num_classes).nonzero()[:, 0]
            boxes.append(proposals.boxes[objects])
            labels.append(proposals.labels[objects])
            masks.append(mask_targets(target.masks, boxes[-1], proposals.matched[objects], self.spec.preset))
        if not sum(map(len, boxes)):  # the whole picture stands in: other processes wait in norms, and for gradients
            height, width = targets[0].size
            image_box = boxes[0].new_tensor([[0, 0, width, height]])
            unused: Tensor = self.mask_head(self._cut([image_box, *boxes[1:]], levels, MASK_POOLED))
            return 0 * unused.float().sum()
        logits = self.mask_head(self._cut(boxes, levels, MASK_POOLED))
        return self.mask_head.loss(self.mask_head.of_class(logits, torch.cat(labels)).float(), torch.cat(masks))

    def _cut(self, boxes: Sequence[Tensor], levels: list[Tensor], size: int) -> Tensor:
        """RoIAlign for different numbers of boxes per image: (M, C, size, size)."""
        most = max(len(rows) for rows in boxes)
        padded = torch.stack([torch.cat([rows, rows.new_zeros(most - len(rows), 4)]) for rows in boxes])  # (N, most, 4)
        cut = roi_align_levels(levels, padded, size=size, preset=self.spec.preset)
        real = torch.cat([torch.arange(most, device=cut.device) < len(rows) for rows in boxes])
        return cut if bool(real.all()) else cut[real]

    def _clip(self, boxes: Tensor, sizes: Tensor) -> Tensor:
        return torch.stack([box_ops.clip(rows, size) for rows, size in zip(boxes, sizes, strict=True)])


class _ScaleGradient(torch.autograd.Function):
    """Identity in the forward pass; scales the gradient in the backward pass (detectron2: a cascade's are averaged)."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor  # type: ignore[attr-defined]
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None  # type: ignore[attr-defined]


def _matched_boxes(sampled: SampledProposals, target: Target) -> Tensor:
    """The ground-truth box of each sampled box; arbitrary for an image without objects."""
    return target.boxes[sampled.matched] if len(target.boxes) else sampled.boxes
