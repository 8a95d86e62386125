"""U-Nets: on a CPU, from a published network with few pictures, and with batch norms throughout.

resnest train unet_small --data streets --out runs/streets --set model.pretrained=runs/a
resnest train unet_binary --data cells --out runs/cells --set model.pretrained=runs/a
resnest train finetune_unet --data streets --out runs/streets
resnest train unet_resnest50 --data streets --out runs/streets

The settings are those that users of segmentation_models_pytorch take: AdamW, a tenth of the decoder's rate for the
pretrained network, cosine decay. The decoder has batch norms also where the network's statistics are frozen: its maps
are large, so that a few images have many values per channel. The loss is cross-entropy, or of masks that may overlap
BCE, plus Dice. Those on ResNeSt-50 were not measured.
"""

from __future__ import annotations

from dataclasses import replace

from resnest.data.settings import DataSettings
from resnest.recipes.schema import PUBLISHED_WEIGHTS, ModelSettings, OptimSettings, TrainSettings
from resnest.segmentation.recipes.settings import SegmentationExpect, SegmentationRecipe, SegmentationSettings
from resnest.segmentation.recipes.small import segment_small
from resnest.segmentation.spec import SegmenterSpec

LOSS = {"cross_entropy": 1.0, "dice": 1.0}


def unet_small() -> SegmentationRecipe:
    """A U-Net on a CPU; all but the head and the loss as `segment_small`."""
    base = segment_small()
    return replace(
        base,
        name="unet_small",
        summary="a U-Net on a few hundred pictures, a small network, a CPU",
        segmenter=SegmenterSpec(head="unet", decoder_channels=(128, 64, 32, 32, 16)),
        segmentation=replace(base.segmentation, loss=dict(LOSS)),
        train=replace(base.train, epochs=24),
        expect=SegmentationExpect(
            miou=0.678,
            pixel_accuracy=0.930,
            tolerance=0.03,
            note="CamVid, seed 0, from a classifier of imagenette128, 51 minutes on one core; results/decoders.csv",
        ),
    )


def unet_binary() -> SegmentationRecipe:
    """A U-Net for binary or multi-label masks of medical pictures and the like on a CPU; otherwise as `unet_small`."""
    base = unet_small()
    return replace(
        base,
        name="unet_binary",
        summary="a U-Net for binary masks, or several that overlap, of pictures without an up and a down; a CPU",
        segmenter=replace(base.segmenter, multi_label=True),
        segmentation=replace(base.segmentation, loss={"bce": 1.0, "dice": 1.0}, flip_vertical=True),
        expect=None,
    )


def finetune_unet() -> SegmentationRecipe:
    """A U-Net on the published ResNeSt-50, for few pictures; for a GPU."""
    return _on_resnest50(
        "finetune_unet",
        "a U-Net for your own pictures, from published weights whose statistics stay",
        SegmentationSettings(backbone_norm="frozen", loss=dict(LOSS)),
        TrainSettings(epochs=60, batch_size=8, patience=12, clip_norm=10.0, eval_batch_size=4),
    )


def unet_resnest50() -> SegmentationRecipe:
    """A U-Net on the published ResNeSt-50 with batch norms throughout, as smp's users train it; for a GPU."""
    return _on_resnest50(
        "unet_resnest50",
        "a U-Net on ResNeSt-50 with batch norms throughout, 16 images a step",
        SegmentationSettings(crop=512, base=640, loss=dict(LOSS)),
        TrainSettings(epochs=100, batch_size=16, eval_batch_size=4),
    )


def _on_resnest50(name: str, summary: str, images: SegmentationSettings, train: TrainSettings) -> SegmentationRecipe:
    return SegmentationRecipe(
        name=name,
        summary=summary,
        model=ModelSettings(name="resnest50", pretrained=PUBLISHED_WEIGHTS),
        data=DataSettings(jitter=0.2),
        segmenter=SegmenterSpec(head="unet"),
        segmentation=images,
        optim=OptimSettings(
            name="adamw",
            lr=1e-4,
            lr_batch=16,
            weight_decay=0.01,
            schedule="cosine",
            warmup_epochs=0.0,
            warmup_steps=100,
            head_factor=10.0,
        ),
        train=train,
    )
