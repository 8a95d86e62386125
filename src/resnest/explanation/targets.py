"""What there is to explain in a picture: a label, an object, the pixels of a class. Each task finds its own.

A `Target` has a number that hangs on the network's maps, and `explanation.maps` says by which pixels of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from resnest.errors import unknown
from resnest.explanation.maps import STAGES, Linear
from resnest.network.resnest import Trunk
from resnest.runtime.engines.exported import Prepared

Box = tuple[float, float, float, float]  # x1, y1, x2, y2 in pixels of the network's input
NEAR_ONE = 1e-6  # of a probability, before its log odds


@dataclass(frozen=True, kw_only=True)
class Target:
    """Something that a network says of a picture."""

    label: str
    index: int  # of the class in the network's outputs
    score: float  # as `predict` gives it, 0..1
    value: Tensor  # the number that is explained, (), with a graph back to the watched maps
    what: str  # of that number: "logit"
    linear: Linear | None = None  # of a class whose logit is linear in the last map
    box: Box | None = None
    region: NDArray[np.bool_] | None = None  # (H, W) of the network's input


class Asked(NamedTuple):
    """What targets are asked for."""

    classes: tuple[int, ...] = ()  # numbers of classes; none: what the network predicts
    top: int | None = None  # at most so many; None: as the task has it


class TargetFinder(ABC):
    """A task's part of explaining: finds the targets in a network's outputs."""

    method: ClassVar[str] = "hires-cam"  # by default
    most: ClassVar[int] = 6  # targets of a picture by default

    def __init__(self, net: Any, card: Any) -> None:
        self.net, self.card = net, card

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers whose maps are explained by default, the finest first."""
        return STAGES[-1:]

    @property
    def trunk(self) -> tuple[str, nn.Module]:
        """The ResNeSt and the beginning of its modules' names: "backbone."."""
        net: nn.Module = self.net
        return ("", net) if isinstance(net, Trunk) else ("backbone.", net.backbone)  # type: ignore[return-value]

    def run(self, pixels: Tensor, image: Prepared) -> Any:
        """The network's outputs of (N, C, H, W), all of this image or of variants of it."""
        return self.net(pixels)

    @abstractmethod
    def targets(self, outputs: Any, image: Prepared, asked: Asked) -> list[Target]:
        """The targets of one image, the most important first; `asked.classes` that are not there are left out."""

    @abstractmethod
    def likelihoods(self, outputs: Any, target: Target) -> Tensor:
        """How sure the network is of a target in each of N variants of its image, (N,) 0..1."""

    def inner(self, image: Prepared) -> tuple[int, int]:
        """Height and width of what is no padding in the network's input."""
        wide, high = self.card.preprocess.scaled_size(*image.size)
        return high, wide

    def why_not_exact(self, layers: tuple[str, ...]) -> str:
        """Why a number of this network is no sum over the pixels of these layers, or ""."""
        return f"this model is {self.card.info.noun}, whose head is not linear behind a mean"

    def notes(self) -> list[str]:
        """How what is explained differs from what `predict` does."""
        return []


def numbers_of(names: Sequence[str], card: Any) -> tuple[int, ...]:
    """Numbers of classes by name. Raises ResnestError for an unknown one."""
    known = list(card.class_names)
    for name in names:
        if name not in known:
            raise unknown("class of this model", name, known)
    return tuple(known.index(name) for name in names)


def log_odds(probability: Tensor) -> Tensor:
    """The logit of a probability: near 1 its own gradient vanishes."""
    return torch.logit(probability, eps=NEAR_ONE)


def region_targets(
    logits: Tensor,
    regions: Sequence[NDArray[np.bool_]],
    probabilities: Tensor,
    names: Sequence[str],
    asked: Asked,
    *,
    first: int = 0,
) -> list[Target]:
    """Classes of pixels: the mean logit of a class in its region, the largest region first (Seg-Grad-CAM, 2020).

    Args:
        logits: (K, H, W) with a graph.
        regions: of each class, (H, W); one that is empty is no target.
        probabilities: (K, H, W).
        first: what the first of these classes is called in `Target.index`.
    """
    order = sorted(range(len(regions)), key=lambda k: -int(regions[k].sum()))
    wanted = [k for k in order if regions[k].any() and (not asked.classes or k in asked.classes)]
    found = []
    for k in wanted:
        inside = torch.from_numpy(regions[k]).to(logits.device)
        high, wide = regions[k].shape
        score = float(probabilities[k, :high, :wide][inside].mean())
        value = logits[k, :high, :wide][inside].mean()
        what = "mean logit of its pixels"
        found.append(Target(label=names[k], index=first + k, score=score, value=value, what=what, region=regions[k]))
    return found
