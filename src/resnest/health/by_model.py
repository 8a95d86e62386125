"""What a model finds in a data set: likely label errors, outliers, annotations that disagree with it.

    found = look(splits, groups, "runs/a")           # a Review

Label errors are looked for in predictions of models that were not trained on the picture. These come from

- "folds": the runs of `resnest train --folds`, each for the pictures that it held out;
- "probe": a linear probe on the model's features, fitted to four fifths of the pictures, for the last fifth;
- "predictions": the model's own, of pictures that it was not trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnest.data.samples import LabelledSamples, Samples
from resnest.data.sources import Splits
from resnest.errors import ResnestError, parameter
from resnest.health.confident import LabelErrors, find_label_errors
from resnest.health.findings import Finding, Place, Review
from resnest.inference.embedding import Embedded, embed_samples, open_embedder
from resnest.inference.evaluation import evaluate_samples
from resnest.inference.model import Model, account_of, provenance_of
from resnest.inference.probing import out_of_sample as by_probe
from resnest.inference.torch_engine import TorchEngine, choose_device
from resnest.recipes.reading import read_recipe
from resnest.runtime.embedding import nearest
from resnest.tasks import check_task, task_type
from resnest.training.folds import FIGURES
from resnest.training.train import open_data

WAYS = ("auto", "folds", "probe", "predictions")
MOST = 200  # findings of a kind, of those that are ranked
DISAGREE = 0.5  # agreement below which annotations are worth a look
NEIGHBOURS = 10  # whose mean cosine tells how far a picture is from all others
FAR = 3.5  # deviations from the median, as in quality.py
MAD = 1.4826
BATCH = 64
OnBatch = Callable[[int], None]
OnStart = Callable[[int, str], None]
Scores = NDArray[np.float64]


def look(
    splits: Splits,
    groups: Mapping[Place, int],
    model: str | Path,
    *,
    device: str = "auto",
    out_of_sample: str = "auto",
    on_start: OnStart = lambda total, title: None,
    on_batch: OnBatch = lambda seen: None,
) -> Review:
    """Findings of a model in both parts.

    Args:
        groups: of each picture that can be used the number of its group: copies are of one.
        out_of_sample: "folds", "probe" or "predictions", as above; "auto": folds if `model` is a folder of them, else
            the probe.

    Raises:
        ResnestError: no such model; one of another task, or that does not know a class of the data; predictions of
            pictures that the model was trained on; too few pictures.
    """
    if out_of_sample not in WAYS:
        raise ResnestError(f"{parameter('out_of_sample', out_of_sample)}: expected {', '.join(WAYS)}")
    folds = _folds_in(Path(model))
    first = Model.from_pretrained(folds[0] if folds else model)
    labelled = isinstance(splits.train, LabelledSamples)
    on_start(sum(map(len, (splits.train, splits.val))) * (1 if labelled else 2), "")
    embedder = open_embedder(first, device=device, batch_size=BATCH)
    embedded = {part: embed_samples(embedder, samples, on_batch=on_batch) for part, samples in _parts(splits)}
    places = [Place(part, index) for part, one in embedded.items() for index in one.indices.tolist()]
    review = Review()
    review.findings += _outliers(places, np.concatenate([one.rows for one in embedded.values()]))
    if not labelled:
        review.findings += _disagreements(splits, first, device, on_batch)
        review.notes += _seen_note(first, splits)
        return review
    if splits.train.multi_label:  # type: ignore[attr-defined]
        review.notes.append("several labels an image: label errors are looked for in data with one label each")
        return review
    way = ("folds" if folds else "probe") if out_of_sample == "auto" else out_of_sample
    if way == "folds":
        if not folds:
            raise ResnestError(f"{model} holds no folds: take a folder of a cross-validation's runs, or the probe")
        places, scores = _by_folds(splits, folds, device)
    elif way == "probe":
        numbers = np.array([groups.get(place, -1 - at) for at, place in enumerate(places)])
        scores = by_probe(_rows(embedded), _labels(splits, places), len(splits.train.class_names), groups=numbers)
        review.notes += _seen_note(first, splits)
    else:
        _check_unseen(first, splits)
        places, scores = _predicted(splits, dict(_parts(splits)), first, device)
    found = find_label_errors(scores, _labels(splits, places))
    review.findings += _label_errors(splits, places, found)
    agree = float((scores.argmax(1) == _labels(splits, places)).mean())
    review.notes.append(
        f"the confident joint takes {found.estimated:.0f} of {len(places):,} labels for wrong; the predictions ({way})"
        f" agree with {agree:.1%} of the labels, and where they err themselves, that counts, too"
    )
    return review


def _parts(splits: Splits) -> list[tuple[str, Samples]]:
    return [("train", splits.train), ("val", splits.val)]


def _folds_in(folder: Path) -> list[Path]:
    """The runs of a cross-validation, if it is one."""
    if not (folder / FIGURES).is_file():
        return []
    return sorted(folder.glob("fold-*"), key=lambda path: int(path.name.removeprefix("fold-")))


def _rows(embedded: Mapping[str, Embedded]) -> Any:
    return np.concatenate([one.rows for one in embedded.values()])


def _labels(splits: Splits, places: list[Place]) -> NDArray[np.int64]:
    return np.array([getattr(splits, place.part).labels[place.index] for place in places], np.int64)


def _label_errors(splits: Splits, places: list[Place], found: LabelErrors) -> list[Finding]:
    names = splits.train.class_names
    rows = zip(found.indices.tolist(), found.guesses.tolist(), found.margins.tolist(), strict=True)
    return [Finding("label", places[at], margin, names[guess]) for at, guess, margin in rows][:MOST]


def _outliers(places: list[Place], rows: Any) -> list[Finding]:
    """Pictures far from all others, and pairs that are far more alike than neighbours are."""
    if len(places) < 3:
        return []
    numbers, cosines = nearest(rows, rows, NEIGHBOURS, same=True)
    means, best = cosines.mean(1), cosines[:, 0]
    far = np.flatnonzero(means < np.median(means) - FAR * _spread(means))
    alone = [Finding("outlier", places[at], float(means[at])) for at in far[np.argsort(means[far])].tolist()]
    close = np.flatnonzero(best > np.median(best) + FAR * _spread(best))
    pairs: dict[frozenset[int], Finding] = {}
    for at in close[np.argsort(-best[close])].tolist():
        one, other = sorted((at, int(numbers[at, 0])))
        pairs.setdefault(frozenset((one, other)), Finding("alike", places[other], float(best[at]), other=places[one]))
    return [*list(pairs.values())[:MOST], *alone[:MOST]]


def _spread(values: Any) -> float:
    return float(max(MAD * np.median(np.abs(values - np.median(values))), 1e-6))


def _by_folds(splits: Splits, folds: list[Path], device: str) -> tuple[list[Place], Scores]:
    """Each fold's predictions of what it held out; of a validation part that no fold has seen, their mean."""
    where = {part: {key: index for index, key in enumerate(samples.keys)} for part, samples in _parts(splits)}
    found: dict[Place, list[Any]] = {}
    for run in folds:
        model, recipe = Model.from_pretrained(run), read_recipe(run / "recipe.yaml")
        recipe = replace(recipe, data=replace(recipe.data, exclude=None))
        own = open_data(str(provenance_of(run).get("data")) if splits.format != "digits" else splits.where, recipe)
        held = set(own.val.keys)
        mine = {
            part: np.array([at for key, at in keys.items() if key in held], np.int64) for part, keys in where.items()
        }
        if not any(len(rows) for rows in mine.values()):
            raise ResnestError(f"{run} was trained on other data than {splits.where}: it held out none of its pictures")
        if splits.unsplit is None:
            mine["val"] = np.arange(len(splits.val))
        subsets = {part: samples.subset(mine[part]) for part, samples in _parts(splits) if len(mine[part])}
        for place, row in zip(*_predicted(splits, subsets, model, device), strict=True):
            found.setdefault(Place(place.part, int(mine[place.part][place.index])), []).append(row)
    places = sorted(found)
    return places, np.stack([np.mean(found[place], 0) for place in places])


def _predicted(splits: Splits, parts: Mapping[str, Samples], model: Model, device: str) -> tuple[list[Place], Scores]:
    """The model's probabilities in the order of the data's classes, (N, K)."""
    predictor = model.predictor(device, batch_size=BATCH)
    places: list[Place] = []
    rows: list[Any] = []
    for part, samples in parts.items():
        check_task(samples, model.card.task, splits.where, "the model")
        known = {name: at for at, name in enumerate(model.card.class_names)}
        samples.aligned(model.card, splits.where)  # raises for a class that the model lacks
        order = [known[name] for name in samples.class_names]
        named = ((samples.keys[index], samples.read(index)) for index in range(len(samples)))
        for index, result in enumerate(predictor.stream_named(named)):
            if hasattr(result, "scores"):  # else a BadImage, which the doctor names
                places.append(Place(part, index))
                rows.append(result.scores[order])
    return places, np.stack(rows).astype(np.float64)


def _disagreements(splits: Splits, model: Model, device: str, on_batch: OnBatch) -> list[Finding]:
    """Pictures whose annotations agree least with the model's results, by the task's own measure."""
    found = []
    engine = TorchEngine(model.net, choose_device(device), task=task_type(model.card.task), prepare=False)
    for part, samples in _parts(splits):
        check_task(samples, model.card.task, splits.where, "the model")
        own = samples.aligned(model.card, splits.where)
        result = evaluate_samples(engine, own, model.card, batch_size=model.card.info.batch_size, on_batch=on_batch)
        for index, value in zip(result.indices.tolist(), result.qualities.tolist(), strict=True):
            if value < DISAGREE:
                found.append(Finding("disagree", Place(part, index), value))
    return sorted(found, key=lambda one: one.score)[:MOST]


def _was_trained_on(model: Model, splits: Splits) -> bool:
    account = account_of(model.source)
    prints = account.get("fingerprints")
    return isinstance(prints, dict) and prints.get("training") == splits.train.fingerprint


def _seen_note(model: Model, splits: Splits) -> list[str]:
    if not _was_trained_on(model, splits):
        return []
    return [
        f"{model.source} was trained on these training pictures: errors that it has learned by heart stay hidden;"
        f" the runs of a cross-validation see each picture anew"
    ]


def _check_unseen(model: Model, splits: Splits) -> None:
    if _was_trained_on(model, splits):
        raise ResnestError(
            f"{model.source} was trained on these training pictures, and its predictions of them repeat their labels:"
            f" leave out {parameter('out_of_sample', 'predictions')}, or take the runs of a cross-validation"
        )
