"""Weights of a panoptic detector: detectron2's names, from a detector, a classifier, one of other classes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from peers import NARROW, small_spec
from resnest.checkpoints.layouts import COUNTER
from resnest.detection.detector import build_detector
from resnest.detection.weights import WEIGHTS, from_ours
from resnest.errors import ResnestError
from resnest.network import ResNeSt
from resnest.panoptic.card import PanopticSpec
from resnest.panoptic.model import PanopticFPN, build_panoptic

SPEC = small_spec(masks=True, cascade=True)
THINGS, STUFF = 3, 2
LEAVES = ("weight", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var")


def build(seed: int, *, things: int = THINGS, stuff: int = STUFF) -> PanopticFPN:
    torch.manual_seed(seed)
    return build_panoptic(NARROW, SPEC, PanopticSpec(channels=8), things + stuff, things)


def saved(net: nn.Module, path: Path) -> Path:
    save_file({name: tensor.clone() for name, tensor in net.state_dict().items()}, path)
    return path


def agree(net: nn.Module, state: dict[str, Tensor]) -> None:
    """Every tensor of the network is in the state."""
    assert [name for name, tensor in net.state_dict().items() if not torch.equal(tensor, state[name])] == []


def test_names_of_detectron2(tmp_path: Path) -> None:
    """modeling/meta_arch/semantic_seg.py: of P3 to P5 every other place of the list is an upsampling."""
    before, after = build(0), build(1)
    theirs = from_ours(before.state_dict(), "detectron2")
    convs = ("p2.0", "p3.0", "p4.0", "p4.2", "p5.0", "p5.2", "p5.4")
    assert {name for name in theirs if name.startswith("sem_seg_head.") and not name.endswith(COUNTER)} == {
        *(f"sem_seg_head.{conv}.{leaf}" for conv in convs for leaf in LEAVES),
        "sem_seg_head.predictor.weight",
        "sem_seg_head.predictor.bias",
    }
    torch.save({"model": theirs}, tmp_path / "d2.pth")
    report = WEIGHTS.load(after, tmp_path / "d2.pth")
    assert (report.layout, report.untrained, report.unexpected, report.reshaped) == ("detectron2", [], [], [])
    agree(after, before.state_dict())
    with pytest.raises(ResnestError, match="torchvision has no"):
        from_ours(before.state_dict(), "torchvision")


def test_from_one_like_it(tmp_path: Path) -> None:
    before, after = build(0), build(1)
    assert WEIGHTS.load(after, saved(before, tmp_path / "a.safetensors")).untrained == []
    agree(after, before.state_dict())


def test_from_a_detector_and_into_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    detector, net = build_detector(NARROW, SPEC, THINGS), build(1)
    report = WEIGHTS.load(net, saved(detector, tmp_path / "detector.safetensors"))
    assert report.untrained == ["semantic"]
    agree(detector, net.state_dict())
    other = build_detector(NARROW, SPEC, THINGS)
    assert WEIGHTS.load(other, saved(build(2), tmp_path / "panoptic.safetensors")).untrained == []
    agree(other, build(2).state_dict())


def test_from_a_classifier(tmp_path: Path) -> None:
    torch.manual_seed(0)
    classifier, net = ResNeSt(NARROW, num_classes=10), build(1)
    report = WEIGHTS.load(net, saved(classifier, tmp_path / "classifier.safetensors"))
    assert report.untrained == ["fpn", "rpn", "box_heads", "mask_head", "semantic"]
    agree(net.get_submodule("backbone"), classifier.state_dict())


@pytest.mark.parametrize(("things", "stuff"), [(3, 4), (2, 2)])
def test_from_one_of_other_classes(things: int, stuff: int, tmp_path: Path) -> None:
    before, after = build(0, things=things, stuff=stuff), build(1)
    kept = {name: tensor.clone() for name, tensor in after.state_dict().items()}
    report = WEIGHTS.load(after, saved(before, tmp_path / "a.safetensors"))
    assert report.untrained == ["what predicts classes, since there are others"]
    anew = {name.split(" ")[0] for name in report.reshaped}
    assert ("semantic.logits.weight" in anew) == (stuff != STUFF)
    assert ("mask_head.logits.weight" in anew) == (things != THINGS)
    for name, tensor in after.state_dict().items():
        assert torch.equal(tensor, (kept if name in anew else before.state_dict())[name]), name
