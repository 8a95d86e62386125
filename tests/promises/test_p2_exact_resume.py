"""P2, exact resume: twenty steps equal seven steps, kill -9, and thirteen more, to the last bit of everything saved."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import pico
from processes import in_processes
from resnest.errors import Preempted
from resnest.training.loop import Loop
from resnest.training.train import resume, train
from runs import checkpoint, lines

# Everything that is random or has a memory: dropped paths and blocks, mixed images, averaged weights.
RANDOM = (
    "train.epochs=5", "train.save_every=7", "train.mixup=0.2", "train.drop_block=0.1", "train.ema=0.9",
    "data.augment=trivial", "model.spec.drop_path_rate=0.2", "model.spec.drop_block_rate=0.1", "optim.lr=0.01",
)  # fmt: skip


def _interrupt(step: int, number: signal.Signals) -> None:
    """Have this process get a signal in that step. For a forked process: nothing is put back."""
    original: Callable[..., Any] = Loop._train_step

    def stepping(self: Loop, *arguments: Any) -> Any:
        if self.step + 1 == step:
            os.kill(os.getpid(), number)
        return original(self, *arguments)

    Loop._train_step = stepping  # type: ignore[method-assign]


def _run_and_die(photos: Path, out: Path, settings: list[str], *, processes: int = 1, step: int = 8) -> None:
    def act(rank: int) -> None:
        _interrupt(step, signal.SIGKILL)
        train("imagenette", data=photos, out=out, settings=settings)

    results = in_processes(processes, act, group=False)
    assert [type(result) for result in results] == [ProcessLookupError] * processes


def _run_alone(photos: Path, out: Path, settings: list[str]) -> None:
    """In a process of its own as well: on another number of threads, sums have other last bits."""

    def act(rank: int) -> dict[str, float]:
        return train("imagenette", data=photos, out=out, settings=settings).figures

    [result] = in_processes(1, act, group=False)
    assert isinstance(result, dict), result


def _resume_alone(out: Path) -> None:
    [result] = in_processes(1, lambda rank: resume(out).figures, group=False)
    assert isinstance(result, dict), result


def _kept(run: Path) -> dict[str, Any]:
    return {key: value for key, value in checkpoint(run).items() if key not in ("seconds", "recipe")}


def _differences(one: Any, other: Any, name: str = "") -> list[str]:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        return [found for key in one for found in _differences(one[key], other[key], f"{name}.{key}")]
    if isinstance(one, list):
        assert len(one) == len(other)
        return [
            found
            for place, pair in enumerate(zip(one, other, strict=True))
            for found in _differences(*pair, f"{name}.{place}")
        ]
    same = torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
    return [] if same else [name]


def _log(run: Path) -> list[tuple[Any, ...]]:
    # losses of a step are logged with the gradient norm, evaluations with their figures
    return [tuple(line.get(key) for key in ("kind", "step", "lr", "gradient_norm", "top1")) for line in lines(run)]


CASES = [  # optimiser, loading processes of the run that is killed, images of a micro-batch, of them a step
    ("sgd", 0, 8, 1),
    ("adamw", 2, 8, 1),
    ("muon", 4, 2, 4),
]


@pytest.mark.parametrize(("optimizer", "workers", "batch", "accumulate"), CASES)
def test_killed_and_resumed(
    optimizer: str, workers: int, batch: int, accumulate: int, photos: Path, tmp_path: Path
) -> None:
    """The uninterrupted run loads in its own process: order and augmentation do not depend on the loaders."""
    settings = [
        *pico(*RANDOM), f"optim.name={optimizer}", f"train.batch_size={batch}", f"train.accumulate={accumulate}"
    ]  # fmt: skip
    _run_alone(photos, tmp_path / "straight", settings)
    _run_and_die(photos, tmp_path / "killed", [*settings, f"data.workers={workers}"])
    assert _kept(tmp_path / "killed")["step"] == 7
    _resume_alone(tmp_path / "killed")
    straight = _kept(tmp_path / "straight")
    assert straight["step"] == 20
    assert _differences(straight, _kept(tmp_path / "killed")) == []
    assert _log(tmp_path / "killed") == _log(tmp_path / "straight")


def test_two_processes_killed_and_resumed(photos: Path, tmp_path: Path) -> None:
    settings = [*pico(*RANDOM), "train.batch_size=4"]

    def straight(rank: int) -> None:
        train("imagenette", data=photos, out=tmp_path / "straight", settings=settings)

    in_processes(2, straight, group=False)
    _run_and_die(photos, tmp_path / "killed", settings, processes=2)
    in_processes(2, lambda rank: resume(tmp_path / "killed").figures, group=False)
    assert _kept(tmp_path / "killed")["step"] == 20
    assert _differences(_kept(tmp_path / "straight"), _kept(tmp_path / "killed")) == []


@pytest.mark.parametrize("step", [3, 4])  # within an epoch, and at its end
def test_stopped_and_resumed(step: int, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = [*pico(*RANDOM), "train.epochs=2"]
    train("imagenette", data=photos, out=tmp_path / "straight", settings=settings)
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_train_step", Loop._train_step)
        _interrupt(step, signal.SIGTERM)
        with pytest.raises(Preempted, match=f"stopped at step {step} of 8"):
            train("imagenette", data=photos, out=tmp_path / "stopped", settings=settings)
    resume(tmp_path / "stopped")
    assert _differences(_kept(tmp_path / "straight"), _kept(tmp_path / "stopped")) == []


def test_mixed_precision_resumes_as_exactly(photos: Path, tmp_path: Path) -> None:
    settings = [*pico(*RANDOM), "train.precision=bf16-mixed", "train.epochs=3"]
    _run_alone(photos, tmp_path / "straight", settings)
    _run_and_die(photos, tmp_path / "killed", settings)
    _resume_alone(tmp_path / "killed")
    assert _differences(_kept(tmp_path / "straight"), _kept(tmp_path / "killed")) == []
