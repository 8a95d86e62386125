"""The segmenter: dilated features as the official code has them, heads, losses, gradients, odd pictures.

Guards promise P8 for what labels pixels.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import resnest
import restated
from resnest.errors import ResnestError
from resnest.network import Backbone
from resnest.network.pyramid import ConvNorm
from resnest.network.recompute import recompute_activations
from resnest.network.tools import freeze_bn_statistics, parameter_stages
from resnest.segmentation.card import IGNORED
from resnest.segmentation.segmenter import Segmenter, build_segmenter
from resnest.segmentation.spec import SegmenterSpec
from resnest.spec import Spec

TINY = Spec(depths=(1, 1, 2, 2), planes=(8, 8, 16, 16), stem_width=4)
HEADS: dict[str, dict[str, Any]] = {
    "deeplabv3": {},
    "deeplabv3plus": {"head": "deeplabv3plus", "output_stride": 16},
    "fcn": {"head": "fcn"},
    "psp": {"head": "psp"},
    "psp, odd bins": {"head": "psp", "bins": (1, 5), "output_stride": 16, "channels": 32},
    "deeplabv3, group": {"norm": "group", "channels": 64},
    "psp, group": {"head": "psp", "norm": "group", "channels": 64, "dilation": "timm"},
}


def build(spec: Spec = TINY, **changes: Any) -> Segmenter:
    torch.manual_seed(0)
    return build_segmenter(spec, SegmenterSpec(**changes), 5, zero_gamma=False)


def stir(net: nn.Module) -> nn.Module:
    """Statistics and scales that differ from channel to channel, so that a norm in a wrong place shows."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in net.state_dict().items():
        if name.endswith(("running_mean", "running_var", "norm.weight", "norm.bias", "bn1.weight")):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return net


@pytest.mark.parametrize("size", [(64, 96), (65, 47)], ids=str)
@pytest.mark.parametrize("stride", [8, 16, 32])
def test_dilated_features_are_the_official_ones(stride: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    spec = replace(TINY, depths=(1, 2, 2, 3))
    net = stir(Backbone(spec, output_stride=stride, zero_gamma=False)).eval()
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        ours = net(images)
        plain = restated.features(dict(net.state_dict()), images, depths=spec.depths, output_stride=stride)
    for mine, theirs in zip(ours, plain, strict=True):
        assert mine.shape == theirs.shape
        assert (mine - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@pytest.mark.parametrize("head", HEADS)
def test_logits_have_the_size_of_the_images(head: str) -> None:
    net = build(**HEADS[head]).eval()
    with torch.no_grad():
        for shape in ((1, 3, 33, 31), (2, 3, 64, 40), (1, 3, 8, 8)):
            logits = net(torch.randn(shape))
            assert logits.shape == (shape[0], 5, *shape[2:])
            assert logits.isfinite().all()


@pytest.mark.parametrize("head", HEADS)
def test_losses_reach_every_parameter(head: str) -> None:
    net = build(**HEADS[head]).train()
    targets = torch.randint(0, 5, (2, 49, 65)).to(torch.uint8)
    targets[0, :10] = IGNORED
    losses = net(torch.randn(2, 3, 49, 65), targets)
    assert losses.keys() == {"pixels", "auxiliary"}
    sum(losses.values()).backward()
    without = [name for name, one in net.named_parameters() if one.grad is None or not one.grad.isfinite().all()]
    assert without == []


def test_the_losses_are_those_of_the_two_heads() -> None:
    """A tenth of the weight, a tenth of the loss; in evaluation mode, so that nothing is drawn."""
    images, targets = torch.randn(2, 3, 32, 32), torch.randint(0, 5, (2, 32, 32)).to(torch.uint8)
    net = build(aux=0.2).eval()
    losses, logits = net(images, targets), net(images)
    assert losses["pixels"].item() == pytest.approx(nn.functional.cross_entropy(logits, targets.long()).item())
    lighter = build(aux=0.02).eval()
    assert losses["auxiliary"].item() == pytest.approx(10 * lighter(images, targets)["auxiliary"].item(), rel=1e-5)
    without = build(aux=0).eval()
    assert without(images, targets).keys() == {"pixels"}
    assert not any(name.startswith("auxiliary") for name in without.state_dict())


def test_pixels_that_do_not_count_do_not_count() -> None:
    logits = torch.randn(2, 5, 6, 7, requires_grad=True)
    targets = torch.randint(0, 5, (2, 6, 7)).to(torch.uint8)
    targets[:, 2:4] = IGNORED
    counted = targets != IGNORED
    mine = torch.stack([-logits.log_softmax(1)[n, targets[n, y, x].long(), y, x] for n, y, x in counted.nonzero()])
    net = build()
    assert net.loss(logits, targets).item() == pytest.approx(mine.mean().item(), rel=1e-5)
    nothing = net.loss(logits, torch.full_like(targets, IGNORED))
    nothing.backward()
    assert nothing.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("size", [(33, 31), (32, 32)], ids=str)
def test_one_image_trains_where_the_norms_can(head: str, size: tuple[int, int]) -> None:
    """And otherwise one line says why not, and what to do."""
    spec = replace(TINY, attention_norm="layer")
    images, targets = torch.randn(1, 3, *size), torch.zeros(1, *size, dtype=torch.uint8)
    net = build(spec, **HEADS[head]).train()
    if net.spec.min_batch_size == 1:
        assert net(images, targets)["pixels"].isfinite()
        return
    with pytest.raises(ResnestError, match=r"one image per device.*batch of 2 or more.*norm='group'"):
        net(images, targets)
    freeze_bn_statistics(net)
    assert net(images, targets)["pixels"].isfinite()


@pytest.mark.parametrize(
    ("changes", "least"),
    [
        ({}, 2),
        ({"norm": "group"}, 1),
        ({"head": "deeplabv3plus", "norm": "none"}, 1),
        ({"head": "fcn"}, 1),
        ({"head": "psp"}, 2),
        ({"head": "psp", "bins": (2, 3)}, 1),
    ],
)
def test_min_batch_size(changes: dict[str, Any], least: int) -> None:
    assert SegmenterSpec(**changes).min_batch_size == least


def test_the_head_is_the_last_part() -> None:
    """Which learns ten times as fast, auxiliary head and all."""
    net = build()
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    assert {names[id(one)].split(".")[0] for one in parameter_stages(net)[-1].parameters()} == {"head", "auxiliary"}


def test_channels_follow_the_backbone_or_the_setting() -> None:
    """DeepLabV3: an eighth of C5; FCN and the auxiliary head: a quarter of their map."""
    found = {head: build(head=head) for head in ("deeplabv3", "deeplabv3plus", "fcn", "psp")}
    widths = {head: net.head.predict.logits.in_channels for head, net in found.items()}
    assert widths == {"deeplabv3": 8, "deeplabv3plus": 8, "fcn": 16, "psp": 16}
    assert {net.auxiliary.predict.logits.in_channels for net in found.values()} == {16}  # of C4
    assert found["psp"].head.pyramid[0].conv.weight.shape == (16, 64, 1, 1)
    assert found["deeplabv3plus"].head.low.conv.weight.shape == (48, 32, 1, 1)
    assert build(channels=24).head.predict.logits.in_channels == 24
    assert build(channels=24).auxiliary.predict.logits.in_channels == 16
    dilations = [branch.conv.dilation[0] for branch in build(output_stride=16).head.aspp.branches]
    assert dilations == [1, 6, 12, 18]


@pytest.mark.parametrize(("channels", "groups"), [(256, 32), (64, 32), (48, 16), (24, 8), (7, 1)])
def test_group_norms_have_32_groups_or_fewer(channels: int, groups: int) -> None:
    assert ConvNorm(4, channels, 1, "group").norm.num_groups == groups


def test_bins_that_cannot_share_the_channels() -> None:
    with pytest.raises(ResnestError, match=r"65 segmenter\.bins cannot share 64 channels"):
        build(head="psp", bins=(1,) * 65)


def test_created_by_name() -> None:
    small = {"planes": (8, 8, 16, 16), "stem_width": 4, "depths": (1, 1, 1, 1)}
    net = resnest.create_segmenter("resnest50", SegmenterSpec(head="fcn"), num_classes=3, **small)
    assert (net.num_classes, net.spec.head, net.backbone.channels) == (3, "fcn", [32, 32, 64, 64])
    for arguments, message in (
        ({"num_classes": 0}, "num_classes=0 must lie in 1 to 255"),
        ({"num_classes": 256}, "num_classes=256 must lie in 1 to 255: the label 255 does not count"),
        ({"backbone": TINY, "pretrained": True}, "pretrained=True needs a name"),
        ({"plane": (8, 8, 8, 8)}, "plane"),
    ):
        with pytest.raises(ResnestError, match=message):
            resnest.create_segmenter(**arguments)


def test_recomputing_gives_the_same_losses_and_gradients() -> None:
    images, targets = torch.randn(2, 3, 33, 33), torch.randint(0, 5, (2, 33, 33)).to(torch.uint8)
    results = []
    for recomputes in (False, True):
        net = build().train()
        if recomputes:
            recompute_activations(net)
        torch.manual_seed(3)
        losses = net(images, targets)
        sum(losses.values()).backward()
        results.append([*losses.values(), *(one.grad for one in net.parameters()), *net.buffers()])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))
