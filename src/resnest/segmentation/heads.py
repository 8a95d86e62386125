"""Segmentation heads on a backbone's feature maps: DeepLabV3, DeepLabV3+, FCN, PSPNet.

    head = HEADS["deeplabv3"](backbone.channels, spec, num_classes)
    head(backbone(images)).shape                       # (N, K, H, W) of the map it works on; the segmenter upsamples

DeepLabV3: arXiv 1706.05587. DeepLabV3+: 1802.02611. FCN: 1411.4038. PSPNet: 1612.01105. Channels, dropout and
initial weights (torch's own) are those of PyTorch-Encoding, which the paper's figures rest on (facts, section 4.4).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnest.errors import ResnestError
from resnest.network.norm import BatchNorm2d
from resnest.network.pyramid import ConvNorm
from resnest.segmentation.spec import SegmenterSpec
from resnest.spec import HeadNorm


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear with aligned corners, as in PyTorch-Encoding: (N, C, h, w) -> (N, C, H, W)."""
    return F.interpolate(x, size=list(size), mode="bilinear", align_corners=True)


def pool(x: Tensor, cells: int) -> Tensor:
    """Average pooling to a grid: (N, C, H, W) -> (N, C, cells, cells)."""
    if cells == 1:
        return x.mean((2, 3), keepdim=True)
    if not torch.compiler.is_exporting():
        return F.adaptive_avg_pool2d(x, cells)
    high, wide = (_shares(side, cells, x) for side in x.shape[2:])
    return high @ x @ wide.T  # the same at any size in engines that have no such operator


def _shares(side: int, cells: int, like: Tensor) -> Tensor:
    """Weights of pixels in each cell's mean, (cells, side); neighbouring cells share a pixel on their border."""
    pixels, cell = torch.arange(side, device=like.device), torch.arange(cells, device=like.device)[:, None]
    first, last = cell * side // cells, ((cell + 1) * side + cells - 1) // cells
    inside = (pixels >= first) & (pixels < last)
    return inside.to(like.dtype) / (last - first)


class Predictor(nn.Module):
    """A 3x3 convolution and a classifier of pixels: the end of every head.

    Shapes: (N, in_chans, H, W) -> (N, num_classes, H, W).
    """

    def __init__(self, in_chans: int, channels: int, num_classes: int, spec: SegmenterSpec) -> None:
        super().__init__()
        self.conv = ConvNorm(in_chans, channels, 3, spec.norm)
        self.drop = nn.Dropout(spec.dropout)
        self.logits = nn.Conv2d(channels, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.logits(self.drop(F.relu(self.conv(x))))
        return logits


class FCNHead(nn.Module):
    """Only a `Predictor` on the last map: [..., C5] -> (N, K, h, w)."""

    def __init__(self, in_chans: Sequence[int], spec: SegmenterSpec, num_classes: int) -> None:
        super().__init__()
        self.predict = Predictor(in_chans[-1], spec.channels or max(1, in_chans[-1] // 4), num_classes, spec)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        logits: Tensor = self.predict(maps[-1])
        return logits


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: parallel dilated convolutions, and a pooling of the image.

    Shapes: (N, in_chans, H, W) -> (N, channels, H, W).

    Raises:
        ResnestError: in training, when the batch-norm behind the image's mean would see a single image.
    """

    def __init__(self, in_chans: int, channels: int, spec: SegmenterSpec) -> None:
        super().__init__()
        self.branches = nn.ModuleList([ConvNorm(in_chans, channels, 1, spec.norm)])
        for rate in spec.branch_rates:
            self.branches.append(ConvNorm(in_chans, channels, 3, spec.norm, dilation=rate))
        self.image = ConvNorm(in_chans, channels, 1, _pooled_norm(spec))
        self.project = ConvNorm(channels * (len(self.branches) + 1), channels, 1, spec.norm)
        self.drop = nn.Dropout2d(spec.branch_dropout)

    def forward(self, x: Tensor) -> Tensor:
        seen = [F.relu(branch(x)) for branch in self.branches]
        pooled = pool(x, 1)  # (N, in_chans, 1, 1)
        _check_batch(self.image, pooled)
        seen.append(F.relu(self.image(pooled)).expand(-1, -1, *x.shape[2:]))
        joined: Tensor = self.drop(F.relu(self.project(torch.cat(seen, dim=1))))
        return joined


class DeepLabV3Head(nn.Module):
    """ASPP on the last map: [..., C5] -> (N, K, h, w)."""

    def __init__(self, in_chans: Sequence[int], spec: SegmenterSpec, num_classes: int) -> None:
        super().__init__()
        channels = spec.channels or max(1, in_chans[-1] // 8)
        self.aspp = ASPP(in_chans[-1], channels, spec)
        self.predict = Predictor(channels, channels, num_classes, spec)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        logits: Tensor = self.predict(self.aspp(maps[-1]))
        return logits


class DeepLabV3PlusHead(nn.Module):
    """ASPP on the last map, refined with the first: [C2, ..., C5] -> (N, K, H/4, W/4).

    Plain convolutions: the paper has separable ones on its Xception only (arXiv 1802.02611, sections 4.2 and 4.3).
    """

    def __init__(self, in_chans: Sequence[int], spec: SegmenterSpec, num_classes: int) -> None:
        super().__init__()
        channels = spec.channels or max(1, in_chans[-1] // 8)
        self.aspp = ASPP(in_chans[-1], channels, spec)
        self.low = ConvNorm(in_chans[0], spec.low_channels, 1, spec.norm)
        self.refine = ConvNorm(channels + spec.low_channels, channels, 3, spec.norm)
        self.predict = Predictor(channels, channels, num_classes, spec)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        low = F.relu(self.low(maps[0]))
        high = resize(self.aspp(maps[-1]), low.shape[2:])
        logits: Tensor = self.predict(F.relu(self.refine(torch.cat([high, low], dim=1))))
        return logits


class PSPHead(nn.Module):
    """The last map concatenated with its pyramid pooling: [..., C5] -> (N, K, h, w).

    Raises:
        ResnestError: in training, when the batch-norm behind the image's mean would see a single image.
    """

    def __init__(self, in_chans: Sequence[int], spec: SegmenterSpec, num_classes: int) -> None:
        super().__init__()
        self.bins, count = spec.bins, in_chans[-1]
        channels = count // len(spec.bins)
        if not channels:
            raise ResnestError(f"{len(spec.bins)} segmenter.bins cannot share {count} channels")
        self.pyramid = nn.ModuleList(
            ConvNorm(count, channels, 1, _pooled_norm(spec) if cells == 1 else spec.norm) for cells in spec.bins
        )
        self.predict = Predictor(count + channels * len(spec.bins), spec.channels or count // 4, num_classes, spec)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        x = maps[-1]
        seen = [x]
        for cells, conv in zip(self.bins, self.pyramid, strict=True):
            pooled = pool(x, cells)  # (N, C5, cells, cells)
            _check_batch(conv, pooled)
            seen.append(resize(F.relu(conv(pooled)), x.shape[2:]))
        logits: Tensor = self.predict(torch.cat(seen, dim=1))
        return logits


HEADS: dict[str, Callable[[Sequence[int], SegmenterSpec, int], nn.Module]] = {
    "deeplabv3": DeepLabV3Head,
    "deeplabv3plus": DeepLabV3PlusHead,
    "fcn": FCNHead,
    "psp": PSPHead,
}


def _pooled_norm(spec: SegmenterSpec) -> HeadNorm:
    """Norm for one value per image: group norm would have too little to normalise over (as in detectron2's ASPP)."""
    return "none" if spec.norm == "group" else spec.norm


def _check_batch(module: nn.Module, pooled: Tensor) -> None:
    norm = module.norm
    if isinstance(norm, BatchNorm2d) and norm.training and pooled.numel() == pooled.shape[1]:
        raise ResnestError(
            "training with one image per device: the batch-norm behind the mean of the whole image sees one value per"
            " channel and needs two or more. Use a batch of 2 or more, or build the segmenter with norm='group'."
        )
