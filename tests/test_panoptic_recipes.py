"""Recipes of panoptic detectors: the paper's row, the small ones, their place in the list, settings refused."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from conftest import Outcome
from resnest.errors import ResnestError
from resnest.panoptic.card import PanopticSpec
from resnest.panoptic.recipes import RECIPES
from resnest.recipes import find_recipe, override
from resnest.recipes.reading import differences


def test_the_row_of_the_paper() -> None:
    """Facts, sections 3.8 and 4.1."""
    recipe = find_recipe("panoptic_fpn_resnest200_tricks_3x")
    detector, detection, optim, expect = recipe.detector, recipe.detection, recipe.optim, recipe.expect
    assert detector and detection and expect  # noqa: PT018
    assert (expect.pq, expect.box_ap, expect.mask_ap, expect.published) == (0.479, 0.51, 0.4368, True)
    assert "things 55.1, of stuff 37.0" in expect.note
    assert recipe.panoptic == PanopticSpec(
        channels=128, semantic_weight=0.5, instance_weight=1, score=0.5, overlap=0.5, stuff_area=4096
    )
    assert (detector.cascade, detector.masks, detector.mask_convs, detector.norm) == (True, True, 4, "batch")
    assert (detector.post_nms, any(detector.deform)) == ((2000, 1000), False)
    assert (detection.short, detection.pick, detection.long, detection.crop) == ((400, 1000), "range", 1440, None)
    assert detection.keep_empty
    assert (recipe.model.name, recipe.model.freeze, recipe.model.pretrained) == ("resnest200", 2, "published")
    assert recipe.train.sync_norm
    steps = recipe.train.epochs * 118_287 / 16
    assert steps == pytest.approx(270_000, rel=0.015)
    assert [share * steps for share in optim.decay_at] == pytest.approx([240_000, 255_000], rel=0.015)
    assert optim.lr_for(8 * recipe.train.batch_size) == 0.02


def test_what_it_has_other_than_its_sister() -> None:
    ours, theirs = (
        find_recipe("panoptic_fpn_resnest200_tricks_3x"),
        find_recipe("cascade_mask_rcnn_resnest200_tricks_3x"),
    )
    told = {name for name, *_ in differences(ours, theirs)}
    assert {name for name in told if not name.startswith(("panoptic", "expect"))} == {
        "name", "summary", "task", "detector.mask_convs", "detection.short", "detection.crop", "detection.keep_empty",
    }  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_all_learn_stuff_from_pictures_without_things(name: str) -> None:
    recipe = find_recipe(name)
    assert recipe.name == name
    assert recipe.task == "panoptic"
    assert recipe.detector
    assert recipe.detector.masks
    assert recipe.detection
    assert recipe.detection.keep_empty
    assert recipe.detection.backbone_norm == "frozen" or recipe.train.sync_norm


def test_settings() -> None:
    recipe = find_recipe("panoptic_small")
    changed = override(recipe, ["panoptic.stuff_area=256", "panoptic.semantic_weight=1"])
    assert changed.panoptic == PanopticSpec(channels=64, stuff_area=256, semantic_weight=1)
    for setting, message in (
        ("panoptic.overlap=2", r"panoptic\.overlap=2.0 must lie in \[0, 1\]"),
        ("panoptic.overlapp=0.5", r"Did you mean 'panoptic\.overlap'"),
        ("detector.masks=false", r"things need masks. Set detector.masks=true"),
        ("data.size=320", "data.size=320 plays no role"),
    ):
        with pytest.raises(ResnestError, match=message):
            override(recipe, [setting])
    with pytest.raises(ResnestError, match="has no section 'panoptic'"):
        override(find_recipe("instances_small"), ["panoptic.overlap=0.4"])


def test_the_list_has_a_block_of_them(cli: Callable[..., Outcome]) -> None:
    listed = cli("recipes").out
    assert re.search(r"^Panoptic segmentation +PQ +box AP +mask AP$", listed, re.MULTILINE)
    assert re.search(
        r"^  panoptic_fpn_resnest200_tricks_3x +47\.90\* +51\.00\* +43\.68\*  Panoptic FPN", listed, re.MULTILINE
    )
