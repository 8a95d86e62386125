"""Checkpoints of keypoint networks from mmpose: random weights under the names that its code gives them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from resnest.checkpoints.layouts import LAYOUTS, from_official
from resnest.errors import ResnestError
from resnest.keypoints.card import HeadSpec
from resnest.keypoints.network import PoseNet, build_pose_net
from resnest.keypoints.weights import WEIGHTS
from resnest.spec import Spec

SPEC = Spec(depths=(1, 1, 1, 1), planes=(8, 16, 32, 64), stem_width=4)
State = dict[str, Tensor]


def net(points: int = 3) -> PoseNet:
    torch.manual_seed(points)
    return build_pose_net(SPEC, HeadSpec(channels=8), points)


def as_mmpose(state: State, *, head: str = "head", stem: str = "mmpretrain") -> State:
    """The names of mmpose: stages as ResNet's, a stem of ConvModules, `deconv_layers` and `final_layer`."""
    body = {name.removeprefix("backbone."): tensor for name, tensor in state.items() if name.startswith("backbone.")}
    found = {f"backbone.{name}": tensor for name, tensor in from_official(body, LAYOUTS[stem], bare=True).items()}
    for name, tensor in state.items():
        if name.startswith("deconvs."):
            found[f"{head}.deconv_layers.{name.removeprefix('deconvs.')}"] = tensor
        elif name.startswith("heatmaps."):
            found[f"{head}.final_layer.{name.removeprefix('heatmaps.')}"] = tensor
    return found


@pytest.mark.parametrize("stem", ["mmpretrain", "mmdetection"])
@pytest.mark.parametrize("head", ["head", "keypoint_head"])
def test_simplebaseline_of_mmpose_is_loaded_whole(head: str, stem: str, tmp_path: Path) -> None:
    theirs, ours = net().eval(), build_pose_net(SPEC, HeadSpec(channels=8), 3).eval()
    for tensor in theirs.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.1, 0.2)
    state = as_mmpose(theirs.state_dict(), head=head, stem=stem)
    assert f"{head}.deconv_layers.6.weight" in state
    torch.save({"meta": {"CLASSES": None}, "state_dict": state}, tmp_path / "pose.pth")
    report = WEIGHTS.load(ours, tmp_path / "pose.pth")
    assert (report.layout, report.missing, report.unexpected, report.untrained) == ("mmpose", [], [], [])
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(ours(images), theirs(images))


def test_other_points_stay_untrained(tmp_path: Path) -> None:
    torch.save({"state_dict": as_mmpose(net(17).state_dict())}, tmp_path / "pose.pth")
    ours = net()
    report = WEIGHTS.load(ours, tmp_path / "pose.pth")
    assert report.untrained == ["what predicts classes, since there are others"]
    assert torch.equal(ours.deconvs[0].weight, net(17).deconvs[0].weight)  # type: ignore[arg-type]


def _resnet(state: State) -> State:
    return {name: tensor for name, tensor in state.items() if not name.startswith("backbone.")} | {
        "backbone.conv1.weight": torch.zeros(64, 3, 7, 7),
        "backbone.bn1.weight": torch.zeros(64),
        "backbone.layer1.0.conv1.weight": torch.zeros(64, 64, 1, 1),
        "backbone.layer1.0.conv2.weight": torch.zeros(64, 64, 3, 3),
    }


def _without(part: str) -> Callable[[State], State]:
    return lambda state: {name: tensor for name, tensor in state.items() if part not in name}


OTHERS: dict[str, tuple[Callable[[State], State], str]] = {
    "a ResNet": (_resnet, r"keypoint network of mmpose, and its backbone \(backbone\.\*\) is no ResNeSt"),
    "no deconvolutions": (_without("deconv_layers"), r"without deconvolutions \(deconv_layers\.\*\)"),
    "another layer": (
        lambda state: {**state, "head.conv_layers.0.weight": torch.zeros(1)},
        r"with head\.conv_layers\.0\.weight, which SimpleBaseline's head has not",
    ),
    "a deconvolution less": (_without("deconv_layers.6"), r"1 missing: deconvs\.6\.weight"),
}


@pytest.mark.parametrize(("change", "message"), OTHERS.values(), ids=OTHERS)
def test_other_networks_are_named(change: Callable[[State], State], message: str, tmp_path: Path) -> None:
    torch.save({"state_dict": change(as_mmpose(net().state_dict()))}, tmp_path / "pose.pth")
    ours = net()
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    with pytest.raises(ResnestError, match=message):
        WEIGHTS.load(ours, tmp_path / "pose.pth")
    assert all(torch.equal(tensor, before[name]) for name, tensor in ours.state_dict().items())
