"""The first convolution of a decoder's step: of a map enlarged to twice its size, with other maps appended.

    conv = EnlargedConvNorm(256, 64, 3, "batch")      # 192 channels of x, 64 of the maps that are appended
    y = conv(x, [skip], skip.shape[2:])               # (N, 192, h, w), (N, 64, 2h, 2w) -> (N, 64, 2h, 2w)

It gives what enlarging (nearest), appending and convolving give, with 4/9 of the multiplications for x, and without
making the enlarged and the joined maps: of nine weights, those that meet the same pixel of x are added up. Two weights
by two are left for each of the four pixels that one becomes, and these sixteen are the kernel of a transposed
convolution of stride 2. (The same thought for a network's last layer: Shi et al., arXiv 1609.07009.)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from resnest.network.norm import sees_one_value, too_few_values
from resnest.network.pyramid import ConvNorm

# A side of the 4x4 kernel from a side of the 3x3: which weights meet the same pixel.
SUMS = ((0.0, 0.0, 1.0), (0.0, 1.0, 1.0), (1.0, 1.0, 0.0), (1.0, 0.0, 0.0))


def transposed_kernel(weight: Tensor) -> Tensor:
    """(out, in, 3, 3) for an enlarged map -> (in, out, 4, 4) for a transposed convolution of the map itself."""
    sums = weight.new_tensor(SUMS)
    return torch.einsum("ka,oiab,lb->iokl", sums, weight, sums)


class EnlargedConvNorm(ConvNorm):
    """A 3x3 convolution with its norm, of an enlarged map with others appended; the parameters are those of `ConvNorm`.

    Shapes: (N, C, h, w), [(N, C_i, H, W), ...], (H, W) -> (N, out_chans, H, W).
    """

    def forward(self, x: Tensor, others: Sequence[Tensor] = (), size: Sequence[int] | None = None) -> Tensor:
        if size is None or not self._folds(x, size):
            return super().forward(joined(x, others, size))
        channels, weight = x.shape[1], self.conv.weight
        out = F.conv_transpose2d(x, transposed_kernel(weight[:, :channels]), self.conv.bias, stride=2, padding=1)
        for other in others:
            part = weight[:, channels : channels + other.shape[1]]
            out = out + F.conv2d(other, part, padding=1)
            channels += other.shape[1]
        if sees_one_value(self.norm, out):
            raise too_few_values()
        return self.norm(out)  # type: ignore[no-any-return]

    def _folds(self, x: Tensor, size: Sequence[int]) -> bool:
        """Where it was measured to be faster; graphs that are exported take maps of any size."""
        return (
            x.device.type == "cpu"
            and not torch.compiler.is_exporting()
            and list(size) == [2 * side for side in x.shape[2:]]
        )


def joined(x: Tensor, others: Sequence[Tensor], size: Sequence[int] | None) -> Tensor:
    """The map, enlarged, with the others appended."""
    if size is not None:
        x = F.interpolate(x, size=list(size), mode="nearest")
    return torch.cat([x, *others], dim=1) if others else x
