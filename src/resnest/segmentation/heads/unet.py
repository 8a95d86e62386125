"""U-Net (arXiv 1505.04597) on a backbone: from the coarsest map, step by step, to the size of the image.

head = UNetHead(backbone.channels, SegmenterSpec(head="unet"), num_classes=21)
logits = head(backbone(images), images.shape[2:])             # (N, 21, H, W)
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from resnest.network.pyramid import ConvNorm
from resnest.segmentation.heads.attention import SCSE
from resnest.segmentation.heads.common import ALL_MAPS, Head, Logits, initialise
from resnest.segmentation.heads.enlarged import EnlargedConvNorm, joined
from resnest.segmentation.spec import SegmenterSpec


class Step(nn.Module):
    """Enlarge a map to a size, append maps of that size, and convolve twice.

    Shapes: (N, in_chans, h, w), [(N, C_i, H, W), ...] of `skip_chans` together, (H, W) -> (N, out_chans, H, W).
    """

    def __init__(self, in_chans: int, skip_chans: int, out_chans: int, spec: SegmenterSpec) -> None:
        super().__init__()
        attends = spec.attention == "scse"
        self.attention1: nn.Module = SCSE(in_chans + skip_chans) if attends and skip_chans else nn.Identity()
        self.conv1 = EnlargedConvNorm(in_chans + skip_chans, out_chans, 3, spec.norm_kind)
        self.conv2 = ConvNorm(out_chans, out_chans, 3, spec.norm_kind)
        self.attention2: nn.Module = SCSE(out_chans) if attends else nn.Identity()

    def forward(self, x: Tensor, skips: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        if isinstance(self.attention1, SCSE):  # weighs the joined map
            x = self.conv1(self.attention1(joined(x, skips, size)))
        else:
            x = self.conv1(x, skips, size)
        x = self.conv2(F.relu(x, inplace=True))
        x = self.attention2(F.relu(x, inplace=True))
        return x


class UNetHead(Head):
    """[C1, ..., C5] -> (N, K, H, W), the size of the image."""

    takes = ALL_MAPS
    full_size = True

    def __init__(self, in_chans: Sequence[int], spec: SegmenterSpec, num_classes: int) -> None:
        super().__init__()
        widths = spec.decoder_channels
        before = [in_chans[-1], *widths[:-1]]
        skips = [*in_chans[-2::-1], 0]  # the last step has nothing to append
        self.steps = nn.ModuleList(
            Step(into, skip, out, spec) for into, skip, out in zip(before, skips, widths, strict=True)
        )
        self.predict = Logits(widths[-1], num_classes, 3, spec)
        initialise(self)

    def forward(self, maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        x, finer = maps[-1], list(maps[-2::-1])
        for step, skip in zip(self.steps, finer, strict=False):
            x = step(x, [skip], skip.shape[2:])
        logits: Tensor = self.predict(self.steps[-1](x, [], size))
        return logits
