"""`resnest train --folds`: real runs of seconds, one for each fold; killed, stopped, gone on with; mean and spread."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Outcome, pico
from painted import TINY_RUN, paint
from posed import write_coco
from resnest.errors import ResnestError
from resnest.recipes import find_recipe
from resnest.report.folds_page import Spread
from resnest.training.folds import train_folds
from resnest.training.loop import Loop
from resnest.training.train import train
from runs import lines, losses

SETTINGS = pico("train.epochs=2")


def _words(photos: Path, out: Path, *more: str) -> list[str]:
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    return ["train", "imagenette", "--data", str(photos), "--out", str(out), "--folds", "3", *settings, *more]


@pytest.fixture
def done(photos: Path, tmp_path: Path) -> Path:
    train_folds("imagenette", data=photos, out=tmp_path / "cv", folds=3, settings=SETTINGS)
    return tmp_path / "cv"


def test_a_fold_is_the_run_that_it_would_be_alone(done: Path, photos: Path, tmp_path: Path) -> None:
    train("imagenette", data=photos, out=tmp_path / "alone", settings=[*SETTINGS, "data.fold=1/3"])
    assert [line["loss"] for line in lines(done / "fold-1")] == [line["loss"] for line in lines(tmp_path / "alone")]
    result = json.loads((done / "folds.json").read_text())
    figures = [fold["figures"]["top1"] for fold in result["folds"]]
    assert figures[1] == json.loads((tmp_path / "alone" / "config.json").read_text())["resnest"]["figures"]["top1"]
    assert result["summary"]["top1"] == {
        "mean": statistics.fmean(figures), "std": statistics.stdev(figures), "min": min(figures), "max": max(figures),
    }  # fmt: skip
    assert sum(fold["val_images"] for fold in result["folds"]) == sum(1 for _ in photos.rglob("*.jpg"))


def test_the_page(done: Path) -> None:
    page = (done / "folds.html").read_text()
    for text in ("Cross-validation", "on average over 3 folds", "fold-2/report.html", "Standard deviation", "<svg"):
        assert text in page


def test_kill_9_in_the_middle_and_the_same_command_goes_on(
    photos: Path, tmp_path: Path, done: Path, cli: Callable[..., Outcome]
) -> None:
    out = tmp_path / "killed"
    words = _words(photos, out)
    process = subprocess.Popen([sys.executable, "-m", "resnest", *words], stderr=subprocess.DEVNULL)
    try:
        _wait_for(lambda: any((out / "fold-1" / "checkpoints").glob("step-*.pt")), process)
    finally:
        process.kill()
        process.wait()
    assert not (out / "folds.json").exists()
    before = (out / "fold-0" / "model.safetensors").stat().st_mtime_ns
    again = cli(*words, "--json")
    assert again.code == 0, again.err
    assert "it is finished" in again.err
    assert (out / "fold-0" / "model.safetensors").stat().st_mtime_ns == before
    assert json.loads(again.out)["summary"] == json.loads((done / "folds.json").read_text())["summary"]


def _wait_for(there: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 100
    while not there():
        assert process.poll() is None, "it ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_was_killed_before_its_first_checkpoint_starts_anew(photos: Path, done: Path) -> None:
    run = done / "fold-2"
    for path in [*(run / "checkpoints").iterdir(), *(run / name for name in ("report.html", "config.json"))]:
        path.unlink()
    train_folds("imagenette", data=photos, out=done, folds=3, settings=SETTINGS)
    assert (run / "report.html").exists()


def test_a_trial_of_few_steps_goes_on_without_the_limit(photos: Path, tmp_path: Path, done: Path) -> None:
    out = tmp_path / "tried"
    train_folds("imagenette", data=photos, out=out, folds=3, settings=[*SETTINGS, "train.max_steps=1"])
    train_folds("imagenette", data=photos, out=out, folds=3, settings=SETTINGS)
    for name in ("fold-0", "fold-1", "fold-2"):  # one evaluation more, after the first step
        assert losses(out / name) == losses(done / name)


def test_a_signal_stops_it_as_any_run(
    photos: Path, tmp_path: Path, cli: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Loop._train_step

    def stepping(self: Loop, *arguments: object) -> object:
        if self.run.path.name == "fold-1" and self.step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_train_step", stepping)
        stopped = cli(*_words(photos, tmp_path / "cv"))
    assert stopped.code == 75
    assert "stopped in fold 1 of 3, everything is saved; the same command goes on" in stopped.err
    again = cli(*_words(photos, tmp_path / "cv"))
    assert again.code == 0, again.err
    table = again.out.splitlines()
    assert table[0].split() == ["images", "top-1", "loss"]
    assert [line.split()[0] for line in table[1:8]] == ["fold-0", "fold-1", "fold-2", "mean", "std", "min", "max"]


REFUSED = {
    "one fold": (["--folds", "1"], "--folds 1: expected 2 or more"),
    "a fold, too": (["--set", "data.fold=0/3"], "trains every fold: leave out data.fold=0/3"),
    "resume": (["--resume", "runs/a"], "--folds goes on by itself"),
    "processes": (["--set", "trainer.devices=2"], "trains in one process: start a run for each fold"),
}


@pytest.mark.parametrize(("more", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(more: list[str], message: str, photos: Path, tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    refused = cli(*_words(photos, tmp_path / "cv"), *more)
    assert refused.code == 2
    assert message in refused.err
    assert not (tmp_path / "cv").exists()


def test_other_tasks(tmp_path: Path) -> None:
    """Boxes and points: their images are shared out, a picture's samples together."""
    cells, pose = paint(tmp_path / "cells", 6), write_coco(tmp_path / "pose", train=6, val=4)
    tiny = {"keypoints_small": ("model.spec={planes: [8, 8, 8, 8], stem_width: 4}", "head.channels=16")}
    for recipe, data, count in (("detect_small", cells, 50), ("keypoints_small", pose, 40)):
        settings = [*tiny.get(recipe, TINY_RUN), "train.max_steps=1", "data.workers=0"]
        result = train_folds(recipe, data=data, out=tmp_path / recipe, folds=2, settings=settings)
        assert len(result.folds) == 2
        assert result.monitor in result.summary
        with pytest.raises(ResnestError, match=rf"data.fold=0/{count}: .* too few for {count} folds"):
            train_folds(recipe, data=data, out=tmp_path / "more", folds=count, settings=settings)
        assert not (tmp_path / "more").exists()


def test_json_is_for_folds(photos: Path, cli: Callable[..., Outcome]) -> None:
    assert "--json goes with --folds" in cli("train", "imagenette", "--data", photos, "--json").err


def test_other_settings_or_data_are_refused(done: Path, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ResnestError, match=r"fold-0 was started with other settings: train.epochs is 2 there and 3 here"
    ):
        train_folds("imagenette", data=photos, out=done, folds=3, settings=[*SETTINGS, "train.epochs=3"])
    with pytest.raises(ResnestError, match=r"data.fold is '0/3' there and '0/4' here"):
        train_folds("imagenette", data=photos, out=done, folds=4, settings=SETTINGS)
    with pytest.raises(ResnestError, match="fold-0 is a run, and no folder for several"):
        train_folds("imagenette", data=photos, out=done / "fold-0", folds=3, settings=SETTINGS)
    with pytest.raises(ResnestError, match="is the data, and no folder for runs"):
        train_folds(find_recipe("imagenette"), data=photos, out=photos, folds=3, settings=SETTINGS)
    next(photos.rglob("*.jpg")).unlink()
    with pytest.raises(ResnestError, match=r"is not the data that .*fold-0 was trained on|has changed since"):
        train_folds("imagenette", data=photos, out=done, folds=3, settings=SETTINGS)


def test_spread() -> None:
    assert Spread.of([0.5, 0.7]) == Spread(mean=0.6, std=pytest.approx(0.1414213562), min=0.5, max=0.7)
