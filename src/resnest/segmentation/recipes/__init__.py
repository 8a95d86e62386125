"""Recipes of segmenters by name: the paper's, small ones, U-Nets."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from resnest.segmentation.recipes.paper import ROWS, paper
from resnest.segmentation.recipes.settings import SegmentationRecipe
from resnest.segmentation.recipes.small import finetune_segmentation, segment_small
from resnest.segmentation.recipes.unet import finetune_unet, unet_binary, unet_resnest50, unet_small

RECIPES: dict[str, Callable[[], SegmentationRecipe]] = {
    "segment_small": segment_small,
    "finetune_segmentation": finetune_segmentation,
    "unet_small": unet_small,
    "unet_binary": unet_binary,
    "finetune_unet": finetune_unet,
    "unet_resnest50": unet_resnest50,
    **{name: partial(paper, name) for name in ROWS},
}
