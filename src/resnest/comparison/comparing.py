"""Models compared on the same pictures.

result = compare(["runs/a", "runs/b"])
print(result.text())
result.differences[0].resolved, result.differences[0].low, result.differences[0].high
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from resnest.comparison.settings import account, differences, validation_fingerprint
from resnest.comparison.significance import LEAST, Difference, compare_evaluations, draws, resampled_figures
from resnest.comparison.speed import PICTURES, ROUNDS, Speed, megabytes, speeds
from resnest.data.samples import Samples
from resnest.errors import ResnestError, parameter
from resnest.figures import Figure, percent
from resnest.inference.evaluation import Evaluation, evaluate
from resnest.inference.model import account_of
from resnest.runtime.decode import BadImage

RESAMPLES = 1000
NAMED = 5  # pictures and settings in the text; JSON and the page have more


@dataclass(frozen=True)
class Contender:
    """One of the models."""

    name: str
    evaluation: Evaluation
    samples: Samples
    megabytes: float | None
    speed: Speed | None = None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The first model is what the others are compared with."""

    contenders: Sequence[Contender]
    differences: Sequence[Difference]  # of each but the first
    settings: Sequence[tuple[str, ...]]  # name, and the value of each model, where they differ
    data: str
    where: str  # the part of the data that was predicted
    notes: Sequence[str] = field(default_factory=tuple)

    @property
    def main(self) -> Figure:
        return self.contenders[0].evaluation.table[0]

    def pairs(self) -> list[tuple[Contender, Difference]]:
        return list(zip(self.contenders[1:], self.differences, strict=True))

    def verdict(self, contender: Contender, difference: Difference) -> str:
        """One difference in a sentence."""
        points = f"{100 * difference.value:+.2f} points of {self.main.title}"
        between = f"{difference.level:.2%}".replace(".00%", "%").replace("%", " %")
        interval = f"{between} interval {100 * difference.low:+.2f} to {100 * difference.high:+.2f}"
        gained, lost = len(difference.better), len(difference.worse)
        said = "resolved" if difference.resolved else "not resolved: it may be chance"
        return (
            f"{contender.name} to {self.contenders[0].name}: {points} ({interval}; {difference.test} p"
            f" {short_p(difference.p)}), {said}. {gained:,} pictures better, {lost:,} worse"
        )

    def text(self) -> str:
        keys = [figure for figure in self.contenders[0].evaluation.table if self._known(figure.key)]
        heads = [figure.title for figure in keys] + ["ms", "MB"]
        rows = [[self._shown(one, figure) for figure in keys] + _costs(one) for one in self.contenders]
        widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
        left = max(len(one.name) for one in self.contenders)
        lines = [f"{self.data}: {self.where}"]
        for name, row in (("", heads), *zip((one.name for one in self.contenders), rows, strict=True)):
            cells = "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
            lines.append(f"{name:<{left}}  {cells}")
        lines += [self.verdict(*pair) for pair in self.pairs()]
        lines += [f"{name}: {' | '.join(values)}" for name, *values in self.settings[:NAMED]]
        if more := len(self.settings[NAMED:]):
            lines.append(f"and {more} more settings differ: JSON and the page have all")
        return "\n".join([*lines, *self.notes])

    def _known(self, key: str) -> bool:
        return any(np.isfinite(one.evaluation.figures.get(key, np.nan)) for one in self.contenders)

    @staticmethod
    def _shown(contender: Contender, figure: Figure) -> str:
        value = contender.evaluation.figures.get(figure.key, float("nan"))
        return f"{value:.4f}" if figure.key == "loss" else percent(value)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: fractions; NaN as null."""
        return {
            "data": self.data,
            "pictures": self.contenders[0].evaluation.count,
            "main": self.main.key,
            "models": [_model_dict(one) for one in self.contenders],
            "differences": [self._difference_dict(*pair) for pair in self.pairs()],
            "settings": [{"name": name, "values": values} for name, *values in self.settings],
            "notes": list(self.notes),
        }

    def _difference_dict(self, contender: Contender, difference: Difference) -> dict[str, Any]:
        first = self.contenders[0]
        return {
            "model": contender.name,
            "to": first.name,
            "difference": difference.value,
            "interval": [_or_null(difference.low), _or_null(difference.high)],
            "level": difference.level,
            "p": difference.p,
            "test": difference.test,
            "resolved": difference.resolved,
            **{
                name: [
                    {"image": first.samples.keys[first.evaluation.indices[place]], "was": was, "is": now}
                    for place in places.tolist()
                    for was, now in [(first.evaluation.answer(place), contender.evaluation.answer(place))]
                ]
                for name, places in (("better", difference.better), ("worse", difference.worse))
            },
        }

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2)


def compare(
    models: Sequence[str | Path],
    data: str | Path | None = None,
    *,
    split: str = "auto",
    resamples: int = RESAMPLES,
    seed: int = 0,
    measure_speed: bool = True,
    device: str = "auto",
    on_stage: Callable[[str, int], Callable[[int], None]] = lambda title, total: lambda done: None,
) -> Comparison:
    """Compare models of one task on the same pictures.

    Args:
        models: runs, exported files, checkpoints, names; the others are compared with the first.
        data: by default what the runs were validated on.
        split: of the data, as for `evaluate`.
        resamples: samples of the pictures drawn for intervals and, but for top-1, for p.
        on_stage: gets the title and the steps of each stage; what it returns gets the steps done.

    Raises:
        ResnestError: fewer than two models, models of different tasks or kinds, no data, other pictures held out for
            one than for another; and what `evaluate` raises.
    """
    names = [str(model) for model in models]
    _check_names(names)
    where = str(data) if data is not None else _common_data(names)
    contenders, part = [], ""
    for name in names:
        contender, part = _evaluated(name, where, split, device, on_stage)
        contenders.append(contender)
        _check_same(contenders[0], contender)
    first, *others = contenders
    found = _differences(first, others, resamples, seed, on_stage)
    if measure_speed:
        contenders = _timed(contenders, device, on_stage)
    return Comparison(
        contenders=contenders,
        differences=found,
        settings=differences([account(name) for name in names]),
        data=where,
        where=part,
        notes=_notes(first.evaluation.units, len(others), measure_speed),
    )


def _check_names(names: Sequence[str]) -> None:
    if len(names) < 2:
        raise ResnestError(f"only one model to compare ({', '.join(names)}): give two or more")
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise ResnestError(f"{twice[0]} is given twice: a model is compared with others")


def _common_data(names: Sequence[str]) -> str:
    """The data that all runs were validated on."""
    first: Mapping[str, object] = account_of(names[0])
    for name in names:
        found = account_of(name)
        if not isinstance(found.get("data"), str):
            raise ResnestError(f"{name} does not say what data it was trained with: give {parameter('data')}")
        same = validation_fingerprint(name) == validation_fingerprint(names[0])
        if found["data"] == first["data"] and not same:
            raise ResnestError(
                f"{name} held out other pictures of {found['data']} than {names[0]} (train.seed, data.val_fraction):"
                f" each may have learnt what the other is measured on. {_other_data()}"
            )
        if not same or (not validation_fingerprint(name) and found["data"] != first["data"]):
            raise ResnestError(
                f"{name} was validated on other pictures ({found['data']}) than {names[0]} ({first['data']})."
                f" {_other_data()}"
            )
    return str(first["data"])


def _other_data() -> str:
    return f"Give {parameter('data')}, pictures that neither was trained on"


def _evaluated(
    name: str, where: str, split: str, device: str, on_stage: Callable[[str, int], Callable[[int], None]]
) -> tuple[Contender, str]:
    opened: list[tuple[Samples, str]] = []
    advance: list[Callable[[int], None]] = []

    def on_open(samples: Samples, part: str) -> None:
        opened.append((samples, part))
        advance.append(on_stage(f"evaluating {name}:", len(samples)))

    evaluation = evaluate(
        name, where, split=split, device=device, on_open=on_open, on_batch=lambda seen: advance[0](seen)
    )
    samples, part = opened[0]
    return Contender(name, evaluation, samples, megabytes(name)), part


def _check_same(first: Contender, other: Contender) -> None:
    """Raises ResnestError if two evaluations are not of the same pictures, or cannot be compared."""
    kinds = [type(one.evaluation).table for one in (first, other)]
    if kinds[0] != kinds[1] or type(first.evaluation) is not type(other.evaluation):
        raise ResnestError(f"{first.name} and {other.name} are of other kinds: compare models of one task")
    keys = [[one.samples.keys[index] for index in one.evaluation.indices.tolist()] for one in (first, other)]
    if keys[0] != keys[1]:
        raise ResnestError(
            f"{other.name} held out other pictures than {first.name}: each may have learnt what the other is measured"
            f" on. {_other_data()}"
        )


def _differences(
    first: Contender,
    others: Sequence[Contender],
    resamples: int,
    seed: int,
    on_stage: Callable[[str, int], Callable[[int], None]],
) -> list[Difference]:
    """Of each to the first, at a level for all of them together (Bonferroni)."""
    drawn = draws(first.evaluation.units, resamples, seed)
    done = on_stage("resampling:", resamples * (1 + len(others)))
    known = resampled_figures(first.evaluation, drawn, done)
    level = 1 - 0.05 / len(others)
    return [
        compare_evaluations(
            first.evaluation, other.evaluation, (known, resampled_figures(other.evaluation, drawn, done)), level=level
        )
        for other in others
    ]


def _timed(
    contenders: Sequence[Contender], device: str, on_stage: Callable[[str, int], Callable[[int], None]]
) -> list[Contender]:
    pictures = list(_pictures(contenders[0]))
    done = on_stage("timing:", ROUNDS + 1)
    measured = speeds([one.name for one in contenders], pictures, device=device, on_round=lambda: done(1))
    return [
        Contender(one.name, one.evaluation, one.samples, one.megabytes, speed)
        for one, speed in zip(contenders, measured, strict=True)
    ]


def _pictures(contender: Contender) -> list[Image.Image]:
    found: list[Image.Image] = []
    for index in contender.evaluation.indices.tolist():
        try:
            found.append(contender.samples.decode(index))
        except BadImage:
            continue
        if len(found) == PICTURES:
            break
    return found


def _notes(pictures: int, comparisons: int, timed: bool) -> list[str]:
    notes = [f"{pictures} pictures: fewer than {LEAST} resolve no difference"] if pictures < LEAST else []
    notes += ["the intervals are over pictures; another seed of training is more chance, which they do not show"]
    if comparisons > 1:
        notes.append(f"{comparisons} comparisons: the level of each keeps 95 % for all together")
    if timed:
        notes.append("ms: of one picture alone, in turns, on this machine; run nothing else beside it")
    return notes


def _costs(contender: Contender) -> list[str]:
    speed, size = contender.speed, contender.megabytes
    return [f"{speed.ms:.1f} ({speed.ratio:.2f}x)" if speed else "-", f"{size:.1f}" if size else "-"]


def _model_dict(contender: Contender) -> dict[str, Any]:
    evaluation, speed = contender.evaluation, contender.speed
    return {
        "model": contender.name,
        **{key: _or_null(value) for key, value in evaluation.figures.items()},
        **{f"{key}_interval": list(interval) for key, interval in evaluation.intervals().items()},
        "megabytes": contender.megabytes,
        "ms": speed.ms if speed else None,
        "ms_ratio": speed.ratio if speed else None,
    }


def _or_null(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def short_p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"
