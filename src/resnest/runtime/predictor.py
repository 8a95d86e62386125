"""Images in, results out, with any engine: a function from (N, 3, H, W) to logits (N, K), both numpy arrays.

predictor = ImagePredictor(engine, card)
predictor("rose.jpg").label
for result in predictor.stream(paths): ...        # results and BadImage, in order
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.runtime.card import ModelCard
from resnest.runtime.decode import BadImage, decode_image
from resnest.runtime.results import Classification, MultiLabel, sigmoid, softmax

Engine = Callable[[NDArray[np.float32]], NDArray[np.float32]]


class ImagePredictor:
    """Decodes, preprocesses, runs the engine in batches, and names the classes."""

    def __init__(self, engine: Engine, card: ModelCard, *, batch_size: int = 16) -> None:
        self.engine = engine
        self.card = card
        self.batch_size = batch_size

    def __call__(self, image: str | Path | bytes | Image.Image) -> Classification:
        """Classify one image: a path, encoded bytes, or a Pillow image.

        Raises:
            BadImage: a ResnestError that says what is wrong with the file.
        """
        name = str(image) if isinstance(image, str | Path) else "image"
        return self._run([name], [self._prepare(image)])[0]

    def stream(self, paths: Iterable[str | Path]) -> Iterator[Classification | BadImage]:
        """One item a path, in order; an unusable file gives its BadImage and the others go on."""
        waiting: list[tuple[str, NDArray[np.float32] | BadImage]] = []
        for path in paths:
            try:
                waiting.append((str(path), self._prepare(path)))
            except BadImage as error:
                waiting.append((str(path), error))
            if len(waiting) == self.batch_size:
                yield from self._flush(waiting)
                waiting = []
        yield from self._flush(waiting)

    def _prepare(self, image: str | Path | bytes | Image.Image) -> NDArray[np.float32]:
        if not isinstance(image, Image.Image):
            image = decode_image(Path(image) if isinstance(image, str) else image)
        return self.card.preprocess(image.convert("RGB"))

    def _flush(self, waiting: list[tuple[str, NDArray[np.float32] | BadImage]]) -> Iterator[Classification | BadImage]:
        good = [(name, pixels) for name, pixels in waiting if not isinstance(pixels, BadImage)]
        results = iter(self._run([name for name, _ in good], [pixels for _, pixels in good]))
        for _, pixels in waiting:
            yield pixels if isinstance(pixels, BadImage) else next(results)

    def _run(self, names: list[str], inputs: list[NDArray[np.float32]]) -> list[Classification]:
        if not inputs:
            return []
        logits = self.engine(np.stack(inputs))
        kind, scores = (MultiLabel, sigmoid(logits)) if self.card.multi_label else (Classification, softmax(logits))
        return [kind(name, self.card.class_names, row) for name, row in zip(names, scores, strict=True)]
