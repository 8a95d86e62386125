"""What heads share: resizing, pooling, the layers at their end.

logits = resize(Predictor(256, 256, 21, spec)(x), images.shape[2:])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnest.errors import ResnestError
from resnest.network.norm import sees_one_value
from resnest.network.pyramid import ConvNorm
from resnest.segmentation.spec import SegmenterSpec
from resnest.spec import HeadNorm

ALL_MAPS = (0, 1, 2, 3, 4)  # of a backbone: C1, the stem's, to C5


class Head(nn.Module):
    """Base class: maps of a backbone and the size of the image -> logits of pixels.

    Its arguments: channels of the maps, the structure, the number of classes.
    """

    takes: ClassVar[tuple[int, ...]] = (1, 2, 3, 4)  # `out_indices` of the backbone: C2 to C5
    full_size: ClassVar[bool] = False  # the logits have the size of the image

    def __init__(self, in_chans: Sequence[int] = (), spec: SegmenterSpec | None = None, num_classes: int = 0) -> None:
        super().__init__()

    def forward(self, maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        raise NotImplementedError


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear with aligned corners, as in PyTorch-Encoding: (N, C, h, w) -> (N, C, H, W)."""
    return F.interpolate(x, size=list(size), mode="bilinear", align_corners=True)


def pool(x: Tensor, cells: int) -> Tensor:
    """Average pooling to a grid: (N, C, H, W) -> (N, C, cells, cells)."""
    if cells == 1:
        return x.mean((2, 3), keepdim=True)
    if not torch.compiler.is_exporting():
        return F.adaptive_avg_pool2d(x, cells)
    high, wide = (_pooling_weights(side, cells, x) for side in x.shape[2:])
    return high @ x @ wide.T  # the same at any size in engines that have no such operator


def _pooling_weights(side: int, cells: int, like: Tensor) -> Tensor:
    """Weights of pixels in each cell's mean, (cells, side); neighbouring cells share a pixel on their border."""
    pixels, cell = torch.arange(side, device=like.device), torch.arange(cells, device=like.device)[:, None]
    first, last = cell * side // cells, ((cell + 1) * side + cells - 1) // cells
    inside = (pixels >= first) & (pixels < last)
    return inside.to(like.dtype) / (last - first)


class Logits(nn.Module):
    """A classifier of pixels with its dropout of channels: (N, in_chans, H, W) -> (N, num_classes, H, W)."""

    def __init__(self, in_chans: int, num_classes: int, kernel_size: int, spec: SegmenterSpec) -> None:
        super().__init__()
        self.drop = nn.Dropout2d(spec.drop_rate)
        self.logits = nn.Conv2d(in_chans, num_classes, kernel_size, padding=kernel_size // 2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.logits(self.drop(x))
        return logits


def initialise(head: nn.Module) -> None:
    """As segmentation_models_pytorch: He uniform, fan-in, and Xavier uniform of `Logits`; all biases 0."""
    last = {id(conv) for module in head.modules() if isinstance(module, Logits) for conv in module.modules()}
    for module in head.modules():
        if isinstance(module, nn.Conv2d):
            if id(module) in last:
                nn.init.xavier_uniform_(module.weight)
            else:
                nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class Predictor(nn.Module):
    """A 3x3 convolution and a classifier of pixels: the end of every head.

    Shapes: (N, in_chans, H, W) -> (N, num_classes, H, W).
    """

    def __init__(self, in_chans: int, channels: int, num_classes: int, spec: SegmenterSpec) -> None:
        super().__init__()
        self.conv = ConvNorm(in_chans, channels, 3, spec.norm_kind)
        self.drop = nn.Dropout(spec.drop_rate)
        self.logits = nn.Conv2d(channels, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.logits(self.drop(F.relu(self.conv(x))))
        return logits


def pooled_norm(spec: SegmenterSpec) -> HeadNorm:
    """Norm for one value per image: group norm would have too little to normalise over (as in detectron2's ASPP)."""
    return "none" if spec.norm_kind == "group" else spec.norm_kind


def check_batch(module: nn.Module, pooled: Tensor) -> None:
    if sees_one_value(module.get_submodule("norm"), pooled):
        raise ResnestError(
            "training with one image per device: the batch-norm behind the mean of the whole image sees one value per"
            " channel and needs two or more. Use a batch of 2 or more, or build the segmenter with norm='group'."
        )
