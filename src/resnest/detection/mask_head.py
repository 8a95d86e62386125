"""The mask head: which pixels of a box belong to its object (He et al., arXiv 1703.06870, section 3).

head = MaskHead(channels, spec, num_classes)
head(cut).shape                                    # (M, C, 14, 14) -> logits (M, K, 28, 28)
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import roi_align

from resnest.detection.spec import DetectorSpec, Preset
from resnest.network.pyramid import ConvNorm

POOLED, SIDE = 14, 28  # pixels: what it sees, and of its masks
AT_ONCE = 8  # true masks as floating-point numbers: all of a crowded photograph's would take a gigabyte


class MaskHead(nn.Module):
    """Convolutions, a deconvolution to twice the size, one mask for every class."""

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
        return logits.gather(1, labels[:, None, None, None].expand(-1, 1, SIDE, SIDE))[:, 0]

    @staticmethod
    def loss(logits: Tensor, aims: Tensor) -> Tensor:
        """Binary cross-entropy, mean over pixels and objects: (M, 28, 28) both."""
        return F.binary_cross_entropy_with_logits(logits, aims)


def mask_aims(masks: Tensor, boxes: Tensor, matched: Tensor, preset: Preset) -> Tensor:
    """True masks (T, H, W) as seen within boxes (M, 4) of the objects `matched` (M,): (M, 28, 28) of 0 and 1.

    detectron2's way with bitmaps; torchvision neither shifts by half a pixel nor rounds.
    """
    aligned = preset == "detectron2"
    aims = boxes.new_zeros(len(boxes), SIDE, SIDE)
    for start in range(0, len(masks), AT_ONCE):
        mine = ((matched >= start) & (matched < start + AT_ONCE)).nonzero()[:, 0]
        rois = torch.cat([(matched[mine, None] - start).to(boxes.dtype), boxes[mine]], dim=1)
        some = masks[start : start + AT_ONCE, None].to(boxes.dtype)
        aims[mine] = roi_align(some, rois, SIDE, 1.0, sampling_ratio=0 if aligned else -1, aligned=aligned)[:, 0]
    return (aims >= 0.5).to(boxes.dtype) if aligned else aims
