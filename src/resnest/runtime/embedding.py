"""Embeddings: a picture as the pooled features of a network's last stage, from any engine that gives them. No torch.

    embedder = Embedder(engine, card)
    embedder("rose.jpg")                     # (D,) float32, of length 1
    embedder(["rose.jpg", "tulip.jpg"])      # (2, D)
    for row in embedder.stream(paths): ...   # rows and BadImage, in order

A picture is prepared as for prediction, and features are averaged over the cells that lie in it, not in its padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnest.errors import ResnestError, call
from resnest.runtime.card import ModelCard
from resnest.runtime.engines.exported import FEATURES, Arrays, Engine, ExportedEngine, Prepared, stack_pixels
from resnest.runtime.predictor import ImagePredictor, NotFinite

Features = NDArray[np.float32]  # (N, D)


class Embedder(ImagePredictor):
    """Decodes and preprocesses pictures as a predictor does, and gives their features.

    Args:
        engine: gives "features", (N, D), for images (N, C, H, W) and heights and widths without padding (N, 2).
        normalise: rows of length 1, so that their products are cosines.
    """

    def __init__(self, engine: Engine, card: ModelCard, *, batch_size: int = 16, normalise: bool = True) -> None:
        super().__init__(engine, card, batch_size=batch_size)
        self.normalise = normalise

    def __call__(self, image: Any) -> Any:
        """The features of one image, (D,), or of a list of N, (N, D); float32.

        Raises:
            BadImage: an image that cannot be used.
            NotFinite: the network gives NaN or infinity.
            ResnestError: an empty list, whose features have no width.
        """
        rows = super().__call__(image)
        if not isinstance(rows, list):
            return rows
        if not rows:
            raise ResnestError("there are no pictures to embed")
        return np.stack(rows)

    def run(self, images: list[Prepared]) -> list[Any]:
        """(D,) of each prepared image. Raises NotFinite."""
        rows: list[Any] = []
        for _, group in groupby(images, lambda image: image.pixels.shape):
            rows += list(self.features(list(group)))
        return rows

    def features(self, images: Sequence[Prepared]) -> Features:
        """(N, D) of prepared images of one shape. Raises NotFinite."""
        inner = np.array([self.card.preprocess.scaled_size(*image.size)[::-1] for image in images])
        outputs: Arrays = self.engine(stack_pixels(images), inner)
        rows: Features = np.ascontiguousarray(outputs[FEATURES], np.float32)
        if not np.isfinite(rows).all():
            raise NotFinite("the network gives features that are not finite: its weights or its input are damaged")
        return unit_rows(rows) if self.normalise else rows


def unit_rows(rows: NDArray[Any]) -> Features:
    """Rows of length 1, (N, D); rows of zeros stay."""
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    return (rows / np.maximum(lengths, 1e-12)).astype(np.float32)  # type: ignore[no-any-return]


def features_of_file(engine: ExportedEngine) -> ExportedEngine:
    """An exported file as an engine of features. Raises ResnestError: it was exported without them."""
    if not engine.gives_features:
        source = engine.origin.get("source") or "RUN"
        command = call("export", str(source), out=str(engine.path), features=True)
        raise ResnestError(f"{engine.path} gives no features: export a classifier with them, `{command}`")
    return engine.with_features(alone=True)


CHUNK = 2**24  # cosines at a time: 64 MB


def nearest(rows: Features, among: Features, most: int, *, same: bool = False) -> tuple[NDArray[np.int64], Features]:
    """The rows of `among` with the largest cosine to each of `rows`, exactly: (N, K) numbers and (N, K) cosines.

    Args:
        rows, among: (N, D) and (M, D), each row of length 1.
        most: K, or M where that is less; nearest first, equal ones by their number.
        same: both are the same rows, and none is a neighbour of its own.
    """
    count = min(most, len(among) - same)
    numbers, cosines = np.empty((len(rows), count), np.int64), np.empty((len(rows), count), np.float32)
    step = max(1, CHUNK // max(len(among), 1))
    for first in range(0, len(rows), step):
        products = rows[first : first + step] @ among.T
        part = np.arange(len(products))
        if same:
            products[part, first + part] = -np.inf
        found = _largest(products, count)
        numbers[first : first + step] = found
        cosines[first : first + step] = np.take_along_axis(products, found, 1)
    return numbers, cosines


def _largest(products: NDArray[Any], count: int) -> NDArray[np.int64]:
    """The columns of the largest values of each row, (N, count), largest first."""
    if count < 1:
        return np.empty((len(products), 0), np.int64)
    found = np.sort(np.argpartition(-products, count - 1, axis=1)[:, :count], axis=1)
    order = np.argsort(-np.take_along_axis(products, found, 1), axis=1, kind="stable")
    return np.take_along_axis(found, order, 1)
