"""Boxes of a model that looks at boxes in a picture: those of a request, or of a detector beside the model.

finding = finding_of(predictor, source, largest=8, wait=0.002)
result = await finding.look(predictor, batcher, threads, ("street.jpg", picture), boxes=None)

The crops of all boxes go through the model's own queue, where those of several requests are one batch. A detector has a
queue and a thread of its own.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from PIL import Image

from resnest.errors import ResnestError
from resnest.runtime.card import ModelCard
from resnest.runtime.predictor import ImagePredictor
from resnest.runtime.results import Result
from resnest.serving.batching import Batcher, warm_up
from resnest.serving.limits import Refused
from resnest.tasks import box_source, load_object

Named = tuple[str, Image.Image]


@dataclass
class Finding:
    """What finds the boxes of a model."""

    kind: Any  # what `TaskInfo.boxes` names: reads boxes, and looks at them
    source: Any | None = None  # a detector's, opened by `kind`; None: boxes come with requests
    batcher: Batcher | None = None  # of the detector

    @property
    def finder(self) -> ImagePredictor | None:
        found: ImagePredictor | None = self.source.finder if self.source else None
        return found

    def describe(self) -> str:
        """What clients may know."""
        return "found, or given" if self.finder else "given"

    def start(self) -> None:
        if self.finder and self.batcher:
            warm_up(self.finder)
            self.batcher.start()

    def close(self) -> None:
        if self.batcher:
            self.batcher.close()

    async def look(
        self, predictor: ImagePredictor, batcher: Batcher, threads: Executor, picture: Named, boxes: Any
    ) -> Result:
        """The objects in the boxes.

        Args:
            batcher: of the predictor.
            threads: where pictures are prepared.
            boxes: of the request; None: the detector's.

        Raises:
            BadImage: the detector cannot take the picture.
            Refused: 400, a box outside the picture.
        """
        loop, (name, image) = asyncio.get_running_loop(), picture
        if boxes is None:
            assert self.source
            assert self.finder
            assert self.batcher
            prepared = await loop.run_in_executor(threads, self.finder.prepare, image, name)
            boxes = self.source.of_result(await self.batcher.submit(self.finder, prepared))
        try:
            look = self.kind.look(predictor, name, image, boxes)
        except ResnestError as error:
            raise Refused(400, str(error)) from None
        crops: list[Result] = []
        for first in range(0, len(look), batcher.largest):  # a crowd's crops at once would fill the memory
            some = await loop.run_in_executor(threads, look.prepared, first, first + batcher.largest)
            crops += await asyncio.gather(*(batcher.submit(predictor, crop) for crop in some))
        found: Result = await loop.run_in_executor(threads, look.result, crops)
        return found


def finding_of(predictor: ImagePredictor, source: Any | None, *, largest: int, wait: float) -> Finding | None:
    """Of a model that looks at boxes; None of another one."""
    if not predictor.card.info.boxes:
        return None
    kind = load_object(predictor.card.info.boxes)
    if source is None or source.finder is None:
        return Finding(kind)
    largest = min(largest, source.finder.batch_size)
    return Finding(kind, source, Batcher(largest=largest, longest_wait=wait, queue=largest))


def check_boxes(card: ModelCard, text: str | None, pictures: int) -> Any | None:
    """The boxes of a request. Raises Refused (400): for another model, for several pictures, or no boxes."""
    if text is None:
        return None
    try:
        kind = box_source(card.info)
    except ResnestError:
        raise Refused(400, f"boxes is no option of {card.info.noun}") from None
    if pictures != 1:
        raise Refused(400, f"boxes are those of one picture, and there are {pictures}")
    try:
        return kind.read(text)
    except ResnestError as error:
        raise Refused(400, str(error)) from None
