"""Exporting a counter: squares, one number a picture, the same number."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from counting.card import CountingCard
from resnest.exporters.capture import Interface
from resnest.exporters.formats import Exporter, Format, Size
from resnest.exporters.gate import Agree, Shape
from resnest.inference.model import Model


class CountingExporter(Exporter):
    """Of a counter."""

    unlike = "another count"

    def sized(self, model: Model, size: Size, form: Format) -> Model:
        side = size if isinstance(size, int) else model.card.preprocess.size
        return replace(model, card=replace(model.card, preprocess=replace(model.card.preprocess, size=side)))

    def interface(self, card: CountingCard, form: Format) -> Interface:
        return Interface(card.in_chans, form.batch, (card.preprocess.size, card.preprocess.size))

    def shapes(self, card: CountingCard, form: Format) -> list[Shape]:
        return [(form.batch or 2, card.in_chans, card.preprocess.size, card.preprocess.size)]

    def agree(self, card: CountingCard) -> Agree:
        return lambda expected, got: np.abs(expected["logits"] - got["logits"])[:, 0] < 1e-3
