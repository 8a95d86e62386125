"""The split-attention convolution (arXiv 2004.08955, section 3.1 and figure 2), in its radix-major form.

Symbols, as in the paper: K = cardinality (cardinal groups), R = radix (splits in each), C = channels, U = the splits,
s = their pooled sum, G = the two 1x1 convolutions, a = the attention that they give, V = the weighted sum.

    block = SplitAttention(64, radix=2, cardinality=1)
    block(torch.randn(8, 64, 56, 56)).shape                      # (8, 64, 56, 56)

Radix-major means that channel r * C + k * C/K + c is channel c of split r of cardinal group k. All splits with the
same r are then neighbours, and one grouped convolution with K * R groups computes them all.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from resnest.errors import ResnestError
from resnest.network.norm import ATTENTION_NORMS, sees_one_value
from resnest.spec import AttentionNorm, attention_width


class SplitAttention(nn.Module):
    """3x3 convolution into R splits, which attention over R weighs and sums.

    Shapes: (N, C, H, W) -> (N, C, H', W'). Parameter names are the official ones. `conv` makes the 3x3 convolution.

    Raises:
        ResnestError: in training, when the batch-norm of the attention would see a single sample.
    """

    def __init__(
        self,
        channels: int,
        *,
        radix: int = 2,
        cardinality: int = 1,
        stride: int = 1,
        dilation: int = 1,
        attention_norm: AttentionNorm = "batch",
        conv: Callable[..., nn.Conv2d] = nn.Conv2d,
    ) -> None:
        super().__init__()
        self.radix = radix
        self.cardinality = cardinality
        inner = attention_width(channels, radix)
        self.conv = conv(
            channels,
            channels * radix,
            kernel_size=3,
            stride=stride,
            padding=dilation,
            dilation=dilation,
            groups=cardinality * radix,
            bias=False,
        )
        self.bn0 = nn.BatchNorm2d(channels * radix)
        self.relu = nn.ReLU(inplace=True)
        self.fc1 = nn.Conv2d(channels, inner, kernel_size=1, groups=cardinality)
        self.bn1 = ATTENTION_NORMS[attention_norm](inner)
        self.relu1 = nn.ReLU(inplace=True)
        self.fc2 = nn.Conv2d(inner, channels * radix, kernel_size=1, groups=cardinality)
        self.rsoftmax = RadixSoftmax(radix, cardinality)

    def forward(self, x: Tensor) -> Tensor:
        splits = self.relu(self.bn0(self.conv(x)))  # U: (N, R*C, H, W)
        return weigh(splits, self.attention(splits), self.radix)  # V: (N, C, H, W)

    def attention(self, splits: Tensor) -> Tensor:
        """The weight of every channel in every split: (N, R*C, H, W) -> (N, R*C, 1, 1), radix-major.

        For R >= 2 the R weights of a channel add up to 1.
        """
        # The paper pools the sum of the splits. Pooling is linear, so pool first and then add R short vectors
        # instead of R feature maps.
        pooled = splits.mean((2, 3), keepdim=True)  # (N, R*C, 1, 1)
        s = pooled.unflatten(1, (self.radix, -1)).sum(1)  # (N, C, 1, 1)
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            self._check_batch(s)
        hidden = self.relu1(self.bn1(self.fc1(s)))  # (N, I, 1, 1)
        logits = self.fc2(hidden)  # G(s): (N, K*R*C/K, 1, 1), cardinality-major
        a: Tensor = self.rsoftmax(logits)
        return a.to(splits.dtype)

    def _check_batch(self, pooled: Tensor) -> None:
        if sees_one_value(self.bn1, pooled):
            raise ResnestError(
                "training with one sample per device: the batch-norm inside the split attention sees one value per"
                " sample and needs two or more. Use a batch of 2 or more, or build the network with"
                " attention_norm='frozen' (keeps pretrained statistics) or attention_norm='layer' (from scratch)."
            )


class RadixSoftmax(nn.Module):
    """`radix_softmax` as a module: a forward hook on it keeps the attention."""

    def __init__(self, radix: int, cardinality: int) -> None:
        super().__init__()
        self.radix, self.cardinality = radix, cardinality

    def forward(self, logits: Tensor) -> Tensor:
        return radix_softmax(logits, self.radix, self.cardinality)

    def extra_repr(self) -> str:
        return f"radix={self.radix}, cardinality={self.cardinality}"


def radix_softmax(logits: Tensor, radix: int, cardinality: int) -> Tensor:
    """The attention a: a softmax of G(s) over the splits, or a sigmoid where there is just one.

    Shapes: (N, K*R*C/K, 1, 1), as fc2's K groups put it out, -> (N, R*C, 1, 1), radix-major.
    """
    if radix == 1:
        return logits.sigmoid()
    logits = logits.unflatten(1, (cardinality, radix, -1))  # (N, K, R, C/K, 1, 1)
    return logits.softmax(2).transpose(1, 2).flatten(1, 3)  # (N, R*C, 1, 1)


def weigh(splits: Tensor, attention: Tensor, radix: int) -> Tensor:
    """V: the sum over r of a_r * U_r.

    Shapes: (N, R*C, H, W), (N, R*C, 1, 1) -> (N, C, H, W). The splits are taken as chunks of channels, views in
    NCHW and in channels_last, so nothing is copied. Two weights that add up to 1 are a linear interpolation, one
    pass over memory instead of three.
    """
    if radix == 1:
        return splits * attention
    parts, weights = splits.chunk(radix, 1), attention.chunk(radix, 1)  # R x (N, C, H, W), R x (N, C, 1, 1)
    if radix == 2:
        return torch.lerp(parts[1], parts[0], weights[0])
    out = parts[0] * weights[0]
    for r in range(1, radix):  # not zip: torch.fx cannot iterate
        out = torch.addcmul(out, parts[r], weights[r])
    return out
