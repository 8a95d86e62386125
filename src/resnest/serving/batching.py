"""Dynamic batches: pictures of several requests run through the engine together.

    batcher = Batcher(largest=8, longest_wait=0.002, queue=64)
    batcher.start()
    with batcher.places(1):                       # refused at once if the queue is full
        result = await batcher.submit(predictor, prepared)

One thread owns the engine. It takes what waits, up to the largest batch; a picture that is alone waits for others no
longer than `longest_wait`. A picture whose request was given up is not computed.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from resnest.runtime.bands import blank
from resnest.runtime.engines.exported import Prepared
from resnest.runtime.predictor import ImagePredictor
from resnest.runtime.results import Result
from resnest.serving.limits import Refused, busy


class Waiting(NamedTuple):
    """A picture that waits for the engine."""

    predictor: ImagePredictor
    image: Prepared
    future: asyncio.Future[Result]
    loop: asyncio.AbstractEventLoop


class Batcher:
    """The queue of a model, and the thread that runs it.

    Args:
        largest: pictures of a batch.
        longest_wait: seconds that a batch waits for more pictures.
        queue: pictures that are accepted at once, those that are decoded or computed included.
        watch: is told the size of each batch and the seconds that it took.
    """

    def __init__(
        self,
        *,
        largest: int,
        longest_wait: float,
        queue: int,
        watch: Callable[[int, float], None] = lambda size, seconds: None,
    ) -> None:
        self.largest, self.longest_wait, self.queue, self.watch = largest, longest_wait, queue, watch
        self.accepted = 0  # pictures; only the event loop changes it
        self._seconds_per_image = 0.1  # a moving mean
        self._waiting: deque[Waiting] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @contextmanager
    def places(self, pictures: int) -> Iterator[None]:
        """Places in the queue, until the block ends. Raises Refused: 429, there are not so many."""
        if self.accepted + pictures > self.queue:
            raise busy("the queue is full", self.accepted * self._seconds_per_image)
        self.accepted += pictures
        try:
            yield
        finally:
            self.accepted -= pictures

    async def submit(self, predictor: ImagePredictor, image: Prepared) -> Result:
        """The predictor's result for a picture that it prepared; it is not computed if the caller is cancelled first.

        Raises:
            Refused: 503, the server ends.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        with self._changed:
            if self._closing:
                raise Refused(503, "the server is shutting down")
            self._waiting.append(Waiting(predictor, image, future, loop))
            self._changed.notify()
        return await future

    def close(self) -> None:
        """Finish what waits, and end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    # --- the thread ---

    def _run(self) -> None:
        while batch := self._next_batch():
            started = time.perf_counter()
            outcomes = _compute(batch[0].predictor, [one.image for one in batch])
            seconds = time.perf_counter() - started
            for waiting, outcome in zip(batch, outcomes, strict=True):
                with contextlib.suppress(RuntimeError):  # the loop was closed: the server was told to end at once
                    waiting.loop.call_soon_threadsafe(_settle, waiting.future, outcome)
            self._seconds_per_image += 0.2 * (seconds / len(batch) - self._seconds_per_image)
            self.watch(len(batch), seconds)

    def _next_batch(self) -> list[Waiting]:
        """The next pictures that fit in one batch, the one that waits longest among them; none: the server ends."""
        with self._changed:
            until = None
            while True:
                self._waiting = deque(one for one in self._waiting if not one.future.done())  # not those given up
                if not self._waiting:
                    if self._closing:
                        return []
                    until = None
                    self._changed.wait()
                    continue
                until = until or time.monotonic() + self.longest_wait
                left = until - time.monotonic()
                if len(self._waiting) >= self.largest or left <= 0 or self._closing:
                    return self._take()
                self._changed.wait(left)

    def _take(self) -> list[Waiting]:
        batch = [one for one in self._waiting if _kind(one) == _kind(self._waiting[0])][: self.largest]
        taken = {id(one) for one in batch}
        self._waiting = deque(one for one in self._waiting if id(one) not in taken)
        return batch


def _kind(waiting: Waiting) -> tuple[int, tuple[int, ...]]:
    """Equal for pictures that fit in one batch."""
    return id(waiting.predictor), waiting.image.pixels.shape


def _compute(predictor: ImagePredictor, images: list[Prepared]) -> list[Result | Exception]:
    """A result or an error for each: one picture that the engine cannot take spoils no other one's."""
    try:
        return list(predictor.run(images))
    except Exception as error:
        if len(images) == 1:
            return [error]
        return [outcome for image in images for outcome in _compute(predictor, [image])]


def _settle(future: asyncio.Future[Result], outcome: Result | Exception) -> None:
    if future.done():  # given up meanwhile
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def warm_up(predictor: ImagePredictor) -> None:
    """Run a picture twice: what is allocated or compiled at first is there when the first request comes."""
    for _ in range(2):
        predictor(blank(predictor.card.bands, 320, 240))
