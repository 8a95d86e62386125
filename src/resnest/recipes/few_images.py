"""Detectors for a few hundred annotated pictures: on a CPU with a small network, or with a published one.

resnest train detect_small --data cells --out runs/cells --set model.pretrained=runs/a
resnest train finetune_detection --data cells --out runs/cells

With few images a step, batch norm would estimate its statistics from too little: here the network keeps those that it
was loaded with, and pyramid and heads use group norm (arXiv 1803.08494). Start from weights: published ones, or those
of a classifier that you trained yourself (`model.pretrained=RUN`).

The choices are usual ones; what was measured is in docs/detection.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from resnest.data.settings import DataSettings, DetectionSettings
from resnest.detector_spec import DetectorSpec
from resnest.recipes.schema import PUBLISHED_WEIGHTS, Expect, ModelSettings, OptimSettings, Recipe, TrainSettings

# A quarter of the paper's widths, a quarter of its proposals, two linear layers in place of four convolutions.
SMALL = DetectorSpec(
    fpn_channels=64,
    norm="group",
    anchor_sizes=(16, 32, 64, 128, 256),
    rpn_batch=128,
    pre_nms=(600, 300),
    post_nms=(300, 300),
    roi_batch=128,
    box_convs=0,
    box_fcs=2,
    box_channels=64,
    box_features=256,
    mask_convs=2,
    mask_channels=64,
)
HALF_WIDTH = {"planes": [32, 64, 128, 256], "stem_width": 16}  # that of the recipe imagenette


def detect_small() -> Recipe:
    """Boxes on a CPU in half an hour."""
    return Recipe(
        name="detect_small",
        summary="boxes on a few hundred pictures, a small network, a CPU",
        task="detection",
        model=ModelSettings(name="resnest14", spec=dict(HALF_WIDTH)),
        data=DataSettings(),
        detector=SMALL,
        detection=DetectionSettings(short=(224, 288), long=512, eval_short=256, eval_long=512, backbone_norm="frozen"),
        optim=_schedule(lr=0.02, lr_batch=4, warmup_steps=100),
        train=TrainSettings(epochs=24, batch_size=4, clip_norm=10.0, eval_batch_size=8),
        expect=Expect(
            box_ap=0.573,
            within=0.03,
            note="BCCD, seed 0, from a classifier of imagenette128, 15 minutes on one core; results/bccd.csv",
        ),
    )


def instances_small() -> Recipe:
    """Many small objects with masks, pictures without an up and a down: cells, nuclei, satellites."""
    return Recipe(
        name="instances_small",
        summary="masks of many small objects, a small network, a CPU",
        task="detection",
        model=ModelSettings(name="resnest14", spec=dict(HALF_WIDTH)),
        data=DataSettings(),
        detector=replace(
            SMALL,
            masks=True,
            anchor_sizes=(8, 16, 32, 64, 128),
            rpn_batch=256,
            pre_nms=(1000, 1000),
            post_nms=(400, 600),
            roi_batch=128,
            max_detections=400,
        ),
        detection=DetectionSettings(
            short=(224, 320),
            long=512,
            eval_short=320,
            eval_long=640,
            flip_vertical=True,
            rotate=True,
            backbone_norm="frozen",
        ),
        optim=_schedule(lr=0.02, lr_batch=4, warmup_steps=100),
        train=TrainSettings(epochs=12, batch_size=4, clip_norm=10.0, eval_batch_size=4),
        expect=Expect(
            box_ap=0.452,
            mask_ap=0.474,
            within=0.03,
            note="nuclei of the Data Science Bowl, seed 0, from a classifier of imagenette128; results/nuclei.csv",
        ),
    )


def finetune_detection() -> Recipe:
    """Faster R-CNN on the published ResNeSt-50; a GPU, or patience."""
    return Recipe(
        name="finetune_detection",
        summary="boxes on your own pictures, from published weights",
        task="detection",
        model=ModelSettings(name="resnest50", pretrained=PUBLISHED_WEIGHTS, freeze=2),
        data=DataSettings(),
        detector=DetectorSpec(norm="group"),
        detection=DetectionSettings(
            short=(480, 800), eval_short=640, eval_long=1066, long=1333, backbone_norm="frozen"
        ),
        optim=_schedule(lr=0.02, lr_batch=16, warmup_steps=200),
        train=TrainSettings(epochs=30, batch_size=4, patience=8, eval_batch_size=4),
    )


def finetune_instances() -> Recipe:
    """The same with masks."""
    boxes = finetune_detection()
    return replace(
        boxes,
        name="finetune_instances",
        summary="masks on your own pictures, from published weights",
        detector=DetectorSpec(masks=True, norm="group"),
        train=replace(boxes.train, batch_size=2, eval_batch_size=2),
    )


def _schedule(*, lr: float, lr_batch: int, warmup_steps: int) -> OptimSettings:
    return OptimSettings(
        lr=lr, lr_batch=lr_batch, nesterov=False, warmup_epochs=0.0, warmup_steps=warmup_steps, warmup_factor=0.001
    )


FEW_IMAGES: dict[str, Callable[[], Recipe]] = {
    "detect_small": detect_small,
    "instances_small": instances_small,
    "finetune_detection": finetune_detection,
    "finetune_instances": finetune_instances,
}
