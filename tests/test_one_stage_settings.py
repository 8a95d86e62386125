"""Settings of RetinaNet and FCOS, their recipes, and their weights under the names of other code."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import resnest
from one_stage import ONE_STAGE, build, card_of
from painted import NAMES, TINY
from resnest.detection.card import DetectionCard, DetectorSpec
from resnest.detection.kinds import KINDS
from resnest.detection.weights import WEIGHTS, from_ours, to_ours
from resnest.errors import ResnestError
from resnest.inference.model import Model
from resnest.recipes import find_recipe, override
from resnest.runtime.card import ModelCard

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
        card = card_of(DetectorSpec(kind=kind))
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
    Model(net.eval(), card_of(net.spec), "net").save_pretrained(tmp_path / "net")
    report = WEIGHTS.load(other, tmp_path / "net", classes=Classes((NAMES[1], "another", NAMES[0])))
    assert "2 of 3" in report.classes
    told, new = (one.dense.score.bias.view(-1, 3) for one in (net, other))
    assert torch.equal(new[:, 0], told[:, 1])
    assert torch.equal(new[:, 2], told[:, 0])
    assert (new[:, 1] < 0).all()
