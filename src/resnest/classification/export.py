"""Exporter of classifiers: square images of a fixed or any size in, logits out; labels are compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from resnest.classification.card import ClassificationCard
from resnest.errors import ResnestError, parameter
from resnest.exporters.calibration import pixels
from resnest.exporters.capture import Interface
from resnest.exporters.formats import MAX_PIXELS, Exporter, Format, Size
from resnest.exporters.gate import SIZES, TOLERANCE, Agree, Shape
from resnest.exporters.int8 import same_label, same_labels
from resnest.inference.model import Model
from resnest.runtime.engines.exported import FEATURES
from resnest.runtime.results import LIKELY

BATCHES = (1, 2, 5)


class LogitsAndFeatures(NamedTuple):
    """Outputs of a file that gives both: (N, K) and (N, D)."""

    logits: Tensor
    features: Tensor


class WithFeatures(nn.Module):
    """A classifier that gives what its linear head gets, too."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net: Any = net

    def forward(self, images: Tensor) -> LogitsAndFeatures:
        features = self.net.forward_head(self.net.forward_features(images), pre_logits=True)
        return LogitsAndFeatures(self.net.fc(features), features)


class ClassificationExporter(Exporter):
    """Exporter of classifiers."""

    int8 = True
    can_give_features = True

    def sized(self, model: Model, size: Size, form: Format) -> Model:
        """Engines require that the last stage's shortcut can pool 2 x 2 pixels; torch does not."""
        side = size if size is not None else model.card.preprocess.size  # type: ignore[attr-defined]
        if isinstance(side, tuple):
            raise ResnestError(f"{parameter('size', side)}: a classifier takes squares, give one number")
        least = model.net.feature_info[-2]["reduction"] + 1
        if not least <= side <= MAX_PIXELS:
            own = f"{model.source} takes images of {side} x {side} pixels"
            what = own if size is None else parameter("size", side)
            raise ResnestError(
                f"{what}: to export this network, images must have {least} to {MAX_PIXELS} pixels a side"
            )
        preprocess = replace(model.card.preprocess, size=side)  # type: ignore[type-var]
        return replace(model, card=replace(model.card, preprocess=preprocess))

    def interface(self, card: ClassificationCard, form: Format) -> Interface:
        side = card.preprocess.size
        outputs = ("logits", FEATURES) if self.features else ("logits",)
        return Interface(card.in_chans, form.batch, None if form.any_size else (side, side), outputs)

    def module(self, model: Model) -> nn.Module:
        fast = super().module(model)
        return WithFeatures(fast) if self.features else fast

    def reference(self, model: Model) -> nn.Module:
        return WithFeatures(model.net) if self.features else model.net

    def tolerances(self, card: ClassificationCard) -> Mapping[str, float]:
        return {"logits": TOLERANCE, FEATURES: TOLERANCE} if self.features else {"logits": TOLERANCE}

    def shapes(self, card: ClassificationCard, form: Format) -> list[Shape]:
        """Every batch at every size and at the card's, as far as the format allows."""
        own = (card.preprocess.size, card.preprocess.size)
        sizes = dict.fromkeys([*(SIZES if form.any_size else ()), own])
        counts = [form.batch] if form.batch else BATCHES
        return [(count, card.in_chans, high, wide) for high, wide in sizes for count in counts]

    def agree(self, card: ClassificationCard) -> Agree:
        return same_labels if card.multi_label else same_label

    def settings(self, card: ClassificationCard) -> Mapping[str, Any]:
        return {"multi_label": card.multi_label, "threshold": LIKELY.threshold}

    def batches(self, card: Any, images: Sequence[Image.Image], size: int) -> Iterator[NDArray[np.float32]]:
        for start in range(0, len(images), size):
            yield np.stack([pixels(card, image) for image in images[start : start + size]])
