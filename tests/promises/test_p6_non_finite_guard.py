"""P6, non-finite guard: a step whose loss or gradient is not finite changes nothing, is counted, and is listed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from conftest import Outcome, pico
from resnest.classification.task import ClassificationTask
from resnest.errors import NumericalStop
from resnest.training.loop import Loop
from resnest.training.train import train
from runs import lines

Loss = Callable[..., torch.Tensor]


def _poison(monkeypatch: pytest.MonkeyPatch, steps: set[int], how: str) -> None:
    """Make the loss, or only its gradient, not a number in some steps."""
    original: Loss = ClassificationTask.loss
    count = 0

    def loss(self: ClassificationTask, *arguments: object, **keywords: object) -> torch.Tensor:
        nonlocal count
        count += 1
        value = original(self, *arguments, **keywords)
        if count not in steps:
            return value
        if how == "loss":
            return value * math.nan
        value.register_hook(lambda gradient: gradient * math.inf)  # the value stays as it is
        return value

    monkeypatch.setattr(ClassificationTask, "loss", loss)


def _finite(path: Path) -> None:
    files = [load_file(path / "model.safetensors")]
    for checkpoint in (path / "checkpoints").glob("*.pt"):
        content = torch.load(checkpoint, weights_only=True)
        moments = [
            value
            for optimizer in content["optimizers"]
            for state in optimizer["state"].values()
            for value in state.values()
        ]
        files += [
            content["model"],
            {str(index): torch.as_tensor(value) for index, value in enumerate(moments) if value is not None},
        ]
    for state in files:
        assert all(torch.isfinite(tensor.float()).all() for tensor in state.values())


@pytest.mark.parametrize("how", ["loss", "gradient"])
def test_a_poisoned_step_changes_nothing(
    how: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _poison(monkeypatch, {2, 5}, how)
    states: list[tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]] = []
    original = Loop._train_step

    def stepping(self: Loop, *arguments: object) -> tuple[float, float]:
        before = {name: tensor.clone() for name, tensor in self.state.module.state_dict().items()}
        result = original(self, *arguments)  # type: ignore[arg-type]
        states.append((before, {name: tensor.clone() for name, tensor in self.state.module.state_dict().items()}))
        return result

    monkeypatch.setattr(Loop, "_train_step", stepping)
    train("imagenette", data=photos, out=tmp_path / "run", settings=pico())
    for step, (before, after) in enumerate(states, start=1):
        same = all(torch.equal(tensor, after[name]) for name, tensor in before.items())  # statistics and counters too
        assert same == (step in (2, 5))
    assert [line["skipped"] for line in lines(tmp_path / "run", "train")] == [0, 1, 1, 1, 2, 2, 2, 2]
    listed = [json.loads(line) for line in (tmp_path / "run" / "non_finite.jsonl").read_text().splitlines()]
    assert [line["step"] for line in listed] == [2, 5]
    assert all(len(line["images"]) == 8 and (photos / line["images"][0]).is_file() for line in listed)
    _finite(tmp_path / "run")


@pytest.mark.parametrize("how", ["loss", "gradient"])
def test_five_in_a_row_end_the_run(how: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _poison(monkeypatch, {1, 3, 6, 7, 8, 9, 10}, how)
    with pytest.raises(NumericalStop, match=r"5 steps in a row, the last one step 10 .*non_finite\.jsonl") as caught:
        train("imagenette", data=photos, out=tmp_path / "run", settings=pico("train.epochs=4"))
    assert caught.value.exit_code == 4
    assert len((tmp_path / "run" / "non_finite.jsonl").read_text().splitlines()) == 7
    _finite(tmp_path / "run")


def test_the_command_ends_with_4(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Callable[..., Outcome]
) -> None:
    _poison(monkeypatch, set(range(5, 100)), "loss")
    settings = [word for setting in pico("train.epochs=4") for word in ("--set", setting)]
    outcome = cli("train", "imagenette", "--data", photos, "--out", tmp_path / "run", *settings)
    assert outcome.code == 4
    _finite(tmp_path / "run")
