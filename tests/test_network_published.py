"""The published networks: entries, parameters, MACs, key names, stage widths, names and aliases.

Guards the architecture half of promise P10 (parity with the published weights): a checkpoint of the official code or
of timm has exactly these keys. The figures are facts, sections 1.1, 1.6 and 1.8. All networks live on the meta device.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from resnest.errors import ResnestError
from resnest.network import ResNeSt
from resnest.spec import ALIASES, BASELINES, PUBLISHED, Spec, find_spec, list_models, override_spec

# name, evaluation crop, state-dict entries, parameters, GMAC at the crop (facts, sections 1.6 and 1.8)
FIGURES = [
    ("resnest14", 224, 152, 10_611_688, 2.749),
    ("resnest26", 224, 260, 17_069_448, 3.623),
    ("resnest50", 224, 476, 27_483_240, 5.371),
    ("resnest101", 256, 935, 48_275_016, 13.321),
    ("resnest200", 320, 1826, 70_201_544, 35.520),
    ("resnest269", 416, 2447, 110_929_480, 77.349),
    ("resnest50_fast_1s1x64d", 224, 476, 26_217_896, 4.329),
    ("resnest50_fast_2s1x64d", 224, 476, 27_483_240, 4.331),
    ("resnest50_fast_4s1x64d", 224, 476, 31_912_712, 4.335),
    ("resnest50_fast_1s2x40d", 224, 476, 25_946_680, 4.365),
    ("resnest50_fast_2s2x40d", 224, 476, 26_943_792, 4.366),
    ("resnest50_fast_4s2x40d", 224, 476, 30_417_592, 4.369),
    ("resnest50_fast_1s4x24d", 224, 476, 25_677_000, 4.400),
    ("resnet50d", 224, 332, 25_576_264, 4.329),  # timm's resnet50d, counted in the same way
]

# name -> per stage: C, C*R, groups of the 3x3, I, groups of the attention (facts, end of section 1.1)
WIDTHS = {
    "resnest50": {1: (64, 128, 2, 32, 1), 2: (128, 256, 2, 64, 1), 3: (256, 512, 2, 128, 1), 4: (512, 1024, 2, 256, 1)},
    "resnest50_fast_1s1x64d": {1: (64, 64, 1, 32, 1), 2: (128, 128, 1, 32, 1), 4: (512, 512, 1, 128, 1)},
    "resnest50_fast_4s1x64d": {1: (64, 256, 4, 64, 1), 4: (512, 2048, 4, 512, 1)},
    "resnest50_fast_1s2x40d": {1: (80, 80, 2, 32, 2), 2: (160, 160, 2, 40, 2), 4: (640, 640, 2, 160, 2)},
    "resnest50_fast_2s2x40d": {1: (80, 160, 4, 40, 2), 4: (640, 1280, 4, 320, 2)},
    "resnest50_fast_4s2x40d": {1: (80, 320, 8, 80, 2), 4: (640, 2560, 8, 640, 2)},
    "resnest50_fast_1s4x24d": {1: (96, 96, 4, 32, 4), 2: (192, 192, 4, 48, 4), 4: (768, 768, 4, 192, 4)},
}

TIMM_NAMES = {
    "resnest14d": "resnest14",
    "resnest26d": "resnest26",
    "resnest50d": "resnest50",
    "resnest101e": "resnest101",
    "resnest200e": "resnest200",
    "resnest269e": "resnest269",
    "resnest50d_4s2x40d": "resnest50_fast_4s2x40d",
    "resnest50d_1s4x24d": "resnest50_fast_1s4x24d",
}


@functools.cache
def network(name: str) -> ResNeSt:
    with torch.device("meta"):
        return ResNeSt(find_spec(name)[0]).eval()


def count_macs(net: nn.Module, size: int) -> int:
    """Multiply-accumulates of convolutions and fully connected layers for one image of size x size."""
    counts: list[int] = []

    def count(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d | nn.Linear)
        counts.append(output.numel() * module.weight[0].numel())

    layers = [module for module in net.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    handles = [layer.register_forward_hook(count) for layer in layers]
    with torch.no_grad():
        net(torch.empty(1, 3, size, size, device="meta"))
    for handle in handles:
        handle.remove()
    assert len(counts) == len(layers), "every layer runs once"
    return sum(counts)


def norm(name: str) -> list[str]:
    return [f"{name}.{leaf}" for leaf in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")]


def official_keys(depths: tuple[int, ...]) -> Iterator[str]:
    """The keys of the official checkpoints, written down from facts, section 1.8."""
    yield from ("conv1.0.weight", *norm("conv1.1"), "conv1.3.weight", *norm("conv1.4"), "conv1.6.weight")
    yield from norm("bn1")
    for stage, depth in enumerate(depths, start=1):
        for block in range(depth):
            here = f"layer{stage}.{block}"
            yield from (f"{here}.conv1.weight", *norm(f"{here}.bn1"))
            yield from (f"{here}.conv2.conv.weight", *norm(f"{here}.conv2.bn0"))
            yield from (f"{here}.conv2.fc1.weight", f"{here}.conv2.fc1.bias", *norm(f"{here}.conv2.bn1"))
            yield from (f"{here}.conv2.fc2.weight", f"{here}.conv2.fc2.bias")
            yield from (f"{here}.conv3.weight", *norm(f"{here}.bn3"))
        yield from (f"layer{stage}.0.downsample.1.weight", *norm(f"layer{stage}.0.downsample.2"))
    yield from ("fc.weight", "fc.bias")


def test_the_tables_cover_every_published_network() -> None:
    assert {name for name, *_ in FIGURES} - {"resnet50d"} == set(PUBLISHED)
    assert list_models() == [*PUBLISHED, *BASELINES]
    assert ALIASES == TIMM_NAMES


@pytest.mark.parametrize(("name", "crop", "entries", "parameters", "gmac"), FIGURES)
def test_published_figures(name: str, crop: int, entries: int, parameters: int, gmac: float) -> None:
    net = network(name)
    assert len(net.state_dict()) == entries
    assert sum(parameter.numel() for parameter in net.parameters()) == parameters
    assert round(count_macs(net, crop) / 1e9, 3) == gmac
    if name in PUBLISHED:
        assert PUBLISHED[name].crop == crop


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_keys_are_the_official_ones(name: str) -> None:
    assert set(network(name).state_dict()) == set(official_keys(PUBLISHED[name].spec.depths))


def test_baseline_keys_are_those_of_a_resnet() -> None:
    keys = set(network("resnet50d").state_dict())
    assert {"layer1.0.conv2.weight", "layer1.0.bn2.running_var", "layer4.0.downsample.1.weight"} <= keys
    assert not [key for key in keys if ".fc1." in key or ".bn0." in key]


@pytest.mark.parametrize(("name", "stage"), [(name, stage) for name, stages in WIDTHS.items() for stage in stages])
def test_stage_widths(name: str, stage: int) -> None:
    state = network(name).state_dict()
    width, splits, groups, inner, cardinality = WIDTHS[name][stage]
    prefix = f"layer{stage}.0.conv2"
    shapes = {key: tuple(state[f"{prefix}.{key}.weight"].shape) for key in ("conv", "fc1", "fc2")}
    assert shapes["conv"] == (splits, width // groups, 3, 3)
    assert shapes["fc1"] == (inner, width // cardinality, 1, 1)
    assert shapes["fc2"] == (splits, inner // cardinality, 1, 1)


@pytest.mark.parametrize("tag", ["", ".in1k", ".gluon_in1k"])
@pytest.mark.parametrize(("alias", "official"), TIMM_NAMES.items())
def test_timm_names_stand_for_official_networks(alias: str, official: str, tag: str) -> None:
    assert find_spec(alias + tag) == (PUBLISHED[official].spec, official)
    assert find_spec(official + tag) == (PUBLISHED[official].spec, official)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("resnet50", "resnet50d"),
        ("resnest5O", "resnest50"),  # a letter O
        ("resnest50_fast_2s1x64", "resnest50_fast_2s1x64d"),
        ("resnest14x.in1k", "resnest14"),
        ("ResNest269", "resnest269"),
    ],
)
def test_an_unknown_name_is_told_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(ResnestError) as raised:
        find_spec(name)
    assert str(raised.value).startswith(f"{name!r} is not a known model. Did you mean {nearest!r}?")
    assert "\n" not in str(raised.value)


def test_a_name_like_no_other_is_told_where_the_names_are() -> None:
    with pytest.raises(ResnestError, match=r"'vgg' is not a known model. `resnest.list_models\(\)` lists them all"):
        find_spec("vgg")


def test_override_replaces_fields_and_knows_them() -> None:
    assert override_spec(Spec(), {"radix": 1, "width": 32}) == Spec(radix=1, width=32)
    with pytest.raises(ResnestError, match=r"'radixx' is not a known field of Spec. Did you mean 'radix'?"):
        override_spec(Spec(), {"radixx": 1})
