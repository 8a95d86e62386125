"""From a counter's output to a count. No torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from counting.card import CountingCard
from counting.result import Count
from resnest.errors import ResnestError
from resnest.runtime.engines.exported import Engine, Prepared, Shape, Views, stack_pixels


def predict(engine: Engine, card: CountingCard, images: Sequence[Prepared], views: Views | None = None) -> list[Count]:
    logits = engine(stack_pixels(images), np.array([image.pixels.shape[1:] for image in images]))["logits"]
    return [Count(image.name, float(row[0])) for image, row in zip(images, logits, strict=True)]


def check_views(views: Views) -> None:
    raise ResnestError("a counter looks at a picture once")


def takes(card: CountingCard) -> Shape:
    return None, 3, card.preprocess.size, card.preprocess.size


def gives(card: CountingCard) -> dict[str, Shape]:
    return {"logits": (None, 1)}
