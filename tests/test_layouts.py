"""Networks x layouts: what a layout can hold goes there and back bit for bit, everything else is refused by name."""

from __future__ import annotations

import dataclasses
from functools import cache, lru_cache
from pathlib import Path

import pytest
import torch
from timm.models import adapt_input_conv
from torch import Tensor

import resnest
from conftest import FULL
from resnest.checkpoints.convert import convert
from resnest.checkpoints.layouts import COUNTER, LAYOUTS, from_official, recognise, refusal, to_official
from resnest.checkpoints.loading import load_file, load_weights, read_weights
from resnest.checkpoints.reading import read_checkpoint
from resnest.errors import ResnestError
from resnest.network import ResNeSt
from resnest.spec import BASELINES, PUBLISHED, Spec

FAST = [name for name in PUBLISHED if "fast" in name]
MAIN = [name for name in PUBLISHED if "fast" not in name]
RADIX_1 = [name for name in FAST if "_1s" in name]
SPECS = {**{name: net.spec for name, net in PUBLISHED.items()}, **BASELINES}

# What each layout can hold, by hand: everything that is not listed is refused, for the reason beside it.
AVD_FIRST = "avd_first"
HOLDS: dict[str, dict[str, str]] = {
    "official": {},
    "timm": {},
    "gluon": {},
    "encoding": dict.fromkeys(RADIX_1, "plain convolution"),
    "detectron2": {
        **dict.fromkeys(FAST, AVD_FIRST),
        **dict.fromkeys(["resnest14", "resnest26"], "depths"),
        "resnet101d": "stem width",
    },
    "mmpretrain": {
        **dict.fromkeys(FAST, AVD_FIRST),
        **dict.fromkeys(["resnest14", "resnest26"], "depths"),
        **dict.fromkeys(BASELINES, "split attention everywhere"),
    },
    "mmdetection": {
        **dict.fromkeys(FAST, AVD_FIRST),
        **dict.fromkeys(["resnest14", "resnest26", "resnest269"], "depths"),
        **dict.fromkeys(BASELINES, "split attention everywhere"),
    },
}
HEADLESS = ("detectron2", "mmdetection")
# A third of the cells go through files, each layout and each network among them; the others, by the same translation,
# stay in memory.
THROUGH_FILES = {
    (name, layout)
    for row, name in enumerate(name for name in SPECS if name not in ("resnest200", "resnest269"))
    for column, layout in enumerate(HOLDS)
    if (row + column) % 3 == 0
}


@lru_cache(2)
def _random(spec: Spec, num_classes: int = 10) -> ResNeSt:
    """A network with statistics, gammas and counters that are all different from their defaults; nobody changes it."""
    torch.manual_seed(0)
    net = resnest.create_model(spec, num_classes=num_classes, zero_gamma=False)
    for name, tensor in net.state_dict().items():
        if name.endswith("running_mean"):
            tensor.normal_(0, 0.1)
        elif name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif name.endswith(COUNTER):
            tensor.fill_(7)
    return net.eval()


# With values: every kind of network in every layout, of the large ones one. `make promises`: all. The others by name.
VALUES = (
    list(SPECS)
    if FULL
    else ["resnest14", "resnest26", "resnest50", "resnest101", "resnest50_fast_4s2x40d", "resnet50d"]
)


@pytest.fixture(scope="module", params=VALUES)
def network(request: pytest.FixtureRequest) -> tuple[str, dict[str, Tensor], Tensor, ResNeSt]:
    """Name, state and logits of one image, made once for all layouts; and another such network, to load into."""
    net = _random(SPECS[request.param])
    with torch.inference_mode():
        logits = net(_image())
    return request.param, net.state_dict(), logits, resnest.create_model(SPECS[request.param], num_classes=10).eval()


def _image() -> Tensor:
    return torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def _is_refused(layout: str, name: str) -> bool:
    """Whether the layout cannot hold the network, which it then says."""
    reason = HOLDS[layout].get(name)
    if not reason:
        return False
    told = refusal(LAYOUTS[layout], SPECS[name])
    assert told
    assert reason in told
    return True


@pytest.mark.parametrize("layout", LAYOUTS)
def test_there_and_back(layout: str, network: tuple[str, dict[str, Tensor], Tensor, ResNeSt], tmp_path: Path) -> None:
    name, state, logits, net = network
    if _is_refused(layout, name):
        return
    headless = layout in HEADLESS
    by_files = (name, layout) in THROUGH_FILES
    back = _through_files(state, layout, name, tmp_path) if by_files else _through_memory(state, layout)
    kept = {key: tensor for key, tensor in state.items() if LAYOUTS[layout].counters or not key.endswith(COUNTER)}
    for key, tensor in kept.items():
        if key.startswith("fc.") and headless:
            assert key not in back
        else:
            assert back[key].dtype == tensor.dtype
            assert torch.equal(back[key], tensor), key
    for tensor in net.state_dict().values():  # nothing is left of what another layout loaded
        tensor.fill_(torch.nan if tensor.is_floating_point() else 0)
    load_weights(net, {**back, **({key: state[key] for key in ("fc.weight", "fc.bias")} if headless else {})})
    with torch.inference_mode():
        assert torch.equal(net(_image()), logits)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_tensor_keeps_its_name_and_shape(layout: str, name: str) -> None:
    """Of every network, without values: each tensor comes back under its own name as the one that it was."""
    state = _without_values(name)
    if _is_refused(layout, name):
        return
    back = _through_memory(state, layout)
    dropped = {key for key in state if key.endswith(COUNTER) and not LAYOUTS[layout].counters}
    assert set(state) - set(back) - dropped == ({"fc.weight", "fc.bias"} if layout in HEADLESS else set())
    for key in set(state) & set(back) - dropped:
        assert back[key] is state[key], key


@cache
def _without_values(name: str) -> dict[str, Tensor]:
    with torch.device("meta"):
        return resnest.create_model(SPECS[name], num_classes=10).state_dict()


def _through_memory(state: dict[str, Tensor], layout: str) -> dict[str, Tensor]:
    theirs = from_official(state, LAYOUTS[layout])
    found = recognise(theirs)
    assert found
    return to_official(theirs, *found).state


def _through_files(state: dict[str, Tensor], layout: str, name: str, folder: Path) -> dict[str, Tensor]:
    """official.pth -> converted -> official again, the suffixes of the layout in turn."""
    torch.save(state, folder / "start.pth")
    suffix = LAYOUTS[layout].suffixes[len(name) % len(LAYOUTS[layout].suffixes)]
    there = folder / f"there{suffix}"
    convert(folder / "start.pth", to=layout, out=there, network=name, drop_head=layout in HEADLESS)
    same_names = layout in ("official", "timm", "encoding")
    assert to_official_layout(there) == ("official" if same_names else layout)
    convert(there, to="official", out=folder / "back.pth", network=name)
    (folder / "start.pth").unlink()
    there.unlink()
    return read_weights(folder / "back.pth")


def to_official_layout(path: Path) -> str:
    found = recognise(read_checkpoint(path).state)
    assert found
    return found[0].name


@pytest.mark.parametrize("layout", [layout for layout, refused in HOLDS.items() if refused])
def test_what_would_be_lost_is_refused_and_nothing_is_written(layout: str, tmp_path: Path) -> None:
    refused = HOLDS[layout]
    smallest = min(refused, key=lambda name: sum(SPECS[name].depths))
    torch.save(_random(SPECS[smallest], 4).state_dict(), tmp_path / "net.pth")
    out = tmp_path / f"out{LAYOUTS[layout].suffixes[0]}"
    with pytest.raises(ResnestError, match="cannot hold this network") as caught:
        convert(tmp_path / "net.pth", to=layout, out=out, network=smallest, drop_head=True)
    assert refused[smallest] in str(caught.value)
    assert not out.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.pth"]


FREE = {
    "attention_norm='layer'": (Spec(attention_norm="layer"), list(LAYOUTS)),
    "stem='small'": (Spec(stem="small"), list(LAYOUTS)),
    "planes": (Spec(planes=(32, 64, 128, 256)), list(LAYOUTS)),
    "7x7 stem": (Spec(stem="conv7"), ["detectron2", "mmpretrain", "mmdetection"]),
    "striding": (Spec(avd=False), ["detectron2", "mmpretrain", "mmdetection"]),
    "width 40": (Spec(width=40), ["mmpretrain", "mmdetection"]),
    "multiple of 8": (Spec(width=72), ["timm", "mmpretrain", "mmdetection"]),
    "input channels": (Spec(), ["official", "gluon", "encoding", "detectron2"]),
}


@pytest.mark.parametrize("case", FREE)
def test_free_structures_are_refused_by_the_layouts_that_cannot_build_them(case: str) -> None:
    spec, refusing = FREE[case]
    channels = 4 if case == "input channels" else 3
    for name, layout in LAYOUTS.items():
        told = refusal(layout, spec, in_chans=channels)
        assert (told is not None) == (name in refusing), (name, told)
        assert told is None or case in told or (name.startswith("mm") and "width 72" in told)


def test_heads_are_given_up_only_by_request(tmp_path: Path) -> None:
    torch.save(_random(SPECS["resnest50"], 4).state_dict(), tmp_path / "net.pth")
    with pytest.raises(ResnestError, match=r"fc\.weight, fc\.bias would be lost; leave them out with `drop_head=True`"):
        convert(tmp_path / "net.pth", to="detectron2", out=tmp_path / "d2.pth", network="resnest50")
    assert not (tmp_path / "d2.pth").exists()


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
def test_detectron2_with_and_without_prefix(bare: bool, suffix: str, tmp_path: Path) -> None:
    net = _random(SPECS["resnest50"], 4)
    torch.save(net.state_dict(), tmp_path / "net.pth")
    out = tmp_path / f"d2{suffix}"
    convert(tmp_path / "net.pth", to="d2", out=out, network="resnest50", drop_head=True, bare=bare)
    names = list(read_checkpoint(out).state)
    assert ("backbone.bottom_up.stem.conv1_1.weight" in names) != bare
    assert ("stem.conv1_1.weight" in names) == bare
    backbone = resnest.create_backbone("resnest50", pretrained=out)
    with torch.inference_mode():
        for ours, theirs in zip(backbone.eval()(_image()), net.forward_stages(_image())[1:], strict=True):
            assert torch.equal(ours, theirs)


# Names as the other code bases write them, by hand: the translation must not only agree with itself.
BY_HAND = {
    "gluon": {
        "conv1.1.gamma": "conv1.1.weight",
        "conv1.6.weight": "conv1.6.weight",
        "bn1.running_var": "bn1.running_var",
        "layer1.0.conv2.bn.beta": "layer1.0.conv2.bn0.bias",
        "layer3.2.conv2.bn1.gamma": "layer3.2.conv2.bn1.weight",
        "layer4.0.downsample.2.running_mean": "layer4.0.downsample.2.running_mean",
        "layer2.0.conv2.fc1.bias": "layer2.0.conv2.fc1.bias",
        "fc.weight": "fc.weight",
    },
    "detectron2": {
        "backbone.bottom_up.stem.conv1_1.weight": "conv1.0.weight",
        "backbone.bottom_up.stem.conv1_2.norm.running_mean": "conv1.4.running_mean",
        "backbone.bottom_up.stem.conv1_3.norm.weight": "bn1.weight",
        "backbone.bottom_up.res2.0.shortcut.norm.bias": "layer1.0.downsample.2.bias",
        "backbone.bottom_up.res2.0.shortcut.weight": "layer1.0.downsample.1.weight",
        "backbone.bottom_up.res4.5.conv3.norm.weight": "layer3.5.bn3.weight",
        "backbone.bottom_up.res5.2.conv2.bn1.running_var": "layer4.2.conv2.bn1.running_var",
        "backbone.bottom_up.res5.2.conv2.fc2.weight": "layer4.2.conv2.fc2.weight",
    },
    "mmpretrain": {
        "backbone.stem.0.conv.weight": "conv1.0.weight",
        "backbone.stem.1.bn.running_var": "conv1.4.running_var",
        "backbone.stem.2.conv.weight": "conv1.6.weight",
        "backbone.stem.2.bn.num_batches_tracked": "bn1.num_batches_tracked",
        "backbone.layer1.0.conv2.bn0.weight": "layer1.0.conv2.bn0.weight",
        "backbone.layer2.0.downsample.2.bias": "layer2.0.downsample.2.bias",
        "head.fc.bias": "fc.bias",
    },
    "mmdetection": {
        "backbone.stem.0.weight": "conv1.0.weight",
        "backbone.stem.4.bias": "conv1.4.bias",
        "backbone.stem.6.weight": "conv1.6.weight",
        "backbone.stem.7.running_mean": "bn1.running_mean",
        "backbone.layer3.1.conv2.fc1.weight": "layer3.1.conv2.fc1.weight",
        "backbone.layer4.0.bn3.bias": "layer4.0.bn3.bias",
    },
}


@pytest.mark.parametrize("layout", BY_HAND)
def test_names_are_those_of_the_other_code(layout: str) -> None:
    with torch.device("meta"):
        state = resnest.create_model("resnest50").state_dict()
    theirs = from_official(state, LAYOUTS[layout])
    found = recognise(theirs)
    assert found
    back = {name: id(tensor) for name, tensor in to_official(theirs, *found).state.items()}
    for name, official in BY_HAND[layout].items():
        assert theirs[name] is state[official]
        assert back[official] == id(theirs[name])


WRAPPED = {
    "a timm training checkpoint": lambda state: {"epoch": 3, "state_dict": {}, "state_dict_ema": state},
    "distributed data parallel": lambda state: {
        "state_dict": {f"module.{name}": value for name, value in state.items()}
    },
    "a compiled network": lambda state: {"model": {f"_orig_mod.{name}": value for name, value in state.items()}},
    "a Lightning module": lambda state: {"state_dict": {f"model.{name}": value for name, value in state.items()}},
    "averaged beside the last": lambda state: {
        **{f"net.{name}": torch.zeros_like(value) for name, value in state.items()},
        **{f"ema.module.{name}": value for name, value in state.items()},
    },
    "PyTorch-Encoding's DropBlock": lambda state: {
        "state_dict": {**state, "layer3.0.dropblock1.i": torch.zeros(1), "layer3.0.dropblock1.drop_prob": torch.ones(1)}
    },
}


@pytest.mark.parametrize("case", WRAPPED)
def test_whole_training_checkpoints(case: str, tmp_path: Path) -> None:
    net = _random(dataclasses.replace(SPECS["resnest14"], planes=(8, 8, 8, 8)))
    torch.save(WRAPPED[case](net.state_dict()), tmp_path / "net.pth")
    other = resnest.create_model(net.spec, num_classes=10)
    load_file(other, tmp_path / "net.pth")
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in net.state_dict().items())


def test_heads_around_a_backbone_are_reported_not_loaded(tmp_path: Path) -> None:
    net = _random(SPECS["resnest50"])
    state = from_official(net.state_dict(), LAYOUTS["detectron2"])
    heads = {"backbone.fpn_lateral2.weight": torch.zeros(2), "roi_heads.box_head.fc1.weight": torch.zeros(2)}
    torch.save({"model": {**state, **heads}, "iteration": 5}, tmp_path / "detector.pth")
    backbone = resnest.create_backbone("resnest50")
    report = load_file(backbone, tmp_path / "detector.pth")
    assert report.unexpected == list(heads)
    assert report.layout == "detectron2"
    assert not report.missing
    assert "left out (backbone.fpn_lateral2.weight" in str(report)
    with pytest.raises(ResnestError, match=r"backbone\.fpn_lateral2\.weight, roi_heads.* would be lost"):
        convert(tmp_path / "detector.pth", to="official", out=tmp_path / "out.pth", network="resnest50")


@pytest.mark.parametrize("channels", [1, 4, 6])
def test_a_stem_for_other_input_channels(channels: int, tmp_path: Path) -> None:
    net = _random(dataclasses.replace(SPECS["resnest14"], planes=(8, 8, 8, 8)))
    torch.save(net.state_dict(), tmp_path / "net.pth")
    other = resnest.create_model(net.spec, num_classes=10, in_chans=channels)
    report = load_file(other, tmp_path / "net.pth")
    assert report.reshaped == [f"conv1.0.weight from (32, 3, 3, 3) to (32, {channels}, 3, 3)"]
    ours, theirs = other.state_dict()["conv1.0.weight"], net.state_dict()["conv1.0.weight"]
    assert torch.allclose(ours, adapt_input_conv(channels, theirs))  # timm's rule, which the field knows
    if channels in (1, 6):  # there a grey image gives what it gave in RGB
        grey = torch.rand(2, 1, 64, 64)
        with torch.inference_mode():
            again = other.eval()(grey.expand(-1, channels, -1, -1))
            assert torch.allclose(again, net(grey.expand(-1, 3, -1, -1)), atol=1e-4)
