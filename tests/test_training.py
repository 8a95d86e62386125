"""Runs: they resume exactly (P2), survive damage (P3), stop when asked (P4), and lose nothing on a full disk (P1)."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import resnest
from conftest import pico
from resnest import Predictor, evaluate
from resnest.errors import NumericalStop, ResnestError
from resnest.recipes.schema import OptimSettings
from resnest.training.loop import Loop
from resnest.training.muon import Muon, on_gram, on_matrix
from resnest.training.step import lr_at
from resnest.training.train import resume, train
from runs import checkpoint, lines


def _figures(run: Path) -> list[tuple[float, float, float]]:
    return [(line["step"], line["top1"], line["loss"]) for line in lines(run, "eval")]


def _weights(run: Path) -> dict[str, torch.Tensor]:
    content = checkpoint(run)
    flat = {
        f"optimizer.{number}.{key}.{name}": value
        for number, optimizer in enumerate(content["optimizers"])
        for key, state in optimizer["state"].items()
        for name, value in state.items()
    }
    return {**content["model"], **{name: torch.as_tensor(value) for name, value in flat.items() if value is not None}}


def _stop_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Ask for a stop in that step, as a signal would."""
    original = Loop._train_step

    def stepping(self: Loop, *arguments: object) -> tuple[float, float]:
        if self.step + 1 == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Loop, "_train_step", stepping)


@pytest.fixture
def finished(photos: Path, tmp_path: Path) -> Path:
    train("imagenette", data=photos, out=tmp_path / "run", settings=pico())
    return tmp_path / "run"


def test_a_run_leaves_everything_it_should(finished: Path, photos: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    files = {"recipe.yaml", "run.json", "metrics.jsonl", "model.safetensors", "config.json", "report.html", "data.html"}
    assert names == {*files, "checkpoints"}
    told = lines(finished)
    assert [line["step"] for line in told if line["kind"] == "train"] == list(range(1, 9))
    assert [line["epoch"] for line in told if line["kind"] == "eval"] == [1.0, 2.0]
    best = max(line["top1"] for line in told if line["kind"] == "eval")
    assert evaluate(finished, photos).figures["top1"] == best
    assert not list(finished.rglob("*.tmp"))


def test_prediction_uses_the_card(finished: Path, photos: Path) -> None:
    path = next(photos.rglob("*.jpg"))
    result = Predictor(finished)(path)
    scores = [score for _, score in result.top(4)]
    assert scores == sorted(scores, reverse=True)
    assert math.fsum(result.scores.tolist()) == pytest.approx(1, abs=1e-5)
    assert Predictor(max((finished / "checkpoints").glob("*.pt")))(path).class_names == result.class_names


def test_the_papers_recipe_for_a_few_steps(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All of its augmentation, on a narrow network; it ends at max_steps."""
    narrow = [
        "model.spec.planes=[8, 8, 8, 8]", "model.spec.stem_width=4", "data.size=32", "data.eval_size=32",
        "data.workers=0", "train.batch_size=8", "train.log_every=1", "train.max_steps=6",
    ]  # fmt: skip
    train("imagenet_resnest50", data=photos, out=tmp_path / "run", settings=narrow, quiet=False)
    assert "learning rate 0.003125: 0.1 for 256 images a step, here 8" in capsys.readouterr().err
    told = lines(tmp_path / "run")
    assert [line["step"] for line in told if line["kind"] == "train"] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in told if line["kind"] == "eval"] == [4, 6]
    rates = [line["lr"] for line in told if line["kind"] == "train"]
    assert rates == pytest.approx([0.003125 * step / 21 for step in range(1, 7)], rel=1e-6)  # 5 epochs of 4 steps


def test_a_run_is_never_overwritten_unasked(finished: Path, photos: Path) -> None:
    before = (finished / "model.safetensors").read_bytes()
    with pytest.raises(ResnestError, match="already holds a run"):
        train("imagenette", data=photos, out=finished, settings=pico())
    assert (finished / "model.safetensors").read_bytes() == before
    train("imagenette", data=photos, out=finished, settings=pico("train.epochs=1"), overwrite=True)
    assert len(lines(finished, "eval")) == 1


def test_fine_tuning_from_a_run_with_other_classes(finished: Path, photos: Path, tmp_path: Path) -> None:
    (photos / "digit-3").rename(tmp_path / "away")
    settings = pico(f"model.pretrained={finished}", "train.epochs=1", "optim.lr=0.0")
    train("imagenette", data=photos, out=tmp_path / "tuned", settings=settings)
    first, tuned = _weights(finished), _weights(tmp_path / "tuned")
    best = resnest.checkpoints.loading.read_weights(finished)
    assert torch.equal(best["layer3.0.conv3.weight"], tuned["layer3.0.conv3.weight"])
    assert (len(first["fc.bias"]), len(tuned["fc.bias"])) == (4, 3)


def test_other_data_cannot_slip_in_on_resume(finished: Path, photos: Path) -> None:
    (photos / "digit-3").rename(photos / "digit-4")
    with pytest.raises(ResnestError, match="is not the data"):
        resume(finished)


def _rename(photos: Path) -> None:
    path = min((photos / "digit-3").iterdir())
    path.rename(path.with_name(f"zz-{path.name}"))


def _relabel(photos: Path) -> None:
    """Two pictures change places: names and numbers of images stay."""
    one, other = (min((photos / name).iterdir()) for name in ("digit-2", "digit-3"))
    content = one.name, other.name
    one.rename(photos / "digit-3" / f"{content[0]}")
    other.rename(photos / "digit-2" / f"{content[1]}")


CHANGED_DATA: dict[str, Callable[[Path], object]] = {"renamed": _rename, "relabelled": _relabel}


@pytest.mark.parametrize("how", CHANGED_DATA)
def test_changed_names_and_labels_are_noticed_on_resume(how: str, finished: Path, photos: Path) -> None:
    CHANGED_DATA[how](photos)
    expected = r"has changed since .*: other names, order or labels of its [a-z ]+ images.*changed_data=True"
    with pytest.raises(ResnestError, match=expected):
        resume(finished)
    assert resume(finished, changed_data=True).out == finished
    assert resume(finished).out == finished  # it was told


def test_data_may_move_and_runs_of_earlier_versions_have_no_fingerprint(
    finished: Path, photos: Path, tmp_path: Path
) -> None:
    photos.rename(tmp_path / "moved")
    assert resume(finished, data=tmp_path / "moved").out == finished
    account = json.loads((finished / "run.json").read_text())
    del account["fingerprints"]
    (finished / "run.json").write_text(json.dumps(account))
    _rename(tmp_path / "moved")
    assert resume(finished, data=tmp_path / "moved").out == finished


def test_a_loss_that_is_not_finite_stops_the_run(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(NumericalStop, match=r"lower optim\.lr"):
        train("imagenette", data=photos, out=tmp_path / "run", settings=pico("optim.lr=1e30", "train.epochs=9"))


def test_bad_images_are_listed_and_skipped(photos: Path, tmp_path: Path) -> None:
    # 5 % of 40 images are two; a class's images go to both parts
    victim = sorted((photos / "digit-2").iterdir())[0]
    victim.write_bytes(b"\xff\xd8\xff\xe0 no photo")
    train("imagenette", data=photos, out=tmp_path / "run", settings=pico("data.val_share=0.4", "train.batch_size=4"))
    listed = [json.loads(line) for line in (tmp_path / "run" / "bad_images.jsonl").read_text().splitlines()]
    assert [line["image"] for line in listed] == [f"digit-2/{victim.name}"]  # once, though two epochs saw it
    assert listed[0]["reason"]


def test_too_many_bad_images_stop_the_first_epoch(photos: Path, tmp_path: Path) -> None:
    for path in sorted(photos.rglob("*.jpg"))[::4]:
        path.write_bytes(b"")
    with pytest.raises(ResnestError, match="cannot be used, more than 5%"):
        train("imagenette", data=photos, out=tmp_path / "run", settings=pico())
    assert (tmp_path / "run" / "bad_images.jsonl").exists()
    assert not (tmp_path / "run" / "model.safetensors").exists()  # no epoch came to its end


def test_a_callback_hears_of_evaluations_and_ends_the_run(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    heard: list[tuple[int, dict[str, float]]] = []

    def stop_at_second(step: int, figures: dict[str, float]) -> bool:
        heard.append((step, dict(figures)))
        figures.clear()  # they are its own
        return len(heard) == 2

    run, four = tmp_path / "run", pico("train.epochs=4")
    result = train("imagenette", data=photos, out=run, settings=four, on_evaluation=stop_at_second)
    assert heard == [(line["step"], _without_columns(line)) for line in lines(run, "eval")]
    assert result.figures == max((figures for _, figures in heard), key=lambda figures: figures["top1"])
    assert {"model.safetensors", "config.json", "report.html"} <= {path.name for path in run.iterdir()}
    steps = [line["step"] for line in lines(run)]
    half, end = steps[-1], 2 * steps[-1]
    assert resume(run, on_evaluation=stop_at_second, quiet=False).figures == result.figures
    assert f"resumed at step {half} of {end}: on_evaluation ended the run there" in capsys.readouterr().err
    assert [line["step"] for line in lines(run)] == steps
    assert resume(run, on_evaluation=stop_at_second, go_on=True).out == run
    assert [step for step, _ in heard] == [line["step"] for line in lines(run, "eval")]
    assert len(heard) == 4
    resume(run, go_on=True, quiet=False)
    assert f"step {end} of {end}: the run is finished; a new run with model.pretrained={run}" in capsys.readouterr().err
    assert len(heard) == 4


def test_a_callback_that_raises_leaves_a_run_to_resume(photos: Path, tmp_path: Path) -> None:
    def prune(step: int, figures: dict[str, float]) -> None:
        raise KeyError("pruned")

    with pytest.raises(KeyError, match="pruned"):
        train("imagenette", data=photos, out=tmp_path / "run", settings=pico(), on_evaluation=prune)
    assert resume(tmp_path / "run").figures["top1"] >= 0
    assert len(lines(tmp_path / "run", "eval")) == 2


def _without_columns(line: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in line.items() if name not in ("kind", "step", "epoch", "seconds")}


def test_learning_rate_schedule() -> None:
    settings = OptimSettings(lr=1.0, warmup_epochs=2)
    rates = [lr_at(step, settings, total=100, per_epoch=10) for step in range(100)]
    assert rates[0] < 0.1
    assert np.argmax(rates) == 20
    assert rates[20] == 1.0
    assert rates[60] == pytest.approx(0.5)
    assert rates[99] < 1e-3
    assert all(np.diff(rates[:20]) > 0)
    assert all(np.diff(rates[20:]) < 0)


@pytest.mark.parametrize("shape", [(8, 4, 3, 3), (4, 32, 1, 1), (32, 4, 1, 1)])
def test_muon_moves_every_direction_alike(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.zeros(shape))
    weight.grad = torch.randn(shape) * torch.logspace(-1, 1, shape[0])[:, None, None, None]
    Muon([{"params": [weight]}], lr=1.0).step()
    values = torch.linalg.svdvals(weight.detach().flatten(1))
    assert values.max() / values.min() < 2.5  # the gradient's own spread is a hundred and more
    assert (weight.detach() * weight.grad).sum() < 0
    rms = weight.detach().square().mean().sqrt()
    assert 0.5 < rms / 0.2 < 1.3  # of AdamW's usual update


@pytest.mark.parametrize(("rows", "columns", "rank"), [(8, 16, 8), (16, 600, 16), (32, 64, 4)])
def test_muon_on_the_gram_matrix_is_the_same_iteration(rows: int, columns: int, rank: int) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(rows, rank) @ torch.randn(rank, columns)
    matrix = matrix / matrix.norm()
    exact = on_matrix(matrix.double())
    for way in (on_matrix, on_gram):
        torch.testing.assert_close(way(matrix).double(), exact, rtol=0, atol=1e-4)
