"""Prepared networks compute the same: every kind of network, to 1e-5 of its largest logit in float32."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from resnest.inference.prepare import prepare, prepared
from resnest.inference.torch_engine import can_pack, packed
from resnest.network import Backbone, ResNeSt
from resnest.network.norm import FrozenStatsBatchNorm2d
from resnest.spec import PUBLISHED, Spec

SHALLOW = (1, 1, 1, 1)
KINDS = {
    "2s1x64d": Spec(depths=SHALLOW),
    "1s4x24d": Spec(depths=SHALLOW, radix=1, cardinality=4, width=24),
    "4s2x40d, fast": Spec(depths=SHALLOW, radix=4, cardinality=2, width=40, avd_first=True),
    "2s4x24d": Spec(depths=SHALLOW, radix=2, cardinality=4, width=24),
    "ResNet-D": Spec(depths=SHALLOW, radix=0, avd=False),
    "layer norm in the attention": Spec(depths=SHALLOW, attention_norm="layer", stem="small"),
    "frozen norm in the attention": Spec(depths=SHALLOW, attention_norm="frozen", stem="conv7"),
}


def lively(spec: Spec, kind: type[ResNeSt] = ResNeSt) -> ResNeSt:
    """A network whose norms all do something."""
    torch.manual_seed(0)
    net = kind(spec, zero_gamma=False)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d | FrozenStatsBatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    return net.eval()


@pytest.mark.parametrize("spec", KINDS.values(), ids=KINDS)
def test_it_computes_the_same(spec: Spec) -> None:
    net = lively(spec)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    images = torch.randn(2, 3, 75, 97)
    with torch.inference_mode():
        expected = net(images)
        got = prepared(net)(images.contiguous(memory_format=torch.channels_last))
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())  # the net stays


@pytest.mark.skipif(not can_pack(), reason="this torch has no oneDNN, or other operators of it")
@pytest.mark.parametrize("spec", KINDS.values(), ids=KINDS)
def test_packed_it_computes_the_same(spec: Spec) -> None:
    net = lively(spec)
    fast = packed(prepared(net))
    for shape in ((2, 3, 75, 97), (1, 3, 64, 64), (5, 3, 64, 64)):
        images = torch.randn(shape)
        with torch.inference_mode():
            expected = net(images)
            for memory_format in (torch.channels_last, torch.contiguous_format):
                got = fast(images.contiguous(memory_format=memory_format))
                assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("name", ["resnest50", "resnest50_fast_4s2x40d"])
def test_published_networks_compute_the_same(name: str) -> None:
    net = lively(PUBLISHED[name].spec)
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        expected, got = net(images), prepared(net)(images.contiguous(memory_format=torch.channels_last))
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_no_norm_is_left() -> None:
    assert not [m for m in prepared(lively(KINDS["2s1x64d"])).modules() if isinstance(m, nn.BatchNorm2d)]


def test_a_backbone_too() -> None:
    net = lively(KINDS["2s4x24d"], Backbone)
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        for expected, got in zip(net(images), prepare(net)(images), strict=True):
            assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()
