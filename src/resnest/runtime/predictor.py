"""The predictor: images to results, with any engine (`engines/`) and for any task (its `predict`).

predictor = ImagePredictor(engine, card)
predictor("rose.jpg").label
predictor([image, array, b"..."])                 # a list of results
for result in predictor.stream(paths): ...        # results and BadImage, in order

A stream decodes the images of the next batch in threads while the engine runs, and holds three batches at most.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import groupby, islice
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from resnest.errors import ResnestError
from resnest.runtime.bands import to_picture
from resnest.runtime.card import ModelCard
from resnest.runtime.decode import BadImage
from resnest.runtime.engines.exported import Arrays, Engine, Prepared
from resnest.runtime.hardware import malloc_trim, usable_cores
from resnest.runtime.inputs import TAKES, ImageInput, WrongInput, described, is_image, name_of
from resnest.runtime.opening import open_regions
from resnest.runtime.regions import Regions
from resnest.runtime.results import Result
from resnest.runtime.tiles import Tiles
from resnest.runtime.tiling import Count, predict_in_tiles, silent

# --- Prefetch: work done ahead in threads, with results in the order of their inputs ---
# Pillow and numpy release the GIL while they compute, so threads are enough. No more than `most` results are buffered,
# however long the input is; leaving the block, by an error or early, stops the threads.

In = TypeVar("In")
Out = TypeVar("Out")


@contextmanager
def prefetch(work: Callable[[In], Out], inputs: Iterable[In], *, most: int, threads: int) -> Iterator[Iterator[Out]]:
    """Gives an iterator over the results in order; an error of `work` is raised in place of its result."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="prefetch")
    try:
        yield _in_order(pool, work, iter(inputs), most)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _in_order(pool: ThreadPoolExecutor, work: Callable[[In], Out], inputs: Iterator[In], most: int) -> Iterator[Out]:
    waiting: deque[Future[Out]] = deque(pool.submit(work, item) for item in islice(inputs, most))
    while waiting:
        result = waiting.popleft().result()
        waiting.extend(pool.submit(work, item) for item in islice(inputs, 1))
        yield result


BATCHES_AHEAD = 2  # decoded while another one is in the engine: one would do if all took equally long


class NotFinite(ResnestError):
    """A network's outputs are NaN or infinite."""


class ImagePredictor:
    """Decodes, preprocesses, runs the engine in batches, and returns results.

    Args:
        tiles: look at pictures in tiles, one picture after the other.

    Raises:
        ResnestError: such a model takes no tiles, or none of that size.
    """

    on_tile: Count | None = None  # is told of each picture's tiles, as in `predict_in_tiles`
    beside: tuple[ImagePredictor | Path | None, Any] = (None, None)  # what finds boxes first, and which of these count

    def __init__(self, engine: Engine, card: ModelCard, *, batch_size: int = 16, tiles: Tiles | None = None) -> None:
        self.engine = engine
        self.tiles = tiles
        self.card = card.with_tiles(tiles) if tiles else card
        self.batch_size = min(batch_size, card.info.max_batch_size or batch_size)

    @overload
    def __call__(self, image: list[Any] | tuple[ImageInput, ...]) -> list[Result]: ...

    @overload
    def __call__(self, image: ImageInput) -> Result: ...

    def __call__(self, image: ImageInput | list[Any] | tuple[ImageInput, ...]) -> Result | list[Result]:
        """The result of one image, or a list of results. For a detector, with all its detections.

        Args:
            image: a path, the bytes of a file, a file opened in binary mode, a Pillow image, or an array: (H, W, 3)
                uint8 in RGB order, or (H, W) in grey; for a model of other channels (H, W, C) or (C, H, W) in the
                units of its pictures. In a list, those without a name of their own are called "image 0"
                and so on.

        Raises:
            BadImage: a ResnestError with the defect of the file.
            WrongInput: it is none of these.
        """
        if not isinstance(image, list | tuple):
            name = name_of(image, "image")
            return self._in_tiles(image, name, self.tiles) if self.tiles else self.run([self.prepare(image, name)])[0]
        results = []
        for result in self.stream(image):
            if isinstance(result, BadImage):
                raise result
            results.append(result)
        return results

    def stream(self, images: Iterable[ImageInput]) -> Iterator[Result | BadImage]:
        """One item per image, in order; an unusable image gives its BadImage.

        Raises:
            WrongInput: it is one image, or among the images is something else; see `__call__`.
        """
        if is_image(images) or not isinstance(images, Iterable):
            expected = f"expected several images, such as a list; each of them {TAKES}"
            raise WrongInput(f"a stream of images cannot be {described(images)}: {expected}")
        return self.stream_named((name_of(image, f"image {number}"), image) for number, image in enumerate(images))

    def stream_named(self, images: Iterable[tuple[str, ImageInput | BadImage]]) -> Iterator[Result | BadImage]:
        """As `stream`, of images with names, such as the frames of a video; a BadImage among them comes back."""
        if self.tiles:
            yield from (self._try_in_tiles(name, image, self.tiles) for name, image in images)
            return
        most, threads = BATCHES_AHEAD * self.batch_size, usable_cores()
        with prefetch(self._try, images, most=most, threads=threads) as prepared:
            while batch := list(islice(prepared, self.batch_size)):
                yield from self._finish(batch)

    def _try(self, named: tuple[str, ImageInput | BadImage]) -> Prepared | BadImage:
        name, image = named
        if isinstance(image, BadImage):
            return image
        try:
            return self.prepare(image, name)
        except BadImage as error:
            return error

    def _try_in_tiles(self, name: str, image: ImageInput | BadImage, tiles: Tiles) -> Result | BadImage:
        try:
            return image if isinstance(image, BadImage) else self._in_tiles(image, name, tiles)
        except BadImage as error:
            return error

    def _in_tiles(self, image: ImageInput | Regions, name: str, tiles: Tiles) -> Result:
        picture = open_regions(image, name, self.card.bands, spill=True)
        malloc_trim()  # what decoding took
        try:
            return predict_in_tiles(
                _Finite(self.engine),
                self.card,
                picture,
                name,
                tiles,
                batch_size=self.batch_size,
                on_tile=self.on_tile or silent,
            )
        finally:
            if picture is not image:
                picture.close()
            malloc_trim()

    def prepare(self, image: ImageInput, name: str) -> Prepared:
        """An image as the network takes it. Raises as `__call__`."""
        picture = to_picture(image, self.card.bands, name)
        try:
            return Prepared(name, self.card.preprocess(picture), picture.size)
        except BadImage as error:
            raise BadImage(name, error.reason) from None

    def _finish(self, batch: list[Prepared | BadImage]) -> Iterator[Result | BadImage]:
        results = iter(self.run([image for image in batch if not isinstance(image, BadImage)]))
        for image in batch:
            yield image if isinstance(image, BadImage) else next(results)

    def run(self, images: list[Prepared]) -> list[Result]:
        """The results of prepared images; neighbours of one shape are one batch of the engine.

        Raises:
            NotFinite: the network gives NaN or infinity, of which a label could be read all the same.
        """
        results: list[Result] = []
        for _, group in groupby(images, lambda image: image.pixels.shape):
            results += self.card.info.predict(_Finite(self.engine), self.card, list(group), None)
        return results


class _Finite:
    """An engine whose outputs are checked: the largest of several NaN is the first class, with no score."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.name = getattr(engine, "name", "")

    def __call__(self, images: NDArray[np.float32], sizes: NDArray[np.int64]) -> Arrays:
        outputs = self._engine(images, sizes)
        for name, values in outputs.items():
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise NotFinite(
                    f"the network gives values that are not finite ({name}): its weights or its input are damaged"
                )
        return outputs
