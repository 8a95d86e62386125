"""The heads of a detector, and RoIAlign, which crops their input from the pyramid for each box.

cut = roi_align_levels(levels, boxes, size=7, preset="detectron2")     # boxes (N, P, 4) -> (N * P, C, 7, 7)
scores, deltas = BoxHead(channels, spec, num_classes, weights)(cut)    # (M, C, 7, 7) -> (M, K + 1), (M, K, 4)
masks = MaskHead(channels, spec, num_classes)(cut)                     # (M, C, 14, 14) -> logits (M, K, 28, 28)
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import roi_align

from resnest.detection import rpn as box_ops
from resnest.detection.card import DetectorSpec, Preset
from resnest.detection.class_losses import NormedLinear, build_class_loss
from resnest.detection.object_masks import ObjectMasks
from resnest.detection.rpn import box_loss
from resnest.network.pyramid import STRIDES, ConvNorm

BOX_POOLED = 7  # pixels of a side that a box head sees
MASK_POOLED, MASK_SIDE = 14, 28  # pixels: what a mask head sees, and of its masks
AT_ONCE = 8  # true masks as floating-point numbers: all of a crowded photograph's would take a gigabyte
ROI_LEVELS = 4  # P2 to P5
CANONICAL_SIZE, CANONICAL_LEVEL = 224, 4  # a box of ImageNet's size goes to P4


def roi_align_levels(levels: Sequence[Tensor], boxes: Tensor, *, size: int, preset: Preset) -> Tensor:
    """RoIAlign of every box from the level that suits its size: (N, P, 4) -> (N * P, C, size, size).

    Sources: arXiv 1703.06870, section 3; arXiv 1612.03144, equation 1.

    Each level cuts out all boxes, those of other levels shrunk to a pixel, and adds its own to the result: shapes do
    not depend on the boxes, so that it can be exported, and a small box costs next to nothing. A box without size gives
    zeros (OpenVINO's RoIAlign would give NaN). Features shorter than float32, autocast's, are read as float32 for the
    boxes' sake: bfloat16 has steps of 4 pixels at 1000.
    """
    count, per_image = boxes.shape[:2]
    images = torch.arange(count, device=boxes.device, dtype=boxes.dtype).repeat_interleave(per_image)  # (N*P,)
    flat = boxes.reshape(-1, 4)
    level = box_levels(flat, preset).where((flat[:, 2:] > flat[:, :2]).all(1), -1)
    pixel = flat.new_tensor([0.0, 0.0, 1.0, 1.0])
    aligned = preset == "detectron2"  # half-pixel centres, and as many samples as a bin has pixels; theirs 2 x 2
    total: Tensor | None = None
    for index, (features, stride) in enumerate(zip(levels, STRIDES[:ROI_LEVELS], strict=False)):
        mine = (level == index)[:, None]
        rois = torch.cat([images[:, None], flat.where(mine, pixel)], dim=1)  # (N*P, 5)
        wide = features.to(torch.promote_types(features.dtype, rois.dtype))
        cut = roi_align(
            wide, rois.to(wide.dtype), size, 1 / stride, sampling_ratio=0 if aligned else 2, aligned=aligned
        ) * mine[:, :, None, None].to(wide.dtype)
        total = cut if total is None else total + cut
    assert total is not None
    return total.to(levels[0].dtype)


def box_levels(boxes: Tensor, preset: Preset) -> Tensor:
    """(M, 4) -> (M,): 0 for P2 to 3 for P5."""
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0)
    size = sides.prod(1).sqrt() / CANONICAL_SIZE
    if preset == "detectron2":
        exact = CANONICAL_LEVEL + torch.log2(size + 1e-8)
    else:
        exact = CANONICAL_LEVEL + torch.log2(size) + 1e-6
    return exact.floor().clamp(2, 5).to(torch.int64) - 2


class BoxHead(nn.Module):
    """Class and box of a proposal (Girshick, arXiv 1504.08083); 4conv1fc by default.

    Convolutions, fully connected layers, then logits of classes as their loss wants them, and box deltas.
    """

    def __init__(self, channels: int, spec: DetectorSpec, num_classes: int, weights: box_ops.Weights) -> None:
        super().__init__()
        self.spec, self.num_classes, self.weights = spec, num_classes, weights
        widths = [channels, *[spec.box_channels] * spec.box_convs]
        self.convs = nn.ModuleList(ConvNorm(before, after, 3, spec.norm) for before, after in pairwise(widths))
        features = [widths[-1] * BOX_POOLED**2, *[spec.box_features] * spec.box_fcs]
        self.fcs = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(features))
        self.boxes = 1 if spec.cascade else num_classes  # a cascade's boxes are those of any class
        self.class_loss = build_class_loss(spec.class_loss, num_classes)
        classifier = NormedLinear if spec.normed_classifier else nn.Linear
        self.score = classifier(features[-1], self.class_loss.outputs)
        self.deltas = nn.Linear(features[-1], 4 * self.boxes)
        self._initialise()

    def _initialise(self) -> None:
        """As in detectron2: He for convolutions, Xavier for linear layers, small normal weights for predictors."""
        for conv in self.convs:
            assert isinstance(conv, ConvNorm)
            nn.init.kaiming_normal_(conv.conv.weight, mode="fan_out", nonlinearity="relu")
        for layer in self.fcs:
            assert isinstance(layer, nn.Linear)
            nn.init.kaiming_uniform_(layer.weight, a=1)
        nn.init.normal_(self.score.weight, std=0.01)
        nn.init.normal_(self.deltas.weight, std=0.001)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        nn.init.constant_(self.score.bias, self.class_loss.bias)

    def forward(self, cut: Tensor) -> tuple[Tensor, Tensor]:
        """(M, C, 7, 7) -> logits (M, K + 1 or as the loss has it), deltas (M, K, 4), or (M, 1, 4) of a cascade."""
        hidden = cut
        for conv in self.convs:
            hidden = F.relu(conv(hidden))
        hidden = hidden.flatten(1)
        for layer in self.fcs:
            hidden = F.relu(layer(hidden))
        return self.score(hidden).float(), self.deltas(hidden).unflatten(1, (-1, 4)).float()

    def decode(self, deltas: Tensor, proposals: Tensor) -> Tensor:
        """(M, B, 4), (M, 4) -> boxes (M, B, 4)."""
        return box_ops.decode(deltas, proposals[:, None], self.weights)

    def losses(
        self, logits: Tensor, deltas: Tensor, proposals: Tensor, labels: Tensor, truth: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Loss of the classes, mean over the proposals; box loss of the foreground, divided by the number of proposals.

        Args:
            labels: (M,), K for background.
            truth: (M, 4), anything for background.
        """
        objects = (labels < self.num_classes).nonzero()[:, 0]
        kinds = labels[objects] if self.boxes > 1 else torch.zeros_like(objects)
        true_deltas = box_ops.encode(proposals[objects], truth[objects], self.weights)
        count = max(len(labels), 1)
        return (
            self.class_loss(logits, labels) / count,
            box_loss(deltas[objects, kinds], true_deltas, self.spec) / count,
        )


class MaskHead(nn.Module):
    """Mask of the object in a box (He et al., arXiv 1703.06870, section 3).

    Convolutions, a deconvolution to twice the size, one mask for every class.
    """

    def __init__(self, channels: int, spec: DetectorSpec, num_classes: int) -> None:
        super().__init__()
        widths = [channels, *[spec.mask_channels] * spec.mask_convs]
        self.convs = nn.ModuleList(ConvNorm(before, after, 3, spec.norm) for before, after in pairwise(widths))
        self.upsample = nn.ConvTranspose2d(widths[-1], spec.mask_channels, 2, stride=2)
        self.logits = nn.Conv2d(spec.mask_channels, num_classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.logits.weight, std=0.001)  # detectron2's; the rest as above

    def forward(self, cut: Tensor) -> Tensor:
        hidden = cut
        for conv in self.convs:
            hidden = F.relu(conv(hidden))
        logits: Tensor = self.logits(F.relu(self.upsample(hidden)))
        return logits

    @staticmethod
    def of_class(logits: Tensor, labels: Tensor) -> Tensor:
        """The mask of each object's own class: (M, K, 28, 28), (M,) -> (M, 28, 28)."""
        return logits.gather(1, labels[:, None, None, None].expand(-1, 1, MASK_SIDE, MASK_SIDE))[:, 0]

    @staticmethod
    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        """Binary cross-entropy, mean over pixels and objects: (M, 28, 28) both."""
        return F.binary_cross_entropy_with_logits(logits, targets)


def mask_targets(masks: ObjectMasks, boxes: Tensor, matched: Tensor, preset: Preset) -> Tensor:
    """Mask targets, (M, 28, 28) of 0 and 1: masks of the objects `matched` (M,), within boxes (M, 4).

    detectron2's way with bitmaps; torchvision neither shifts by half a pixel nor rounds.
    """
    aligned = preset == "detectron2"
    targets = boxes.new_zeros(len(boxes), MASK_SIDE, MASK_SIDE)
    for start in range(0, len(masks.windows), AT_ONCE):
        mine = ((matched >= start) & (matched < start + AT_ONCE)).nonzero()[:, 0]
        if not len(mine):
            continue
        rois = torch.cat([(matched[mine, None] - start).to(boxes.dtype), boxes[mine]], dim=1)
        some = masks.drawn(start, start + AT_ONCE, dtype=boxes.dtype)[:, None]
        cut = roi_align(some, rois, MASK_SIDE, 1.0, sampling_ratio=0 if aligned else -1, aligned=aligned)
        targets[mine] = cut[:, 0]
    return (targets >= 0.5).to(boxes.dtype) if aligned else targets
