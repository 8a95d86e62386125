"""Settings of a segmenter's losses, and weights of classes by their frequency. No torch.

LossSettings(loss={"cross_entropy": 1, "dice": 1}, class_weights="frequency")
median_frequency(pixels, images)          # (K,) weights, from counts of the training masks
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from resnest.errors import ResnestError, check_ranges, unknown
from resnest.spec import NotNegative, Rate

LOSSES = ("cross_entropy", "bce", "dice", "jaccard", "tversky", "focal", "lovasz")
FREQUENCY = "frequency"
USUAL_TVERSKY = (0.3, 0.7)  # arXiv 1706.05721, section 3: the best of those that were tried
USUAL_GAMMA = 2.0  # arXiv 1708.02002, section 3.2


@dataclass(frozen=True, kw_only=True)
class LossSettings:
    """What a segmenter learns by: a sum of losses.

    Raises:
        ResnestError: an unknown loss, weights that are negative or all zero.
    """

    # weights by name; none: {cross_entropy: 1}, or for a multi-label segmenter {bce: 1}
    loss: dict[str, float] | None = None
    class_weights: tuple[float, ...] | str | None = None  # one a class; "frequency": median-frequency balancing
    label_smoothing: Rate = 0.0  # cross_entropy and bce: this share of the truth is spread evenly over the answers
    loss_over: Literal["batch", "image"] = "batch"  # dice, jaccard, tversky, lovasz: pixels that one ratio is of
    tversky: tuple[float, float] = USUAL_TVERSKY  # weights of false positives and of false negatives
    focal_gamma: NotNegative = USUAL_GAMMA  # 0: cross-entropy

    def __post_init__(self) -> None:
        object.__setattr__(self, "tversky", tuple(self.tversky))
        if isinstance(self.class_weights, list | tuple):
            object.__setattr__(self, "class_weights", tuple(self.class_weights))
        check_ranges(self, "segmentation.")
        if self.loss_over not in ("batch", "image"):
            raise unknown("segmentation.loss_over", str(self.loss_over), ("batch", "image"))
        if self.loss is not None:
            _check_losses(self.loss)
        _check_class_weights(self.class_weights)
        if len(self.tversky) != 2 or not all(map(_is_weight, self.tversky)) or not any(self.tversky):
            raise ResnestError(
                f"segmentation.tversky={list(self.tversky)} must be the weights of false positives and of false"
                f" negatives, such as {list(USUAL_TVERSKY)}"
            )

    def losses(self, *, multi_label: bool) -> dict[str, float]:
        """Weights of the losses in the sum, without those that are zero."""
        chosen = self.loss or {"bce" if multi_label else "cross_entropy": 1.0}
        return {name: weight for name, weight in chosen.items() if weight}

    def contradictions(self, *, multi_label: bool) -> Iterator[str]:
        """What does not go together, one line each."""
        losses = self.losses(multi_label=multi_label)
        if multi_label and "cross_entropy" in losses:
            yield (
                "segmentation.loss has cross_entropy with segmenter.multi_label=true: cross-entropy is of classes that"
                " exclude each other. Take bce in its place, or set segmenter.multi_label=false"
            )
        if not multi_label and "bce" in losses:
            yield (
                "segmentation.loss has bce with segmenter.multi_label=false: bce asks every class by itself, and here"
                " a pixel has one class. Take cross_entropy in its place"
            )
        for name, is_set, users in (
            ("label_smoothing", self.label_smoothing != 0, ("cross_entropy", "bce")),
            ("loss_over", self.loss_over != "batch", ("dice", "jaccard", "tversky", "lovasz")),
            ("tversky", self.tversky != USUAL_TVERSKY, ("tversky",)),
            ("focal_gamma", self.focal_gamma != USUAL_GAMMA, ("focal",)),
        ):
            if is_set and not losses.keys() & set(users):
                value = getattr(self, name)
                yield (
                    f"segmentation.{name}={list(value) if isinstance(value, tuple) else value} plays no role: it is for"
                    f" {', '.join(users)}, and segmentation.loss is {losses}. Leave it out, or change the loss"
                )

    def weights_of(self, class_names: Sequence[str]) -> tuple[float, ...] | None:
        """Given weights of these classes. Raises ResnestError: not as many weights as classes."""
        if self.class_weights is None or isinstance(self.class_weights, str):
            return None
        if len(self.class_weights) != len(class_names):
            some = ", ".join(class_names[:5]) + (", ..." if len(class_names) > 5 else "")
            raise ResnestError(
                f"segmentation.class_weights has {len(self.class_weights)} weights, and the data has"
                f" {len(class_names)} classes ({some}): give one for each, in this order"
            )
        return self.class_weights


def _is_weight(value: object) -> bool:
    """Whether a value, possibly from a file, is a finite number of 0 or more."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def _check_losses(losses: dict[str, float]) -> None:
    for name, weight in losses.items():
        if name not in LOSSES:
            raise unknown("loss of segmentation.loss", str(name), LOSSES)
        if not _is_weight(weight):
            raise ResnestError(f"segmentation.loss: the weight {weight!r} of {name} must be a number of 0 or more")
    if not any(losses.values()):
        raise ResnestError(
            f"segmentation.loss={losses} has no loss with a weight: nothing would be learned. Give one, such as"
            " {cross_entropy: 1, dice: 1}"
        )


def _check_class_weights(weights: tuple[float, ...] | str | None) -> None:
    if weights is None:
        return
    if isinstance(weights, str):
        if weights != FREQUENCY:
            raise unknown("segmentation.class_weights", weights, (FREQUENCY,), hint="Or give a list of numbers.")
        return
    for weight in weights:
        if not _is_weight(weight):
            raise ResnestError(f"segmentation.class_weights: {weight!r} must be a number of 0 or more")
    if not any(weights):
        raise ResnestError(
            f"segmentation.class_weights={list(weights)} has no weight above 0: nothing would be learned. Leave it out"
            " to weigh all classes alike"
        )


def median_frequency(pixels: NDArray[np.int64], of: NDArray[np.int64]) -> NDArray[np.float64]:
    """Median-frequency balancing (Eigen and Fergus, arXiv 1411.4734, section 6.3.2; usual for CamVid since SegNet).

    A class's frequency is that in the pictures that show it; its weight is the median of all frequencies by its own, 0
    of a class that no picture shows.

    Args:
        pixels: (K,) of each class in all masks.
        of: (K,) all pixels that count in the masks that show the class.
    """
    shown = pixels > 0
    weights = np.zeros(len(pixels))
    if shown.any():
        frequencies = pixels[shown] / of[shown]
        weights[shown] = np.median(frequencies) / frequencies
    return weights
