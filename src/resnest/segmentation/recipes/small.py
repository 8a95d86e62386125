"""Segmenters for a few hundred pictures with masks, on a CPU or from a published network.

resnest train segment_small --data streets --out runs/streets --set model.pretrained=runs/a
resnest train finetune_segmentation --data streets --out runs/streets

With few images a step, batch norm would estimate its statistics from too little: here the network keeps those that it
was loaded with, and the heads use group norm (arXiv 1803.08494). Without weights to start from, give the attention a
norm of its own: `model.spec.attention_norm=layer` with `segmentation.backbone_norm=batch`.
"""

from __future__ import annotations

from resnest.data.settings import DataSettings
from resnest.recipes.schema import PUBLISHED_WEIGHTS, ModelSettings, OptimSettings, TrainSettings
from resnest.segmentation.recipes.settings import SegmentationExpect, SegmentationRecipe, SegmentationSettings
from resnest.segmentation.spec import SegmenterSpec

HALF_WIDTH = {"planes": [32, 64, 128, 256], "stem_width": 16}  # that of the recipe imagenette


def segment_small() -> SegmentationRecipe:
    """Semantic segmentation on a CPU in less than an hour."""
    return SegmentationRecipe(
        name="segment_small",
        summary="a class for every pixel on a few hundred pictures, a small network, a CPU",
        model=ModelSettings(name="resnest14", spec=dict(HALF_WIDTH)),
        data=DataSettings(jitter=0.2),
        segmenter=SegmenterSpec(output_stride=16, channels=64, norm="group"),
        segmentation=SegmentationSettings(base=480, scale=(0.75, 1.5), crop=256, backbone_norm="frozen"),
        optim=OptimSettings(
            name="muon",
            lr=2e-3,
            lr_batch=8,
            momentum=0.95,
            weight_decay=0.05,
            schedule="poly",
            warmup_epochs=0.0,
            warmup_steps=50,
            head_factor=2.0,
        ),
        train=TrainSettings(epochs=16, batch_size=8, clip_norm=10.0, eval_batch_size=8),
        expect=SegmentationExpect(
            miou=0.537,
            pixel_accuracy=0.891,
            tolerance=0.03,
            note="CamVid, seed 0, from a classifier of imagenette128, 36 minutes on one core; results/camvid.csv",
        ),
    )


def finetune_segmentation() -> SegmentationRecipe:
    """DeepLabV3 on the published ResNeSt-50; for a GPU."""
    return SegmentationRecipe(
        name="finetune_segmentation",
        summary="a class for every pixel of your own pictures, from published weights",
        model=ModelSettings(name="resnest50", pretrained=PUBLISHED_WEIGHTS),
        data=DataSettings(jitter=0.2),
        segmenter=SegmenterSpec(norm="group"),
        segmentation=SegmentationSettings(backbone_norm="frozen"),
        optim=OptimSettings(
            lr=0.004,
            lr_batch=16,
            nesterov=False,
            schedule="poly",
            warmup_epochs=0.0,
            warmup_steps=50,
            head_factor=10.0,
        ),
        train=TrainSettings(epochs=60, batch_size=4, patience=12, clip_norm=10.0, eval_batch_size=4),
    )
