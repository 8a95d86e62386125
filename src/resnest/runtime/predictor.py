"""Images in, results out, with any engine: a function from (N, 3, H, W) to logits (N, K), both numpy arrays.

A detector's engine takes the sizes of the images without padding too, and gives RawDetections.

predictor = ImagePredictor(engine, card)
predictor("rose.jpg").label
for result in predictor.stream(paths): ...        # results and BadImage, in order

A stream decodes the images of the next batch in threads while the engine runs, and holds three batches at most.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from pathlib import Path
from typing import NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.runtime.ahead import ahead
from resnest.runtime.card import ModelCard
from resnest.runtime.decode import BadImage, decode_image
from resnest.runtime.detections import Classes, Detections, RawDetections, RawPanoptic
from resnest.runtime.engines.cores import usable_cores
from resnest.runtime.results import Classification, MultiLabel, sigmoid, softmax

DETECTOR_BATCH = 4  # images of 800 x 1333 pixels have maps of a gigabyte each
BATCHES_AHEAD = 2  # decoded while another one is in the engine: one would do if all took equally long


class Engine(Protocol):
    """Whatever runs a network."""

    name: str  # for people: what runs it, and on what

    def __call__(self, images: NDArray[np.float32], /) -> NDArray[np.float32]: ...


class DetectorEngine(Protocol):
    """Whatever runs a detector."""

    name: str

    def __call__(self, images: NDArray[np.float32], sizes: NDArray[np.int64], /) -> RawDetections: ...


class SegmenterEngine(Protocol):
    """Whatever runs a segmenter."""

    name: str

    def __call__(self, images: NDArray[np.float32], /) -> NDArray[np.float32]: ...  # (N, K, H, W), of the images' size


class PanopticEngine(Protocol):
    """Whatever runs a panoptic detector."""

    name: str

    def __call__(self, images: NDArray[np.float32], sizes: NDArray[np.int64], /) -> RawPanoptic: ...


class Prepared(NamedTuple):
    """One image."""

    pixels: NDArray[np.float32]  # (3, H, W), as the network gets it
    size: tuple[int, int]  # width, height of the picture


Result = Classification | Detections


class ImagePredictor:
    """Decodes, preprocesses, runs the engine in batches, and names the classes."""

    def __init__(self, engine: Engine | DetectorEngine, card: ModelCard, *, batch_size: int = 16) -> None:
        self.engine = engine
        self.card = card
        self.batch_size = min(batch_size, DETECTOR_BATCH) if card.detector else batch_size

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
        """Neighbours of one shape together; all have it but a detector's."""
        results: list[Result] = []
        for _, group in groupby(inputs, lambda one: one.pixels.shape):
            images = list(group)
            detects = self.card.detector is not None
            run = self._detect if detects else self._classify
            results += run(names[len(results) : len(results) + len(images)], images)
        return results

    def _classify(self, names: list[str], images: list[Prepared]) -> list[Result]:
        logits = cast(Engine, self.engine)(np.stack([image.pixels for image in images]))
        kind, scores = (MultiLabel, sigmoid(logits)) if self.card.multi_label else (Classification, softmax(logits))
        return [kind(name, self.card.class_names, row) for name, row in zip(names, scores, strict=True)]

    def _detect(self, names: list[str], images: list[Prepared]) -> list[Result]:
        preprocess = self.card.detector_input
        sizes = [preprocess.scaled_size(*image.size)[::-1] for image in images]  # height, width
        found = cast(DetectorEngine, self.engine)(np.stack([image.pixels for image in images]), np.array(sizes))
        classes = Classes(self.card.class_names, self.card.category_ids)
        return [
            Detections.of(found, place, name=name, size=images[place].size, preprocess=preprocess, classes=classes)
            for place, name in enumerate(names)
        ]
