"""Images in, results out, with any engine (`engines/engine.py`) and for any task (its `predict`).

predictor = ImagePredictor(engine, card)
predictor("rose.jpg").label
for result in predictor.stream(paths): ...        # results and BadImage, in order

A stream decodes the images of the next batch in threads while the engine runs, and holds three batches at most.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from pathlib import Path

from PIL import Image

from resnest.runtime.ahead import ahead
from resnest.runtime.card import ModelCard
from resnest.runtime.decode import BadImage, decode_image
from resnest.runtime.engines.engine import Engine, Prepared
from resnest.runtime.hardware import usable_cores
from resnest.runtime.results import Result

BATCHES_AHEAD = 2  # decoded while another one is in the engine: one would do if all took equally long


class ImagePredictor:
    """Decodes, preprocesses, runs the engine in batches, and names the classes."""

    def __init__(self, engine: Engine, card: ModelCard, *, batch_size: int = 16) -> None:
        self.engine = engine
        self.card = card
        self.batch_size = min(batch_size, card.info.max_batch_size or batch_size)

    def __call__(self, image: str | Path | bytes | Image.Image) -> Result:
        """What one image shows: a path, encoded bytes, or a Pillow image. Of a detector, all that it keeps.

        Raises:
            BadImage: a ResnestError that says what is wrong with the file.
        """
        name = str(image) if isinstance(image, str | Path) else "image"
        return self._run([self._prepare(image, name)])[0]

    def stream(self, paths: Iterable[str | Path]) -> Iterator[Result | BadImage]:
        """One item a path, in order; an unusable file gives its BadImage and the others go on."""
        with ahead(self._try, paths, most=BATCHES_AHEAD * self.batch_size, threads=usable_cores()) as images:
            while batch := list(islice(images, self.batch_size)):
                yield from self._finish(batch)

    def _try(self, path: str | Path) -> Prepared | BadImage:
        try:
            return self._prepare(path, str(path))
        except BadImage as error:
            return error

    def _prepare(self, image: str | Path | bytes | Image.Image, name: str) -> Prepared:
        if not isinstance(image, Image.Image):
            image = decode_image(Path(image) if isinstance(image, str) else image)
        pixels = self.card.preprocess(image if image.mode == "RGB" else image.convert("RGB"))
        return Prepared(name, pixels, image.size)

    def _finish(self, batch: list[Prepared | BadImage]) -> Iterator[Result | BadImage]:
        results = iter(self._run([image for image in batch if not isinstance(image, BadImage)]))
        for image in batch:
            yield image if isinstance(image, BadImage) else next(results)

    def _run(self, images: list[Prepared]) -> list[Result]:
        """Neighbours of one shape together."""
        results: list[Result] = []
        for _, group in groupby(images, lambda image: image.pixels.shape):
            results += self.card.info.predict(self.engine, self.card, list(group), None)
        return results
