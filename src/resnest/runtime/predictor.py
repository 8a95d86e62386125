"""Images in, results out, with any engine (`engines/kinds.py`) and for any task (`answers.py`).

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
from resnest.runtime.answers import ANSWERS, Prepared, Result
from resnest.runtime.card import ModelCard
from resnest.runtime.decode import BadImage, decode_image
from resnest.runtime.engines.kinds import AnyEngine
from resnest.runtime.hardware import usable_cores

DETECTOR_BATCH = 4  # of all but classifiers: images of 800 x 1333 pixels have maps of a gigabyte each
BATCHES_AHEAD = 2  # decoded while another one is in the engine: one would do if all took equally long


class ImagePredictor:
    """Decodes, preprocesses, runs the engine in batches, and names the classes."""

    def __init__(self, engine: AnyEngine, card: ModelCard, *, batch_size: int = 16) -> None:
        self.engine = engine
        self.card = card
        self.batch_size = batch_size if card.task == "classification" else min(batch_size, DETECTOR_BATCH)

    def __call__(self, image: str | Path | bytes | Image.Image) -> Result:
        """What one image shows: a path, encoded bytes, or a Pillow image. Of a detector, all that it keeps.

        Raises:
            BadImage: a ResnestError that says what is wrong with the file.
        """
        name = str(image) if isinstance(image, str | Path) else "image"
        return self._run([name], [self._prepare(image)])[0]

    def stream(self, paths: Iterable[str | Path]) -> Iterator[Result | BadImage]:
        """One item a path, in order; an unusable file gives its BadImage and the others go on."""
        with ahead(self._try, paths, most=BATCHES_AHEAD * self.batch_size, threads=usable_cores()) as images:
            while batch := list(islice(images, self.batch_size)):
                yield from self._finish(batch)

    def _try(self, path: str | Path) -> tuple[str, Prepared | BadImage]:
        try:
            return str(path), self._prepare(path)
        except BadImage as error:
            return str(path), error

    def _prepare(self, image: str | Path | bytes | Image.Image) -> Prepared:
        if not isinstance(image, Image.Image):
            image = decode_image(Path(image) if isinstance(image, str) else image)
        return Prepared(self.card.preprocess(image if image.mode == "RGB" else image.convert("RGB")), image.size)

    def _finish(self, batch: list[tuple[str, Prepared | BadImage]]) -> Iterator[Result | BadImage]:
        good = [(name, image) for name, image in batch if not isinstance(image, BadImage)]
        results = iter(self._run([name for name, _ in good], [image for _, image in good]))
        for _, image in batch:
            yield image if isinstance(image, BadImage) else next(results)

    def _run(self, names: list[str], inputs: list[Prepared]) -> list[Result]:
        """Neighbours of one shape together; all images of a classifier have it."""
        answer = ANSWERS[self.card.task]
        results: list[Result] = []
        for _, group in groupby(inputs, lambda one: one.pixels.shape):
            images = list(group)
            results += answer(self.engine, self.card, names[len(results) : len(results) + len(images)], images)
        return results
