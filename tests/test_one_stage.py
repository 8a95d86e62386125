"""RetinaNet and FCOS: losses by hand, what each place learns, shapes, settings, names of other code, exported files."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import resnest
from conftest import Outcome
from painted import IDS, NAMES, PREPROCESS, TINY, paint
from resnest.detection.card import DetectionCard, DetectorSpec
from resnest.detection.detector import build_detector
from resnest.detection.export import DetectionExporter
from resnest.detection.fcos import FCOS, centerness
from resnest.detection.kinds import KINDS
from resnest.detection.one_stage import OneStage, suppress
from resnest.detection.retinanet import RetinaNet
from resnest.detection.rpn import Target, nms_per_class
from resnest.detection.tta import predict_augmented
from resnest.detection.weights import WEIGHTS, from_ours, to_ours
from resnest.errors import ResnestError
from resnest.exporters.formats import FORMATS
from resnest.inference.model import Model
from resnest.inference.prepare import prepared_full_model
from resnest.recipes import find_recipe, override
from resnest.runtime.card import ModelCard
from resnest.runtime.tiles import Tiles

SMALL: dict[str, Any] = {"fpn_channels": 8, "head_convs": 1, "candidates": 50, "max_detections": 12, "norm": "none"}
CASES: dict[str, dict[str, Any]] = {
    "retinanet": {},
    "retinanet, giou, group": {"kind": "retinanet", "box_loss": "giou", "head_norm": "group", "p6_from": "p5"},
    "retinanet, torchvision's": {"kind": "retinanet", "preset": "torchvision", "box_loss": "smooth_l1"},
    "fcos": {},
    "fcos, no norm": {"kind": "fcos", "head_norm": "none", "deform": (False, True, True, True)},
    "fcos, torchvision's": {"kind": "fcos", "preset": "torchvision"},
}
ONE_STAGE = ("retinanet", "fcos")
SPEC = replace(TINY, attention_norm="layer")
SIZES = torch.tensor([[64, 96], [61, 70]])


def build(case: str, **changes: Any) -> Any:
    """With weights that find something."""
    torch.manual_seed(0)
    spec = DetectorSpec(**{"kind": case, "score_threshold": 0.02, **SMALL, **CASES[case], **changes})
    net = build_detector(SPEC, spec, 3, zero_gamma=False)
    assert isinstance(net, OneStage)
    for module in net.dense.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.3)
    return net


def target(*boxes: tuple[float, float, float, float], size: tuple[int, int] = (64, 96)) -> Target:
    return Target(torch.tensor(boxes).reshape(-1, 4).float(), torch.arange(len(boxes)) % 3, size)


PAIRS = {
    "two": (target((8, 8, 40, 40), (50, 20, 90, 60)), target((5, 30, 60, 60), size=(61, 70))),
    "nothing in one": (target((8, 8, 40, 40)), target(size=(61, 70))),
    "nothing in any": (target(), target(size=(61, 70))),
    "one pixel": (target((10, 10, 11, 11)), target((0, 0, 1, 1), size=(61, 70))),
    "one over another": (target((8, 8, 40, 40), (8, 8, 40, 40)), target((0, 0, 70, 61), size=(61, 70))),
}


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("case", CASES)
def test_losses_are_finite_and_reach_every_parameter(case: str, pair: str) -> None:
    net = build(case).train()
    losses = net(torch.randn(2, 3, 64, 96), SIZES, PAIRS[pair])
    assert losses.keys() == {"class", "box", *(["centerness"] if "fcos" in case else [])}
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    assert total.isfinite()
    assert all(one.grad is not None and one.grad.isfinite().all() for one in net.parameters())
    if pair == "two":
        assert all(one.grad.any() for name, one in net.named_parameters() if "dense" in name or "fpn" in name)


@pytest.mark.parametrize("case", CASES)
def test_what_is_found_has_one_shape_and_depends_on_no_other_picture(case: str) -> None:
    net = build(case).eval()
    images = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        found, alone = net(images, SIZES), net(images[1:], SIZES[1:])
        fast = prepared_full_model(net)(images, SIZES)
    assert found.boxes.shape == (2, 12, 4)
    assert found.scores.shape == found.labels.shape == (2, 12)
    assert found.masks is None
    assert ((found.scores > 0.02).sum(1) >= 10).all()
    assert (found.scores.diff(dim=1) <= 0).all()
    assert (found.boxes[1] <= torch.tensor([70, 61, 70, 61])).all()
    assert (found.boxes[..., 2:] > found.boxes[..., :2])[found.scores > 0].all()
    torch.testing.assert_close(alone.scores[0], found.scores[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(fast.scores, found.scores, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(fast.boxes, found.boxes, rtol=1e-4, atol=1e-2)


def test_prior() -> None:
    net = build_detector(TINY, DetectorSpec(kind="retinanet", prior=0.1, **SMALL), 3)
    scores = net.scores(net.dense(torch.zeros(1, 8, 4, 4)))  # type: ignore[operator]
    torch.testing.assert_close(scores, torch.full((1, 4 * 4 * 9, 3), 0.1))


# --- losses ---


def test_focal_loss_by_hand() -> None:
    """-alpha (1 - p)^gamma log p of the object's class, -(1 - alpha) p^gamma log(1 - p) of all others."""
    net = build("retinanet", focal_alpha=0.4, focal_gamma=1.5)
    logits, labels = torch.tensor([[0.0, 1.0, -2.0], [3.0, 0.5, -1.0]]), torch.tensor([1, 3])  # 3: background
    expected = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        for number, logit in enumerate(row):
            p = 1 / (1 + math.exp(-logit))
            if number == label:
                expected += -0.4 * (1 - p) ** 1.5 * math.log(p)
            else:
                expected += -0.6 * p**1.5 * math.log(1 - p)
    assert net.focal_loss(logits, labels).item() == pytest.approx(expected, rel=1e-5)


def test_what_losses_are_divided_by() -> None:
    """detectron2's running number of objects, which a checkpoint contains; torchvision's is that of the batch."""
    net = build("retinanet").train()
    assert net.count_objects(50).item() == pytest.approx(95)
    assert net.count_objects(0).item() == pytest.approx(85.6)
    assert net.state_dict()["dense.normaliser"].item() == pytest.approx(85.6)
    assert net.eval().count_objects(0).item() == pytest.approx(0.9 * 85.6 + 0.1)
    assert net.state_dict()["dense.normaliser"].item() == pytest.approx(85.6)
    other = build("fcos, torchvision's").train()
    assert [other.count_objects(count).item() for count in (7, 0)] == [7, 1]


def test_what_anchors_learn() -> None:
    """At 0.5 an object, below 0.4 background, between them nothing; the best one in any case."""
    net: RetinaNet = build("retinanet")
    anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 4.5], [0, 0, 10, 3], [20, 20, 24, 24], [60, 60, 90, 90]])
    labels, objects, truth = net.assign(anchors, target((0, 0, 10, 10), (18, 18, 30, 30)))
    assert labels.tolist() == [0, -1, 3, 1, 3]
    assert objects.tolist() == [0, 3]
    assert truth[1].tolist() == [18, 18, 30, 30]
    assert net.assign(anchors, target())[0].tolist() == [3] * 5


@pytest.mark.parametrize(
    # half a tenth is taken off where a difference is above 0.1
    ("box_loss", "expected"),
    [("l1", 0.1 + math.log(2)), ("smooth_l1", 0.05 + math.log(2) - 0.05), ("giou", 1 - 100 / 200)],
)
def test_box_losses_by_hand(box_loss: str, expected: float) -> None:
    """The anchor itself is predicted; the object is twice as wide, and its centre a tenth aside."""
    net: RetinaNet = build("retinanet", box_loss=box_loss)
    anchor, truth = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[-4.0, 0, 16, 10]])
    loss = net.box_loss(torch.zeros(1, 4), anchor, truth).item()
    assert loss == pytest.approx(expected, rel=1e-4)


# box -> levels on which places learn it, of a canvas of 256 x 256
PLACES = {
    "small, on P3": ((100, 100, 130, 130), {0}),
    "as long as the first level learns": ((64, 64, 160, 160), {0}),
    "farther than 64 and 128 from its sides": ((30, 30, 230, 230), {1, 2}),
    "without a place inside": ((97, 97, 103, 103), set()),
    "thin": ((96, 101, 136, 107), {0}),
    "the whole canvas": ((0, 0, 256, 256), {2}),
}


@pytest.mark.parametrize("case", PLACES)
def test_what_places_learn(case: str) -> None:
    box, levels = PLACES[case]
    net: FCOS = build("fcos")
    anchors = net.anchors([torch.zeros(1, 1, side, side) for side in (32, 16, 8, 4, 2)], (256, 256))
    learnt = net.assign(anchors, target(box, size=(256, 256))).split([len(grid) for grid in anchors])
    counts = [int((part >= 0).sum()) for part in learnt]
    assert counts == [_inside(grid, box, number) for number, grid in enumerate(anchors)]
    assert {number for number, count in enumerate(counts) if count} == levels


def _inside(anchors: Tensor, box: tuple[float, ...], level: int) -> int:
    """Places by the words of arXiv 1904.01355, one by one."""
    stride, count = 8 * 2**level, 0
    for x1, y1, x2, y2 in anchors.tolist():
        x, y = (x1 + x2) / 2, (y1 + y2) / 2
        sides = x - box[0], y - box[1], box[2] - x, box[3] - y
        near = max(abs(x - (box[0] + box[2]) / 2), abs(y - (box[1] + box[3]) / 2)) < 1.5 * stride
        fits = (level == 0 or max(sides) > 4 * stride) and (level == 4 or max(sides) < 8 * stride)
        count += min(sides) > 0 and near and fits
    return count


def test_the_smallest_object_takes_a_place() -> None:
    net: FCOS = build("fcos")
    anchors = net.anchors([torch.zeros(1, 1, side, side) for side in (32, 16, 8, 4, 2)], (256, 256))
    matched = net.assign(anchors, target((90, 90, 140, 140), (100, 100, 130, 130), size=(256, 256)))
    assert set(matched[matched >= 0].tolist()) == {1}


def test_centerness_and_distances() -> None:
    places, boxes = (
        torch.tensor([[4.0, 4, 12, 12]] * 3),
        torch.tensor([[0.0, 0, 16, 16], [6, 6, 16, 24], [8, 0, 9, 16]]),
    )
    expected = [1, math.sqrt(2 / 8 * 2 / 16), 0]
    assert centerness(places, boxes).tolist() == pytest.approx(expected)
    net: FCOS = build("fcos")
    decoded = net.decode(torch.tensor([[1.0, 0.5, 2.0, -1.0]]), places[:1])  # in units of 8 pixels, none below 0
    assert decoded.tolist() == [[0, 4, 24, 8]]


def test_scores_are_the_geometric_mean() -> None:
    net = build("fcos").eval()
    output = net.dense(torch.randn(1, 8, 2, 2))
    scores = net.scores(output)
    torch.testing.assert_close(scores[0, :, 0] ** 2, output.logits[0, :, 0].sigmoid() * output.centerness[0].sigmoid())


def test_suppression_is_that_of_each_picture_and_class() -> None:
    rng = torch.Generator().manual_seed(0)
    corners = torch.rand(3, 200, 4, generator=rng) * 50
    boxes = torch.cat([corners[..., :2], (corners[..., :2] + corners[..., 2:] + 1).clamp(max=96)], dim=-1)
    scores, labels = torch.rand(3, 200, generator=rng), torch.randint(0, 7, (3, 200), generator=rng)
    candidates = scores > 0.3
    left = suppress(boxes, scores, labels, candidates, 0.5, (64, 96), 7)
    expected = [nms_per_class(*one, 0.5) for one in zip(boxes, scores, labels, candidates, strict=True)]
    assert torch.equal(left, torch.stack(expected))
    assert 0 < left.sum() < candidates.sum()


# --- settings ---

REFUSED = {
    "masks": ({"kind": "fcos", "masks": True}, r"masks=true is a setting of rcnn, and detector\.kind=fcos has no use"),
    "proposals": (
        {"kind": "retinanet", "pre_nms": (5, 5)},
        r"pre_nms=\[5, 5\] is a setting of rcnn, .*2000, 1000",
    ),
    "anchors": ({"kind": "fcos", "anchor_sizes": (1, 2, 3, 4, 5)}, "anchor_sizes=.* is a setting of rcnn, retinanet"),
    "of FCOS": ({"kind": "retinanet", "center_radius": 2.0}, "center_radius=2.0 is a setting of fcos"),
    "of both": ({"head_convs": 2}, "head_convs=2 is a setting of retinanet, fcos, and detector.kind=rcnn"),
    "kind": ({"kind": "retina"}, "'retina' is not a known detector.kind. Did you mean 'retinanet'"),
    "shared statistics": (
        {"kind": "fcos", "head_norm": "batch"},
        "head_norm=batch: .* Set detector.head_norm to group",
    ),
    "falling": ({"kind": "retinanet", "match_iou": (0.5, 0.4)}, r"match_iou=\[0.5, 0.4\] must not fall"),
    "certain": ({"kind": "fcos", "prior": 1.0}, "prior=1.0 must lie between 0 and 1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_settings_that_a_kind_does_not_have(case: str) -> None:
    settings, message = REFUSED[case]
    with pytest.raises(ResnestError, match=message) as caught:
        DetectorSpec(**settings)
    assert "\n" not in str(caught.value)


def test_usual_values_are_the_kinds() -> None:
    """And stay when they are given; a card has them, and no field of another kind."""
    kinds = {kind: DetectorSpec(kind=kind) for kind in KINDS}
    assert {kind: (spec.min_score, spec.max_iou) for kind, spec in kinds.items()} == {
        "rcnn": (0.05, 0.5), "retinanet": (0.05, 0.5), "fcos": (0.2, 0.6),
    }  # fmt: skip
    assert DetectorSpec(kind="fcos", nms=0.5).max_iou == 0.5
    assert [kinds[kind].p6_source for kind in ONE_STAGE] == ["c5", "p5"]
    assert DetectorSpec(kind="retinanet", preset="torchvision").p6_source == "p5"
    for kind in ONE_STAGE:
        card = _card(DetectorSpec(kind=kind))
        read = ModelCard.from_json(card.to_json(), where="card")
        assert isinstance(read, DetectionCard)
        assert read == card
        assert None not in read.detector.to_card().values()
        assert "masks" not in read.detector.to_card()
        assert KINDS[kind].title in card.describe_network("ResNeSt")


def test_a_recipe_changes_its_kind() -> None:
    changed = override(find_recipe("finetune_detection"), ["detector.kind=fcos"])
    assert (changed.detector.title, changed.detector.norm, changed.detector.max_iou) == ("FCOS", "group", 0.6)
    with pytest.raises(ResnestError, match="rpn_batch=128 is a setting of rcnn"):
        override(find_recipe("detect_small"), ["detector.kind=retinanet"])
    with pytest.raises(ResnestError, match="masks=true is a setting of rcnn"):
        override(find_recipe("panoptic_small"), ["detector.kind=retinanet", "detector.mask_convs=4"])


PUBLISHED = {"retinanet": 36.5, "fcos": 38.7}  # of plain ResNet-50: detectron2's model zoo, AdelaiDet


@pytest.mark.parametrize("kind", ONE_STAGE)
def test_recipes_of_coco(kind: str) -> None:
    ours, twin = find_recipe(f"{kind}_resnest50"), find_recipe(f"{kind}_resnet50d")
    for recipe in (ours, twin):
        assert recipe.detector == DetectorSpec(kind=kind)
        assert recipe.optim.lr_for(16) == 0.01
        assert recipe.expect is not None
        assert (recipe.expect.published, recipe.expect.box_ap) == (True, None)
        assert f"plain ResNet-50: box AP {PUBLISHED[kind]}" in recipe.expect.note
    assert ours.model.pretrained == "published"
    assert "resnet50d.gluon" in twin.model.pretrained


# --- weights ---


@pytest.mark.parametrize("layout", ["detectron2", "torchvision"])
@pytest.mark.parametrize("case", ["retinanet", "retinanet, giou, group", "fcos", "fcos, no norm"])
def test_names_of_other_code_and_back(case: str, layout: str, tmp_path: Path) -> None:
    if layout == "torchvision" and case == "retinanet, giou, group":
        case = "retinanet, torchvision's"
    net, again = build(case, deform=(False,) * 4), build(case, deform=(False,) * 4)
    net.dense.normaliser.fill_(type(net).first_normaliser)
    theirs = from_ours(net.state_dict(), layout)
    assert not any("normaliser" in name for name in theirs)
    constants = {"anchor_generator.cell_anchors.0": torch.ones(3, 4), "pixel_mean": torch.ones(3, 1, 1)}
    torch.save({"model": theirs | (constants if layout == "detectron2" else {})}, tmp_path / "theirs.pth")
    for parameter in again.parameters():
        nn.init.zeros_(parameter)
    report = WEIGHTS.load(again, tmp_path / "theirs.pth")
    assert (report.layout, report.unexpected, report.reshaped) == (layout, [], [])
    ours = net.state_dict()
    assert all(torch.equal(tensor, ours[name]) for name, tensor in again.state_dict().items())


def test_another_kind_is_named(tmp_path: Path) -> None:
    torch.save(build("fcos").state_dict(), tmp_path / "fcos.pth")
    with pytest.raises(ResnestError, match=r"it is a detector of detector\.kind=fcos, and this is one of .*=retinanet"):
        WEIGHTS.load(build("retinanet"), tmp_path / "fcos.pth")
    with pytest.raises(ResnestError, match=r"kind=fcos, and this is one of detector\.kind=rcnn"):
        resnest.create_detector(TINY, DetectorSpec(fpn_channels=8), pretrained=tmp_path / "fcos.pth")


def test_anchors_in_another_order() -> None:
    """torchvision's are by ratio, then size; rows of classes and boxes follow, and the background goes."""
    net = build("retinanet")
    theirs = from_ours(net.state_dict(), "torchvision")
    score = theirs["head.classification_head.cls_logits.bias"].view(3, 3, 4)  # ratio, size, background and classes
    ours = net.state_dict()["dense.score.bias"].view(3, 3, 3)  # size, ratio, class
    assert torch.equal(score[..., 1:], ours.transpose(0, 1))
    assert (score[..., 0] < -10).all()
    odd = build("retinanet", anchor_scales=2, anchor_ratios=(1.0, 2.0))
    with pytest.raises(ResnestError, match="4 anchors a place: torchvision's order is known of 3 sizes"):
        from_ours(odd.state_dict(), "torchvision")
    assert to_ours(theirs, "torchvision").state.keys() == net.state_dict().keys()


@pytest.mark.parametrize("kind", ONE_STAGE)
def test_classes_by_name(kind: str, tmp_path: Path) -> None:
    """Rows of a class go to its new number, at every anchor."""
    from resnest.checkpoints.class_rows import Classes

    net, other = build(kind), build(kind)
    with torch.no_grad():
        net.dense.score.bias.copy_(torch.arange(len(net.dense.score.bias)))
    Model(net.eval(), _card(net.spec), "net").save_pretrained(tmp_path / "net")
    report = WEIGHTS.load(other, tmp_path / "net", classes=Classes((NAMES[1], "another", NAMES[0])))
    assert "2 of 3" in report.classes
    told, new = (one.dense.score.bias.view(-1, 3) for one in (net, other))
    assert torch.equal(new[:, 0], told[:, 1])
    assert torch.equal(new[:, 2], told[:, 0])
    assert (new[:, 1] < 0).all()


# --- use ---


def _card(spec: DetectorSpec) -> DetectionCard:
    return DetectionCard(
        architecture="resnest", spec=SPEC, class_names=NAMES, preprocess=PREPROCESS, detector=spec, category_ids=IDS
    )


@pytest.mark.parametrize("kind", ONE_STAGE)
def test_test_time_augmentation(kind: str) -> None:
    net = build(kind).eval()
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (12, 20, 3), np.uint8)).resize((96, 64), Image.Resampling.BICUBIC)
    preprocess = replace(PREPROCESS, short=64, long=400)
    once = predict_augmented(net, image, preprocess, scales=[64], flip=False)
    with torch.inference_mode():
        found = net(torch.from_numpy(preprocess(image))[None], torch.tensor([[64, 96]]))
    np.testing.assert_allclose(once.scores, found.scores, atol=1e-5)
    np.testing.assert_allclose(once.boxes, found.boxes, atol=1e-3)
    several = predict_augmented(net, image, preprocess, scales=[64, 96], flip=True)
    assert several.scores[0, 0] >= once.scores[0, 0]
    assert several.masks is None


def test_tiles(tmp_path: Path) -> None:
    """A large picture gets objects in more than one of them."""
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (16, 32, 3), np.uint8)).resize((256, 128), Image.Resampling.BICUBIC)
    net = build("fcos").eval()
    saved = Model(net, _card(net.spec), "random").save_pretrained(tmp_path / "model")
    predict = resnest.Predictor(saved, device="cpu", tiles=Tiles(64, 0.2))
    boxes = predict(image).boxes
    assert len(boxes) > net.spec.max_detections
    assert boxes[:, 0].min() < 64 < 192 < boxes[:, 2].max()


@pytest.mark.parametrize("kind", ONE_STAGE)
def test_exported_to_any_number_and_size(kind: str, tmp_path: Path) -> None:
    """By the gate; and the file, which no torch runs, finds what the network finds."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    net, rng = build(kind).eval(), np.random.default_rng(0)
    sizes = [(64, 96), (64, 96), (128, 64)]  # all as they are resized, no padding
    files = [tmp_path / f"{number}.png" for number in range(len(sizes))]
    for file, (height, width) in zip(files, sizes, strict=True):
        Image.fromarray(rng.integers(0, 255, (height, width, 3), np.uint8)).save(file)
    model = Model(net, _card(net.spec), "random")
    done = resnest.export(model, format="onnx", out=tmp_path / "m.onnx", images=tmp_path)
    assert done.origin["sizes"] == {"batch": "any", "height": "any", "width": "any"}
    assert done.parity.agreeing + done.parity.unstable == done.parity.pictures == 3
    compared = {(gap.shape[0], *gap.shape[2:]) for gap in done.parity.differences}
    assert {(1, 64, 64), (2, 64, 64), (1, 96, 160), (2, 96, 160), (1, 128, 64)} <= compared
    ours, exported = model.predictor(device="cpu"), resnest.Predictor(tmp_path / "m.onnx")
    for before, after in zip(ours(files), exported(files), strict=True):
        assert len(before) == len(after) >= 10
        np.testing.assert_allclose(after.scores, before.scores, atol=1e-4)
        np.testing.assert_allclose(after.boxes, before.boxes, atol=0.05)


def test_a_file_for_one_size(tmp_path: Path) -> None:
    exporter, model = DetectionExporter(), Model(build("fcos"), _card(build("fcos").spec), "random")
    form = FORMATS["onnx"]
    assert exporter.sized(model, None, form) is model
    card = exporter.sized(model, (64, 96), form).card
    assert exporter.interface(card, form).size == card.preprocess.canvas == (64, 96)
    assert {shape[2:] for shape in exporter.shapes(card, form)} == {(64, 96)}
    assert exporter.interface(card, form).batch is None


@pytest.mark.parametrize("recipe", ["retinanet_small", "fcos_small"])
def test_a_run(recipe: str, tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    data, out = paint(tmp_path / "data", 3), tmp_path / "run"
    settings = (
        "model.spec={planes: [8, 8, 8, 8], stem_width: 4}", "detector.fpn_channels=32", "detector.head_convs=1",
        "detector.max_detections=20", "detection.short=[48, 64]", "detection.eval_short=64", "train.epochs=2",
        "train.log_every=1", "train.batch_size=2", "data.workers=0", "optim.warmup_steps=2",
        "detector.score_threshold=0.001",
    )  # fmt: skip
    done = cli("train", recipe, "--data", data, "--out", out, *(part for one in settings for part in ("--set", one)))
    assert done.code == 0, done.err
    assert (out / "report.html").is_file()
    done = cli("predict", out, data / "images" / "val", "--json", "--threshold", "0.002")
    assert done.code == 0, done.err
    assert all("objects" in json.loads(line) for line in done.out.splitlines())
