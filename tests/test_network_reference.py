"""The split-attention convolution and the bottleneck against a naive reading of the paper, in float64.

The reference here loops over cardinal groups and splits, slices every weight by hand and adds with plain sums (paper,
section 3.1); no operator of the implementation is used. Guards the mathematics under promise P10.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from resnest.network import Bottleneck, ResNeSt, SplitAttention
from resnest.spec import AttentionNorm, Spec

EPS = 1e-5  # torch's default for batch-norm and group-norm
SIZES = [(7, 7), (9, 5), (8, 6)]


@dataclass(frozen=True)
class Layer:
    """The parameters below one prefix, and whether batch-norm uses the batch."""

    state: dict[str, Tensor]
    training: bool

    def __getitem__(self, name: str) -> Tensor:
        return self.state[name]

    def below(self, prefix: str) -> Layer:
        cut = len(prefix) + 1
        inside = {name[cut:]: value for name, value in self.state.items() if name.startswith(f"{prefix}.")}
        return Layer(inside, self.training)

    def batch_norm(self, x: Tensor, channels: slice = slice(None)) -> Tensor:
        mean, var = self["running_mean"][channels], self["running_var"][channels]
        if self.training:
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
        unit = (x - mean[:, None, None]) / (var[:, None, None] + EPS).sqrt()
        return unit * self["weight"][channels, None, None] + self["bias"][channels, None, None]


def convolve(x: Tensor, weight: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
    """A convolution without groups, one kernel position after the other, zero-padded to keep the size."""
    kernel, (height, width) = weight.shape[2], x.shape[2:]
    pad = dilation * (kernel // 2)
    padded = nn.functional.pad(x, (pad, pad, pad, pad))
    total = torch.zeros(())
    for i, j in itertools.product(range(kernel), repeat=2):
        top, left = i * dilation, j * dilation
        window = padded[:, :, top : top + height : stride, left : left + width : stride]
        total = total + torch.einsum("nchw,oc->nohw", window, weight[:, :, i, j])
    return total


def average_3x3(x: Tensor, stride: int) -> Tensor:
    """The mean over 3x3 pixels; zeros outside of the map count."""
    channels = x.shape[1]
    kernel = torch.eye(channels, dtype=x.dtype)[:, :, None, None].expand(-1, -1, 3, 3) / 9
    return convolve(x, kernel, stride)


def average_shortcut(x: Tensor, stride: int) -> Tensor:
    """The mean over stride x stride pixels; at the right and lower edge, over those that exist."""
    height, width = x.shape[2:]
    rows = [
        [x[:, :, i : i + stride, j : j + stride].mean((2, 3)) for j in range(0, width, stride)]
        for i in range(0, height, stride)
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def split_attention(
    x: Tensor, layer: Layer, radix: int, cardinality: int, stride: int = 1, dilation: int = 1
) -> Tensor:
    """Section 3.1, one cardinal group k after the other."""
    return torch.cat([cardinal_group(x, layer, k, radix, cardinality, stride, dilation) for k in range(cardinality)], 1)


def cardinal_group(x: Tensor, layer: Layer, k: int, radix: int, cardinality: int, stride: int, dilation: int) -> Tensor:
    width = x.shape[1] // cardinality  # channels of one cardinal group, C/K
    part = width // radix  # channels that one split reads
    splits = []
    for r in range(radix):
        group = r * cardinality + k  # radix-major: groups with the same r are neighbours, on either side
        reads, writes = slice(group * part, (group + 1) * part), slice(group * width, (group + 1) * width)
        split = convolve(x[:, reads], layer["conv.weight"][writes], stride, dilation)
        splits.append(layer.below("bn0").batch_norm(split, writes).clamp(min=0))
    pooled = sum(splits).mean((2, 3))  # type: ignore[union-attr]
    gates = cardinal_gates(pooled, layer, k, radix, cardinality)
    return sum(gate[:, :, None, None] * split for gate, split in zip(gates, splits, strict=True))  # type: ignore


def cardinal_gates(pooled: Tensor, layer: Layer, k: int, radix: int, cardinality: int) -> list[Tensor]:
    """(N, C/K) -> R gates of (N, C/K): two fully connected layers, then a softmax over the splits."""
    width, inner = pooled.shape[1], layer["fc1.bias"].numel() // cardinality
    hidden_rows = slice(k * inner, (k + 1) * inner)
    hidden = pooled @ layer["fc1.weight"][hidden_rows, :, 0, 0].T + layer["fc1.bias"][hidden_rows]
    hidden = layer.below("bn1").batch_norm(hidden[:, :, None, None], hidden_rows)[:, :, 0, 0].clamp(min=0)
    logits = []
    for r in range(radix):
        rows = slice((k * radix + r) * width, (k * radix + r + 1) * width)  # cardinality-major
        logits.append(hidden @ layer["fc2.weight"][rows, :, 0, 0].T + layer["fc2.bias"][rows])
    if radix == 1:
        return [1 / (1 + (-logits[0]).exp())]
    total = sum(logit.exp() for logit in logits)
    return [logit.exp() / total for logit in logits]


def bottleneck(x: Tensor, layer: Layer, spec: Spec, stride: int, dilation: int, pools: bool) -> Tensor:
    """Figure 2, right, with ResNet-D's shortcut; `pools` has the average pool do the striding."""
    conv_stride = 1 if pools else stride
    out = layer.below("bn1").batch_norm(convolve(x, layer["conv1.weight"])).clamp(min=0)
    if pools and spec.avd_first:
        out = average_3x3(out, stride)
    if spec.radix:
        out = split_attention(out, layer.below("conv2"), spec.radix, spec.cardinality, conv_stride, dilation)
    else:
        weights, inputs = layer["conv2.weight"].chunk(spec.cardinality), out.chunk(spec.cardinality, 1)
        parts = [convolve(a, w, conv_stride, dilation) for a, w in zip(inputs, weights, strict=True)]
        out = layer.below("bn2").batch_norm(torch.cat(parts, 1)).clamp(min=0)
    if pools and not spec.avd_first:
        out = average_3x3(out, stride)
    out = layer.below("bn3").batch_norm(convolve(out, layer["conv3.weight"]))
    shortcut = x
    if "downsample.1.weight" in layer.state:
        shortcut = convolve(average_shortcut(x, stride), layer["downsample.1.weight"])
        shortcut = layer.below("downsample.2").batch_norm(shortcut)
    return (out + shortcut).clamp(min=0)


def randomised(module: nn.Module, *, training: bool) -> Layer:
    """Fill `module` at random, in float64; returns its parameters for the reference."""
    generator = torch.Generator().manual_seed(0)
    module.double().train(training)
    for name, value in module.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5, generator=generator)
        elif value.is_floating_point():
            is_scale = value.ndim == 1 and name.endswith("weight")
            value.normal_(1.0 if is_scale else 0.0, 0.3, generator=generator)
    return Layer({name: value.clone() for name, value in module.state_dict().items()}, training)


def image(channels: int, size: tuple[int, int], layout: torch.memory_format, batch: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, channels, *size, dtype=torch.float64, generator=generator)
    return x.contiguous(memory_format=layout)


def assert_equal(actual: Tensor, expected: Tensor) -> None:
    assert actual.shape == expected.shape
    scale = expected.abs().max().item()
    assert scale > 0
    assert (actual - expected).abs().max().item() <= 1e-9 * scale


LAYOUTS = pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
MODES = pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])


@LAYOUTS
@MODES
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("cardinality", [1, 2, 4])
@pytest.mark.parametrize("radix", [1, 2, 3, 4])
def test_split_attention(
    radix: int, cardinality: int, stride: int, training: bool, layout: torch.memory_format
) -> None:
    block = SplitAttention(48, radix=radix, cardinality=cardinality, stride=stride)  # 48: divisible by 3 x 4 and 4 x 4
    layer = randomised(block, training=training)
    for size in SIZES:
        x = image(48, size, layout).requires_grad_()
        expected, actual = split_attention(x, layer, radix, cardinality, stride), block(x)
        assert_equal(actual, expected)
        probe = torch.randn(expected.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(2))
        (wanted,) = torch.autograd.grad((expected * probe).sum(), x)
        (gradient,) = torch.autograd.grad((actual * probe).sum(), x)
        assert_equal(gradient, wanted)
        if not training:
            with torch.no_grad():
                assert_equal(block(x), expected)


@pytest.mark.parametrize("dilation", [2, 4])
def test_dilated_split_attention(dilation: int) -> None:
    block = SplitAttention(16, radix=2, cardinality=2, dilation=dilation)
    layer = randomised(block, training=False)
    x = image(16, (9, 7), torch.contiguous_format)
    assert_equal(block(x), split_attention(x, layer, 2, 2, dilation=dilation))


@pytest.mark.parametrize("cardinality", [1, 2])
def test_layer_norm_in_the_attention(cardinality: int) -> None:
    """One mean and variance per sample, over all I channels."""
    block = SplitAttention(16, radix=1, cardinality=cardinality, attention_norm="layer")
    layer = randomised(block, training=True)
    hidden = image(32, (1, 1), torch.contiguous_format)
    unit = (hidden - hidden.mean(1, keepdim=True)) / (hidden.var(1, unbiased=False, keepdim=True) + EPS).sqrt()
    expected = unit * layer["bn1.weight"][:, None, None] + layer["bn1.bias"][:, None, None]
    assert_equal(block.bn1(hidden), expected)


@pytest.mark.parametrize("cardinality", [1, 2, 4])
@pytest.mark.parametrize("radix", [2, 3, 4])
def test_attention_adds_up_to_one(radix: int, cardinality: int) -> None:
    block = SplitAttention(48, radix=radix, cardinality=cardinality)
    randomised(block, training=False)
    attention = block.attention(image(48 * radix, (5, 5), torch.contiguous_format))
    assert attention.shape == (3, 48 * radix, 1, 1)
    assert_equal(attention.unflatten(1, (radix, 48)).sum(1), torch.ones(3, 48, 1, 1, dtype=torch.float64))


@pytest.mark.parametrize("norm", ["batch", "frozen"])
@pytest.mark.parametrize("radix", [1, 2])
def test_frozen_statistics_equal_evaluation(radix: int, norm: AttentionNorm) -> None:
    """With frozen statistics the attention of a training step is that of evaluation; with "batch" it is not."""
    block = SplitAttention(16, radix=radix, attention_norm=norm)
    randomised(block, training=False)
    splits = image(16 * radix, (5, 5), torch.contiguous_format)
    evaluated, trained = block.attention(splits), block.train().attention(splits)
    assert torch.equal(evaluated, trained) == (norm == "frozen")


# Structure, then which block: stage, index, output stride -> what the reference is told about it.
BLOCKS = {
    "layer1.0": (32, 1, 1, False),
    "layer1.1": (32, 1, 1, False),  # no convolution on the shortcut
    "layer2.0": (32, 2, 1, True),
    "layer3.0": (8, 1, 1, True),  # official dilation: the pool stays, at stride 1
    "layer3.1": (8, 1, 2, False),
    "layer4.0": (8, 1, 2, True),
    "layer4.1": (8, 1, 4, False),
}
STRUCTURES = {
    "2s1x64d": Spec(radix=2),
    "2s2x64d, pool first": Spec(radix=2, cardinality=2, avd_first=True),
    "1s4x64d, pool first": Spec(radix=1, cardinality=4, avd_first=True),
    "4s1x64d, no pool": Spec(radix=4, avd=False),
    "ResNet-D": Spec(radix=0, avd=False),
    "ResNeXt-D with pool": Spec(radix=0, cardinality=2),
}


@LAYOUTS
@MODES
@pytest.mark.parametrize("place", BLOCKS)
@pytest.mark.parametrize("structure", STRUCTURES)
def test_bottleneck(structure: str, place: str, training: bool, layout: torch.memory_format) -> None:
    output_stride, stride, dilation, pools = BLOCKS[place]
    base = STRUCTURES[structure]
    spec = Spec(
        depths=(2, 2, 2, 2),
        planes=(8, 8, 8, 8),
        stem_width=8,
        radix=base.radix,
        cardinality=base.cardinality,
        avd=base.avd,
        avd_first=base.avd_first,
    )
    block = ResNeSt(spec, num_classes=0, output_stride=output_stride).get_submodule(place)
    assert isinstance(block, Bottleneck)
    layer = randomised(block, training=training)
    x = image(block.conv1.in_channels, (7, 5), layout, batch=4)
    expected = bottleneck(x, layer, spec, stride, dilation, pools and spec.avd)
    assert_equal(block(x.clone()), expected)
    if not training:
        with torch.no_grad():
            assert_equal(block(x.clone()), expected)
