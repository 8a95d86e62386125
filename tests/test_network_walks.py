"""What other packages make of the network by walking over it, beside the same of timm's network with equal weights.

Names differ in two places: timm calls `relu` act1 and `avgpool` global_pool. `tests/test_network_children.py` has the
walks over every structure; this is the table of walkers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import timm
import timm.optim
import torch
from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.feature_extraction import create_feature_extractor

import resnest
from resnest.errors import ResnestError
from resnest.network import Backbone, ResNeSt
from resnest.spec import find_spec

NAMES = ["resnest14d", "resnest50d_4s2x40d"]
THEIRS = {"relu": "act1", "avgpool": "global_pool"}
STAGES = ("relu", "layer1", "layer2", "layer3", "layer4")


def pair(name: str = "resnest14d", **arguments: Any) -> tuple[Any, Any]:
    """timm's network and ours, equal weights, in evaluation; every branch and every statistic counts."""
    torch.manual_seed(0)
    theirs = timm.create_model(name, num_classes=5, zero_init_last=False, **arguments).eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.8, 1.2)
            module.weight.data.uniform_(0.5, 0.8)
    ours = ResNeSt(find_spec(name)[0], num_classes=5, **arguments).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return theirs.double(), ours.double()


def images(batch: int = 2, channels: int = 3) -> Tensor:
    return torch.randn(batch, channels, 64, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def assert_close(got: Any, expected: Any) -> None:
    """Within 1e-5 of the largest value, of every tensor."""
    assert len(got) == len(expected) > 0
    for one, other in zip(got, expected, strict=True):
        scale = max(1.0, other.abs().max().item())
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5 * scale)


def names_of(net: nn.Module, names: tuple[str, ...]) -> list[str]:
    return [name if hasattr(net, name) else THEIRS[name] for name in names]


# --- The walkers: a network and images -> tensors ---


def sequence(net: nn.Module, x: Tensor) -> list[Tensor]:
    children = list(net.children())
    return [nn.Sequential(*children[:-2])(x), nn.Sequential(*children[:-1])(x), nn.Sequential(*children)(x)]


def layer_getter(net: nn.Module, x: Tensor) -> list[Tensor]:
    return list(IntermediateLayerGetter(net, {name: name for name in names_of(net, STAGES)})(x).values())


def feature_extractor(net: nn.Module, x: Tensor) -> list[Tensor]:
    return list(create_feature_extractor(net, names_of(net, (*STAGES, "fc")))(x).values())


def hooks(net: nn.Module, x: Tensor) -> list[Tensor]:
    kept: list[Tensor] = []
    for name in names_of(net, ("conv1", "bn1", *STAGES, "avgpool", "fc")):
        net.get_submodule(name).register_forward_hook(lambda _, __, out: kept.append(out.clone()))
    net(x)
    return kept


def graph(net: nn.Module, x: Tensor) -> list[Tensor]:
    return [torch.fx.symbolic_trace(net)(x)]


def scripted(net: nn.Module, x: Tensor) -> list[Tensor]:
    return [torch.jit.script(net)(x)]


def summary(net: nn.Module, x: Tensor) -> list[Tensor]:
    """torchinfo and its kin: a hook on every leaf, in the order of calls; here of those that have weights."""
    rows: list[list[int]] = []

    def note(module: nn.Module, _: Any, out: Tensor) -> None:
        rows.append([*out.shape, *[1] * (4 - out.ndim), sum(p.numel() for p in module.parameters())])

    for module in net.modules():
        if not list(module.children()) and list(module.parameters()):
            module.register_forward_hook(note)
    net(x)
    return [torch.tensor(rows, dtype=torch.float32)]


def grad_cam(net: nn.Module, x: Tensor) -> list[Tensor]:
    from pytorch_grad_cam import EigenCAM, GradCAM, GradCAMPlusPlus
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    found = []
    for kind in (GradCAM, GradCAMPlusPlus, EigenCAM):
        layers = [net.get_submodule("layer3"), net.get_submodule("layer4")]
        with kind(model=net, target_layers=layers) as cam:
            targets = [ClassifierOutputTarget(2) for _ in x]
            found.append(torch.from_numpy(cam(input_tensor=x.clone(), targets=targets)))
    return found


WALKERS: dict[str, Callable[[nn.Module, Tensor], list[Tensor]]] = {
    "nn.Sequential of the children": sequence,
    "IntermediateLayerGetter": layer_getter,
    "create_feature_extractor": feature_extractor,
    "forward hooks": hooks,
    "torch.fx": graph,
    "torch.jit.script": scripted,
    "a summary of leaves": summary,
    "grad-cam": grad_cam,
}


@pytest.mark.filterwarnings(r"ignore:`torch\.jit\.script\w*` is deprecated")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("walker", WALKERS.values(), ids=WALKERS)
def test_walkers_find_what_they_find_in_timms(walker: Callable[[nn.Module, Tensor], list[Tensor]], name: str) -> None:
    theirs, ours = pair(name)
    assert_close(walker(ours, images()), walker(theirs, images()))


# --- timm's methods ---

CHOICES = [None, 1, 3, (0,), (1, 3), [-1], (-5, -2)]


@pytest.mark.parametrize("stop_early", [False, True])
@pytest.mark.parametrize("indices", CHOICES, ids=str)
def test_intermediates(indices: Any, stop_early: bool) -> None:
    theirs, ours = pair()
    for only in (False, True):
        arguments = {"indices": indices, "stop_early": stop_early, "intermediates_only": only}
        got, expected = (net.forward_intermediates(images(), **arguments) for net in (ours, theirs))
        if not only:
            if not stop_early or indices != (0,):  # where timm has pooled the stem's map
                assert_close([got[0]], [expected[0]])
            got, expected = got[1], expected[1]
        assert_close(got, expected)


def test_stopping_early_leaves_out_the_stages_behind() -> None:
    _, ours = pair()
    called: list[str] = []
    for name in STAGES:
        ours.get_submodule(name).register_forward_hook(lambda *_, name=name: called.append(name))
    ours.forward_intermediates(images(), indices=(0, 2), stop_early=True)
    assert called == ["relu", "layer1", "layer2"]
    backbone = Backbone(find_spec("resnest14")[0], out_indices=(1,)).eval()
    backbone.layer2.register_forward_hook(lambda *_: called.append("backbone's layer2"))
    assert [tuple(out.shape) for out in backbone(images().float())] == [(2, 256, 16, 16)]
    assert len(called) == 3


INDICES: list[Any] = [(0, 1, 2, 3, 4), (1, 2, 3, 4), (0, -1), 2]


@pytest.mark.parametrize("out_indices", INDICES, ids=str)
def test_the_descriptions_of_the_maps(out_indices: Any) -> None:
    with torch.device("meta"):
        theirs = timm.create_model("resnest50d", features_only=True, out_indices=out_indices, output_stride=16)
        ours = Backbone(find_spec("resnest50")[0], out_indices=out_indices, output_stride=16)
    info, their_info = ours.feature_info, theirs.feature_info
    assert (ours.channels, ours.strides) == (info.channels(), info.reduction())
    assert (info.channels(), info.reduction()) == (their_info.channels(), their_info.reduction())
    assert [THEIRS.get(name, name) for name in info.module_name()] == their_info.module_name()
    assert (info.channels(0), info.reduction([0, 4])) == (their_info.channels(0), their_info.reduction([0, 4]))
    assert info.get_dicts(["num_chs", "reduction"]) == their_info.get_dicts(["num_chs", "reduction"])
    assert isinstance(info, list)
    assert info[-1] == {"num_chs": 2048, "reduction": 16, "module": "layer4", "index": 4}
    copied = copy.deepcopy(info)
    assert (copied, copied.channels()) == (info, info.channels())


@pytest.mark.parametrize("coarse", [False, True])
def test_groups_of_parameters(coarse: bool) -> None:
    theirs, ours = (timm.create_model("resnest50d"), ResNeSt(find_spec("resnest50")[0]))
    group = timm.models.group_parameters
    assert dict(group(ours, ours.group_matcher(coarse))) == dict(group(theirs, theirs.group_matcher(coarse)))


def test_timms_layer_decay() -> None:
    groups = [timm.optim.create_optimizer_v2(net, "sgd", lr=0.1, layer_decay=0.5).param_groups for net in pair()]
    assert [(g["lr_scale"], len(g["params"])) for g in groups[1]] == [
        (g["lr_scale"], len(g["params"])) for g in groups[0]
    ]
    assert len({g["lr_scale"] for g in groups[1]}) == 6  # stem, four blocks, head


def test_checkpointing_on_and_off() -> None:
    _, ours = pair()
    ours.train()
    x = images(4)

    def gradients() -> list[Tensor]:
        ours.zero_grad()
        ours(x).square().sum().backward()
        return [parameter.grad.clone() for parameter in ours.parameters()]

    plain = gradients()
    ours.set_grad_checkpointing()
    assert all("forward" in block.__dict__ for stage in STAGES[1:] for block in ours.get_submodule(stage))
    assert_close(gradients(), plain)
    ours.set_grad_checkpointing(False)
    assert not any("forward" in module.__dict__ for module in ours.modules())


@pytest.mark.parametrize(("classes", "pool"), [(7, None), (7, "avg"), (7, "max"), (0, "max"), (0, "")])
def test_another_classifier(classes: int, pool: str | None) -> None:
    theirs, ours = pair()
    for net in (theirs, ours):
        net.reset_classifier(classes, pool)
    if classes:
        ours.get_classifier().load_state_dict(theirs.get_classifier().state_dict())
    assert (ours.num_classes, ours.get_classifier(name_only=True)) == (classes, theirs.get_classifier(name_only=True))
    assert_close([ours(images())], [theirs(images())])
    assert_close([ours.forward_head(images(2, 2048), pre_logits=True)], [theirs.forward_head(images(2, 2048), True)])


REFUSED: dict[str, tuple[Callable[[Any], object], str]] = {
    "no such pool": (lambda net: net.reset_classifier(3, "fast"), r"global_pool='fast' is not one of 'avg', 'max', ''"),
    "classes of a map": (lambda net: net.reset_classifier(3, ""), "a classifier of 3 classes needs a pool"),
    "no such map": (lambda net: net.forward_intermediates(images(), (5,)), r"indices=\(5,\) must name maps from 0"),
    "too many maps": (lambda net: net.forward_intermediates(images(), 6), "indices=6 asks for the last 6 of 5 maps"),
    "tokens": (lambda net: net.forward_intermediates(images(), output_fmt="NLC"), "output_fmt='NLC' is not 'NCHW'"),
}


@pytest.mark.parametrize(("use", "message"), REFUSED.values(), ids=REFUSED)
def test_refusals_change_nothing(use: Callable[[Any], object], message: str) -> None:
    _, ours = pair()
    with pytest.raises(ResnestError, match=message):
        use(ours)
    assert (ours.global_pool, ours.num_classes, ours(images()).shape) == ("avg", 5, (2, 5))


# --- Other channels ---


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_published_stems_for_other_channels(channels: int, tmp_path: Any) -> None:
    """As timm adapts them: summed for one channel, else repeated and scaled."""
    theirs, _ = pair()
    torch.save(theirs.state_dict(), tmp_path / "resnest14.pth")
    arguments: dict[str, Any] = {"in_chans": channels, "pretrained": tmp_path / "resnest14.pth"}
    overlay = {"file": str(tmp_path / "resnest14.pth"), "num_classes": 5}
    other = timm.create_model(
        "resnest14d", num_classes=5, in_chans=channels, pretrained=True, pretrained_cfg_overlay=overlay
    ).eval()
    stem = other.conv1[0].weight
    net = resnest.create_model("resnest14", num_classes=5, **arguments).eval()
    assert torch.equal(net.conv1[0].weight, stem)
    assert_close([net(images(2, channels).float())], [other(images(2, channels).float())])
    assert torch.equal(resnest.create_backbone("resnest14", **arguments).conv1[0].weight, stem)
    segmenter = resnest.create_segmenter("resnest14", num_classes=2, **arguments)
    assert torch.equal(segmenter.backbone.conv1[0].weight, stem)
    detector = resnest.create_detector("resnest14", num_classes=2, **arguments)
    assert torch.equal(detector.backbone.conv1[0].weight, stem)


@pytest.mark.parametrize("create", [resnest.create_segmenter, resnest.create_detector])
def test_whole_networks_for_other_channels(create: Any, tmp_path: Any) -> None:
    """A segmenter's or detector's own file, whose stem is for RGB."""
    spec = resnest.Spec(depths=(1, 1, 1, 1), planes=(8, 16, 32, 64), stem_width=4)
    rgb = create(spec, num_classes=3)
    torch.save(rgb.state_dict(), tmp_path / "rgb.pth")
    grey = create(spec, num_classes=3, in_chans=1, pretrained=tmp_path / "rgb.pth")
    for (name, value), expected in zip(grey.state_dict().items(), rgb.state_dict().values(), strict=True):
        summed = expected.sum(1, keepdim=True) if name == "backbone.conv1.0.weight" else expected
        torch.testing.assert_close(value, summed)
