"""What a recipe can ask of the loop: averaged weights, patience, compiling, recomputing, mixed precision, logs."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric.plugins import MixedPrecision
from safetensors.torch import load_file
from torch import nn

from conftest import FULL, pico
from resnest.data import loading
from resnest.errors import ResnestError
from resnest.training.loop import Loop
from resnest.training.run_logger import Meter
from resnest.training.state import EMA, State
from resnest.training.train import resume, train
from runs import checkpoint, lines, losses


def test_a_line_of_the_log(photos: Path, tmp_path: Path) -> None:
    train("imagenette", data=photos, out=tmp_path / "run", settings=pico())
    for line in lines(tmp_path / "run", "train"):
        assert {"loss", "lr", "gradient_norm", "skipped", "images_per_second", "data_wait", "memory_gib"} <= line.keys()
        assert 0 <= line["data_wait"] <= 1
        assert 0.05 < line["memory_gib"] < 64
        assert line["images_per_second"] > 0


def test_waiting_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("resnest.training.run_logger.time.monotonic", lambda: now)

    def slow() -> Any:
        nonlocal now
        for item in range(3):
            now += 3.0
            yield item

    meter = Meter()
    for _ in meter.waiting_for(slow()):
        now += 1.0
        meter.images += 8
    figures = meter.figures(torch.device("cpu"))
    assert figures["data_wait"] == pytest.approx(9 / 12)
    assert figures["images_per_second"] == pytest.approx(24 / 12)


def test_the_average_of_weights() -> None:
    net = torch.nn.BatchNorm1d(1)
    average = EMA(net, decay=0.5)
    expected = 1.0
    for step in range(6):
        with torch.no_grad():
            net.weight.fill_(float(step))
            assert net.num_batches_tracked is not None
            net.num_batches_tracked.add_(1)
        average.update(net, step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    assert average.state["weight"].item() == pytest.approx(expected)
    assert average.state["num_batches_tracked"] == 6
    with average.swapped_into(net):
        assert net.weight.item() == pytest.approx(expected)
    assert net.weight.item() == 5.0


def test_averaged_weights_are_what_is_kept(photos: Path, tmp_path: Path) -> None:
    train("imagenette", data=photos, out=tmp_path / "run", settings=pico("train.ema=0.9", "train.epochs=1"))
    content = checkpoint(tmp_path / "run")
    kept = load_file(tmp_path / "run" / "model.safetensors")
    assert all(torch.equal(tensor, content["average"][name]) for name, tensor in kept.items())
    assert not torch.equal(kept["conv1.weight"], content["model"]["conv1.weight"])


def test_patience_ends_a_run_and_resuming_respects_it(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = pico("train.patience=2", "train.epochs=50", "optim.lr=0")
    train("imagenette", data=photos, out=tmp_path / "run", settings=settings, quiet=False)
    assert [line["epoch"] for line in lines(tmp_path / "run", "eval")] == [1, 2, 3]  # the first one is the best
    assert "no better in 2 evaluations" in capsys.readouterr().err
    resume(tmp_path / "run", quiet=False)
    assert "train.patience ended the run there; `go_on=True` trains on" in capsys.readouterr().err
    assert len(lines(tmp_path / "run", "eval")) == 3
    resume(tmp_path / "run", go_on=True)
    assert [line["epoch"] for line in lines(tmp_path / "run", "eval")] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("setting", "tolerance"),
    [("train.checkpoint_activations=true", 1e-5), ("train.compile=true", 2e-2), ("train.precision=bf16-mixed", 0.2)],
)
def test_other_ways_to_the_same_losses(
    setting: str, tolerance: float, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not FULL:  # Inductor compiles for two minutes; what goes into it is traced all the same
        monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="aot_eager"))
    sgd = pico("optim.name=sgd", "optim.lr=0.05", "train.max_steps=5")
    train("imagenette", data=photos, out=tmp_path / "plain", settings=sgd)
    train("imagenette", data=photos, out=tmp_path / "other", settings=[*sgd, setting])
    assert losses(tmp_path / "other") == pytest.approx(losses(tmp_path / "plain"), abs=tolerance)
    assert (
        load_file(tmp_path / "other" / "model.safetensors").keys()
        == load_file(tmp_path / "plain" / "model.safetensors").keys()
    )


def test_gradients_are_clipped_by_their_common_norm(photos: Path, tmp_path: Path) -> None:
    """A first step of plain SGD is as much shorter as the norm was too large."""
    plain = pico("optim.name=sgd", "optim.momentum=0", "optim.weight_decay=0", "train.max_steps=1")
    weights = []
    for name, setting in (("still", "optim.lr=0"), ("free", "optim.lr=0.1"), ("clipped", "optim.lr=0.1")):
        clip = ["train.clip_norm=0.01"] if name == "clipped" else []
        train("imagenette", data=photos, out=tmp_path / name, settings=[*plain, setting, *clip])
        model = checkpoint(tmp_path / name)["model"]
        weights.append(torch.cat([model[key].flatten() for key in model if key.endswith(("weight", "bias"))]).double())
    norms = [lines(tmp_path / name, "train")[0]["gradient_norm"] for name in ("free", "clipped")]
    assert norms[0] == norms[1] > 0.01
    steps = [other - weights[0] for other in weights[1:]]
    assert steps[1].norm() == pytest.approx(float(steps[0].norm()) * 0.01 / norms[0], rel=1e-3)


class Scaled(State):
    """As with float16 on a GPU, without float16: the loss is scaled, and the scale doubles at every step."""

    def __init__(self, fabric: Any, *rest: Any) -> None:
        precision = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=16.0, growth_interval=1))
        precision.forward_context = contextlib.nullcontext  # type: ignore[method-assign]
        precision.convert_input = lambda data: data  # type: ignore[method-assign]
        fabric.strategy.precision = precision
        super().__init__(fabric, *rest)


@pytest.mark.parametrize("optimizer", ["sgd", "muon"])
def test_a_scaled_loss_changes_nothing(
    optimizer: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a power of two, to the last bit: with two optimisers, clipped, and resumed."""
    settings = pico(f"optim.name={optimizer}", "train.clip_norm=0.5", "train.save_every=3")
    train("imagenette", data=photos, out=tmp_path / "plain", settings=settings)
    monkeypatch.setattr("resnest.training.loop.State", Scaled)
    train("imagenette", data=photos, out=tmp_path / "scaled", settings=settings)
    plain, scaled = checkpoint(tmp_path / "plain"), checkpoint(tmp_path / "scaled")
    assert scaled["scaler"]["scale"] == 16 * 2**8
    assert losses(tmp_path / "scaled") == losses(tmp_path / "plain")
    assert [name for name in plain["model"] if not torch.equal(plain["model"][name], scaled["model"][name])] == []
    max((tmp_path / "scaled" / "checkpoints").glob("*.pt")).unlink()
    resume(tmp_path / "scaled")
    again = checkpoint(tmp_path / "scaled")
    assert (again["step"], again["scaler"]) == (scaled["step"], scaled["scaler"])
    assert [name for name in again["model"] if not torch.equal(again["model"][name], scaled["model"][name])] == []


def test_tensorboard(photos: Path, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train("imagenette", data=photos, out=tmp_path / "run", settings=pico("train.tensorboard=true"))
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == list(range(1, 9))
    written = [event.value for event in events.Scalars("eval/top1")]
    assert written == pytest.approx([line["top1"] for line in lines(tmp_path / "run", "eval")])


def test_weights_and_biases_without_a_network(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    train("imagenette", data=photos, out=tmp_path / "run", settings=pico("train.wandb=flowers", "train.epochs=1"))
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))


def test_what_is_not_installed_is_named(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for setting, module in (("train.wandb=flowers", "wandb"), ("train.tensorboard=true", "torch.utils.tensorboard")):
        monkeypatch.setitem(__import__("sys").modules, module, None)
        with pytest.raises(ResnestError, match=r"needs the package \w+: pip install") as caught:
            train("imagenette", data=photos, out=tmp_path / module, settings=pico(setting))
        assert "\n" not in str(caught.value)


def _dying(at: str) -> Callable[..., Any]:
    """Instead of that method of the datasets or the loop: in the second epoch, the process that loads is killed."""
    owner, name = DYING[at]
    original, parent = getattr(owner, name), os.getpid()

    def dying(self: Any, key: Any, *more: Any) -> Any:
        if owner is Loop and self.step == 5:
            for process in multiprocessing.active_children():
                os.kill(process.pid or 0, signal.SIGKILL)
            time.sleep(20)  # it is told at once
        elif os.getpid() != parent and (at == "evaluation" or key[0] == 1):
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, key, *more)

    return dying


DYING = {
    "loading": (loading.TrainingDataset, "__getitem__"),
    "evaluation": (loading.EvaluationDataset, "__getitem__"),
    "a step": (Loop, "_train_step"),
}


@pytest.mark.parametrize(("at", "saved"), [("loading", 4), ("evaluation", 3), ("a step", 4)])
def test_a_loading_process_that_dies(
    at: str, saved: int, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the kernel wants its memory: one line, what is whole is saved, and the run goes on from there."""
    settings = pico("data.workers=1", "train.save_every=3")
    with monkeypatch.context() as patch:
        patch.setattr(*DYING[at], _dying(at))
        with pytest.raises(ResnestError, match="a data-loading worker died") as caught:
            train("imagenette", data=photos, out=tmp_path / "run", settings=settings)
    again = f'resume from the last checkpoint: resnest.resume("{tmp_path}/run"), perhaps with fewer workers: '
    assert f'{again}`settings={{"data.workers": 1}}`' in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not multiprocessing.active_children()
    assert checkpoint(tmp_path / "run")["step"] == saved
    resume(tmp_path / "run", settings=["data.workers=0"])
    train("imagenette", data=photos, out=tmp_path / "straight", settings=settings)
    assert losses(tmp_path / "run") == losses(tmp_path / "straight")
    assert "workers: 0" in (tmp_path / "run" / "recipe.yaml").read_text()


def test_a_recipe_that_was_edited_between(photos: Path, tmp_path: Path) -> None:
    train("imagenette", data=photos, out=tmp_path / "run", settings=pico("train.epochs=1"))
    path = tmp_path / "run" / "recipe.yaml"
    path.write_text(path.read_text().replace("lr: 0.004", "lr: 0.01"))
    with pytest.raises(ResnestError, match=r"other settings: optim\.lr is 0\.004 there and 0\.01 here"):
        resume(tmp_path / "run")


def test_a_figure_that_cannot_be_measured_keeps_the_newest_weights(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And does not count as an evaluation without progress; a figure that was measured before is kept."""
    seen: list[float] = []
    evaluate = Loop._evaluate

    def unmeasured(loop: Loop) -> Any:
        result = evaluate(loop)
        result.figures["top1"] = seen.pop(0)
        return result

    monkeypatch.setattr(Loop, "_evaluate", unmeasured)
    for figures, kept in (([math.nan] * 3, 3), ([math.nan, 0.5, math.nan], 2), ([math.nan, math.nan, 0.1], 3)):
        seen[:] = figures
        out = tmp_path / str(kept) / str(figures[2])
        result = train(
            "imagenette", data=photos, out=out, settings=pico("train.epochs=3", "train.patience=2"), quiet=False
        )
        err = capsys.readouterr().err
        assert err.count("warning: top-1 cannot be measured on these validation images: the newest weights are") == 1
        assert "nan%" not in err
        best = [line for line in lines(out, "eval") if line["step"] == kept * checkpoint(out)["step"] // 3]
        assert len(best) == 1
        assert result.figures["top1"] == pytest.approx(figures[kept - 1], nan_ok=True)
        weights = load_file(out / "model.safetensors")
        newest = checkpoint(out)["model"]
        assert all(torch.equal(tensor, newest[name]) for name, tensor in weights.items()) == (kept == 3)
