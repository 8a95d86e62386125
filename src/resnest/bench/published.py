"""Published ImageNet top-1 of the networks in the paper's first figure, each with its crop.

    figure_of("resnest101")                  # Figure(family="ResNeSt", label="101", size=256, top1=82.83, ...)
    figure_of("timm:tf_efficientnet_b2")
    list(FAMILIES["EfficientNet"])           # names as `resnest bench` takes them

The peers are those of the paper's time, trained on ImageNet-1k alone: EfficientNet with AutoAugment (the weights that
the paper compares with), ResNet-D as GluonCV trained it, and ConvNeXt as the one that came later. Newer recipes lift
all of them: timm has a ResNet-50-D with 81.4 %.
"""

from __future__ import annotations

from dataclasses import dataclass

from resnest.errors import ResnestError
from resnest.spec import PUBLISHED, find_spec

# timm's results-imagenet.csv as of commit 0173a139 of huggingface/pytorch-image-models: model, top1, img_size
_TIMM = "timm results/results-imagenet.csv, {}"
_CONVNEXT = "ConvNeXt repository, README, ImageNet-1K trained models"  # and arXiv 2201.03545, table 1


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Published top-1 and crop of a network."""

    family: str
    label: str
    size: int  # evaluation crop, pixels
    top1: float  # percent
    source: str


def _efficientnet(level: int, size: int, top1: float) -> tuple[str, Figure]:
    name = f"tf_efficientnet_b{level}"
    told = _TIMM.format(f"{name}.aa_in1k")
    return f"timm:{name}", Figure(family="EfficientNet", label=f"B{level}", size=size, top1=top1, source=told)


def _resnet_d(depth: int, top1: float) -> tuple[str, Figure]:
    told = _TIMM.format(f"resnet{depth}d.gluon_in1k")
    return f"timm:resnet{depth}d", Figure(family="ResNet-D", label=str(depth), size=224, top1=top1, source=told)


def _convnext(name: str, top1: float) -> tuple[str, Figure]:
    label = name[0].upper()
    return f"timm:convnext_{name}", Figure(family="ConvNeXt", label=label, size=224, top1=top1, source=_CONVNEXT)


def _resnest(depth: int) -> tuple[str, Figure]:
    name = f"resnest{depth}"
    net = PUBLISHED[name]
    told = "GluonCV model zoo" if depth < 50 else "ResNeSt repository, README"
    return name, Figure(family="ResNeSt", label=str(depth), size=net.crop, top1=net.top1, source=told)


FIGURES: dict[str, Figure] = dict(
    [
        *map(_resnest, (14, 26, 50, 101, 200, 269)),
        _efficientnet(0, 224, 76.834),
        _efficientnet(1, 240, 78.830),
        _efficientnet(2, 260, 80.084),
        _efficientnet(3, 300, 81.644),
        _efficientnet(4, 380, 83.018),
        _efficientnet(5, 456, 83.688),
        _efficientnet(6, 528, 84.116),
        _efficientnet(7, 600, 84.414),
        _resnet_d(50, 79.078),
        _resnet_d(101, 80.426),
        _resnet_d(152, 80.476),
        _convnext("tiny", 82.1),
        _convnext("small", 83.1),
        _convnext("base", 83.8),
    ]
)
FAMILIES: dict[str, list[str]] = {
    family: [name for name, figure in FIGURES.items() if figure.family == family]
    for family in dict.fromkeys(figure.family for figure in FIGURES.values())
}


def figure_of(model: str) -> Figure | None:
    """The published figure of a network under any of its names; None for an unknown one."""
    if model in FIGURES:
        return FIGURES[model]
    try:
        return FIGURES.get(find_spec(model.removeprefix("timm:"))[1])
    except ResnestError:
        return None
