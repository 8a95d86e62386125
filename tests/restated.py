"""A plain restatement of dilated ResNeSts and of PyTorch-Encoding's heads: functions on tensors under their names.

    c2, c3, c4, c5 = features(state, images, depths=(3, 4, 6, 3), output_stride=8)
    logits = deeplab(state, images, depths=(3, 4, 6, 3), output_stride=8)

Written from the facts (sections 0.8, 1.2, 1.3 and 4.4), for radix 2, one cardinal group and evaluation; it shares no
line with the implementation.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

State = dict[str, Tensor]
# Of stages 2 to 4: stride, dilation of the first block, dilation of the others
PLANS = {
    32: ((2, 1, 1), (2, 1, 1), (2, 1, 1)),
    16: ((2, 1, 1), (2, 1, 1), (1, 1, 2)),
    8: ((2, 1, 1), (1, 1, 2), (1, 2, 4)),
}


def norm(state: State, name: str, x: Tensor) -> Tensor:
    return F.batch_norm(x, *(state[f"{name}.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias")))


def conv(state: State, name: str, x: Tensor, **how: int) -> Tensor:
    return F.conv2d(x, state[f"{name}.weight"], state.get(f"{name}.bias"), **how)


def split_attention(state: State, name: str, x: Tensor, dilation: int) -> Tensor:
    both = F.relu(
        norm(state, f"{name}.bn0", conv(state, f"{name}.conv", x, padding=dilation, dilation=dilation, groups=2))
    )
    first, second = both.chunk(2, 1)
    pooled = (first + second).mean((2, 3), keepdim=True)
    hidden = F.relu(norm(state, f"{name}.bn1", conv(state, f"{name}.fc1", pooled)))
    share = torch.softmax(torch.stack(conv(state, f"{name}.fc2", hidden).chunk(2, 1)), 0)
    return share[0] * first + share[1] * second


def block(state: State, name: str, x: Tensor, *, stride: int, dilation: int, first: bool, stage: int) -> Tensor:
    out = F.relu(norm(state, f"{name}.bn1", conv(state, f"{name}.conv1", x)))
    out = split_attention(state, f"{name}.conv2", out, dilation)
    if first and stage > 1:  # the pool stays where a stage dilates, with stride 1
        out = F.avg_pool2d(out, 3, stride=stride, padding=1)
    out = norm(state, f"{name}.bn3", conv(state, f"{name}.conv3", out))
    if first:
        x = F.avg_pool2d(x, stride, stride=stride, ceil_mode=True, count_include_pad=False)
        x = norm(state, f"{name}.downsample.2", conv(state, f"{name}.downsample.1", x))
    return F.relu(out + x)


def features(state: State, x: Tensor, *, depths: tuple[int, ...], output_stride: int) -> list[Tensor]:
    """C2 to C5, under official names."""
    x = F.relu(norm(state, "conv1.1", conv(state, "conv1.0", x, stride=2, padding=1)))
    x = F.relu(norm(state, "conv1.4", conv(state, "conv1.3", x, padding=1)))
    x = F.relu(norm(state, "bn1", conv(state, "conv1.6", x, padding=1)))
    x = F.max_pool2d(x, 3, stride=2, padding=1)
    maps = []
    for stage, plan in enumerate(((1, 1, 1), *PLANS[output_stride]), start=1):
        stride, dilation, later = plan
        for number in range(depths[stage - 1]):
            name, first = f"layer{stage}.{number}", number == 0
            dilates = dilation if first else later
            x = block(state, name, x, stride=stride if first else 1, dilation=dilates, first=first, stage=stage)
        maps.append(x)
    return maps


def end(state: State, name: str, x: Tensor, places: tuple[int, int, int] = (0, 1, 4)) -> Tensor:
    """3x3, norm, ReLU, dropout, 1x1, at these places of a list of modules."""
    first, second, last = (f"{name}.{place}" for place in places)
    return conv(state, last, F.relu(norm(state, second, conv(state, first, x, padding=1))))


def upsample(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=True)


def body(state: State, images: Tensor, **how: object) -> list[Tensor]:
    inside = {
        name.removeprefix("pretrained."): value for name, value in state.items() if name.startswith("pretrained.")
    }
    return features(inside, images, **how)  # type: ignore[arg-type]


def deeplab(state: State, images: Tensor, *, depths: tuple[int, ...], output_stride: int) -> Tensor:
    """PyTorch-Encoding's DeepLabV3; its rates are those of output stride 8, and halved at 16 as in the paper."""
    c5 = body(state, images, depths=depths, output_stride=output_stride)[3]
    seen = [F.relu(norm(state, "head.aspp.b0.1", conv(state, "head.aspp.b0.0", c5)))]
    for branch, rate in enumerate((12, 24, 36), start=1):
        rate = rate * 8 // output_stride
        out = conv(state, f"head.aspp.b{branch}.0", c5, padding=rate, dilation=rate)
        seen.append(F.relu(norm(state, f"head.aspp.b{branch}.1", out)))
    pooled = conv(state, "head.aspp.b4.gap.1", F.adaptive_avg_pool2d(c5, 1))
    seen.append(upsample(F.relu(norm(state, "head.aspp.b4.gap.2", pooled)), c5))
    joined = F.relu(norm(state, "head.aspp.project.1", conv(state, "head.aspp.project.0", torch.cat(seen, 1))))
    return upsample(end(state, "head.block", joined), images)


def fcn(state: State, images: Tensor, *, depths: tuple[int, ...], output_stride: int) -> Tensor:
    c5 = body(state, images, depths=depths, output_stride=output_stride)[3]
    return upsample(end(state, "head.conv5", c5), images)


def psp(state: State, images: Tensor, *, depths: tuple[int, ...], output_stride: int) -> Tensor:
    c5 = body(state, images, depths=depths, output_stride=output_stride)[3]
    seen = [c5]
    for place, cells in enumerate((1, 2, 3, 6), start=1):
        name = f"head.conv5.0.conv{place}"
        seen.append(
            upsample(F.relu(norm(state, f"{name}.1", conv(state, f"{name}.0", F.adaptive_avg_pool2d(c5, cells)))), c5)
        )
    return upsample(end(state, "head.conv5", torch.cat(seen, 1), (1, 2, 5)), images)


def auxiliary(state: State, images: Tensor, *, depths: tuple[int, ...], output_stride: int) -> Tensor:
    """The logits of the head on C4 that only training has."""
    c4 = body(state, images, depths=depths, output_stride=output_stride)[2]
    return upsample(end(state, "auxlayer.conv5", c4), images)
