"""P3, damaged checkpoint: resuming goes back to the one before, says so in one line, or ends with exit code 3."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from conftest import Outcome, pico
from resnest.errors import NoValidCheckpoint
from resnest.training.run import RunDirectory


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip(path: Path) -> None:
    """One bit, in the middle of the weights, where torch itself would not notice."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _lose_hash(path: Path) -> None:
    path.with_suffix(".sha256").unlink()


DAMAGES: dict[str, Callable[[Path], None]] = {"cut": _cut, "flip": _flip, "zero": _zero, "no hash": _lose_hash}


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    made = RunDirectory(tmp_path / "run")
    made.create()
    for step in (1, 2):
        made.save_checkpoint({"step": step, "model": {"weight": torch.randn(10_000)}})
    return made


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_one_before_is_taken(damage: str, run: RunDirectory) -> None:
    newest = run.checkpoints / "step-00000002.pt"
    DAMAGES[damage](newest)
    content, warnings = run.load_checkpoint()
    assert content["step"] == 1
    assert len(warnings) == 1
    assert str(newest) in warnings[0]
    assert str(run.checkpoints / "step-00000001.pt") in warnings[0]
    assert "\n" not in warnings[0]


@pytest.mark.parametrize("damage", DAMAGES)
def test_if_all_are_damaged_nothing_is_overwritten(damage: str, run: RunDirectory) -> None:
    for path in run.checkpoints.glob("*.pt"):
        DAMAGES[damage](path)
    before = {path.name: path.read_bytes() for path in run.checkpoints.iterdir()}
    with pytest.raises(NoValidCheckpoint, match="2 damaged ones") as caught:
        run.load_checkpoint()
    assert caught.value.exit_code == 3
    assert {path.name: path.read_bytes() for path in run.checkpoints.iterdir()} == before


def test_the_command(photos: Path, tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    out = tmp_path / "run"
    settings = [word for setting in pico("train.epochs=1") for word in ("--set", setting)]
    assert (
        cli("train", "imagenette", "--data", photos, "--out", out, *settings, "--set", "train.save_every=2").code == 0
    )
    newest = max((out / "checkpoints").glob("*.pt"))
    _flip(newest)
    resumed = cli("train", "--resume", out)
    assert resumed.code == 0
    assert resumed.err.count("going back to") == 1
    for path in (out / "checkpoints").glob("*.pt"):
        _flip(path)
    assert cli("train", "--resume", out).code == 3


def test_looking_takes_two_seconds_a_gigabyte_at_most(run: RunDirectory) -> None:
    """A tenth of a gigabyte here, and ten times the share of time for a busy machine."""
    run.save_checkpoint({"step": 3, "model": {"weight": torch.zeros(25_000_000)}})
    _flip(run.checkpoints / "step-00000003.pt")
    started = time.perf_counter()
    content, _ = run.load_checkpoint()
    assert content["step"] == 2
    assert time.perf_counter() - started < 2
