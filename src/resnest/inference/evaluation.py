"""The evaluation loop, predict and score, for every task, networks and exported files, one process or many.

result = evaluate("runs/a", data="flowers")
result.figures["top1"], result.headline         # of others: figures["map"], ["box_ap"], ["miou"], ["pq"]
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, Self

from torch import nn

from resnest.data.loading import Load, evaluation_batches
from resnest.data.samples import Samples
from resnest.data.sources import open_part
from resnest.errors import ResnestError, parameter
from resnest.inference.evaluation_result import Evaluation as Evaluation
from resnest.inference.evaluation_result import check_bad_share
from resnest.inference.model import Model, holdout_of_run
from resnest.inference.torch_engine import TorchEngine, choose_device
from resnest.runtime.card import ModelCard
from resnest.runtime.engines.choosing import is_exported, open_engine
from resnest.runtime.engines.engine import Engine, Views
from resnest.runtime.engines.exported import ExportedEngine
from resnest.tasks import check_task, load_object, task_type

USUAL_BATCH = 64  # images, by which an engine is chosen before it is known what a file holds


class Scorer(Protocol):
    """Compares results with the ground truth; the outcome depends on neither order nor partition."""

    def update(self, index: int, result: Any, truth: Any, /) -> None:
        """Add picture `index` of the samples."""

    def merge(self, other: Self, /) -> None:
        """Add the state of another process's scorer."""

    def result(self) -> Evaluation:
        """The evaluation of all pictures. Raises ResnestError: there is none."""


def evaluate_samples(
    engine: Engine,
    samples: Samples,
    card: ModelCard,
    *,
    batch_size: int,
    workers: int | Load | None = None,
    views: Views | None = None,
    on_batch: Callable[[int], None] = lambda seen: None,
    rank: int = 0,
    world_size: int = 1,
    gather: Callable[[Any], list[Any]] = lambda mine: [mine],
) -> Evaluation:
    """Predict every sample once, and score the results; `on_batch` gets the number of samples so far.

    Args:
        card: of the model that the engine runs; the samples have its classes.
        views: test-time augmentation.
        rank, world_size: of the process; each takes every `world_size`-th sample, and all come to the same result.
        gather: all_gather of objects: the processes' way to a list of what each of them has.

    Raises:
        ResnestError: more than 5 % of the images are unusable.
    """
    started = time.perf_counter()
    scorer: Scorer = load_object(card.info.scorer)(samples, card)
    bad: list[tuple[str, str]] = []
    batches = evaluation_batches(
        samples,
        card.preprocess,
        batch_size=1 if views else batch_size,
        workers=workers,
        rank=rank,
        world_size=world_size,
        keep_images=views is not None,
    )
    for batch in batches:
        bad += batch.bad
        if world_size == 1:  # else together, below: the others wait there
            check_bad_share(len(bad), len(samples), bad[-1] if bad else None)
        if batch.indices:
            results = card.info.predict(engine, card, batch.prepared(samples), views)
            for index, result, truth in zip(batch.indices, results, batch.truths, strict=True):
                scorer.update(index, result, truth)
        on_batch(len(batch.indices) + len(batch.bad))
    if world_size > 1:
        (scorer, bad), *others = gather((scorer, bad))
        for theirs, worse in others:
            scorer.merge(theirs)
            bad = bad + worse
        check_bad_share(len(bad), len(samples), bad[-1] if bad else None)
    evaluation = scorer.result()
    evaluation.bad, evaluation.seconds = bad, time.perf_counter() - started
    return evaluation


def evaluate_network(net: nn.Module, samples: Samples, card: ModelCard, *, device: Any, **how: Any) -> Evaluation:
    """Evaluate a network without preparing it, and restore its mode; `how` as for `evaluate_samples`."""
    was_training = net.training
    net.eval()
    try:
        return evaluate_samples(
            TorchEngine(net, device, task=task_type(card.task), prepare=False), samples, card, **how
        )
    finally:
        net.train(was_training)


def evaluate(
    model: str | Path,
    data: str | Path,
    *,
    split: str = "auto",
    format: str = "auto",
    network: str | None = None,
    labels: str | Path | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    workers: int | None = None,
    views: Views | None = None,
    window: int | None = None,
    on_batch: Callable[[int], None] = lambda seen: None,
    on_open: Callable[[Samples, str], None] = lambda samples, where: None,
) -> Evaluation:
    """Evaluate any model reference on a data set, with the preprocessing of its weights.

    Args:
        split: "auto", the validation split; of data without splits the hold-out set of training, or everything if the
            model was not trained here. Or "val", "train", "all".
        network: name of the network in a checkpoint file that does not identify it.
        labels: ImageNet-ReaL's real.json, several correct labels per image.
        batch_size: by default 64 images, of all but classifiers 4.
        views: test-time augmentation, of a detector or a segmenter.
        window: side of a segmenter's sliding windows, in pixels.

    Raises:
        ResnestError: no such model or data, classes that the model does not know, multi-label data for a
            single-label model, too many unusable images.
    """
    engine: Engine
    if is_exported(model):
        exported = open_engine(Path(model), device=device, batch_size=batch_size or USUAL_BATCH)
        engine, card, holdout = exported, exported.card, _holdout_of_export(exported)
    else:
        opened = Model.from_pretrained(model, network=network)
        task = task_type(opened.card.task)
        engine = TorchEngine(opened.net, choose_device(device), task=task, prepare=False)
        card, holdout = opened.card, opened.holdout
    card = card.with_window(window) if window else card
    if views is not None:
        card.info.check_views(views)
    part = open_part(data, split, format=format, holdout=holdout, task=card.task)
    check_task(part.samples, card.task, str(data), "the model")
    chosen = part.samples.aligned(card, str(data))
    if labels:
        if not card.info.relabel:
            raise ResnestError(f"{parameter('labels')} replaces one label an image: leave it out for {card.info.noun}")
        chosen = load_object(card.info.relabel)(chosen, Path(labels), card)
    on_open(
        chosen, part.describe if len(chosen) == len(part.samples) else f"{part.describe}; {len(chosen)} with labels"
    )
    size = batch_size or card.info.batch_size
    return evaluate_samples(engine, chosen, card, batch_size=size, workers=workers, views=views, on_batch=on_batch)


def _holdout_of_export(engine: ExportedEngine) -> tuple[float, int] | None:
    """The hold-out split of the run with the same weights: beside the file, or where it was exported from."""
    weights = str(engine.origin.get("weights_sha256", ""))
    folders = (engine.path.parent, Path(str(engine.origin.get("source", ""))))
    return next((holdout for run in folders if (holdout := holdout_of_run(run, weights))), None)
