"""`resnest compare`: significance, settings that differ, pictures that flipped, bad input."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import Outcome, pico
from resnest.classification.evaluation import SingleLabelEvaluation
from resnest.comparison.comparing import compare
from resnest.comparison.settings import account, differences
from resnest.comparison.significance import bootstrap_p, compare_evaluations, draws, mcnemar, resampled_figures
from resnest.errors import ResnestError
from resnest.training.train import train

Cli = Callable[..., Outcome]


def evaluation(right: np.ndarray[Any, np.dtype[np.bool_]]) -> SingleLabelEvaluation:
    """With so many classes right; class 1 is true everywhere."""
    count = len(right)
    return SingleLabelEvaluation(
        figures={"top1": float(right.mean())},
        class_names=("a", "b"),
        indices=np.arange(count),
        labels=np.ones(count, np.int64),
        predicted=right.astype(np.int64),
        scores=np.ones(count, np.float32),
        truth_scores=np.ones(count, np.float32),
    )


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    [(0, 0, 1.0), (3, 3, 1.0), (1, 0, 1.0), (10, 2, 0.03857421875), (2, 10, 0.03857421875), (60, 25, 0.0001867994)],
)
def test_mcnemar(gained: int, lost: int, p: float) -> None:
    assert mcnemar(gained, lost) == pytest.approx(p, rel=1e-4)


def test_p_of_a_bootstrap() -> None:
    assert bootstrap_p(np.full(999, 1.0)) == pytest.approx(0.002)
    assert bootstrap_p(np.array([-1.0, 1.0] * 50)) == 1.0
    assert bootstrap_p(np.zeros(0)) == 1.0


def test_what_is_chance_is_not_resolved_in_all_but_five_percent() -> None:
    """The test rejects about as often as it says, and the interval covers the true difference."""
    rng, rejected, covered = np.random.default_rng(0), 0, 0
    for seed in range(200):
        hard = rng.random(300)  # both are right with the same probability, picture by picture
        first, second = (evaluation(rng.random(300) < hard) for _ in range(2))
        drawn = draws(300, 200, seed)
        figures = (resampled_figures(first, drawn, int), resampled_figures(second, drawn, int))
        found = compare_evaluations(first, second, figures, level=0.95)
        rejected += found.resolved
        covered += found.low <= 0 <= found.high
    assert rejected <= 20  # of 200; an exact test rejects at most 5 %
    assert covered >= 180


def test_a_real_difference_is_resolved() -> None:
    rng = np.random.default_rng(1)
    hard = rng.random(400)
    first, second = evaluation(hard < 0.6), evaluation(hard < 0.75)
    drawn = draws(400, 500, 0)
    figures = (resampled_figures(first, drawn, int), resampled_figures(second, drawn, int))
    found = compare_evaluations(first, second, figures, level=0.95)
    assert found.resolved
    assert found.test == "McNemar"
    assert found.value == pytest.approx(second.figures["top1"] - first.figures["top1"])
    assert found.low <= found.value <= found.high
    assert found.worse.size == 0
    assert sorted(found.better.tolist()) == np.flatnonzero((hard >= 0.6) & (hard < 0.75)).tolist()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes that differ in brightness, with a validation part."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for part, count in (("train", 12), ("val", 14)):
        for label, low in (("dark", 0), ("light", 120)):
            (folder / part / label).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(low, low + 136, (20, 20, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / part / label / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def runs(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    out = tmp_path_factory.mktemp("runs")
    for name, epochs in (("a", 2), ("b", 1)):
        train("imagenette", data=pictures, out=out / name, settings=pico(f"train.epochs={epochs}"))
    return [str(out / "a"), str(out / "b")]


def test_two_runs(cli: Cli, runs: list[str], tmp_path: Path) -> None:
    page = tmp_path / "c.html"
    done = cli("compare", *runs, "--html", page, "--resamples", "200")
    assert done.code == 0, done.err
    assert "points of top-1" in done.out
    assert "recipe: train.epochs: 2 | 1" in done.out
    html = page.read_text(encoding="utf-8")
    assert "train.epochs" in html
    assert "resolved" in html
    as_json = json.loads(cli("compare", *runs, "--json", "--no-speed", "--resamples", "200").out)
    [difference] = as_json["differences"]
    assert as_json["pictures"] == 28
    assert as_json["models"][0]["ms"] is None
    figures = [model["top1"] for model in as_json["models"]]
    assert difference["difference"] == pytest.approx(figures[1] - figures[0])
    assert len(difference["better"]) - len(difference["worse"]) == round(28 * difference["difference"])
    assert all(one["was"] != one["is"] for one in difference["better"])


def test_the_same_weights_differ_in_nothing(runs: list[str], tmp_path: Path) -> None:
    shutil.copytree(runs[0], tmp_path / "copy")
    result = compare([runs[0], tmp_path / "copy"], resamples=100, measure_speed=False)
    [difference] = result.differences
    assert (difference.value, difference.low, difference.high, difference.p) == (0, 0, 0, 1)
    assert not difference.resolved
    assert result.settings == []


def test_settings_that_differ(runs: list[str]) -> None:
    rows = dict((name, values) for name, *values in differences([account(one) for one in runs]))
    assert rows["recipe: train.epochs"] == ["2", "1"]
    assert not any(name.startswith("run: versions") for name in rows)
    assert differences([{"a": "1"}, {}]) == [("a", "1", "-")]


BAD: dict[str, tuple[list[str], str]] = {
    "one model": (["{a}"], r"only one model to compare .*give two or more"),
    "twice": (["{a}", "{a}"], r"is given twice"),
    "no run": (["{a}", "resnest14"], r"resnest14 does not say what data it was trained with: give --data"),
    "no folder for the page": (
        ["{a}", "{b}", "--html", "{tmp}/none/c.html"],
        r"page .*c\.html cannot be written",
    ),
    "other data": (["{a}", "{other}"], r"was validated on other pictures .*Give --data"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(cli: Cli, name: str, runs: list[str], tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(runs[0], other)
    log = json.loads((other / "run.json").read_text(encoding="utf-8"))
    log |= {"data": "elsewhere", "fingerprints": {"validation": "0"}}
    (other / "run.json").write_text(json.dumps(log), encoding="utf-8")
    names = {"a": runs[0], "b": runs[1], "other": other, "tmp": tmp_path}
    arguments, message = BAD[name]
    done = cli("compare", *(one.format(**names) for one in arguments))
    assert done.code == 2
    assert re.search(message, done.err), done.err
    assert done.err.count("resnest: ") == 1


def test_few_pictures_resolve_nothing(runs: list[str], pictures: Path, tmp_path: Path) -> None:
    for label in ("dark", "light"):
        (tmp_path / label).mkdir()
        for number in range(2):
            shutil.copy(pictures / "val" / label / f"{number}.png", tmp_path / label)
    result = compare(runs, tmp_path, resamples=100, measure_speed=False)
    assert not result.differences[0].resolved
    assert "4 pictures: fewer than 10 resolve no difference" in result.text()


def test_models_of_other_tasks_are_not_compared(runs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from resnest.comparison import comparing

    def other_kind(name: str, *_: Any) -> Any:
        contender, part = real(name, *_)
        if name == runs[1]:
            contender.evaluation.__class__ = type("Other", (SingleLabelEvaluation,), {"table": ()})
        return contender, part

    real = comparing._evaluated
    monkeypatch.setattr(comparing, "_evaluated", other_kind)
    with pytest.raises(ResnestError, match="are of other kinds: compare models of one task"):
        compare(runs, measure_speed=False)


def test_a_recipe_that_is_no_yaml(runs: list[str], tmp_path: Path) -> None:
    shutil.copytree(runs[0], tmp_path / "x")
    (tmp_path / "x" / "recipe.yaml").write_text("a: [", encoding="utf-8")
    with pytest.raises(ResnestError, match=r"recipe\.yaml cannot be read"):
        account(str(tmp_path / "x"))
