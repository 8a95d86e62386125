"""Recipes of detectors: their sections, their schedule, the rows of the paper's tables, and settings refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from conftest import Outcome
from resnest.detection.card import DetectorSpec
from resnest.detection.recipes import ROWS, DetectionRecipe, DetectionSettings
from resnest.errors import ResnestError
from resnest.recipes import all_recipes, find_recipe, override, read_recipe, to_yaml
from resnest.recipes.reading import check_resumable, differences
from resnest.recipes.schema import ModelSettings, OptimSettings
from resnest.training.step import build_optimizers, lr_at

PLAIN = DetectionRecipe(name="cells", model=ModelSettings(name="resnest14"))


def test_sections_are_filled_in_and_left_out(tmp_path: Path) -> None:
    path = tmp_path / "cells.yaml"
    path.write_text("task: detection\ndetector: {norm: group, anchor_sizes: [8, 16, 32, 64, 128]}\n")
    recipe = read_recipe(path)
    assert recipe.detector == DetectorSpec(norm="group", anchor_sizes=(8, 16, 32, 64, 128))
    assert recipe.detection == DetectionSettings()
    shown = to_yaml(recipe)
    assert "anchor_sizes:\n  - 8.0\n" in shown
    for idle in ("min_area", "mixup", "label_smoothing", "lighting"):
        assert idle not in shown
    path.write_text(shown)
    assert read_recipe(path) == recipe
    assert "detect" not in to_yaml(find_recipe("imagenette"))


def test_settings_of_the_sections() -> None:
    changed = override(PLAIN, ["detector.norm=group", "detection.short=[320, 480]", "detection.crop=0.9"])
    assert changed.detector == DetectorSpec(norm="group")
    assert changed.detection == DetectionSettings(short=(320, 480), crop=0.9)
    assert [name for name, *_ in differences(PLAIN, changed)] == ["detector.norm", "detection.short", "detection.crop"]
    with pytest.raises(ResnestError, match=r"detector\.norm is 'batch' there and 'group' here"):
        check_resumable(PLAIN, changed, where="runs/a")
    free = override(PLAIN, ["train.eval_batch_size=2", "data.workers=1"])
    check_resumable(PLAIN, free, where="runs/a")


REFUSED: dict[str, tuple[list[str], str]] = {
    "nearest name": (["detector.norms=group"], "Did you mean 'detector.norm'"),
    "nearest section": (["detecter.norm=group"], "Did you mean 'detector'"),
    "nearest value": (["detector.norm=groups"], "detector.norm: .*'batch', 'group' or 'none'"),
    "wrong type": (["detection.short=large"], "detection.short: .*valid tuple"),
    "ours": (["detector.fpn_channels=48", "detector.norm=group"], "fpn_channels=48 with norm=group"),
    "mixing": (["train.mixup=0.2"], "train.mixup=0.2 plays no role with task=detection: leave it out"),
    "crop": (["data.size=320"], "data.size=320 plays no role .* settings of `detection`"),
    "one image": (["train.batch_size=1"], "with model.spec.attention_norm='batch': .* or detection.backbone_norm"),
    "sides": (["detection.long=600"], r"detection.short=\[640, 800\] with detection.long=600: .* to 800 or more"),
    "eval sides": (["detection.eval_long=600"], "detection.eval_short=800 with detection.eval_long=600"),
    "not finite": (["detector.nms=.nan"], r"nms=nan must lie in \(0, 1\]"),
    "no places": (["optim.schedule=steps"], r"optim.schedule=steps with optim.decay_at=\[\]: .* Set"),
    "places": (["optim.decay_at=[0.5]"], "optim.schedule=cosine with optim.decay_at"),
    "epochs": (["optim.schedule=steps", "optim.decay_at=[8, 11]"], r"optim.decay_at=\[8.0, 11.0\] must be fractions"),
    "two warm-ups": (["optim.warmup_steps=100"], "optim.warmup_steps=100 with optim.warmup_epochs=5: .* Set"),
    "factor": (["optim.warmup_factor=0"], "optim.warmup_factor=0.0 must lie in"),
    "steps": (["optim.warmup_steps=-1"], "optim.warmup_steps=-1 must be 0 or more"),
    "plain adamw": (["optim.nesterov=false", "optim.name=adamw"], "optim.nesterov=false with optim.name=adamw"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_settings(case: str) -> None:
    settings, message = REFUSED[case]
    with pytest.raises(ResnestError, match=message) as caught:
        override(PLAIN, settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        ["train.batch_size=1", "detection.backbone_norm=frozen"],
        ["train.batch_size=1", "model.spec.attention_norm=frozen"],
        ["optim.warmup_steps=100", "optim.warmup_epochs=0"],
        ["optim.schedule=steps", "optim.decay_at=[0.6667, 0.8889]"],
        ["detection.short=[800]", "detection.pick=choice", "detection.long=800"],
    ],
)
def test_the_way_out_is_one(settings: list[str]) -> None:
    override(PLAIN, settings)


def test_a_classifier_has_no_detector(tmp_path: Path) -> None:
    with pytest.raises(ResnestError, match="'imagenette' trains a network for classification and has no section 'det"):
        override(find_recipe("imagenette"), ["detector.norm=group"])
    path = tmp_path / "mine.yaml"
    path.write_text("detection: {long: 800}\n")
    with pytest.raises(ResnestError, match="detection belongs to recipes with task=detection"):
        read_recipe(path)
    path.write_text("task: detection\ndetection: {shot: [800]}\n")
    with pytest.raises(ResnestError, match=r"Did you mean 'detection\.short'"):
        read_recipe(path)


def test_schedule_of_detectron2() -> None:
    """WarmupMultiStepLR: from a thousandth to 0.02 in 1000 steps, a tenth at 60,000 and again at 80,000 of 90,000."""
    settings = OptimSettings(
        lr=0.02,
        lr_batch=16,
        schedule="steps",
        decay_at=(2 / 3, 8 / 9),
        warmup_epochs=0,
        warmup_steps=1000,
        warmup_factor=0.001,
    )
    expected = {0: 2e-5, 500: 0.02 * 0.5005, 1000: 0.02, 59_999: 0.02, 60_000: 0.002, 79_999: 0.002, 80_000: 0.0002}
    rates = {step: lr_at(step, settings, total=90_000, per_epoch=7329, batch=16) for step in expected}
    assert rates == pytest.approx(expected)
    assert lr_at(5000, settings, total=90_000, per_epoch=7329, batch=4) == pytest.approx(0.005)
    short = [lr_at(step, settings, total=100, per_epoch=10, batch=16) for step in range(100)]
    assert max(short) == short[50] == 0.02  # a warm-up takes half of the run at most


@pytest.mark.parametrize("nesterov", [True, False])
def test_nesterov_is_a_choice(nesterov: bool) -> None:
    (optimizer,) = build_optimizers(torch.nn.Conv2d(3, 4, 1), OptimSettings(nesterov=nesterov))
    assert {group["nesterov"] for group in optimizer.param_groups} == {nesterov}


# box and mask AP of the authors, percent (facts, sections 3.6 and 3.7), stages of the box head, mask convolutions
TABLE = {
    "faster_rcnn_resnest50": (42.33, None, 1, 0),
    "faster_rcnn_resnest50_dcn": (44.11, None, 1, 0),
    "faster_rcnn_resnest101": (44.72, None, 1, 0),
    "cascade_rcnn_resnest50": (45.41, None, 3, 0),
    "cascade_rcnn_resnest101": (47.50, None, 3, 0),
    "cascade_rcnn_resnest200": (49.03, None, 3, 0),
    "mask_rcnn_resnest50": (42.81, 38.14, 1, 4),
    "mask_rcnn_resnest101": (45.75, 40.65, 1, 4),
    "cascade_mask_rcnn_resnest50": (46.19, 39.55, 3, 4),
    "cascade_mask_rcnn_resnest101": (48.30, 41.56, 3, 4),
    "cascade_mask_rcnn_resnest200_tricks_3x": (50.54, 44.21, 3, 8),
    "cascade_mask_rcnn_resnest200_dcn_tricks_3x": (50.91, 44.50, 3, 8),
}


@pytest.mark.parametrize("name", TABLE)
def test_rows_of_the_paper(name: str) -> None:
    box, mask, stages, mask_convs = TABLE[name]
    recipe = find_recipe(name)
    detector, detection, optim, expect = recipe.detector, recipe.detection, recipe.optim, recipe.expect
    assert detector and detection and expect  # noqa: PT018
    assert expect.published
    assert expect.box_ap == pytest.approx(box / 100)
    assert expect.mask_ap == (mask and pytest.approx(mask / 100))
    assert (detector.cascade, detector.masks) == (stages == 3, mask is not None)
    assert not detector.masks or detector.mask_convs == mask_convs
    assert detector.post_nms == ((2000, 1000) if stages == 3 else (1000, 1000))
    assert detector.deform == ((False, True, True, True) if "_dcn" in name else (False,) * 4)
    assert (recipe.model.freeze, recipe.model.pretrained, recipe.train.sync_norm) == (2, "published", True)
    tricks = name.endswith("_3x")
    assert detection.long == (1440 if tricks else 1333)
    assert detection.crop == (0.9 if tricks else None)
    if mask and not tricks:
        assert (detection.short, detection.pick) == ((640, 672, 704, 736, 768, 800), "choice")
    else:
        assert (detection.short, detection.pick) == ((640, 864 if tricks else 800), "range")
    # 16 images of 117,266 a step: where the rate falls, to within the 2.4 % by which whole epochs miss the steps
    steps = recipe.train.epochs * -(-117_266 // 16)
    places = [share * steps for share in optim.decay_at]
    assert places == pytest.approx([240_000, 255_000] if tricks else [60_000, 80_000], rel=0.024)
    assert optim.lr_for(8 * recipe.train.batch_size) == 0.02


def test_baselines_do_not_claim_the_figure_of_another_network() -> None:
    baselines = [name for name in ROWS if "resnet" in name]
    assert len(baselines) == 8
    assert set(ROWS) == {*TABLE, *baselines}
    for name in baselines:
        expect, twin = find_recipe(name).expect, find_recipe(name.replace("resnet", "resnest").removesuffix("d"))
        assert expect
        assert expect.box_ap is expect.mask_ap is None
        assert "for a plain ResNet-" in expect.note
        told = [name for name, *_ in differences(find_recipe(name), twin) if not name.startswith("expect")]
        assert told == ["name", "summary", "model.name", "model.pretrained"]


@pytest.mark.parametrize("name", ["lvis_mask_rcnn_resnest50", "lvis_cascade_mask_rcnn_resnest101"])
def test_recipes_for_lvis_are_those_of_the_paper_but_for_the_tail(name: str) -> None:
    """mmdet's configs/seesaw_loss beside the paper's network; no figure of another network is claimed."""
    recipe, coco = find_recipe(name), find_recipe(name.removeprefix("lvis_"))
    changed = {key: there for key, there, _ in differences(recipe, coco) if not key.startswith(("expect", "summary"))}
    assert {key: value for key, value in changed.items() if key != "name"} == {
        "data.repeat_threshold": 0.001,
        "detector.class_loss": "seesaw",
        "detector.normed_classifier": True,
        "detector.max_detections": 300,
        "detector.score_threshold": 0.0001,
        "optim.decay_at": [0.6667, 0.9167],
        "train.epochs": 24,
    }
    assert recipe.expect.box_ap is recipe.expect.mask_ap is None
    assert "published by mmdet for a plain ResNet-" in recipe.expect.note


def test_the_list_goes_by_task_and_marks_what_others_measured(cli: Callable[..., Outcome]) -> None:
    *blocks, note, _ = cli("recipes").out.split("\n\n")
    classification, boxes, masks, *_ = blocks
    assert "imagenette " in classification
    assert re.search(r"^  faster_rcnn_resnest50 +42\.33\*  Faster R-CNN on resnest50", boxes, re.MULTILINE)
    assert re.search(r"^  mask_rcnn_resnest50 +42\.81\* +38\.14\*  Mask R-CNN on resnest50", masks, re.MULTILINE)
    assert re.search(r"^  faster_rcnn_resnet50d +Faster .* paper's ResNet-50: 39.25\)$", boxes, re.MULTILINE)
    assert "* published elsewhere, not repeated here" in note
    listed = [line.split()[0] for block in blocks for line in block.splitlines()[1:]]
    assert sorted(listed) == sorted(all_recipes())
