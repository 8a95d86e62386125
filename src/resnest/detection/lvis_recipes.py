"""The paper's detectors for LVIS v1: repeat-factor sampling, Seesaw loss, normalised classifier, 300 detections.

torchrun --nproc-per-node 8 -m resnest train lvis_mask_rcnn_resnest50 --data lvis --out runs/lvis

Settings beside the network's and the detector's are those of mmdet's "2x" (configs/seesaw_loss): 24 epochs, rate down
at 16 and 22. There an epoch is longer, as it has every repeated picture; here it keeps its length. No figure of a
ResNeSt on LVIS is published; those of mmdet's plain ResNets stand beside the recipes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from resnest.data.long_tail import USUAL_THRESHOLD
from resnest.detection.recipes import DetectionRecipe, paper

LIMIT, LOWEST = 300, 1e-4  # detections an image, and their score (mmdet and detectron2, configurations for LVIS)
EPOCHS = 24
DECAY_AT = (0.6667, 0.9167)


class Published(NamedTuple):
    """Percent on LVIS v1 val, of mmdet's detector on a plain ResNet with repeat-factor sampling and Seesaw loss."""

    network: str
    box: float
    mask: float


LVIS = {  # by the recipe for COCO
    "mask_rcnn_resnest50": Published("ResNet-50", 27.6, 26.4),
    "cascade_mask_rcnn_resnest101": Published("ResNet-101", 30.0, 29.3),
}


def on_lvis(name: str) -> DetectionRecipe:
    """The paper's recipe of this name, trained on LVIS in place of COCO."""
    recipe, published = paper(name), LVIS[name]
    assert recipe.expect
    detector = replace(
        recipe.detector,
        class_loss="seesaw",
        normed_classifier=True,
        max_detections=LIMIT,
        score_threshold=LOWEST,
    )
    figures = f"box AP {published.box}, mask AP {published.mask}"
    return replace(
        recipe,
        name=f"lvis_{recipe.name}",
        summary=f"{detector.title} on {recipe.model.name}, LVIS, {EPOCHS} epochs, Seesaw"
        f" (mmdet's on {published.network}: {published.box}, {published.mask})",
        detector=detector,
        data=replace(recipe.data, repeat_threshold=USUAL_THRESHOLD),
        optim=replace(recipe.optim, decay_at=DECAY_AT),
        train=replace(recipe.train, epochs=EPOCHS),
        expect=replace(
            recipe.expect,
            box_ap=None,
            mask_ap=None,
            note=f"LVIS v1 val, published by mmdet for a plain {published.network}: {figures}; nothing is published for"
            " a ResNeSt",
        ),
    )


RECIPES: dict[str, Callable[[], DetectionRecipe]] = {f"lvis_{name}": partial(on_lvis, name) for name in LVIS}
