"""Images in, results out, with any engine: a function from (N, 3, H, W) to logits (N, K), both numpy arrays.

predictor = ImagePredictor(engine, card)
predictor("rose.jpg").label
for result in predictor.stream(paths): ...        # results and BadImage, in order

A stream decodes the images of the next batch in threads while the engine runs, and holds three batches at most.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.runtime.ahead import ahead
from resnest.runtime.card import ModelCard
from resnest.runtime.decode import BadImage, decode_image
from resnest.runtime.engines.cores import usable_cores
from resnest.runtime.results import Classification, MultiLabel, sigmoid, softmax

BATCHES_AHEAD = 2  # decoded while another one is in the engine: one would do if all took equally long


class Engine(Protocol):
    """Whatever runs a network."""

    name: str  # for people: what runs it, and on what

    def __call__(self, images: NDArray[np.float32], /) -> NDArray[np.float32]: ...


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
        with ahead(self._try, paths, most=BATCHES_AHEAD * self.batch_size, threads=usable_cores()) as images:
            while batch := list(islice(images, self.batch_size)):
                yield from self._finish(batch)

    def _try(self, path: str | Path) -> tuple[str, NDArray[np.float32] | BadImage]:
        try:
            return str(path), self._prepare(path)
        except BadImage as error:
            return str(path), error

    def _prepare(self, image: str | Path | bytes | Image.Image) -> NDArray[np.float32]:
        if not isinstance(image, Image.Image):
            image = decode_image(Path(image) if isinstance(image, str) else image)
        return self.card.preprocess(image if image.mode == "RGB" else image.convert("RGB"))

    def _finish(self, batch: list[tuple[str, NDArray[np.float32] | BadImage]]) -> Iterator[Classification | BadImage]:
        good = [(name, pixels) for name, pixels in batch if not isinstance(pixels, BadImage)]
        results = iter(self._run([name for name, _ in good], [pixels for _, pixels in good]))
        for _, pixels in batch:
            yield pixels if isinstance(pixels, BadImage) else next(results)

    def _run(self, names: list[str], inputs: list[NDArray[np.float32]]) -> list[Classification]:
        if not inputs:
            return []
        logits = self.engine(np.stack(inputs))
        kind, scores = (MultiLabel, sigmoid(logits)) if self.card.multi_label else (Classification, softmax(logits))
        return [kind(name, self.card.class_names, row) for name, row in zip(names, scores, strict=True)]
