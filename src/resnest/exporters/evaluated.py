"""A file beside the model as it was evaluated: each with its own preprocessing, on pictures of the data.

    found = compare_as_evaluated(model, sized, form.load(path), data)
    found.same, found.pictures, found.before, found.after           # 14 of 16 pictures; figures on the labelled ones

The gate gives both the same arrays. A file of one size may need pictures prepared otherwise than the run that it was
made from, and then finds other things, however exactly it computes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.data.samples import Samples
from resnest.data.sources import open_split
from resnest.errors import ResnestError, parameter
from resnest.exporters.calibration import SEED, Pictures, synthetic
from resnest.exporters.capture import Runner
from resnest.exporters.formats import Exporter
from resnest.figures import percent
from resnest.inference.evaluation import evaluate_samples
from resnest.inference.model import Model, data_of_run
from resnest.inference.torch_engine import TorchEngine
from resnest.runtime.card import ModelCard
from resnest.runtime.decode import BadImage
from resnest.runtime.engines.exported import Arrays, Engine, Prepared
from resnest.tasks import check_task, task_type

LABELLED = 32  # pictures that both are evaluated on: a detector of usual size takes seconds for one


@dataclass(frozen=True)
class Data:
    """Pictures to compare on, and samples with the model's classes if there are any."""

    pictures: Pictures
    samples: Samples | None = None


def find_data(model: Model, exporter: Exporter, images: str | Path | None, named: Pictures | None) -> Data:
    """What the user names; else what the run was validated on, where it still is; else synthetic pictures.

    Args:
        named: the pictures of `images`.
    """
    if images and named:
        return Data(named, _labelled(model, images, "auto") if exporter.on_data else None)
    where, format = data_of_run(Path(model.source)) if exporter.on_data else (None, "")
    samples = _labelled(model, where, format) if where else None
    if samples is None or not len(samples):
        return Data(synthetic(bands=model.card.bands))
    some = [samples.decode(index) for index in range(len(samples))]
    return Data(Pictures(some, f"validation pictures of {where}"), samples)


def _labelled(model: Model, where: str | Path, format: str) -> Samples | None:
    """A few usable samples of the model's task and classes, always the same; None: it has no such data."""
    try:
        card = model.card
        how: dict[str, Any] = {"task": card.task, "reading": card.reading, "bands": card.bands}
        part = open_split(where, format=format, holdout=model.holdout, **how)
        check_task(part.samples, model.card.task, str(where), "the model")
        samples = part.samples.aligned(model.card, str(where))
        order = np.random.default_rng(SEED).permutation(len(samples)).tolist()
        usable = islice((index for index in order if _is_usable(samples, index)), LABELLED)
        return samples.subset(np.array([*usable], np.int64))
    except ResnestError:
        return None


def _is_usable(samples: Samples, index: int) -> bool:
    try:
        samples.example(index)
    except BadImage:
        return False
    return True


@dataclass(frozen=True)
class AsEvaluated:
    """What a file gives, and what the model gives as it was evaluated."""

    pictures: int
    kind: str  # of pictures
    same: int  # of them
    things: str  # what is the same: "objects"
    figure: str = ""  # title of the figure; "": no labels
    labelled: int = 0  # pictures
    before: float = math.nan
    after: float = math.nan

    def to_dict(self) -> dict[str, Any]:
        figures = {"figure": self.figure, "labelled": self.labelled, "before": self.before, "after": self.after}
        known = {name: None if value != value else value for name, value in figures.items()}  # JSON has no NaN
        return {"text": str(self), "pictures": self.pictures, "same": self.same, **(known if self.figure else {})}

    def __str__(self) -> str:
        text = f"{self.things} the same on {self.same} of {self.pictures} {self.kind}"
        if self.figure:
            text += f"; {self.figure} {percent(self.before)} -> {percent(self.after)} on {self.labelled} labelled ones"
        return text


def compare_as_evaluated(model: Model, sized: Model, run: Runner, exporter: Exporter, data: Data) -> dict[str, Any]:
    """The file with its card's preprocessing, beside the network with that of the model's card.

    Args:
        model: as it was evaluated.
        sized: with the card of the file.
        run: the file in its engine.

    Returns:
        The comparison for JSON, with its `text`.
    """
    if not data.pictures.real:  # of which nothing follows for photographs
        return {"text": f"not compared: no pictures of its data are here, {parameter('images', 'PHOTOS')} names some"}
    engine = TorchEngine(model.net, "cpu", task=task_type(model.card.task), prepare=False)
    images = data.pictures.images[: exporter.most_pictures]
    pairs = zip(_results(engine, model.card, images), _results(_Run(run), sized.card, images), strict=True)
    same = sum(exporter.same_result(before, after) for before, after in pairs)
    if not data.samples:
        return AsEvaluated(len(images), data.pictures.kind, same, exporter.things).to_dict()
    key = model.card.hub_metric[0]
    before, after = (
        evaluate_samples(runs, data.samples, card, batch_size=card.info.batch_size, workers=0).figures[key]
        for runs, card in ((engine, model.card), (_Run(run), sized.card))
    )
    title = model.card.figure_titles[key]
    told = len(images), data.pictures.kind, same, exporter.things
    return AsEvaluated(*told, title, len(data.samples), before, after).to_dict()


class _Run:
    """A file in its engine, one image at a time."""

    name = "the file"

    def __init__(self, run: Runner) -> None:
        self.run = run

    def __call__(self, images: NDArray[np.float32], sizes: NDArray[np.int64]) -> Arrays:
        outputs = [self.run(image[None]) for image in images]
        return {name: np.concatenate([output[name] for output in outputs]) for name in outputs[0]}


def _results(engine: Engine, card: ModelCard, images: Sequence[Image.Image]) -> list[Any]:
    return [
        card.info.predict(engine, card, [Prepared(str(number), card.preprocess(image), image.size)], None)[0]
        for number, image in enumerate(images)
    ]
