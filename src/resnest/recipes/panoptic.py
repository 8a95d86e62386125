"""Panoptic FPN: the paper's row on COCO (arXiv 2004.08955, section 5), and recipes for pictures of one's own.

torchrun --nproc-per-node 8 -m resnest train panoptic_fpn_resnest200_tricks_3x --data coco --out runs/200
resnest train panoptic_small --data scenes --out runs/scenes --set model.pretrained=runs/a

The paper's row is the authors' detectron2 configuration (facts, sections 3.8 and 4.1): Cascade Mask R-CNN of the other
rows with four mask convolutions and a semantic branch, short sides of 400 to 1000 pixels. What differs from it, and the
small recipes, is as for detectors (recipes/detection.py, recipes/few_images.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from resnest.data.settings import DetectionSettings
from resnest.recipes.detection import CASCADE_MASK, paper
from resnest.recipes.few_images import finetune_instances, instances_small
from resnest.recipes.schema import Expect, Recipe
from resnest.segmenter_spec import PanopticSpec

INSTANCES = "cascade_mask_rcnn_resnest200_tricks_3x"  # the row with the same network and schedule


def panoptic_fpn_resnest200_tricks_3x() -> Recipe:
    """270,000 steps of 16 images are 36.5 epochs of COCO's 118,287, here 37."""
    return replace(
        paper(INSTANCES),
        name="panoptic_fpn_resnest200_tricks_3x",
        summary="Panoptic FPN with Cascade Mask R-CNN on resnest200, COCO, 37 epochs, tricks",
        task="panoptic",
        detector=CASCADE_MASK,
        detection=DetectionSettings(short=(400, 1000), long=1440, keep_empty=True),
        panoptic=PanopticSpec(),
        expect=Expect(
            pq=0.479,
            box_ap=0.51,
            mask_ap=0.4368,
            published=True,
            note="COCO val2017, published (detectron2, 8 GPUs); PQ of things 55.1, of stuff 37.0. Their configuration"
            " switches test-time augmentation on (short sides of 400 to 1200, mirrored); which of these figures have"
            " it is not known",
        ),
    )


def panoptic_small() -> Recipe:
    """Things and stuff of a few hundred pictures on a CPU."""
    small = instances_small()
    assert small.detector is not None
    return replace(
        small,
        name="panoptic_small",
        summary="things and stuff of a few hundred pictures, a small network, a CPU",
        task="panoptic",
        detector=replace(small.detector, anchor_sizes=(16, 32, 64, 128, 256), post_nms=(400, 300), max_detections=100),
        detection=DetectionSettings(
            short=(224, 288), long=512, eval_short=256, eval_long=512, keep_empty=True, backbone_norm="frozen"
        ),
        panoptic=PanopticSpec(channels=64),
        expect=None,
    )


def finetune_panoptic() -> Recipe:
    """Panoptic FPN on the published ResNeSt-50; a GPU, or patience."""
    instances = finetune_instances()
    assert instances.detection is not None
    return replace(
        instances,
        name="finetune_panoptic",
        summary="things and stuff of your own pictures, from published weights",
        task="panoptic",
        detection=replace(instances.detection, keep_empty=True),
        panoptic=PanopticSpec(),
    )


PANOPTIC: dict[str, Callable[[], Recipe]] = {
    "panoptic_small": panoptic_small,
    "finetune_panoptic": finetune_panoptic,
    "panoptic_fpn_resnest200_tricks_3x": panoptic_fpn_resnest200_tricks_3x,
}
