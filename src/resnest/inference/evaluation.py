"""Evaluating a classifier on labelled images.

result = evaluate("runs/a", data="flowers")
result.figures["top1"], result.interval         # fractions
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from resnest.data.loading import evaluation_batches
from resnest.data.real import RealLabels
from resnest.data.samples import Samples
from resnest.data.sources import open_part
from resnest.errors import ResnestError
from resnest.inference.model import Model
from resnest.inference.predicting import choose_device
from resnest.metrics import ClassificationMetrics, wilson_interval
from resnest.runtime.card import ModelCard
from resnest.runtime.preprocess import Preprocess
from resnest.runtime.results import softmax

MAX_BAD_SHARE = 0.05  # of a data set's images: more than that is a broken data set, not a few broken files (P11)


@dataclass
class Evaluation:
    """Figures, and what was said of every image that could be read."""

    figures: dict[str, float]  # fractions; loss in nats
    class_names: tuple[str, ...]
    confusion: NDArray[np.int64]  # (K, K), rows: truth
    indices: NDArray[np.int64]  # (N,) into the samples
    labels: NDArray[np.int64]  # (N,)
    predicted: NDArray[np.int64]  # (N,)
    scores: NDArray[np.float32]  # (N,) of the predicted class
    truth_scores: NDArray[np.float32]  # (N,) of the true class
    bad: list[tuple[str, str]] = field(default_factory=list)  # unusable files: key, reason
    seconds: float = 0.0

    @property
    def count(self) -> int:
        return len(self.indices)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of top-1."""
        return self.interval_of("top1")

    def interval_of(self, figure: str) -> tuple[float, float]:
        """95 % interval of a share of the images, such as "top5"."""
        return wilson_interval(self.figures[figure] * self.count, self.count)

    def per_class(self) -> list[tuple[str, float | None, int]]:
        """Name, share found (recall) and number of images of each class; None where there is no image."""
        counts = self.confusion.sum(1)
        return [
            (name, float(self.confusion[k, k] / counts[k]) if counts[k] else None, int(counts[k]))
            for k, name in enumerate(self.class_names)
        ]

    def worst(self, most: int) -> NDArray[np.int64]:
        """Positions of the most confident mistakes, worst first."""
        wrong = np.flatnonzero(self.predicted != self.labels)
        return wrong[np.argsort(-self.scores[wrong], kind="stable")][:most]


def evaluate_network(
    net: nn.Module,
    samples: Samples,
    preprocess: Preprocess,
    *,
    device: torch.device,
    batch_size: int = 64,
    workers: int | None = None,
    real: RealLabels | None = None,
    on_batch: Callable[[int], None] = lambda seen: None,
    rank: int = 0,
    world_size: int = 1,
    gather: Callable[[Any], list[Any]] = lambda mine: [mine],
) -> Evaluation:
    """Run `net` over all samples, each once; `on_batch` hears how many were seen.

    Args:
        rank, world_size: of the process; each takes every `world_size`-th sample, and all come to the same result.
        gather: the processes' way to a list of what each of them found.
        real: several right answers an image, in place of the samples' labels.

    Raises:
        ResnestError: more than 5 % of the images are unusable.
    """
    started = time.perf_counter()
    metrics = ClassificationMetrics(len(samples.class_names))
    rows: list[tuple[NDArray[np.int64], ...]] = []
    scores: list[NDArray[np.float32]] = []
    bad: list[tuple[str, str]] = []
    was_training = net.training
    net.eval()
    share = {"rank": rank, "world_size": world_size}
    for batch in evaluation_batches(samples, preprocess, batch_size=batch_size, workers=workers, **share):
        bad += [(key, reason) for _, key, reason in batch.bad]
        if world_size == 1:  # else together, below: the others wait there
            check_bad_share(len(bad), len(samples), bad[-1] if bad else None)
        if len(batch.labels):
            with torch.inference_mode():
                images = batch.images.to(device).contiguous(memory_format=torch.channels_last)
                logits = net(images).float().cpu().numpy()
            labels = batch.labels.numpy()
            if real is not None:
                labels = real.best([samples.keys[index] for index in batch.indices], logits)
            metrics.update(logits, labels)
            rows.append((batch.indices.numpy(), labels, logits.argmax(1)))
            scores.append(softmax(logits))
        on_batch(len(batch.labels) + len(batch.bad))
    net.train(was_training)
    if world_size > 1:
        metrics, rows, scores, bad = _merge(gather((metrics, rows, scores, bad)))
        check_bad_share(len(bad), len(samples), bad[-1] if bad else None)
    result = _collect(samples.class_names, metrics, rows, scores, bad, time.perf_counter() - started)
    if real is not None:
        del result.figures["loss"]  # which of several right answers should have been likely is not defined
    return result


def evaluate(
    model: str | Path,
    data: str | Path,
    *,
    split: str = "auto",
    format: str = "auto",
    network: str | None = None,
    labels: str | Path | None = None,
    device: str = "auto",
    batch_size: int = 64,
    workers: int | None = None,
    on_batch: Callable[[int], None] = lambda seen: None,
    on_open: Callable[[Samples, str], None] = lambda samples, where: None,
) -> Evaluation:
    """Evaluate any model reference on a data set, with the preprocessing that belongs to its weights.

    Args:
        split: "auto", the validation part; of data without parts what training held back, or everything if the model
            was not trained here. Or "val", "train", "all".
        network: what a checkpoint file is, where it does not say so itself.
        labels: ImageNet-ReaL's real.json, several right answers an image.

    Raises:
        ResnestError: no such model or data, classes that the model does not know, too many unusable images.
    """
    opened = Model.from_pretrained(model, network=network)
    real = RealLabels.read(Path(labels), len(opened.card.class_names)) if labels else None
    part = open_part(data, split, format=format, held_back=opened.held_back)
    chosen = _align(part.samples, opened.card, str(data))
    if real is not None:
        chosen = real.choose(chosen)
    on_open(
        chosen, part.describe if len(chosen) == len(part.samples) else f"{part.describe}; {len(chosen)} with labels"
    )
    place = choose_device(device)
    net = opened.net.to(device=place, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return evaluate_network(
        net,
        chosen,
        opened.card.preprocess,
        device=place,
        batch_size=batch_size,
        workers=workers,
        real=real,
        on_batch=on_batch,
    )


def check_bad_share(bad: int, total: int, last: tuple[str, str] | None) -> None:
    """Raises ResnestError once too many files of a data set are unusable."""
    if bad > MAX_BAD_SHARE * total and last:
        raise ResnestError(
            f"{bad} of {total} images cannot be used, more than {MAX_BAD_SHARE:.0%}; the last one is {last[0]}:"
            f" {last[1]}. `resnest doctor --data` lists them all"
        )


def _align(samples: Samples, card: ModelCard, where: str) -> Samples:
    """The samples with labels as the model numbers its classes.

    A class may be called by the model's name for it, by its key (ImageNet's synset), or, if all of them are numbers,
    by its index (ImageNet-V2).
    """
    known = {name: index for names in (card.class_keys, card.class_names) for index, name in enumerate(names)}
    count = len(card.class_names)
    strange = [name for name in samples.class_names if name not in known]
    if strange and all(name.isdigit() and int(name) < count for name in samples.class_names):
        known, strange = {name: int(name) for name in samples.class_names}, []
    if strange:
        shown = ", ".join(strange[:5]) + (", ..." if len(strange) > 5 else "")
        raise ResnestError(
            f"{where} has {len(strange)} classes that the model does not know: {shown}."
            f" The model has {count}: {', '.join(card.class_names[:5])}{', ...' if count > 5 else ''}"
        )
    index = np.array([known[name] for name in samples.class_names], np.int64)
    return Samples(samples.store, samples.keys, index[samples.labels], card.class_names)


def _merge(parts: list[Any]) -> Any:
    """What all processes found, as if one had found it all."""
    metrics, rows, scores, bad = parts[0]
    for more_metrics, more_rows, more_scores, more_bad in parts[1:]:
        metrics.merge(more_metrics)
        rows, scores, bad = rows + more_rows, scores + more_scores, bad + more_bad
    return metrics, rows, scores, bad


def _collect(
    class_names: tuple[str, ...],
    metrics: ClassificationMetrics,
    rows: list[tuple[NDArray[np.int64], ...]],
    scores: list[NDArray[np.float32]],
    bad: list[tuple[str, str]],
    seconds: float,
) -> Evaluation:
    if not rows:
        raise ResnestError("not one image could be used")
    indices, labels, predicted = (np.concatenate(column) for column in zip(*rows, strict=True))
    table = np.concatenate(scores)
    by_index = np.argsort(indices, kind="stable")  # processes take turns
    indices, labels, predicted = (column[by_index] for column in (indices, labels, predicted))
    table = table[by_index]
    order = np.arange(len(labels))
    return Evaluation(
        figures=metrics.compute(),
        class_names=class_names,
        confusion=metrics.confusion,
        indices=indices,
        labels=labels,
        predicted=predicted,
        scores=table[order, predicted],
        truth_scores=table[order, labels],
        bad=bad,
        seconds=seconds,
    )
