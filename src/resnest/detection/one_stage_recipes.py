"""Recipes of one-stage detectors: RetinaNet and FCOS on COCO as detectron2 trains them, and small ones for a CPU.

resnest train retinanet_small --data cells --out runs/cells --set model.pretrained=runs/a
torchrun --nproc-per-node 8 -m resnest train fcos_resnest50 --data coco --out runs/fcos

The authors of ResNeSt published no figure of either. What is stated is that of plain ResNet-50: detectron2's model zoo,
retinanet_R_50_FPN_1x, and AdelaiDet's configs/FCOS-Detection, FCOS_R_50_1x, of the authors of FCOS. The counterparts
with ResNet-50-D are equal to ours but for the network. Settings are those of detectron2 (configs/Base-RetinaNet.yaml,
configs/COCO-Detection/fcos_R_50_FPN_1x.py), except that the pyramid has the batch norms of the ResNeSt paper's
detectors, and that epochs are counted, as in `recipes`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from resnest.detection.card import DetectorSpec
from resnest.detection.recipes import DetectionExpect, DetectionRecipe, DetectionSettings, detect_small, paper


@dataclass(frozen=True)
class Baseline:
    """What was published of a kind on plain ResNet-50."""

    box: float  # AP on COCO val2017, percent
    source: str


BASELINES = {
    "retinanet": Baseline(36.5, "detectron2's model zoo, retinanet_R_50_FPN_1x"),
    "fcos": Baseline(38.7, "AdelaiDet, FCOS_R_50_1x"),
}
LIKE = {"resnest50": "faster_rcnn_resnest50", "resnet50d": "faster_rcnn_resnet50d"}  # network, data and schedule


def coco(kind: str, network: str) -> DetectionRecipe:
    """Twelve epochs of COCO."""
    base, detector, known = paper(LIKE[network]), DetectorSpec(kind=kind), BASELINES[kind]
    return replace(
        base,
        name=f"{kind}_{network}",
        summary=f"{detector.title} on {network}, COCO, 12 epochs (a plain ResNet-50, published: {known.box})",
        detector=detector,
        detection=DetectionSettings(short=tuple(range(640, 801, 32)), pick="choice"),
        optim=replace(base.optim, lr=0.01),
        expect=DetectionExpect(
            published=True, note=f"COCO val2017, published for a plain ResNet-50: box AP {known.box} ({known.source})"
        ),
    )


# A quarter of the usual width, two convolutions a branch, anchors for pictures of 256 pixels.
SMALL = DetectorSpec(
    kind="retinanet",
    fpn_channels=64,
    norm="group",
    head_norm="group",
    head_convs=2,
    anchor_sizes=(16, 32, 64, 128, 256),
    candidates=300,
)


def retinanet_small() -> DetectionRecipe:
    """`detect_small` with a RetinaNet."""
    base = detect_small()
    return replace(
        base,
        name="retinanet_small",
        summary="boxes by RetinaNet, a small network, a CPU; exports to any size",
        detector=SMALL,
        optim=replace(base.optim, lr=0.01),
        expect=None,
    )


def fcos_small() -> DetectionRecipe:
    """`detect_small` with FCOS."""
    return replace(
        retinanet_small(),
        name="fcos_small",
        summary="boxes by FCOS, without anchors, a small network, a CPU; exports to any size",
        detector=DetectorSpec(kind="fcos", fpn_channels=64, norm="group", head_convs=2, candidates=300),
    )


RECIPES: dict[str, Callable[[], DetectionRecipe]] = {
    "retinanet_small": retinanet_small,
    "fcos_small": fcos_small,
    **{f"{kind}_{network}": partial(coco, kind, network) for kind in BASELINES for network in LIKE},
}
