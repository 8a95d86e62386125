"""Whole detectors of detectron2 and torchvision: their names and shapes, written out by hand or built by torchvision,
load into ours with every tensor used once, and come out as they were."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from peers import NARROW, SMALL, TORCHVISION, small_spec, torchvisions
from resnest.checkpoints.convert import convert
from resnest.checkpoints.layouts import COUNTER
from resnest.detection.card import DetectorSpec
from resnest.detection.rcnn import RCNN
from resnest.detection.weights import WEIGHTS, from_ours
from resnest.errors import ResnestError
from resnest.network import Backbone, ResNeSt
from resnest.network.deform import stage_convs
from resnest.panoptic.card import PanopticSpec
from resnest.panoptic.model import PanopticFPN
from resnest.spec import Spec

TORCHVISION_FILES = [*((kind, False) for kind in TORCHVISION), ("Faster R-CNN", True), ("Mask R-CNN", True)]
DCN = (False, True, True, True)
KINDS = {
    "Faster": {},
    "Faster, DCN": {"deform": DCN},
    "Cascade": {"cascade": True},
    "Mask": {"masks": True},
    "Cascade Mask, all tricks": {"cascade": True, "masks": True, "mask_convs": 8, "deform": DCN},
}


def _net(spec: DetectorSpec, num_classes: int = 3, backbone: Spec = NARROW) -> RCNN:
    return RCNN(Backbone(backbone, convs=stage_convs(spec.deform, spec.deform_groups)), spec, num_classes)


def _numbers(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Tensors of which no two are alike."""
    torch.manual_seed(0)
    return {name: torch.randn(shape) for name, shape in shapes.items()}


# --- detectron2, by hand ---


def _conv(name: str, out: int, into: int, side: int, *, norm: str = "") -> dict[str, tuple[int, ...]]:
    """A detectron2 Conv2d with its norm, which has no counter where it is frozen."""
    leaves, norm = ("weight", "bias", "running_mean", "running_var"), norm or f"{name}.norm"
    return {f"{name}.weight": (out, into, side, side), **{f"{norm}.{leaf}": (out,) for leaf in leaves}}


def _layer(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def _detectron2_backbone(spec: Spec, deform: tuple[bool, ...]) -> dict[str, tuple[int, ...]]:
    stem, found, into = spec.stem_width, {}, 2 * spec.stem_width
    for number, (out, into_stem) in enumerate(((stem, 3), (stem, stem), (2 * stem, stem)), 1):
        found |= _conv(f"stem.conv1_{number}", out, into_stem, 3)
    for stage, (blocks, planes) in enumerate(zip(spec.depths, spec.planes, strict=True), 2):
        inner = max(planes * 2 // 4, 32)
        for block in range(blocks):
            name = f"res{stage}.{block}"
            found |= _conv(f"{name}.conv1", planes, into, 1) | _conv(f"{name}.conv3", 4 * planes, planes, 1)
            found |= _conv(f"{name}.conv2.conv", 2 * planes, planes // 2, 3, norm=f"{name}.conv2.bn0")
            found |= _conv(f"{name}.conv2.fc1", inner, planes, 1, norm=f"{name}.conv2.bn1")
            found |= {f"{name}.conv2.fc1.bias": (inner,)} | _layer(f"{name}.conv2.fc2", 2 * planes, inner, 1, 1)
            if deform[stage - 2]:
                found |= _layer(f"{name}.conv2_offset", 54, planes // 2, 3, 3)
            if block == 0:
                found |= _conv(f"{name}.shortcut", 4 * planes, into, 1)
            into = 4 * planes
    return {f"backbone.bottom_up.{name}": shape for name, shape in found.items()}


def _detectron2(backbone: Spec, spec: DetectorSpec, classes: int) -> dict[str, Tensor]:
    """Base-RCNN-FPN.yaml of the ResNeSt fork: norms in pyramid and heads, none in the proposal network."""
    width, found = spec.fpn_channels, _detectron2_backbone(backbone, spec.deform)
    for level, planes in enumerate(backbone.planes, 2):
        found |= _conv(f"backbone.fpn_lateral{level}", width, 4 * planes, 1)
        found |= _conv(f"backbone.fpn_output{level}", width, width, 3)
    head = "proposal_generator.rpn_head."
    found |= _layer(f"{head}conv", width, width, 3, 3) | _layer(f"{head}objectness_logits", 3, width, 1, 1)
    found |= _layer(f"{head}anchor_deltas", 12, width, 1, 1)
    for stage in ("0.", "1.", "2.") if spec.cascade else ("",):
        for number in range(1, 5):
            found |= _conv(f"roi_heads.box_head.{stage}conv{number}", spec.box_channels, width, 3)
        found |= _layer(f"roi_heads.box_head.{stage}fc1", spec.box_features, spec.box_channels * 49)
        found |= _layer(f"roi_heads.box_predictor.{stage}cls_score", classes + 1, spec.box_features)
        boxes = 1 if spec.cascade else classes
        found |= _layer(f"roi_heads.box_predictor.{stage}bbox_pred", 4 * boxes, spec.box_features)
    if spec.masks:
        for number in range(1, spec.mask_convs + 1):
            found |= _conv(f"roi_heads.mask_head.mask_fcn{number}", spec.mask_channels, width, 3)
        found |= _layer("roi_heads.mask_head.deconv", spec.mask_channels, spec.mask_channels, 2, 2)
        found |= _layer("roi_heads.mask_head.predictor", classes, spec.mask_channels, 1, 1)
    return _numbers(found)


CONSTANTS = {
    **{f"proposal_generator.anchor_generator.cell_anchors.{level}": torch.ones(3, 4) for level in range(5)},
    "pixel_mean": torch.ones(3, 1, 1),
    "pixel_std": torch.ones(3, 1, 1),
}


@pytest.mark.parametrize("kind", KINDS)
def test_detectron2s_detectors(kind: str, tmp_path: Path) -> None:
    spec = small_spec(**KINDS[kind])
    state = _detectron2(NARROW, spec, classes=3)
    torch.save({"model": {**state, **CONSTANTS}, "iteration": 90_000}, tmp_path / "d2.pth")
    net = _net(spec)
    report = WEIGHTS.load(net, tmp_path / "d2.pth")
    assert (report.layout, report.untrained, report.unexpected, report.reshaped) == ("detectron2", [], [], [])
    assert sorted(report.matched) == sorted(net.state_dict())
    values = [tensor for name, tensor in net.state_dict().items() if not name.endswith(COUNTER)]
    assert len(values) == len(state)
    assert {tensor.flatten()[0].item() for tensor in values} == {t.flatten()[0].item() for t in state.values()}
    back = from_ours(net.state_dict(), "detectron2")
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())


def test_detectron2s_panoptic_detectors(tmp_path: Path) -> None:
    """Of P4 and P5, convolutions and doublings take turns in a list (semantic_seg.py)."""
    spec, panoptic = small_spec(masks=True), PanopticSpec(channels=6)
    places = {2: (0,), 3: (0,), 4: (0, 2), 5: (0, 2, 4)}
    shapes = {"sem_seg_head.predictor.weight": (4, 6, 1, 1), "sem_seg_head.predictor.bias": (4,)}
    for level, steps in places.items():
        for place in steps:
            shapes |= _conv(f"sem_seg_head.p{level}.{place}", 6, 6 if place else spec.fpn_channels, 3)
    state = _detectron2(NARROW, spec, classes=3) | _numbers(shapes)
    torch.save({"model": {**state, **CONSTANTS}}, tmp_path / "d2.pth")
    net = PanopticFPN(Backbone(NARROW), spec, panoptic, num_classes=6, things=3)
    report = WEIGHTS.load(net, tmp_path / "d2.pth")
    assert (report.untrained, report.unexpected, report.reshaped) == ([], [], [])
    assert torch.equal(net.semantic.scale[3][2].conv.weight, state["sem_seg_head.p5.4.weight"])
    assert torch.equal(net.semantic.scale[2][1].norm.bias, state["sem_seg_head.p4.2.norm.bias"])
    assert torch.equal(net.semantic.logits.bias, state["sem_seg_head.predictor.bias"])
    back = from_ours(net.state_dict(), "detectron2")
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())
    with pytest.raises(ResnestError, match="torchvision has no Panoptic FPN"):
        from_ours(net.state_dict(), "torchvision")
    report = WEIGHTS.load(_net(spec), tmp_path / "d2.pth")  # its detector alone
    assert {name.split(".")[0] for name in report.unexpected} == {"semantic"}
    torch.save(_net(spec).state_dict(), tmp_path / "ours.pth")
    assert WEIGHTS.load(net, tmp_path / "ours.pth").untrained == ["semantic"]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("backbone.bottom_up.res3.1.conv2_offset.weight", "backbone.layer2.1.conv2.conv.offset_weight"),
        ("backbone.bottom_up.stem.conv1_3.norm.running_var", "backbone.bn1.running_var"),
        ("backbone.fpn_lateral5.norm.weight", "fpn.lateral.3.norm.weight"),
        ("backbone.fpn_output2.weight", "fpn.output.0.conv.weight"),
        ("proposal_generator.rpn_head.anchor_deltas.bias", "rpn.deltas.bias"),
        ("roi_heads.box_head.2.conv4.norm.bias", "box_heads.2.convs.3.norm.bias"),
        ("roi_heads.box_head.1.fc1.weight", "box_heads.1.fcs.0.weight"),
        ("roi_heads.box_predictor.0.cls_score.weight", "box_heads.0.score.weight"),
        ("roi_heads.mask_head.mask_fcn8.weight", "mask_head.convs.7.conv.weight"),
        ("roi_heads.mask_head.deconv.weight", "mask_head.upsample.weight"),
    ],
)
def test_each_part_goes_to_its_place(theirs: str, ours: str, tmp_path: Path) -> None:
    spec = small_spec(**KINDS["Cascade Mask, all tricks"])
    state = _detectron2(NARROW, spec, classes=3)
    torch.save({"model": state}, tmp_path / "d2.pth")
    net = _net(spec)
    WEIGHTS.load(net, tmp_path / "d2.pth")
    assert torch.equal(net.state_dict()[ours], state[theirs])


# --- torchvision, as it builds them ---


@pytest.mark.parametrize(
    ("kind", "old"), [*((kind, False) for kind in TORCHVISION), ("Faster R-CNN", True), ("Mask R-CNN", True)]
)
def test_torchvisions_detectors(kind: str, old: bool, tmp_path: Path) -> None:
    """And those from before torchvision 0.13, with other names and without norms."""
    spec = small_spec(preset="torchvision", **TORCHVISION[kind])
    state = _marked(torchvisions(spec, classes=3).state_dict())
    torch.save({_old_name(name) if old else name: tensor for name, tensor in state.items()}, tmp_path / "tv.pth")
    net = _net(spec)
    report = WEIGHTS.load(net, tmp_path / "tv.pth")
    assert (report.layout, report.untrained, report.unexpected, report.reshaped) == ("torchvision", [], [], [])
    ours = net.state_dict()
    score, boxes = state["roi_heads.box_predictor.cls_score.weight"], state["roi_heads.box_predictor.bbox_pred.bias"]
    assert torch.equal(ours["box_heads.0.score.weight"], torch.cat([score[1:], score[:1]]))  # background last
    assert torch.equal(ours["box_heads.0.deltas.bias"], boxes[4:])
    assert torch.equal(ours["fpn.lateral.2.conv.weight"], state["backbone.fpn.inner_blocks.2.0.weight"])
    if spec.masks:
        masks = state["roi_heads.mask_predictor.mask_fcn_logits.weight"]
        assert torch.equal(ours["mask_head.logits.weight"], masks[1:])
    back = from_ours(ours, "torchvision")
    assert back.keys() == state.keys()
    for name, tensor in state.items():
        if "bbox_pred" in name and "roi_heads" in name:  # of the background: zeros, which nothing reads
            assert not back[name][:4].any()
            assert torch.equal(back[name][4:], tensor[4:])
        elif "mask_fcn_logits" in name:
            assert not back[name][:1].any()
            assert torch.equal(back[name][1:], tensor[1:])
        else:
            assert torch.equal(back[name], tensor), name


def _marked(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """With rows that differ from each other, and tensors too."""
    return {
        name: torch.arange(tensor.numel()).view(tensor.shape) / 7 + index if tensor.is_floating_point() else tensor
        for index, (name, tensor) in enumerate(state.items())
    }


def _old_name(name: str) -> str:
    name = re.sub(r"(_blocks\.\d)\.0\.", r"\1.", name).replace("rpn.head.conv.0.0.", "rpn.head.conv.")
    return re.sub(r"mask_head\.(\d)\.0\.", lambda found: f"mask_head.mask_fcn{int(found[1]) + 1}.", name)


# --- other files, other detectors ---


def test_other_classes_leave_what_predicts_them_untrained(tmp_path: Path) -> None:
    spec = small_spec(cascade=True, masks=True)
    torch.save({"model": _detectron2(NARROW, spec, classes=5)}, tmp_path / "d2.pth")
    net = _net(spec)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    report = WEIGHTS.load(net, tmp_path / "d2.pth")
    same = {name for name, tensor in net.state_dict().items() if torch.equal(tensor, before[name])}
    kept = {f"{part}.{leaf}" for part in (*(f"box_heads.{i}.score" for i in range(3)), "mask_head.logits")
            for leaf in ("weight", "bias")}  # fmt: skip
    assert {name for name in same if not name.endswith(COUNTER)} == kept
    assert "box_heads.0.score.weight from (6, 12) to (4, 12)" in report.reshaped
    assert "untrained: what predicts classes" in str(report)


def test_a_mask_head_more_or_less(tmp_path: Path) -> None:
    with_masks, without = small_spec(masks=True), small_spec()
    torch.save(_net(with_masks).state_dict(), tmp_path / "mask.pth")
    torch.save({f"module.{name}": tensor for name, tensor in _net(without).state_dict().items()}, tmp_path / "box.pth")
    report = WEIGHTS.load(_net(with_masks), tmp_path / "box.pth")
    assert (report.layout, report.untrained) == ("official", ["mask_head"])
    report = WEIGHTS.load(_net(without), tmp_path / "mask.pth")
    assert report.untrained == []
    assert all(name.startswith("mask_head.") for name in report.unexpected)
    assert len(report.unexpected) == 28
    report = WEIGHTS.load(_net(small_spec(deform=DCN)), tmp_path / "box.pth")
    assert report.untrained == ["deformable offsets"]


def test_a_classifier_goes_into_the_backbone(tmp_path: Path) -> None:
    classifier = ResNeSt(NARROW, num_classes=7)
    torch.save(classifier.state_dict(), tmp_path / "classifier.pth")
    for spec, untrained in (
        (small_spec(), ["fpn", "rpn", "box_heads"]),
        (small_spec(deform=DCN, masks=True), ["deformable offsets", "fpn", "rpn", "box_heads", "mask_head"]),
    ):
        net = _net(spec)
        report = WEIGHTS.load(net, tmp_path / "classifier.pth")
        assert report.untrained == untrained
        assert set(report.matched) == {f"backbone.{name}" for name in classifier.state_dict() if name[:3] != "fc."}
        loaded = net.backbone.state_dict()
        assert all(torch.equal(loaded[name], t) for name, t in classifier.state_dict().items() if name[:3] != "fc.")


MISFITS: dict[str, tuple[dict[str, object], dict[str, object], str]] = {
    "a cascade": ({"cascade": True}, {}, r"unexpected: box_heads\.1\."),
    "not a cascade": ({}, {"cascade": True}, r"missing: box_heads\.1\."),
    "another norm": ({"norm": "group"} | {name: 32 for name in SMALL}, {name: 32 for name in SMALL}, "running_mean"),
    "another width": ({}, {"fpn_channels": 16}, r"of another shape: fpn\.lateral\.0\.conv\.weight from \(8, 32"),
    "fewer convolutions": ({"box_convs": 4}, {"box_convs": 2}, r"unexpected: box_heads\.0\.convs\.2\.conv\.weight"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_what_does_not_fit_is_named_and_nothing_changes(case: str, tmp_path: Path) -> None:
    theirs, ours, message = MISFITS[case]
    torch.save(_net(small_spec(**theirs)).state_dict(), tmp_path / "other.pth")
    net = _net(small_spec(**ours))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(ResnestError, match=message):
        WEIGHTS.load(net, tmp_path / "other.pth")
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_strange_parts_are_named(tmp_path: Path) -> None:
    spec = small_spec(preset="torchvision", **TORCHVISION["Faster R-CNN"])
    state = torchvisions(spec, classes=3).state_dict()
    keypoints = {"roi_heads.keypoint_head.0.weight": torch.ones(1)}
    plain = {name: t for name, t in state.items() if "body" not in name} | {
        "backbone.body.conv1.weight": torch.ones(64, 3, 7, 7),
        "backbone.body.layer1.0.conv1.weight": torch.ones(64, 64, 1, 1),
    }
    cases = [
        (state | {"rpn.head.conv.1.0.weight": torch.ones(1)}, r"rpn\.head\.conv\.1\.0\.weight .* several convolutions"),
        (plain, r"its backbone \(backbone\.body\.\*\) is no ResNeSt: it looks like a ResNet without deep stem"),
        (state | {"rpn.head.conv.0.0.bias": torch.tensor([torch.nan] * 8)}, r"rpn\.conv\.bias holds values"),
    ]
    for number, (content, message) in enumerate(cases):
        torch.save(content, tmp_path / f"{number}.pth")
        with pytest.raises(ResnestError, match=message):
            WEIGHTS.load(_net(spec), tmp_path / f"{number}.pth")
    torch.save(state | keypoints, tmp_path / "keypoints.pth")
    assert WEIGHTS.load(_net(spec), tmp_path / "keypoints.pth").unexpected == list(keypoints)


def test_whole_detectors_are_converted(tmp_path: Path) -> None:
    backbone = Spec()  # detectron2 builds no narrow ones
    state = _detectron2(backbone, small_spec(masks=True), classes=2)
    state = {name: tensor.half() for name, tensor in state.items()}
    torch.save({"model": {**state, **CONSTANTS}}, tmp_path / "d2.pth")
    done = convert(tmp_path / "d2.pth", to="torchvision", out=tmp_path / "tv.pth")
    assert str(done).startswith("a detector on resnest50 or resnest50_fast_2s1x64d, detectron2 to torchvision: ")
    content = torch.load(tmp_path / "tv.pth", weights_only=True)
    assert WEIGHTS.recognise(content) == "torchvision"
    assert content["roi_heads.box_head.3.1." + COUNTER] == 0
    convert(tmp_path / "tv.pth", to="official", out=tmp_path / "ours.safetensors", network="resnest50")
    convert(tmp_path / "ours.safetensors", to="detectron2", out=tmp_path / "again.pth")
    again = torch.load(tmp_path / "again.pth", weights_only=True)["model"]
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in state.items())
    done = convert(tmp_path / "d2.pth", to="mmdetection", out=tmp_path / "mm.pth", drop_head=True, network="resnest50")
    assert done.left_out


def test_what_a_layout_cannot_hold_is_refused(tmp_path: Path) -> None:
    torch.save(_net(small_spec(cascade=True)).state_dict(), tmp_path / "cascade.pth")
    torch.save(ResNeSt(NARROW).state_dict(), tmp_path / "classifier.pth")
    panoptic = _net(small_spec()).state_dict() | {"sem_seg_head.predictor.weight": torch.ones(1)}
    torch.save(panoptic, tmp_path / "panoptic.pth")
    for name, to, message in (
        ("cascade", "torchvision", "torchvision has no Cascade R-CNN"),
        ("cascade", "detectron2", "cannot hold this network"),
        ("cascade", "timm", "would be lost"),
        ("cascade", "official", "`bare=True` is for a backbone"),
        ("classifier", "torchvision", "is for whole detectors"),
        ("panoptic", "official", r"sem_seg_head\.predictor\.weight would be lost"),
    ):
        with pytest.raises(ResnestError, match=message):
            convert(tmp_path / f"{name}.pth", to=to, out=tmp_path / "out.pth", bare="bare" in message)
        assert not (tmp_path / "out.pth").exists()
