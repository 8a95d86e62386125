"""The evaluation loop, predict and score, for every task, networks and exported files, one process or many.

result = evaluate("runs/a", data="flowers")
result.figures["top1"], result.headline         # of others: figures["map"], ["box_ap"], ["miou"], ["pq"]
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from torch import nn

from resnest.data.loading import EvaluationBatch, Load, evaluation_batches
from resnest.data.samples import Samples
from resnest.data.sources import open_split
from resnest.data.splitting import Holdout
from resnest.errors import ResnestError, parameter
from resnest.figures import Figure, percent
from resnest.inference.model import RECIPE_NAME, Model, account_of, holdout_of_run, provenance_of, run_folders
from resnest.inference.predicting import cut
from resnest.inference.torch_engine import TorchEngine, choose_device
from resnest.recipes.reading import read_recipe
from resnest.runtime.card import ModelCard
from resnest.runtime.decode import BadImage
from resnest.runtime.engines.choosing import is_exported, open_engine
from resnest.runtime.engines.exported import Engine, ExportedEngine, Views
from resnest.runtime.hardware import malloc_trim
from resnest.runtime.regions import Decoded
from resnest.runtime.tiles import Tiles
from resnest.runtime.tiling import predict_in_tiles
from resnest.tasks import box_source, check_task, load_object, task_type

# --- The result of an evaluation: figures, and predictions for each image. Each task adds its own fields ---
# result.figures, result.headline, result.worst(24)

MAX_BAD_FRACTION = 0.05  # of a data set's images: more than that is a broken data set, not a few broken files (P11)
Indices = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(kw_only=True)
class Evaluation:
    """The result of an evaluation, for any task."""

    table: ClassVar[tuple[Figure, ...]]  # of the task's figures
    report: ClassVar[str]  # (evaluation, samples, history) -> Report, as "package.module:NAME"
    counted: ClassVar[str] = "images"  # what `per_class` counts

    figures: dict[str, float]  # fractions; loss in nats
    class_names: tuple[str, ...]
    indices: Indices  # (N,) into the samples
    bad: list[tuple[str, str]] = field(default_factory=list)  # unusable files: key, reason
    seconds: float = 0.0

    @property
    def count(self) -> int:
        return len(self.indices)

    @property
    def headline(self) -> str:
        """The monitored figure, as text."""
        raise NotImplementedError

    def lines(self) -> list[str]:
        """All figures except the loss, as lines of text."""
        raise NotImplementedError

    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 % intervals of the figures that are proportions of the images."""
        return {}

    @property
    def class_figures(self) -> tuple[Floats, Indices]:
        """The main figure of each class, NaN where undefined, and its count, both (K,)."""
        raise NotImplementedError

    def per_class(self) -> list[tuple[str, float | None, int]]:
        """Name, figure and number of images, or objects, of each class; None where undefined."""
        return [
            (name, None if math.isnan(figure) else float(figure), int(count))
            for name, figure, count in zip(self.class_names, *self.class_figures, strict=True)
        ]

    def titled(self, key: str) -> str:
        """A figure with its title: "mIoU 68.50%"."""
        [title] = (figure.title for figure in self.table if figure.key == key)
        return f"{title} {percent(self.figures[key])}"

    def details(self) -> dict[str, Any]:
        """For JSON: further figures of each class, and what was counted. May contain NaN."""
        return {}

    def by_class(self, values: Iterable[float]) -> dict[str, float]:
        """Values of the classes, (K,), by class name."""
        return dict(zip(self.class_names, map(float, values), strict=True))

    def worst(self, most: int) -> Indices:
        """Positions of the worst errors, worst first."""
        raise NotImplementedError

    # --- what two evaluations of the same pictures are compared by (resnest.comparison) ---

    @property
    def qualities(self) -> Floats:
        """(N,) of each picture alone: 1 without an error, NaN where nothing counts."""
        raise NotImplementedError

    def answer(self, position: int) -> str:
        """What the model made of a picture, in a few words: by default its quality."""
        return percent(float(self.qualities[position]), 1)

    @property
    def right(self) -> NDArray[np.bool_] | None:
        """(N,) of an evaluation whose main figure is the share of pictures that are right; None of others."""
        return None

    @property
    def units(self) -> int:
        """The number of pictures that `resampled` draws from."""
        return self.count

    def resampled(self, draws: Indices) -> Floats:
        """The main figure, the first of the table, of pictures drawn with replacement.

        Shapes: (B, n) positions below `units` -> (B,), NaN where it is not defined.
        """
        raise NotImplementedError


def share_lines(evaluation: Evaluation) -> list[str]:
    """The figures that are proportions of the images, with their intervals."""
    titles = {figure.key: figure.title for figure in evaluation.table}
    return [
        f"{titles[key]}  {evaluation.figures[key]:7.2%}   95 % interval {low:.1%} to {high:.1%}"
        for key, (low, high) in evaluation.intervals().items()
    ]


def recall_of_classes(labels: Indices, predicted: Indices, classes: int) -> tuple[Floats, Indices]:
    """Recall, NaN of a class without images, and number of images of each class: (N,), (N,) -> (K,), (K,)."""
    counts = np.bincount(labels, minlength=classes)
    right = np.bincount(labels[labels == predicted], minlength=classes)
    return np.divide(right, counts, out=np.full(classes, np.nan), where=counts > 0), counts


def check_bad_fraction(bad: int, total: int, last: tuple[str, str] | None) -> None:
    """Raises ResnestError if too many files of a data set are unusable."""
    if bad > MAX_BAD_FRACTION * total and last:
        raise ResnestError(
            f"{bad} of {total} images cannot be used, more than {MAX_BAD_FRACTION:.0%}; the last one is {last[0]}:"
            f" {last[1]}. `resnest doctor --data` lists them all"
        )


# --- The worst pictures of an evaluation, with their predictions; those of all pictures would not fit into memory.

COUNT = 12  # pictures whose results are stored


class WorstPictures:
    """The quality of every picture, and the results of the worst ones."""

    def __init__(self) -> None:
        self.quality: dict[int, float] = {}  # by index; NaN if nothing in a picture counts
        self._heap: list[tuple[tuple[bool, float, int], int, Any]] = []  # the best stored picture comes first

    def add(self, index: int, quality: float, result: Any) -> None:
        self.quality[index] = quality
        self._keep(index, result)

    def merge(self, other: WorstPictures) -> None:
        self.quality |= other.quality
        for _, index, result in other._heap:
            self._keep(index, result)

    def _keep(self, index: int, result: Any) -> None:
        quality = self.quality[index]
        known = not math.isnan(quality)
        heapq.heappush(self._heap, ((known, -quality if known else 0.0, -index), index, result))
        if len(self._heap) > COUNT:
            heapq.heappop(self._heap)

    @property
    def indices(self) -> NDArray[np.int64]:
        """(N,) indices of the usable pictures. Raises ResnestError: there is none."""
        if not self.quality:
            raise ResnestError("no image could be used")
        return np.array(sorted(self.quality), np.int64)

    @property
    def qualities(self) -> NDArray[np.float64]:
        """(N,) of each picture alone."""
        return np.array([self.quality[index] for index in self.indices.tolist()], np.float64)

    @property
    def results(self) -> dict[int, Any]:
        """The results of the worst pictures, by position among the indices."""
        position = {index: row for row, index in enumerate(self.indices.tolist())}
        return {position[index]: result for _, index, result in sorted(self._heap, key=lambda entry: entry[1])}


def lowest(qualities: NDArray[np.float64], most: int) -> NDArray[np.int64]:
    """Positions of the lowest, worst first, without pictures that have no error."""
    order = np.argsort(qualities, kind="stable")  # NaN comes last
    return order[qualities[order] < 1][:most].astype(np.int64)


# Batches after which freed memory is returned. What is kept of each image lies between freed arrays, so that the next
# ones do not fit: 20,000 images of 20,000 classes took 1.0 to 2.3 GB, by chance, and take 0.9 GB.
GIVE_BACK_EVERY = 16
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
    tiles: Tiles | None = None,
    scoring: Mapping[str, Any] = MappingProxyType({}),
    on_batch: Callable[[int], None] = lambda seen: None,
    rank: int = 0,
    world_size: int = 1,
    gather: Callable[[Any], list[Any]] = lambda mine: [mine],
) -> Evaluation:
    """Predict every sample once, and score the results; `on_batch` gets the number of samples so far.

    Args:
        card: of the model that the engine runs; the samples have its classes.
        views: test-time augmentation.
        tiles: look at pictures in tiles; `card` is that for tiles.
        scoring: arguments of the task's scorer.
        rank, world_size: of the process; each takes every `world_size`-th sample, and all come to the same result.
        gather: all_gather of objects: the processes' way to a list of what each of them has.

    Raises:
        ResnestError: more than 5 % of the images are unusable.
    """
    started = time.perf_counter()
    scorer: Scorer = load_object(card.info.scorer)(samples, card, **scoring)
    bad: list[tuple[str, str]] = []
    apart = bool(tiles or (views and not card.info.views_in_batches))  # picture by picture
    predict = partial(_predict_batch, engine, card, samples, batch_size, views, tiles)
    how: dict[str, Any] = {"batch_size": 1 if apart else batch_size, "workers": workers, "keep_images": apart}
    batches = evaluation_batches(samples, None if tiles else card.preprocess, rank=rank, world_size=world_size, **how)
    for number, batch in enumerate(batches, start=1):
        bad += batch.bad
        if world_size == 1:  # else together, below: the others wait there
            check_bad_fraction(len(bad), len(samples), bad[-1] if bad else None)
        for index, result, truth in zip(batch.indices, predict(batch), batch.truths, strict=True):
            if isinstance(result, BadImage):
                bad.append((result.name, result.reason))
            else:
                scorer.update(index, result, truth)
        on_batch(len(batch.indices) + len(batch.bad))
        if number % GIVE_BACK_EVERY == 0:
            malloc_trim()
    if world_size > 1:
        (scorer, bad), *others = gather((scorer, bad))
        for theirs, worse in others:
            scorer.merge(theirs)
            bad = bad + worse
        check_bad_fraction(len(bad), len(samples), bad[-1] if bad else None)
    evaluation = scorer.result()
    evaluation.bad, evaluation.seconds = bad, time.perf_counter() - started
    return evaluation


def _predict_batch(
    engine: Engine,
    card: ModelCard,
    samples: Samples,
    batch_size: int,
    views: Views | None,
    tiles: Tiles | None,
    batch: EvaluationBatch,
) -> Sequence[Any]:
    """A result for each image, or its BadImage: only a tile may be one, as whole images are prepared before."""
    if not batch.indices:
        return []
    images = batch.prepared(samples)
    if tiles is None:
        return card.info.predict(engine, card, images, views)
    results: list[Any] = []
    for image in images:
        assert image.image is not None
        picture = Decoded(image.image, image.name)
        try:
            results.append(
                predict_in_tiles(engine, card, picture, image.name, tiles, batch_size=batch_size, views=views)
            )
        except BadImage as error:
            results.append(error)
    return results


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
    surface: float | None = None,
    threshold: float | None = None,
    tiles: Tiles | None = None,
    boxes: str | Path | None = None,
    exif: str | None = None,
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
        surface: of a segmenter, measure distances of outlines too, with this tolerance in pixels.
        threshold: of a model that predicts by one (multi-label masks), in place of its card's.
        tiles: cut pictures into tiles, of a detector or a segmenter.
        boxes: of a model that looks at boxes, where they come from in place of the annotations: a model or a file.
        exif: which way up pictures with an EXIF orientation were annotated: "auto", "upright" or "stored", by default
            the model's own data.exif.

    Raises:
        ResnestError: no such model or data, classes that the model does not know, multi-label data for a
            single-label model, too many unusable images.
    """
    opened = _open(model, network, device, batch_size)
    engine, card, holdout, account = opened.engine, opened.card, opened.holdout, opened.account
    card, scoring = _measured_with(cut(card, window, tiles), surface, threshold)
    if views is not None:
        card.info.check_views(views)
    how: dict[str, Any] = {"format": format, "exif": exif or exif_of_run(Path(model)), "bands": card.bands}
    how |= {"task": card.task, "reading": card.reading}
    part = open_split(data, split, holdout=holdout, trained_on=account, **how)
    check_task(part.samples, card.task, str(data), "the model")
    chosen = part.samples.aligned(card, str(data))
    chosen = _relabelled(chosen, labels, card) if labels else chosen
    about = [f"{len(chosen)} with labels"] if len(chosen) != len(part.samples) else []
    if boxes is not None:
        chosen = box_source(card.info).open(boxes, card, device=device).samples(chosen)
    about += [note for note in chosen.left_out if note not in part.samples.left_out]
    on_open(chosen, "; ".join([part.describe, *about]))
    how = {"batch_size": batch_size or card.info.batch_size, "workers": workers, "views": views, "tiles": tiles}
    return evaluate_samples(engine, chosen, card, on_batch=on_batch, scoring=scoring, **how)


def _measured_with(
    card: ModelCard, surface: float | None, threshold: float | None
) -> tuple[ModelCard, dict[str, float]]:
    """The card, and arguments of the task's scorer. Raises ResnestError: it has none such, or it is out of range."""
    card = card if threshold is None else card.with_threshold(threshold)
    if surface is None:
        return card, {}
    given = parameter("surface", surface)
    if not card.info.measures_outlines:
        raise ResnestError(f"{given} is for segmenters, and this model is {card.info.noun}")
    if not 0 <= surface < math.inf:
        raise ResnestError(f"{given}: expected a tolerance of 0 pixels or more")
    return card, {"surface": surface}


def _relabelled(samples: Any, labels: str | Path, card: ModelCard) -> Any:
    """Samples with the labels of a file. Raises ResnestError: the task's have none."""
    if not card.info.relabel:
        raise ResnestError(f"{parameter('labels')} replaces one label an image: leave it out for {card.info.noun}")
    return load_object(card.info.relabel)(samples, Path(labels), card)


class _Opened(NamedTuple):
    """What is evaluated: a network or an exported file, the split that training held out, and its data."""

    engine: Engine
    card: ModelCard
    holdout: Holdout | None
    account: Mapping[str, object]


def _open(model: str | Path, network: str | None, device: str, batch_size: int | None) -> _Opened:
    if is_exported(model):
        exported = open_engine(Path(model), device=device, batch_size=batch_size or USUAL_BATCH)
        return _Opened(exported, exported.card, *holdout_of_export(exported))
    opened = Model.from_pretrained(model, network=network)
    engine = TorchEngine(opened.net, choose_device(device), task=task_type(opened.card.task), prepare=False)
    return _Opened(engine, opened.card, opened.holdout, account_of(opened.source))


def exif_of_run(model: Path) -> str:
    """The data.exif of the run that a model is, or lies in; "auto" for other models."""
    recipes = (recipe for folder in run_folders(model) if (recipe := folder / RECIPE_NAME).is_file())
    return next((read_recipe(recipe).data.exif for recipe in recipes), "auto")


def holdout_of_export(engine: ExportedEngine) -> tuple[Holdout | None, dict[str, object]]:
    """The hold-out split of the run with the same weights, beside the file or where it was exported from; its data."""
    weights = str(engine.origin.get("weights_sha256", ""))
    folders = (engine.path.parent, Path(str(engine.origin.get("source", ""))))
    found = ((holdout, provenance_of(run)) for run in folders if (holdout := holdout_of_run(run, weights)))
    return next(found, (None, {}))
