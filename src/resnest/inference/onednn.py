"""CPU convolutions with weights prepacked for oneDNN, fused with ReLU and the shortcut's sum.

    if can_pack():
        fast = packed(prepared(net))         # inference in float32 on a CPU alone

torch's eager convolution reorders the weights to oneDNN's own layout in every call, and writes its output before ReLU
and the sum read it again. The two operators here are those of torch.compile's CPU code with frozen weights
(torch/_inductor/fx_passes/mkldnn_fusion.py); they are part of torch but not of its public API, so `can_pack` tests
them. Used only by `TorchEngine` and its subclasses.
"""

from __future__ import annotations

from functools import cache
from typing import TypeVar

import torch
from torch import Tensor, nn

from resnest.inference.folded import FusedConv

Network = TypeVar("Network", bound=nn.Module)


class PackedConv(nn.Module):
    """A `FusedConv` with packed weights: (N, I, H, W) channels_last -> (N, O, H', W') channels_last.

    oneDNN packs for a shape of input, and for one image differently from several: with the layout of the other kind,
    batch 1 takes 2.6 times as long. So there are two layouts, each packed when it is first needed.
    """

    def __init__(self, conv: FusedConv) -> None:
        super().__init__()
        self.geometry = (list(map(int, conv.padding)), list(conv.stride), list(conv.dilation), conv.groups)
        self.relu = "relu" if conv.relu else "none"
        self.weight, self.bias = conv.weight, conv.bias
        self.layouts: dict[bool, Tensor] = {}  # for one image, for several

    def forward(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        weight = self.layouts.get(len(x) == 1)
        if weight is None:
            pack = torch.ops.mkldnn._reorder_convolution_weight
            weight = self.layouts[len(x) == 1] = pack(self.weight, *self.geometry, list(x.shape))
        convolve = torch.ops.mkldnn._convolution_pointwise
        if plus is None:
            return convolve(x, weight, self.bias, *self.geometry, self.relu, [], "")  # type: ignore[no-any-return]
        relu = "relu" if self.relu == "relu" else None
        return convolve.binary(  # type: ignore[no-any-return]
            x, plus, weight, self.bias, *self.geometry, "add", 1.0, relu, [], ""
        )


def packed(net: Network) -> Network:
    """Pack the convolutions of a prepared network, in place.

    Those of the attention stay: their maps are one pixel large.
    """
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, FusedConv) and name not in ("fc1", "fc2"):
                setattr(parent, name, PackedConv(child))
    return net


@cache
def can_pack() -> bool:
    """Whether this torch has oneDNN and the operators, with the expected results."""
    if not torch.backends.mkldnn.is_available():
        return False
    conv = nn.Conv2d(4, 4, 3, padding=1, groups=2, device="meta")
    weight = torch.linspace(-1, 1, 72).view(4, 2, 3, 3)
    fused = FusedConv.like(conv, weight, torch.linspace(-1, 1, 4), relu=True)
    x = torch.linspace(-1, 1, 200).view(2, 4, 5, 5).contiguous(memory_format=torch.channels_last)
    try:
        with torch.inference_mode():
            tried = PackedConv(fused)
            pairs = [(tried(x), fused(x)), (tried(x, x), fused(x, x))]
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
    return all(torch.allclose(got, expected, atol=1e-5) for got, expected in pairs)
