"""The models of a server, by name: each with its predictor and its queue.

models = Models({"birds": "runs/a/model.onnx"}, Limits(), largest=8, longest_wait=0.002)
models.start()
results = await models["birds"].predict([Upload("image", body)], Show(top=3))
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from resnest.errors import ResnestError
from resnest.runtime.bands import read_picture
from resnest.runtime.card import ModelCard
from resnest.runtime.decode import BadImage, decode_image
from resnest.runtime.engines.exported import Prepared
from resnest.runtime.hardware import usable_cores
from resnest.runtime.palette import colour
from resnest.runtime.predictor import BATCHES_AHEAD, ImagePredictor
from resnest.runtime.results import QUALITY, Result, Show
from resnest.serving.batching import Batcher, warm_up
from resnest.serving.body import Upload
from resnest.serving.finding import Finding, check_boxes, finding_of
from resnest.serving.limits import FORMATS, Limits, Refused
from resnest.tasks import load_object

Watch = Callable[[str, int, float], None]  # is told model, size of a batch, seconds


class Answer(NamedTuple):
    """A result, and the drawing if it was asked for."""

    result: Result
    drawing: bytes | None  # JPEG


@dataclass
class Served:
    """A model of a server."""

    name: str
    predictor: ImagePredictor
    batcher: Batcher
    limits: Limits
    decoding: ThreadPoolExecutor
    room: asyncio.Semaphore  # for decoded pictures: what else waits does so as the bytes that came
    finding: Finding | None = None  # of a model that looks at boxes

    @property
    def card(self) -> ModelCard:
        return self.predictor.card

    @property
    def result(self) -> type[Result]:
        kind: type[Result] = load_object(self.card.info.result)
        return kind

    def describe(self) -> dict[str, Any]:
        """What clients may know."""
        return {
            "name": self.name,
            "task": self.card.info.name,
            "classes": list(self.card.class_names),
            "colours": ["#{:02x}{:02x}{:02x}".format(*colour(k)) for k in range(len(self.card.class_names))],
            "preprocessing": self.card.preprocess.describe(),
            "options": sorted(self.result.OPTIONS),
            **({"boxes": self.finding.describe()} if self.finding else {}),
        }

    async def predict(
        self, uploads: Sequence[Upload], show: Show, draw: bool = False, boxes: str | None = None
    ) -> list[Answer | BadImage]:
        """Answers in order; for what is no usable picture, why.

        Args:
            boxes: of the only picture, as JSON, that a model that looks at boxes shall look at.

        Raises:
            Refused: 429, the queue is full; 400, boxes that make no sense.
        """
        given = check_boxes(self.card, boxes, len(uploads))
        with self.batcher.places(len(uploads)):
            return await _all([self._predict(upload, show, draw, given) for upload in uploads])

    async def predict_pixels(self, pixels: Sequence[Any]) -> list[Result]:
        """Results for inputs of the network, each (C, H, W) float32 and normalised."""
        images = [Prepared("pixels", one, (one.shape[2], one.shape[1])) for one in pixels]
        with self.batcher.places(len(images)):
            return await _all([self.batcher.submit(self.predictor, image) for image in images])

    async def _predict(self, upload: Upload, show: Show, draw: bool, boxes: Any = None) -> Answer | BadImage:
        loop, predictor = asyncio.get_running_loop(), self.predictor  # one all along: `replace` may come between
        result: Result
        async with self.room:
            try:
                if self.finding and (boxes is not None or self.finding.finder):
                    picture = await loop.run_in_executor(self.decoding, self._decode, upload)
                    named = upload.name, picture
                    result = await self.finding.look(predictor, self.batcher, self.decoding, named, boxes)
                else:
                    prepared = await loop.run_in_executor(self.decoding, self._prepare, predictor, upload)
                    result = await self.batcher.submit(predictor, prepared)
            except BadImage as error:
                return error
        drawing = await loop.run_in_executor(self.decoding, self._draw, result, upload, show) if draw else None
        return Answer(result, drawing)

    def _prepare(self, predictor: ImagePredictor, upload: Upload) -> Prepared:
        return predictor.prepare(self._decode(upload), upload.name)

    def _decode(self, upload: Upload) -> Image.Image:
        limits: dict[str, Any] = {"max_bytes": self.limits.body, "max_pixels": self.limits.pixels}
        if self.card.bands.plain:
            return decode_image(upload.content, name=upload.name, formats=FORMATS, **limits)
        return read_picture(upload.content, self.card.bands, name=upload.name, formats=FORMATS, **limits)

    def _draw(self, result: Result, upload: Upload, show: Show) -> bytes:
        """JPEG. The picture is decoded again, as pictures in memory are large and most are not drawn."""
        file = io.BytesIO()
        result.draw(self._decode(upload), show).save(file, "JPEG", quality=QUALITY)
        return file.getvalue()

    def replace(self, predictor: ImagePredictor) -> None:
        """Use another predictor for the pictures that come from now on."""
        warm_up(predictor)
        self.predictor = predictor


async def _all(parts: Sequence[Any]) -> list[Any]:
    """Results of coroutines in order; one that fails, or the caller's end, cancels the others."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(part) for part in parts]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


class Models(Mapping[str, Served]):
    """Models by name; the first is the default one."""

    def __init__(
        self,
        predictors: Mapping[str, ImagePredictor],
        limits: Limits,
        *,
        largest: int,
        longest_wait: float,
        watch: Watch = lambda name, size, seconds: None,
        boxes: Mapping[str, Any] | None = None,
    ) -> None:
        """Of predictors by name.

        Args:
            boxes: of models that look at boxes, by name: what finds them, as `TaskInfo.boxes` opens it.
        """
        self.decoding = ThreadPoolExecutor(usable_cores(), thread_name_prefix="decode")
        self._served = {}
        for name, predictor in predictors.items():

            def told(size: int, seconds: float, name: str = name) -> None:
                watch(name, size, seconds)

            most = min(largest, predictor.batch_size)
            batcher = Batcher(largest=most, longest_wait=longest_wait, queue=limits.queue, watch=told)
            room = asyncio.Semaphore(BATCHES_AHEAD * most)
            finding = finding_of(predictor, (boxes or {}).get(name), largest=largest, wait=longest_wait)
            self._served[name] = Served(name, predictor, batcher, limits, self.decoding, room, finding)

    def __getitem__(self, name: str) -> Served:
        return self._served[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._served)

    def __len__(self) -> int:
        return len(self._served)

    def find(self, name: str | None) -> Served:
        """A model, by default the first. Raises Refused (404)."""
        if name is None:
            return next(iter(self._served.values()))
        if name not in self._served:
            raise Refused(404, f"there is no model {name[:80]!r}: expected {', '.join(self._served)}")
        return self._served[name]

    def start(self) -> None:
        """Warm up, and accept pictures."""
        for served in self._served.values():
            warm_up(served.predictor)
            served.batcher.start()
            if served.finding:
                served.finding.start()

    def close(self) -> None:
        """Finish what was accepted."""
        for served in self._served.values():
            if served.finding:
                served.finding.close()
            served.batcher.close()
        self.decoding.shutdown(wait=False, cancel_futures=True)


def named(references: Sequence[str]) -> dict[str, str]:
    """References by name: of NAME=REFERENCE the name, else the run's, the file's, or what it is called.

    Raises:
        ResnestError: two have one name, or one has none.

    >>> named(["birds=runs/a", "runs/b/model.onnx", "resnest50"])
    {'birds': 'runs/a', 'b': 'runs/b/model.onnx', 'resnest50': 'resnest50'}
    """
    found: dict[str, str] = {}
    for text in references:
        name, sign, reference = text.partition("=")
        if not sign or "/" in name:
            name, reference = _name(text), text
        if not name.strip():
            raise ResnestError(f"{text!r} has no name before its '=': write NAME={reference}")
        if name in found:
            twice = f"{found[name]} and {reference} would both be called {name!r}"
            raise ResnestError(f"{twice}: write NAME={reference}")
        found[name] = reference
    return found


def _name(reference: str) -> str:
    path = Path(reference)
    if path.stem == "model" and path.suffix:  # what `resnest export` writes into a run
        return path.resolve().parent.name
    return path.resolve().name.removesuffix(path.suffix) if path.suffix else path.resolve().name
