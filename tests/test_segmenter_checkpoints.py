"""Whole segmenters of PyTorch-Encoding: their names and shapes, written out by hand, load into ours with every tensor
used once, give the logits of a plain restatement, and come out as they were."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import resnest
import restated
from resnest.checkpoints.convert import convert
from resnest.checkpoints.layouts import COUNTER
from resnest.errors import ResnestError
from resnest.inference.model import Model
from resnest.network import ResNeSt
from resnest.segmentation.segmenter import Segmenter, build_segmenter, create_segmenter
from resnest.segmentation.spec import SegmenterSpec
from resnest.segmentation.weights import WEIGHTS, from_ours, to_ours
from resnest.spec import Spec

NARROW = Spec(depths=(1, 1, 2, 2), planes=(8, 8, 16, 16), stem_width=4)
CLASSES = 5
Shapes = dict[str, tuple[int, ...]]
RESTATED: dict[str, Callable[..., Tensor]] = {
    "deeplabv3": restated.deeplab,
    "fcn": restated.fcn,
    "psp": restated.psp,
}


def _conv(name: str, out: int, into: int, side: int) -> Shapes:
    return {f"{name}.weight": (out, into, side, side)}


def _norm(name: str, channels: int) -> Shapes:
    leaves = ("weight", "bias", "running_mean", "running_var")
    return {**{f"{name}.{leaf}": (channels,) for leaf in leaves}, f"{name}.{COUNTER}": ()}


def _biased(name: str, out: int, into: int) -> Shapes:
    return {**_conv(name, out, into, 1), f"{name}.bias": (out,)}


def _backbone(spec: Spec) -> Shapes:
    """The names of facts 1.8 behind `pretrained.`, radix 2, without the classifier, which `base.py` takes away."""
    w, found = spec.stem_width, {}
    for place, (out, into) in {"conv1.0": (w, 3), "conv1.3": (w, w), "conv1.6": (2 * w, w)}.items():
        found |= _conv(place, out, into, 3)
    found |= _norm("conv1.1", w) | _norm("conv1.4", w) | _norm("bn1", 2 * w)
    into = 2 * w
    for stage, (blocks, planes) in enumerate(zip(spec.depths, spec.planes, strict=True), 1):
        inner = max(planes * 2 // 4, 32)
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            found |= _conv(f"{name}.conv1", planes, into, 1) | _norm(f"{name}.bn1", planes)
            found |= _conv(f"{name}.conv2.conv", 2 * planes, planes // 2, 3) | _norm(f"{name}.conv2.bn0", 2 * planes)
            found |= _biased(f"{name}.conv2.fc1", inner, planes) | _norm(f"{name}.conv2.bn1", inner)
            found |= _biased(f"{name}.conv2.fc2", 2 * planes, inner)
            found |= _conv(f"{name}.conv3", 4 * planes, planes, 1) | _norm(f"{name}.bn3", 4 * planes)
            if block == 0:
                found |= _conv(f"{name}.downsample.1", 4 * planes, into, 1) | _norm(f"{name}.downsample.2", 4 * planes)
            into = 4 * planes
    return {f"pretrained.{name}": shape for name, shape in found.items()}


def _end(name: str, into: int, channels: int, classes: int, first: int = 0) -> Shapes:
    found = _conv(f"{name}.{first}", channels, into, 3) | _norm(f"{name}.{first + 1}", channels)
    return found | _biased(f"{name}.{first + 4}", classes, channels)


def _head(kind: str, c5: int, classes: int) -> Shapes:
    if kind == "fcn":
        return _end("head.conv5", c5, c5 // 4, classes)
    found: Shapes = {}
    if kind == "psp":
        for level in range(1, 5):
            found |= _conv(f"head.conv5.0.conv{level}.0", c5 // 4, c5, 1) | _norm(
                f"head.conv5.0.conv{level}.1", c5 // 4
            )
        return found | _end("head.conv5", 2 * c5, c5 // 4, classes, first=1)
    width = c5 // 8
    for branch, side in enumerate((1, 3, 3, 3)):
        found |= _conv(f"head.aspp.b{branch}.0", width, c5, side) | _norm(f"head.aspp.b{branch}.1", width)
    found |= _conv("head.aspp.b4.gap.1", width, c5, 1) | _norm("head.aspp.b4.gap.2", width)
    found |= _conv("head.aspp.project.0", width, 5 * width, 1) | _norm("head.aspp.project.1", width)
    return found | _end("head.block", width, width, classes)


def encoding(kind: str, spec: Spec, classes: int = CLASSES, *, aux: bool = True) -> Shapes:
    c4, c5 = 4 * spec.planes[2], 4 * spec.planes[3]
    found = _backbone(spec) | _head(kind, c5, classes)
    return found | (_end("auxlayer.conv5", c4, c4 // 4, classes) if aux else {})


def numbers(shapes: Shapes, kind: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Values of the size that trained ones have, so that signals neither vanish nor explode; no two alike."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in shapes.items():
        values = torch.rand(shape, generator=generator).to(kind)
        if name.endswith(COUNTER):
            state[name] = torch.tensor(3)
        elif len(shape) == 4:
            state[name] = (values - 0.5) * (12 / (shape[1] * shape[2] * shape[3])) ** 0.5
        else:
            state[name] = values + 0.5
    return state


def _net(kind: str, **changes: Any) -> Segmenter:
    return build_segmenter(NARROW, SegmenterSpec(head=kind, **changes), CLASSES)  # type: ignore[arg-type]


@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize("kind", RESTATED)
def test_they_load_and_give_the_same_logits(kind: str, stride: int, tmp_path: Path) -> None:
    state = numbers(encoding(kind, NARROW))
    torch.save({"state_dict": state, "epoch": 180}, tmp_path / "theirs.pth.tar")
    net = _net(kind, output_stride=stride).eval()
    report = WEIGHTS.load(net, tmp_path / "theirs.pth.tar")
    assert (report.layout, report.untrained, report.unexpected, report.reshaped) == ("encoding", [], [], [])
    assert sorted(report.matched) == sorted(net.state_dict())
    assert len(net.state_dict()) == len(state)
    images = torch.randn(2, 3, 65, 47)
    with torch.no_grad():
        theirs = RESTATED[kind](state, images, depths=NARROW.depths, output_stride=stride)
        assert (net(images) - theirs).abs().max() <= 1e-5 * theirs.abs().max()
        second = restated.auxiliary(state, images, depths=NARROW.depths, output_stride=stride)
        targets = torch.zeros(2, 65, 47, dtype=torch.uint8)
        expected = 0.2 * torch.nn.functional.cross_entropy(second, targets.long())
        assert net(images, targets)["auxiliary"].item() == pytest.approx(expected.item(), rel=1e-5)
    back = from_ours(net.state_dict(), "encoding")
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())


PUBLISHED = {"resnest50": (Spec(), 474), "resnest101": (Spec(depths=(3, 4, 23, 3), stem_width=64), 933)}


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("kind", RESTATED)
def test_published_ones_have_these_names_and_shapes(kind: str, name: str) -> None:
    spec, count = PUBLISHED[name]
    with torch.device("meta"):
        net = create_segmenter(name, SegmenterSpec(head=kind), num_classes=150)  # type: ignore[arg-type]
    ours = {name: tuple(tensor.shape) for name, tensor in from_ours(net.state_dict(), "encoding").items()}
    assert ours == encoding(kind, spec, classes=150)
    assert sum(name.startswith("pretrained.") for name in ours) == count  # facts 1.8, without fc


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("pretrained.layer4.1.conv2.fc2.bias", "backbone.layer4.1.conv2.fc2.bias"),
        ("head.aspp.b3.0.weight", "head.aspp.branches.3.conv.weight"),
        ("head.aspp.b4.gap.2.running_var", "head.aspp.image.norm.running_var"),
        ("head.aspp.project.1.weight", "head.aspp.project.norm.weight"),
        ("head.block.0.weight", "head.predict.conv.conv.weight"),
        ("head.block.4.bias", "head.predict.logits.bias"),
        ("auxlayer.conv5.1.running_mean", "auxiliary.predict.conv.norm.running_mean"),
    ],
)
def test_each_part_goes_to_its_place(theirs: str, ours: str) -> None:
    state = numbers(encoding("deeplabv3", NARROW))
    assert to_ours(state, "encoding").state[ours] is state[theirs]


def test_other_classes_leave_what_predicts_them_untrained(tmp_path: Path) -> None:
    torch.save(numbers(encoding("deeplabv3", NARROW, classes=150)), tmp_path / "ade.pth")
    net = _net("deeplabv3")
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    report = WEIGHTS.load(net, tmp_path / "ade.pth")
    same = {name for name, tensor in net.state_dict().items() if torch.equal(tensor, before[name])}
    assert same == {f"{head}.predict.logits.{leaf}" for head in ("head", "auxiliary") for leaf in ("weight", "bias")}
    assert "head.predict.logits.weight from (150, 8, 1, 1) to (5, 8, 1, 1)" in report.reshaped
    assert "untrained: what predicts classes" in str(report)


def test_an_auxiliary_head_more_or_less(tmp_path: Path) -> None:
    torch.save(numbers(encoding("deeplabv3", NARROW, aux=False)), tmp_path / "without.pth")
    torch.save({f"module.{k}": v for k, v in numbers(encoding("deeplabv3", NARROW)).items()}, tmp_path / "with.pth")
    assert WEIGHTS.load(_net("deeplabv3"), tmp_path / "without.pth").untrained == ["auxiliary"]
    report = WEIGHTS.load(_net("deeplabv3", aux=0), tmp_path / "with.pth")
    assert report.untrained == []
    assert {name.split(".")[0] for name in report.unexpected} == {"auxiliary"}


def test_a_classifier_or_a_detector_goes_into_the_backbone(tmp_path: Path) -> None:
    classifier = ResNeSt(NARROW, num_classes=7)
    weights = {name: tensor for name, tensor in classifier.state_dict().items() if not name.startswith("fc.")}
    detector = {f"backbone.bottom_up.{name}": tensor for name, tensor in _detectron2s(weights).items()}
    torch.save(classifier.state_dict(), tmp_path / "classifier.pth")
    torch.save({"model": detector | {"proposal_generator.rpn_head.conv.weight": torch.ones(1)}}, tmp_path / "d2.pth")
    for name in ("classifier", "d2"):
        net = _net("deeplabv3")
        report = WEIGHTS.load(net, tmp_path / f"{name}.pth")
        assert report.untrained == ["head", "auxiliary"]
        assert set(report.matched) == {f"backbone.{name}" for name in weights}
        loaded = net.backbone.state_dict()
        assert all(torch.equal(loaded[name], tensor) for name, tensor in weights.items())
    net = create_segmenter(NARROW, num_classes=3, pretrained=tmp_path / "classifier.pth")
    assert torch.equal(net.backbone.conv1[0].weight, classifier.conv1[0].weight)


def _detectron2s(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    from resnest.checkpoints.layouts import LAYOUTS, from_official

    return from_official(weights, LAYOUTS["detectron2"], bare=True)


def test_a_segmenter_gives_its_backbone_to_a_classifier(tmp_path: Path) -> None:
    state = numbers(encoding("deeplabv3", NARROW))
    torch.save(state, tmp_path / "theirs.pth")
    net = resnest.create_model(NARROW, num_classes=3, pretrained=tmp_path / "theirs.pth")
    assert torch.equal(net.layer4[1].conv3.weight, state["pretrained.layer4.1.conv3.weight"])


MISFITS: dict[str, tuple[str, dict[str, Any], str]] = {
    "another head": ("fcn", {}, r"the file's head is FCN, .*segmenter\.head=fcn"),
    "another width": ("deeplabv3", {"channels": 16}, r"of another shape: head\.aspp\.branches\.0\.conv\.weight"),
    "a decoder": ("deeplabv3", {"head": "deeplabv3plus"}, r"head is DeepLabV3, .*segmenter\.head=deeplabv3"),
    "another norm": ("deeplabv3", {"norm": "group"}, r"missing: head\.aspp\.image\.conv\.bias.*running_mean"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_what_does_not_fit_is_named_and_nothing_changes(case: str, tmp_path: Path) -> None:
    theirs, ours, message = MISFITS[case]
    torch.save(numbers(encoding(theirs, NARROW)), tmp_path / "other.pth")
    net = build_segmenter(NARROW, SegmenterSpec(**ours), CLASSES)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(ResnestError, match=message):
        WEIGHTS.load(net, tmp_path / "other.pth")
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_heads_that_are_built_in_another_way_are_named(tmp_path: Path) -> None:
    state = numbers(encoding("fcn", NARROW))
    cases = {
        "encnet": (
            state | {"head.encmodule.fc.0.weight": torch.ones(1)},
            r"head\.encmodule\.fc\.0\.weight does not exist",
        ),
        "spoilt": (state | {"head.conv5.4.bias": torch.tensor([torch.nan] * CLASSES)}, "not finite"),
    }
    for name, (content, message) in cases.items():
        torch.save(content, tmp_path / f"{name}.pth")
        with pytest.raises(ResnestError, match=message):
            WEIGHTS.load(_net("fcn"), tmp_path / f"{name}.pth")


def test_whole_segmenters_are_converted(tmp_path: Path) -> None:
    state = numbers(encoding("deeplabv3", Spec()), torch.float16)
    torch.save(state, tmp_path / "theirs.pth")
    done = convert(tmp_path / "theirs.pth", to="official", out=tmp_path / "ours.safetensors", network="resnest50")
    assert str(done).startswith("a segmenter on resnest50, encoding to official: ")
    assert done.written == len(state)
    done = convert(tmp_path / "ours.safetensors", to="encoding", out=tmp_path / "again.pth")
    again = torch.load(tmp_path / "again.pth", weights_only=True)
    assert WEIGHTS.recognise(again) == "encoding"
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in state.items())
    done = convert(tmp_path / "theirs.pth", to="timm", out=tmp_path / "timm.pth", drop_head=True, network="resnest50")
    assert "head.block.4.bias" in done.left_out
    assert "conv1.0.weight" in torch.load(tmp_path / "timm.pth", weights_only=True)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "decoder": ({"head": "deeplabv3plus"}, r"a decoder \(DeepLabV3\+\)"),
    "norm": ({"norm": "none"}, "a head without batch-norm"),
    "channels": ({"channels": 24}, "24 channels in its head, it builds 8"),
    "pyramid": ({"head": "psp", "bins": (1, 2)}, "a pyramid of 2 levels"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_layout_cannot_hold_is_refused(case: str) -> None:
    changes, message = REFUSED[case]
    net = build_segmenter(NARROW, SegmenterSpec(**changes), CLASSES)
    with pytest.raises(ResnestError, match=f"the encoding layout cannot hold this segmenter: it has {message}"):
        from_ours(net.state_dict(), "encoding")


def test_refusals_of_convert(tmp_path: Path) -> None:
    torch.save(_net("fcn").state_dict(), tmp_path / "fcn.pth")
    for to, bare, message in (
        ("timm", False, "would be lost"),
        ("official", True, "`bare=True` is for a backbone alone, and .* is a whole segmenter: add `drop_head=True`"),
        ("torchvision", False, "is for whole detectors"),
        ("encoding", False, "cannot hold this network"),
    ):
        with pytest.raises(ResnestError, match=message):
            convert(tmp_path / "fcn.pth", to=to, out=tmp_path / "out.pth", bare=bare)
        assert not (tmp_path / "out.pth").exists()


def test_a_raw_file_does_not_name_its_classes(tmp_path: Path) -> None:
    torch.save(numbers(encoding("deeplabv3", Spec(), classes=21)), tmp_path / "voc.pth")
    with pytest.raises(ResnestError, match=r"holds a segmenter but does not name its classes.*config\.json"):
        Model.from_pretrained(tmp_path / "voc.pth")
