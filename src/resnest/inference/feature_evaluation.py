"""How well classes can be read off a model's features: `resnest evaluate MODEL --data D --knn` or `--probe`.

    result = evaluate_features("runs/a", "photos", method="knn")
    result.figures["top1"], result.headline

The training part of the data is the bank that a picture's neighbours vote in, or what the linear probe is fitted to.
The validation part is measured. The model may be of any task, and need not know the classes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from resnest.data.samples import LabelledSamples, Samples
from resnest.data.sources import open_split
from resnest.data.splitting import Holdout
from resnest.errors import ResnestError, parameter
from resnest.figures import Figure, wilson_interval
from resnest.inference.embedding import embed_samples, open_embedder
from resnest.inference.evaluation import Evaluation, Floats, Indices, holdout_of_export, recall_of_classes, share_lines
from resnest.inference.model import Model, account_of
from resnest.inference.probing import NEIGHBOURS, TEMPERATURE, LinearProbe, neighbour_scores
from resnest.runtime.embedding import Embedder, Features
from resnest.runtime.engines.exported import ExportedEngine
from resnest.tasks import DEFAULT_TASK

METHODS = {"knn": "nearest neighbours", "probe": "linear probe"}
TABLE = (
    Figure("top1", "top-1", "images whose label is the first"),
    Figure("top5", "top-5", "images whose label is among the first five"),
)


@dataclass(kw_only=True)
class FeatureEvaluation(Evaluation):
    """The result: figures of the classes that features give."""

    table: ClassVar[tuple[Figure, ...]] = TABLE

    method: str
    bank: int  # pictures of the bank
    settings: dict[str, float]
    labels: Indices  # (N,)
    scores: Floats  # (N, K)

    @property
    def headline(self) -> str:
        return f"{self.titled('top1')} by {METHODS[self.method]}"

    def intervals(self) -> dict[str, tuple[float, float]]:
        return {key: wilson_interval(value * self.count, self.count) for key, value in self.figures.items()}

    def lines(self) -> list[str]:
        settings = ", ".join(f"{name} {value:g}" for name, value in self.settings.items())
        told = f"{METHODS[self.method]} in {self.bank:,} training images" + (f" ({settings})" if settings else "")
        return [told, *share_lines(self)]

    @property
    def class_figures(self) -> tuple[Floats, Indices]:
        """Recall and number of images of each class."""
        return recall_of_classes(self.labels, self.scores.argmax(1), len(self.class_names))

    def worst(self, most: int) -> Indices:
        """Positions of the images whose label has the lowest score, lowest first."""
        return np.argsort(self.scores[np.arange(self.count), self.labels], kind="stable")[:most].astype(np.int64)

    def details(self) -> dict[str, Any]:
        return {"method": self.method, "bank_images": self.bank, **self.settings}


def evaluate_features(
    model: str | Path,
    data: str | Path,
    *,
    method: str = "knn",
    neighbours: int = NEIGHBOURS,
    temperature: float = TEMPERATURE,
    split: str = "val",
    format: str = "auto",
    network: str | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    workers: int | None = None,
    on_batch: Callable[[int], None] = lambda seen: None,
    on_open: Callable[[int, str], None] = lambda count, where: None,
) -> FeatureEvaluation:
    """Evaluate a model's features on a data set with one label an image.

    Args:
        model: of any task; an exported file with features.
        method: "knn", the votes of the nearest neighbours, or "probe", a linear probe.
        neighbours, temperature: of "knn".
        split: "val" or "test", by the training part; of data without parts, what training held out, or a fifth.

    Raises:
        ResnestError: an unknown method or split, data without labels or with several an image.
    """
    started = time.perf_counter()
    _check_words(method, split)
    embedder = open_embedder(model, device=device, batch_size=batch_size or 64, network=network)
    holdout, account = _training_of(embedder, model, network)
    how: dict[str, Any] = {"format": format, "task": DEFAULT_TASK, "bands": embedder.card.bands}
    how |= {"holdout": holdout, "trained_on": account}
    bank = open_split(data, "train", **how)
    part = open_split(data, "val" if split == "auto" else split, **how)
    bank_samples, part_samples = _checked(bank.samples, data).matched(_checked(part.samples, data), str(data))
    on_open(len(bank_samples) + len(part_samples), part.describe)
    given: dict[str, Any] = {"batch_size": batch_size or 64, "workers": workers, "on_batch": on_batch}
    known, asked = (embed_samples(embedder, samples, **given) for samples in (bank_samples, part_samples))
    labels = bank_samples.labels[known.indices]
    settings = {"neighbours": float(neighbours), "temperature": temperature} if method == "knn" else {}
    scores = _scores(asked.rows, known.rows, labels, len(bank_samples.class_names), settings)
    truth = part_samples.labels[asked.indices]
    return FeatureEvaluation(
        figures=_figures(scores, truth),
        class_names=bank_samples.class_names,
        indices=asked.indices,
        bad=[*known.bad, *asked.bad],
        seconds=time.perf_counter() - started,
        method=method,
        bank=len(known.indices),
        settings=settings,
        labels=truth,
        scores=scores,
    )


def _scores(rows: Features, bank: Features, labels: Indices, classes: int, settings: dict[str, float]) -> Floats:
    """(Q, K) by neighbours with these settings, or without any by the probe."""
    if not settings:
        return LinearProbe.fit(bank, labels, classes)(rows)
    count, temperature = int(settings["neighbours"]), settings["temperature"]
    return neighbour_scores(rows, bank, labels, classes, neighbours=count, temperature=temperature)


def _check_words(method: str, split: str) -> None:
    """Raises ResnestError for an unknown method or split."""
    if method not in METHODS:
        raise ResnestError(f"{parameter('method', method)}: expected {' or '.join(METHODS)}")
    if split not in ("auto", "val", "test"):
        option = parameter("split", split)
        raise ResnestError(f"{option}: neighbours are looked for in the training part; take val or test")


def _training_of(embedder: Embedder, model: str | Path, network: str | None) -> tuple[Holdout | None, Any]:
    """What the model's training held out, and its account of its data."""
    if isinstance(embedder.engine, ExportedEngine):
        return holdout_of_export(embedder.engine)
    opened = Model.from_pretrained(model, network=network)
    return opened.holdout, account_of(opened.source)


def _checked(samples: Samples, data: str | Path) -> LabelledSamples:
    """Raises ResnestError for data without one label an image."""
    if not isinstance(samples, LabelledSamples) or samples.multi_label:
        raise ResnestError(f"{data} has {samples.has}: features are evaluated on images with one label each")
    return samples


def _figures(scores: Floats, labels: Indices) -> dict[str, float]:
    """Ties count against: a label that shares its score with another comes after it."""
    own = scores[np.arange(len(labels)), labels][:, None]
    rank = (scores >= own).sum(1) - 1  # (N,)
    return {key: float((rank < most).mean()) for key, most in (("top1", 1), ("top5", 5)) if most < scores.shape[1]}
