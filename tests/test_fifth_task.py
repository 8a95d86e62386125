"""A fifth task: a folder of its own (tests/counting) and a line in TASKS, and every verb knows it.

Nothing under src is written for it: what a generic room does not ask of a task's package fails here.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import resnest
from conftest import Outcome, pico
from resnest.data.formats import finders
from resnest.exporters.exporting import Exported
from resnest.recipes.reading import all_recipes
from resnest.tasks import TASKS
from runs import checkpoint, lines, losses

SIDE, PICTURES = 32, 40
SETTINGS = pico(f"data.size={SIDE}", "optim.lr=0.02")


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    """The one line that the house needs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TASKS, "counting", "counting")
        _forget()
        yield
    _forget()


def _forget() -> None:
    """What was read off the table of tasks."""
    finders.cache_clear()
    all_recipes.cache_clear()


@pytest.fixture(scope="module")
def dots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise with 0 to 4 white squares, and counts.csv."""
    folder, rng = tmp_path_factory.mktemp("counting") / "dots", np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    rows = []
    for number in range(PICTURES):
        pixels, count = rng.integers(0, 60, (SIDE, SIDE, 3), np.uint8), number % 5
        for corner in rng.choice(16, count, replace=False):
            top, left = 8 * (corner // 4), 8 * (corner % 4)
            pixels[top + 2 : top + 6, left + 2 : left + 6] = 255
        rows.append((f"images/{number:02d}.png", count))
        Image.fromarray(pixels).save(folder / rows[-1][0])
    with (folder / "counts.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


@pytest.fixture(scope="module")
def run(dots: Path) -> Path:
    out = dots.with_name("run")
    resnest.train("count_dots", data=dots, out=out, settings=SETTINGS)
    return out


@pytest.fixture(scope="module")
def exported(run: Path, dots: Path) -> Exported:
    pytest.importorskip("onnxruntime")
    return resnest.export(run, format="onnx", out=run.with_name("dots.onnx"), images=dots)


@pytest.fixture
def said(cli: Callable[..., Outcome]) -> Callable[..., str]:
    """What a command that goes well prints."""

    def run(*words: str | Path) -> str:
        outcome = cli(*words)
        assert outcome.code == 0, outcome.err
        return outcome.out

    return run


def test_trains_and_goes_on(run: Path, dots: Path, tmp_path: Path, said: Callable[..., str]) -> None:
    """A run that stopped before its last step ends as one that did not."""
    assert {"exact", "near", "loss"} <= lines(run, "eval")[-1].keys()
    out = tmp_path / "run"
    told = said("train", "count_dots", "--data", dots, "--out", out, *(w for one in SETTINGS for w in ("--set", one)))
    assert "best exact " in told
    max((out / "checkpoints").glob("step-*.pt")).unlink()
    assert checkpoint(out)["step"] < checkpoint(run)["step"]
    said("train", "--resume", out)
    ours, theirs = checkpoint(out), checkpoint(run)
    assert ours["step"] == theirs["step"]
    assert losses(out) == losses(run)
    assert all(torch.equal(tensor, theirs["model"][name]) for name, tensor in ours["model"].items())


def test_report(run: Path) -> None:
    page = (run / "report.html").read_text()
    assert "Counting" in page
    assert "Exact counts, epoch" in page
    assert "Worst mistakes" in page


def test_evaluates(run: Path, dots: Path, exported: Exported, said: Callable[..., str]) -> None:
    """The run, and its exported file: the same figures, on the pictures that training held out."""
    ours, theirs = resnest.evaluate(run, data=dots), resnest.evaluate(exported.path, data=dots)
    best = json.loads((run / "config.json").read_text())["resnest"]["figures"]
    assert ours.count == theirs.count == PICTURES // 5
    assert ours.figures == pytest.approx(best, abs=1e-4)
    assert theirs.figures == pytest.approx(best, abs=1e-4)
    assert "pictures whose count is right" in said("evaluate", run, "--data", dots)
    told = json.loads(said("evaluate", run, "--data", dots, "--json"))
    assert told["exact"] == ours.figures["exact"] == told["per_class"]["dots"]


def test_predicts(run: Path, dots: Path, tmp_path: Path, said: Callable[..., str], cli: Callable[..., Outcome]) -> None:
    paths = sorted((dots / "images").iterdir())[:5]
    results = resnest.Predictor(run)(paths)
    assert said("predict", run, *paths).splitlines() == [str(result) for result in results]
    told = [json.loads(line) for line in said("predict", run, *paths, "--json").splitlines()]
    assert [row["count"] for row in told] == [result.count for result in results]
    table = list(csv.DictReader(said("predict", run, *paths, "--csv", "--draw", tmp_path / "drawn").splitlines()))
    assert [row["image"] for row in table] == [str(path) for path in paths]
    assert [int(row["count"]) for row in table] == [result.count for result in results]
    assert len(list((tmp_path / "drawn").glob("*.jpg"))) == len(paths)
    assert "--top is for classifiers, and this model is a counter" in cli("predict", run, paths[0], "--top", 3).err


def test_exports(run: Path, dots: Path, exported: Exported) -> None:
    """Through the gate; the file counts as the run does."""
    assert exported.parity.ok
    assert exported.parity.agreeing == exported.parity.pictures == PICTURES
    path = dots / "images" / "04.png"
    from_file, from_run = resnest.Predictor(exported.path)(path), resnest.Predictor(run, engine="torch")(path)
    assert from_file.value == pytest.approx(from_run.value, abs=1e-4)


def test_recipes_and_doctor(dots: Path, said: Callable[..., str]) -> None:
    listed = said("recipes")
    assert listed.index("Counting") < listed.index("count_dots")
    assert "task: counting" in said("recipes", "show", "count_dots")
    assert "(counts): 32 training and 8 validation images" in said("doctor", "--data", dots)
    assert json.loads(said("doctor", "--data", dots, "--task", "counting", "--json"))["classes"]["dots"]["train"] == 32


def test_saved_model(run: Path, tmp_path: Path) -> None:
    model = resnest.Model.from_pretrained(run)
    assert (model.card.task, model.net.num_classes) == ("counting", 1)
    text = (model.save_pretrained(tmp_path / "saved") / "README.md").read_text()
    assert "with one output (`resnest`) that counts dots." in text
    assert f"| exact | {model.card.figures['exact']:.2%} |" in text
    assert resnest.Model.from_pretrained(tmp_path / "saved").card == model.card


def test_network_of_ones_own(run: Path, dots: Path) -> None:
    """Each network is of its own task, though a counter is a ResNeSt as a classifier is."""
    saved = resnest.Model.from_pretrained(run)
    made = resnest.Model.of(saved.net, class_names=saved.card.class_names, preprocess=saved.card.preprocess)
    assert made.card.task == "counting"
    path = dots / "images" / "04.png"
    assert made.predictor("cpu")(path).value == pytest.approx(resnest.Predictor(run, engine="torch")(path).value)
    classifier = resnest.create_model("resnest14", num_classes=2)
    assert resnest.Model.of(classifier, ["a", "b"], resnest.Preprocess()).card.task == "classification"


def test_data_of_other_tasks(run: Path, dots: Path, cli: Callable[..., Outcome]) -> None:
    """Messages have the task's own words."""
    photos = dots / "images"
    assert (
        "holds no images with counts: expected a folder with counts.csv" in cli("evaluate", run, "--data", photos).err
    )
    assert "has counts, and recipe 'imagenette' is for classification" in cli("train", "imagenette", "--data", dots).err
