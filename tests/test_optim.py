"""Optimiser groups: what is decayed, how fast each part learns, and what stays still when it is frozen."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from resnest.errors import ResnestError
from resnest.network.norm import FrozenStatsBatchNorm2d
from resnest.network.resnest import ResNeSt, initialise_as_gluon
from resnest.network.tools import freeze, parameter_stages
from resnest.recipes.schema import OptimSettings
from resnest.spec import Spec
from resnest.training.step import build_optimizers, set_lr

NARROW = Spec(depths=(1, 1, 1, 1), planes=(8, 8, 16, 16), stem_width=4, drop_path_rate=0.2, drop_block_rate=0.1)
PREFIXES = (("conv1.", "bn1."), ("layer1.",), ("layer2.",), ("layer3.",), ("layer4.",), ("fc.",))


def _net(**changes: Any) -> ResNeSt:
    torch.manual_seed(0)
    net = ResNeSt(NARROW, num_classes=3, **changes)
    with torch.no_grad():
        for name, buffer in net.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_()
    return net


def _place(name: str) -> int:
    return next(place for place, prefixes in enumerate(PREFIXES) if name.startswith(prefixes))


def test_parts_hold_every_parameter_once() -> None:
    net = _net()
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    for place, part in enumerate(parameter_stages(net)):
        for parameter in part.parameters():
            assert _place(names.pop(id(parameter))) == place
    assert names == {}


@pytest.mark.parametrize("name", ["sgd", "adamw", "muon"])
@pytest.mark.parametrize("head_factor", [1.0, 4.0])
def test_parts_learn_at_their_own_rate(name: str, head_factor: float) -> None:
    net = _net()
    settings = OptimSettings(name=name, layer_decay=0.5, head_factor=head_factor, weight_decay=0.1)
    optimizers = build_optimizers(net, settings)
    set_lr(optimizers, 0.8)
    seen = {id(p): group for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    modules = dict(net.named_modules())
    for parameter_name, parameter in net.named_parameters():
        group, place = seen.pop(id(parameter)), _place(parameter_name)
        assert group["lr"] == pytest.approx(0.8 * (head_factor if place == 5 else 0.5 ** (5 - place)))
        owner, _, leaf = parameter_name.rpartition(".")
        decays = leaf == "weight" and isinstance(modules[owner], nn.Conv2d | nn.Linear)
        assert group["weight_decay"] == (0.1 if decays else 0)
    assert seen == {}


@pytest.mark.parametrize("name", ["sgd", "adamw", "muon"])
def test_factors_survive_a_checkpoint(name: str) -> None:
    settings = OptimSettings(name=name, layer_decay=0.5)
    states = [copy.deepcopy(optimizer.state_dict()) for optimizer in build_optimizers(_net(), settings)]
    restored = build_optimizers(_net(), OptimSettings(name=name, layer_decay=0.9))
    for optimizer, state in zip(restored, states, strict=True):
        optimizer.load_state_dict(state)
    set_lr(restored, 1.0)
    rates = {group["lr"] for optimizer in restored for group in optimizer.param_groups}
    assert rates == {0.5**distance for distance in range(6)}


@pytest.mark.parametrize(("name", "groups"), [("sgd", [2]), ("adamw", [2]), ("muon", [1, 2])])
def test_without_layer_decay_nothing_has_changed(name: str, groups: list[int]) -> None:
    """Checkpoints of before still fit: the same groups, without a factor."""
    optimizers = build_optimizers(_net(), OptimSettings(name=name))
    assert [len(optimizer.param_groups) for optimizer in optimizers] == groups
    set_lr(optimizers, 0.3)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            assert group["lr"] == 0.3
            assert "lr_factor" not in group


@pytest.mark.parametrize("count", range(6))
@pytest.mark.parametrize("name", ["sgd", "muon"])
def test_what_is_frozen_stays_as_it_is(count: int, name: str) -> None:
    net = _net()
    freeze(net, count)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    optimizers = build_optimizers(net, OptimSettings(name=name, layer_decay=0.9, weight_decay=0.1))
    for _ in range(2):
        set_lr(optimizers, 0.1)
        net.train()
        net(torch.randn(4, 3, 32, 32)).square().sum().backward()
        for optimizer in optimizers:
            optimizer.step()
        net.zero_grad()
    after = net.state_dict()
    moved = {_place(key) for key in before if not torch.equal(before[key], after[key])}
    assert moved == set(range(count, 6))
    still = [key for key in before if _place(key) >= count and key.endswith("running_mean")]
    assert all(not torch.equal(before[key], after[key]) for key in still)


def test_frozen_parts_act_as_in_evaluation_and_keep_their_names() -> None:
    plain, net = _net(), _net()
    freeze(net, 4)
    assert list(net.state_dict()) == list(plain.state_dict())
    images = torch.randn(2, 3, 64, 64)
    net.train()
    plain.eval()
    with torch.no_grad():  # stem to layer3, two blocks of which would drop something in training
        assert torch.allclose(net.forward_stages(images)[3], plain.forward_stages(images)[3], atol=1e-5)
    other = _net()
    other.load_state_dict(net.state_dict())
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(net)
    kinds = [type(module) for module in parameter_stages(converted)[1].modules()]
    assert FrozenStatsBatchNorm2d in kinds
    assert nn.SyncBatchNorm not in kinds


def test_the_head_cannot_be_frozen() -> None:
    with pytest.raises(ResnestError, match="6 parts cannot be frozen"):
        freeze(_net(), 6)


def test_initial_weights_as_in_gluon() -> None:
    """He normal by fan-in of one group, biases at 0; norms, and so the zeros of the last ones, stay."""
    net = ResNeSt(Spec(depths=(1, 1, 1, 1)))
    initialise_as_gluon(net)
    for name, shape_in in (("layer4.0.conv1", 1024), ("layer4.0.conv2.conv", 512 * 9 // 2), ("fc", 2048)):
        module = net.get_submodule(name)
        assert module.weight.std().item() == pytest.approx((2 / shape_in) ** 0.5, rel=0.02)
    assert not net.fc.bias.any()
    assert not net.layer4[0].conv2.fc1.bias.any()
    assert not net.layer2[0].bn3.weight.any()
    assert net.layer2[0].bn1.weight.all()
