"""Deformable convolution: detectron2's formula, the plain convolution where it starts, and every use of a network."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import deform_conv2d

from resnest.errors import ResnestError
from resnest.inference.prepare import prepared
from resnest.network import Backbone, ResNeSt
from resnest.network.deform import DeformConv2d, stage_convs
from resnest.network.recompute import recompute_activations
from resnest.network.regularize import decay_groups
from resnest.network.resnest import initialise_as_gluon
from resnest.spec import Spec

NARROW = {"depths": (1, 1, 2, 1), "planes": (8, 8, 16, 16), "stem_width": 4}
DEFORM = (False, True, True, True)
KINDS = {
    "split attention": Spec(**NARROW),  # type: ignore[arg-type]
    "cardinal groups, pool first": Spec(**NARROW, radix=2, cardinality=2, width=48, avd_first=True),  # type: ignore[arg-type]
    "ResNet-D": Spec(**NARROW, radix=0, avd=False),  # type: ignore[arg-type]
}


def _lively(module: nn.Module) -> nn.Module:
    """With distances of a pixel or so, and weights that are not all a half."""
    for part in module.modules():
        if isinstance(part, DeformConv2d):
            nn.init.normal_(part.offset_weight, std=0.2)
            nn.init.uniform_(part.offset_bias, -1, 1)
    return module


def _backbone(spec: Spec) -> Backbone:
    torch.manual_seed(0)
    net = Backbone(spec, zero_gamma=False, convs=stage_convs(DEFORM, groups=2))
    _lively(net)
    return net


def _by_hand(x: Tensor, offsets: Tensor, mask: Tensor, weight: Tensor, groups: int, deform_groups: int) -> Tensor:
    """The definition (arXiv 1811.11168, equation 1) at stride 1 and padding 1, one output value after the other."""
    chans, height, width = x.shape
    outs, per_group, per_deform = len(weight), weight.shape[1], chans // deform_groups
    padded = F.pad(x, (8, 8, 8, 8))  # no distance here is longer
    out = x.new_zeros(outs, height, width)
    for row in range(height):
        for col in range(width):
            for k in range(9):
                for c in range(chans):
                    at = c // per_deform * 9 + k  # place among the distances of all deformable groups
                    y = row + k // 3 - 1 + offsets[2 * at, row, col] + 8
                    z = col + k % 3 - 1 + offsets[2 * at + 1, row, col] + 8
                    top, left = int(y.floor()), int(z.floor())
                    dy, dz = y - top, z - left
                    four = padded[c, top : top + 2, left : left + 2]
                    value = torch.stack([1 - dy, dy]) @ four @ torch.stack([1 - dz, dz]) * mask[at, row, col]
                    group = c // per_group
                    rows = slice(group * outs * per_group // chans, (group + 1) * outs * per_group // chans)
                    out[rows, row, col] += weight[rows, c % per_group, k // 3, k % 3] * value
    return out


@torch.no_grad()
def test_it_is_detectron2s_formula() -> None:
    """Written out from DeformBottleneckBlock and SplAtConv2d_dcn of detectron2-ResNeSt."""
    torch.manual_seed(0)
    ours = DeformConv2d(8, 12, 3, padding=1, groups=4, bias=False, deform_groups=2).double()
    _lively(ours)
    x = torch.randn(1, 8, 4, 5, dtype=torch.float64)
    out = F.conv2d(x, ours.offset_weight, ours.offset_bias, padding=1, groups=2)  # conv2_offset: 27 * 2 channels
    offset_x, offset_y, mask = torch.chunk(out, 3, dim=1)
    offset, mask = torch.cat((offset_x, offset_y), dim=1), mask.sigmoid()
    by_operator = deform_conv2d(x, offset, ours.weight, padding=1, mask=mask)
    torch.testing.assert_close(ours(x), by_operator, rtol=0, atol=1e-12)
    by_hand = _by_hand(x[0], offset[0], mask[0], ours.weight, groups=4, deform_groups=2)
    torch.testing.assert_close(ours(x)[0], by_hand, rtol=0, atol=1e-12)


@pytest.mark.parametrize("arguments", [{"stride": 2, "padding": 1}, {"padding": 2, "dilation": 2, "groups": 2}])
def test_it_starts_as_half_the_plain_convolution(arguments: dict[str, int]) -> None:
    conv = DeformConv2d(4, 6, 3, **arguments, bias=False, deform_groups=2)  # type: ignore[arg-type]
    x = torch.randn(2, 4, 9, 10).contiguous(memory_format=torch.channels_last)
    plain = nn.functional.conv2d(x, conv.weight, None, conv.stride, conv.padding, conv.dilation, conv.groups)
    torch.testing.assert_close(conv(x), plain / 2)


def test_gradients_are_right() -> None:
    torch.manual_seed(1)  # no position lies so near to a pixel's centre that finite differences step over the kink
    conv = DeformConv2d(2, 2, 3, padding=1, deform_groups=2).double()
    _lively(conv)
    x = torch.randn(1, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    names, values = zip(*conv.named_parameters(), strict=True)
    assert set(names) == {"weight", "bias", "offset_weight", "offset_bias"}

    def run(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(conv, dict(zip(names, values, strict=True)), x)

    assert torch.autograd.gradcheck(run, (x, *values))


@pytest.mark.parametrize("spec", KINDS.values(), ids=KINDS)
def test_a_network_with_it(spec: Spec) -> None:
    net = _backbone(spec)
    assert sum(isinstance(part, DeformConv2d) for part in net.modules()) == 4  # of 1 + 1 + 2 + 1 blocks
    x = torch.randn(2, 3, 64, 96)
    twin = recompute_activations(copied := copy.deepcopy(net)) and copied
    for copied_or_not in (net, twin):
        sum(c.square().mean() for c in copied_or_not(x)).backward()
    for (name, parameter), other in zip(net.named_parameters(), twin.parameters(), strict=True):
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
        torch.testing.assert_close(other.grad, parameter.grad, rtol=1e-3, atol=1e-5)
    net.eval()
    with torch.inference_mode():
        expected = net(x)
        for name, got in {
            "channels_last": net(x.contiguous(memory_format=torch.channels_last)),
            "prepared": prepared(net)(x.contiguous(memory_format=torch.channels_last)),
        }.items():
            for one, other in zip(got, expected, strict=True):
                assert (one - other).abs().max() <= 1e-5 * other.abs().max(), name
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = net(x)
    for one, other in zip(rough, expected, strict=True):
        assert (one.float() - other).abs().max() <= 0.1 * other.abs().max()


def test_initial_weights_are_those_of_the_plain_network() -> None:
    spec, nets = KINDS["split attention"], []
    for convs in (None, stage_convs(DEFORM, groups=2)):
        torch.manual_seed(0)
        nets.append(ResNeSt(spec, num_classes=3, convs=convs))
    plain, deformable = (net.state_dict() for net in nets)
    assert all(torch.equal(tensor, deformable[name]) for name, tensor in plain.items())
    initialise_as_gluon(nets[1])
    added = [name for name in deformable if name not in plain]
    assert {name.rsplit(".", 1)[1] for name in added} == {"offset_weight", "offset_bias"}
    assert len(added) == 8
    assert not any(nets[1].state_dict()[name].any() for name in added)


def test_distances_are_decayed_as_weights_are() -> None:
    conv = DeformConv2d(4, 4, 3, deform_groups=2)
    decayed, exempt = (group["params"] for group in decay_groups(conv, 0.1))
    assert [id(p) for p in decayed] == [id(conv.weight), id(conv.offset_weight)]
    assert [id(p) for p in exempt] == [id(conv.bias), id(conv.offset_bias)]


def test_groups_that_do_not_divide_the_channels_are_refused() -> None:
    with pytest.raises(ResnestError, match=r"10 channels cannot have 4 deformable groups"):
        DeformConv2d(10, 4, 3, deform_groups=4)
