"""A segmenter: a backbone with dilated last stages, a head, and in training an auxiliary head on stage 3.

    net = build_segmenter(find_spec("resnest50")[0], SegmenterSpec(), num_classes=150)
    net.eval()(images)                                 # logits (N, 150, H, W)
    net.train()(images, targets)                       # losses by name

Settings and their sources: `resnest.segmentation.card`. Inputs are normalised, of any height and width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnest.checkpoints.loading import find_pretrained, find_structure
from resnest.errors import ResnestError
from resnest.inference.prepare import prepared_full_model
from resnest.network.norm import sees_one_value
from resnest.network.pyramid import ConvNorm
from resnest.network.resnest import Backbone
from resnest.segmentation.card import IGNORED, SegmenterSpec
from resnest.segmentation.weights import WEIGHTS
from resnest.spec import HeadNorm, Spec

# --- Segmentation heads on a backbone's feature maps: DeepLabV3, DeepLabV3+, FCN, PSPNet ---
# DeepLabV3: arXiv 1706.05587. DeepLabV3+: 1802.02611. FCN: 1411.4038. PSPNet: 1612.01105. Channels, dropout and initial
# weights (torch's own) are those of PyTorch-Encoding, which the paper's figures rest on (facts, section 4.4).


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
    if sees_one_value(module.get_submodule("norm"), pooled):
        raise ResnestError(
            "training with one image per device: the batch-norm behind the mean of the whole image sees one value per"
            " channel and needs two or more. Use a batch of 2 or more, or build the segmenter with norm='group'."
        )


class Segmenter(nn.Module):
    """DeepLabV3, or by `spec` DeepLabV3+, FCN, PSPNet.

    Args:
        backbone: has `channels`, and gives C2 to C5 as a list.
    """

    def __init__(self, backbone: nn.Module, spec: SegmenterSpec, num_classes: int) -> None:
        super().__init__()
        self.spec, self.num_classes = spec, num_classes
        self.backbone = backbone
        channels: list[int] = backbone.channels  # type: ignore[assignment]
        self.head = HEADS[spec.head](channels, spec, num_classes)
        self.auxiliary: nn.Module | None = None
        if spec.aux:
            self.auxiliary = FCNHead(channels[:-1], dataclasses.replace(spec, channels=None), num_classes)
        self.wrong = CrossEntropy()

    def forward(self, images: Tensor, targets: Tensor | None = None) -> Tensor | dict[str, Tensor]:
        """Logits, or in training the losses.

        Args:
            images: (N, 3, H, W).
            targets: (N, H, W) uint8, 255 where a pixel does not count; gives losses, weighted, in place of logits.
        """
        maps = self.backbone(images)  # C2 to C5
        logits = self.head(maps)  # (N, K, h, w)
        if targets is None:
            return resize(logits, images.shape[2:])
        losses = {"pixels": self.loss(logits, targets)}
        if self.auxiliary is not None:
            losses["auxiliary"] = self.spec.aux * self.loss(self.auxiliary(maps[:-1]), targets)
        return losses

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy, mean over the pixels that are not ignored; zero, with zero gradient, if there is none.

        Shapes: (N, K, h, w), which is enlarged to the size of the targets, (N, H, W) uint8 -> scalar.
        """
        sums = [self.wrong(scores[None], target[None]) for scores, target in zip(logits, targets, strict=True)]
        return torch.stack(sums).sum() / (targets != IGNORED).sum().clamp(min=1)


def prepared_segmenter(
    net: Segmenter, *, memory_format: torch.memory_format = torch.channels_last, kernels: bool = False
) -> Segmenter:
    """A copy for inference only, without the auxiliary head; arguments as for `prepared`."""
    fast = prepared_full_model(net, memory_format=memory_format, kernels=kernels)
    fast.auxiliary = None
    return fast


class CrossEntropy(nn.Module):
    """Cross-entropy of an image's upsampled logits, summed: (1, K, h, w), (1, H, W) -> scalar.

    One image at a time, since logits of full size are the largest maps of a training step: to compute them again
    (network/recompute.py) takes the room of one image's.
    """

    checkpointable = True

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        large = resize(logits, target.shape[1:]).float()
        return F.cross_entropy(large, target.long(), ignore_index=IGNORED, reduction="sum")


def build_segmenter(
    spec: Spec, segmenter: SegmenterSpec, num_classes: int, *, in_chans: int = 3, zero_gamma: bool = True
) -> Segmenter:
    """A segmenter with random weights."""
    strides: dict[str, Any] = {"output_stride": segmenter.output_stride, "dilation": segmenter.dilation}
    backbone = Backbone(spec, in_chans=in_chans, zero_gamma=zero_gamma, **strides)
    return Segmenter(backbone, segmenter, num_classes)


def create_segmenter(
    backbone: Spec | str = "resnest50",
    segmenter: SegmenterSpec | None = None,
    *,
    num_classes: int = 150,
    in_chans: int = 3,
    pretrained: bool | str | Path = False,
    **spec: Any,
) -> Segmenter:
    """A segmenter on any network.

    Args:
        backbone: a name of `list_models()`, one of timm's names, or a `Spec`.
        segmenter: DeepLabV3 at output stride 8 as in the paper, if not given.
        pretrained: True for the published classifier's weights in the backbone; or whatever `create_model` takes, a
            complete segmenter too; if its classes differ from `num_classes`, the class predictors start untrained.
        in_chans: of the images; a pretrained stem is adapted to them as by `create_model`.
        spec: fields of `Spec` to change.

    Raises:
        ResnestError: an unknown name or field, a combination that cannot be built, weights that cannot be had or do
            not fit.
    """
    if not 1 <= num_classes <= IGNORED:
        raise ResnestError(f"num_classes={num_classes} must lie in 1 to {IGNORED}: the label 255 does not count")
    net = build_segmenter(find_structure(backbone, spec), segmenter or SegmenterSpec(), num_classes, in_chans=in_chans)
    if pretrained is not False:
        WEIGHTS.load(net, find_pretrained(pretrained, backbone))
    return net
