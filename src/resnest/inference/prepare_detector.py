"""A detector prepared for inference: its backbone as `prepare` does it, and the norms of pyramid and heads folded.

    fast = prepared_detector(net)                # a copy; `net` stays as it is
    fast(images, sizes)

Exact up to rounding. A group norm depends on its input and stays.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from resnest.detection.detector import Detector
from resnest.inference.prepare import FusedConv, prepared
from resnest.layers.convolution import ConvNorm
from resnest.network.resnest import ResNeSt


def prepared_detector(net: Detector, *, memory_format: torch.memory_format = torch.channels_last) -> Detector:
    """A copy of a detector for inference alone; arguments as for `prepared`."""
    done = {}
    if isinstance(net.backbone, ResNeSt):  # in the copy's place, so that the backbone is not copied twice
        done = {id(net.backbone): prepared(net.backbone, memory_format=memory_format)}
    fast = copy.deepcopy(net, done).eval().requires_grad_(False)
    for module in fast.modules():
        if isinstance(module, ConvNorm) and isinstance(module.norm, nn.BatchNorm2d):
            module.conv = FusedConv.of(module.conv, module.norm, relu=False)
            module.norm = nn.Identity()
    return fast.to(memory_format=memory_format)


class AsFile(nn.Module):
    """A detector as an exported file holds it: one image of one size, plain outputs in their order."""

    def __init__(self, net: Detector) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(1, 3, H, W) -> boxes, scores, labels, and masks if it has them."""
        return tuple(value for value in self.net(images) if value is not None)
