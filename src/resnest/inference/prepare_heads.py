"""A network on a backbone prepared for inference: the backbone as `prepare` does it, and the norms of all heads folded.

    fast = prepared_whole(net)                   # a copy; `net` stays as it is
    fast = prepared_segmenter(net)               # without the head that only training has

Exact up to rounding. A group norm depends on its input and stays.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import nn

from resnest.inference.prepare import FusedConv, Norm, prepared
from resnest.layers.convolution import ConvNorm
from resnest.network.resnest import ResNeSt

if TYPE_CHECKING:
    from resnest.segmentation.segmenter import Segmenter

Whole = TypeVar("Whole", bound=nn.Module)


def prepared_whole(
    net: Whole, *, memory_format: torch.memory_format = torch.channels_last, kernels: bool = False
) -> Whole:
    """A copy for inference alone; arguments as for `prepared`."""
    backbone, done = net.get_submodule("backbone"), {}
    if isinstance(backbone, ResNeSt):  # in the copy's place, so that the backbone is not copied twice
        done = {id(backbone): prepared(backbone, memory_format=memory_format, kernels=kernels)}
    fast = copy.deepcopy(net, done).eval().requires_grad_(False)
    for module in fast.modules():
        if isinstance(module, ConvNorm) and isinstance(module.norm, Norm):
            module.conv = FusedConv.of(module.conv, module.norm, relu=False)
            module.norm = nn.Identity()
    return fast.to(memory_format=memory_format)


def prepared_segmenter(
    net: Segmenter, *, memory_format: torch.memory_format = torch.channels_last, kernels: bool = False
) -> Segmenter:
    """A copy of a segmenter for inference alone."""
    fast = prepared_whole(net, memory_format=memory_format, kernels=kernels)
    fast.auxiliary = None
    return fast
