"""Recipes of segmenters: their sections, the polynomial schedule, the rows of the paper's tables, settings refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Outcome
from resnest.errors import ResnestError
from resnest.panoptic.card import PanopticSpec
from resnest.panoptic.recipes import PanopticRecipe
from resnest.recipes import find_recipe, override, read_recipe, to_yaml
from resnest.recipes.reading import differences
from resnest.recipes.schema import ModelSettings, OptimSettings
from resnest.segmentation.recipes.paper import ROWS
from resnest.segmentation.recipes.settings import SegmentationRecipe, SegmentationSettings
from resnest.segmentation.spec import SegmenterSpec
from resnest.training.step import lr_at

PLAIN = SegmentationRecipe(name="streets", model=ModelSettings(name="resnest14"))
STUFF = PanopticRecipe(name="scenes", model=ModelSettings(name="resnest14"))


def test_sections_are_filled_in_and_left_out(tmp_path: Path) -> None:
    path = tmp_path / "streets.yaml"
    path.write_text("task: segmentation\nsegmenter: {head: psp, bins: [1, 2]}\n")
    recipe = read_recipe(path)
    assert recipe.segmenter == SegmenterSpec(head="psp", bins=(1, 2))
    assert recipe.segmentation == SegmentationSettings()
    assert not hasattr(recipe, "detector")
    assert not hasattr(recipe, "panoptic")
    shown = to_yaml(recipe)
    for idle in ("min_area", "mixup", "bce_threshold", "detector"):
        assert idle not in shown
    path.write_text(shown)
    assert read_recipe(path) == recipe
    path.write_text("task: panoptic\n")
    recipe = read_recipe(path)
    assert recipe.panoptic == PanopticSpec()
    assert recipe.detector
    assert recipe.detector.masks
    path.write_text(to_yaml(recipe))
    assert read_recipe(path) == recipe


@pytest.mark.parametrize("name", ["segment_small", "unet_small", "finetune_unet"])
@pytest.mark.parametrize("head", ["deeplabv3", "psp", "unet", "unetplusplus", "fpn", "upernet"])
def test_any_recipe_takes_another_head(name: str, head: str) -> None:
    recipe = find_recipe(name)
    assert isinstance(recipe, SegmentationRecipe)
    other = override(recipe, {"segmenter": {"head": head}}).segmenter
    for field, value in other.to_card().items():
        usual = SegmenterSpec(head=head).to_card()[field]  # type: ignore[arg-type]
        kept = recipe.segmenter.to_card().get(field, usual)
        assert value == head if field == "head" else value in (kept, usual)
    assert override(recipe, [f"segmenter.head={recipe.segmenter.head}"]) == recipe
    own = {"unet": "channels=64", "unetplusplus": "channels=64"}.get(head, "decoder_channels=[64, 32, 16, 8, 8]")
    with pytest.raises(ResnestError, match=r"segmenter\.\w+=.* is a setting of"):
        override(recipe, [f"segmenter.head={head}", f"segmenter.{own}"])


REFUSED: dict[str, tuple[SegmentationRecipe | PanopticRecipe, list[str], str]] = {
    "nearest name": (PLAIN, ["segmenter.rate=[1]"], r"Did you mean 'segmenter\.rates'"),
    "nearest head": (PLAIN, ["segmenter.head=deeplab"], "segmenter.head: .*'deeplabv3'"),
    "stride": (PLAIN, ["segmenter.output_stride=4"], "output_stride=4 must be 8, 16 or 32"),
    "rates": (PLAIN, ["segmenter.rates=[1, 2]"], "segmenter.rates"),
    "groups": (PLAIN, ["segmenter.channels=48", "segmenter.norm=group"], "channels=48 with norm=group"),
    "weight": (PLAIN, ["segmenter.aux=-1"], "aux=-1.0 must be 0"),
    "scale": (PLAIN, ["segmentation.scale=[2, 0.5]"], r"segmentation.scale=\[2.0, 0.5\] must be the smallest"),
    "crop": (PLAIN, ["segmentation.crop=8"], "segmentation.crop=8 must lie in 32 to 8192 pixels"),
    "window": (PLAIN, ["segmentation.eval_window=8192"], "eval_window=8192 must lie in 32 to 2048 pixels: windows"),
    "idle": (PLAIN, ["data.size=320"], "data.size=320 plays no role .* settings of `segmentation`"),
    "one image": (PLAIN, ["train.batch_size=1"], "attention_norm='batch': .* or segmentation.backbone_norm"),
    "another's": (PLAIN, ["detector.norm=group"], "has no section 'detector'"),
    "power": (PLAIN, ["optim.power=-1"], "optim.power=-1.0 must be 0 or more"),
    "loss": (PLAIN, ["segmentation.loss={dise: 1}"], "Did you mean 'dice'"),
    "no number": (PLAIN, ["segmentation.loss={dice: much}"], "segmentation.loss.dice: .* valid number"),
    "bce": (PLAIN, ["segmentation.loss={bce: 1}"], "Take cross_entropy in its place"),
    "of labels": (
        PLAIN,
        ["segmenter.multi_label=true", "segmentation.loss={cross_entropy: 1}"],
        "Take bce in its place",
    ),
    "gamma": (PLAIN, ["segmentation.focal_gamma=1"], "focal_gamma=1.0 plays no role"),
    "class weights": (PLAIN, ["segmentation.class_weights=inverse"], "Did you mean|Known: frequency"),
    "no masks": (
        STUFF,
        ["detector.masks=false"],
        "masks=false with task=panoptic: .* Set detector.masks=true",
    ),
    "overlap": (STUFF, ["panoptic.overlap=2"], r"overlap=2.0 must lie in \[0, 1\]"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_settings(case: str) -> None:
    recipe, settings, message = REFUSED[case]
    with pytest.raises(ResnestError, match=message) as caught:
        override(recipe, settings)
    assert "\n" not in str(caught.value)


def test_polynomial_schedule() -> None:
    """lr * (1 - step / total) ** 0.9 (PyTorch-Encoding's LR_Scheduler, mode poly)."""
    settings = OptimSettings(lr=0.004, lr_batch=16, schedule="poly", warmup_epochs=0)
    for step in (0, 1, 500, 999):
        assert lr_at(step, settings, total=1000, per_epoch=10, batch=16) == pytest.approx(
            0.004 * (1 - step / 1000) ** 0.9
        )
    warm = OptimSettings(lr=1.0, schedule="poly", warmup_epochs=0, warmup_steps=100)
    assert lr_at(100, warm, total=1000, per_epoch=10) == 1.0  # the warm-up ends at the top
    assert lr_at(1000, warm, total=1000, per_epoch=10) == 0.0


# mIoU and pixel accuracy of the authors, percent (facts, section 3.9)
TABLE = {
    "fcn_resnest50_ade20k": (42.94, 80.18),
    "deeplabv3_resnest50_ade20k": (45.12, 81.17),
    "deeplabv3_resnest101_ade20k": (46.91, 82.07),
    "deeplabv3_resnest200_ade20k": (48.36, 82.45),
    "deeplabv3_resnest269_ade20k": (47.60, 82.62),
    "fcn_resnest50_pascal_context": (51.98, 79.19),
    "deeplabv3_resnest50_pascal_context": (53.19, 80.41),
    "deeplabv3_resnest101_pascal_context": (56.49, 81.91),
    "deeplabv3_resnest200_pascal_context": (58.37, 82.50),
    "deeplabv3_resnest269_pascal_context": (58.92, 83.06),
    "deeplabv3_resnest50_cityscapes": (79.87, None),
    "deeplabv3_resnest101_cityscapes": (80.42, None),
    "deeplabv3plus_resnest200_cityscapes": (82.7, None),
}


@pytest.mark.parametrize("name", TABLE)
def test_rows_of_the_paper(name: str) -> None:
    miou, pixels = TABLE[name]
    recipe = find_recipe(name)
    expect, segmenter, images, optim = recipe.expect, recipe.segmenter, recipe.segmentation, recipe.optim
    assert expect and segmenter and images  # noqa: PT018
    assert (expect.published, expect.miou) == (True, pytest.approx(miou / 100))
    assert expect.pixel_accuracy == (pixels and pytest.approx(pixels / 100))
    # facts, section 4.4
    assert (segmenter.stride, segmenter.branch_rates, segmenter.aux_weight) == (8, (12, 24, 36), 0.2)
    assert (segmenter.drop_rate, segmenter.branch_dropout, segmenter.norm_kind) == (0.1, 0.5, "batch")
    assert (optim.schedule, optim.power, optim.head_factor, optim.momentum) == ("poly", 0.9, 10, 0.9)
    assert (recipe.train.sync_norm, recipe.model.freeze, recipe.model.pretrained) == (True, 0, "published")
    epochs, lr = {"ade20k": (180, 0.004), "pascal_context": (80, 0.001), "cityscapes": (240, 0.004)}[
        name.split("_", 2)[2]
    ]
    assert (recipe.train.epochs, optim.lr_for(8 * recipe.train.batch_size)) == (epochs, lr)
    assert images.scale == (0.5, 2.0)
    city = name.endswith("cityscapes")
    assert (images.base, images.crop, images.eval_window) == ((2048, 768, 768) if city else (520, 480, 480))
    assert ("recipe was never published" in expect.note) == city
    assert ("remembered" in expect.note) == (city and name.startswith("deeplabv3_"))


def test_baselines_do_not_claim_the_figure_of_another_network() -> None:
    baselines = [name for name in ROWS if "resnet" in name]
    assert set(ROWS) == {*TABLE, *baselines}
    for name in baselines:
        expect, twin = find_recipe(name).expect, find_recipe(name.replace("resnet", "resnest").replace("d_ade", "_ade"))
        assert expect
        assert expect.miou is expect.pixel_accuracy is None
        told = [name for name, *_ in differences(find_recipe(name), twin) if not name.startswith("expect")]
        assert told == ["name", "summary", "model.name", "model.pretrained"]


def test_the_list_has_a_block_of_them(cli: Callable[..., Outcome]) -> None:
    listed = cli("recipes").out
    assert re.search(r"^Semantic segmentation +mIoU +pixels$", listed, re.MULTILINE)
    assert re.search(r"^  deeplabv3_resnest50_ade20k +45\.12\* +81\.17\*  DeepLabV3 on resnest50", listed, re.MULTILINE)
    assert re.search(r"^  deeplabv3_resnet50d_ade20k +DeepLabV3 .* paper's ResNet-50: 42.10\)$", listed, re.MULTILINE)
    assert "a recipe of our own" in listed
