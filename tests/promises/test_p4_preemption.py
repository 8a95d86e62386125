"""P4, pre-emption: asked to stop, a run saves and ends with 75 at the next step; asked twice, within a second."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import pico
from resnest.training.loop import Loop
from resnest.training.run import RunDirectory

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]


def _command(photos: Path, out: Path, *settings: str) -> list[str]:
    words = [word for setting in pico("train.epochs=500", *settings) for word in ("--set", setting)]
    return ["resnest", "train", "imagenette", "--data", str(photos), "--out", str(out), *words]


def _start(command: list[str], told: Path, prepare: Callable[[], None] = lambda: None) -> BaseProcess:
    """The program in a process of its own, forked so that torch need not be imported again."""

    def run() -> None:
        torch.set_num_threads(1)
        sys.argv = command
        file = told.open("w", encoding="utf-8", buffering=1)
        os.dup2(file.fileno(), 2)
        sys.stderr = file
        prepare()
        from resnest.cli.app import main

        code: Any = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code
        os._exit(code or 0)

    process: BaseProcess = get_context("fork").Process(target=run)
    process.start()
    return process


def _wait_for(path: Path, process: BaseProcess) -> None:
    while not path.exists():
        assert process.is_alive()
        time.sleep(0.05)


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_signal_saves_and_ends_with_75(number: signal.Signals, workers: int, photos: Path, tmp_path: Path) -> None:
    """Loading processes get the signal too, as in a terminal or under SLURM, and finish what the step needs."""
    out, told = tmp_path / "run", tmp_path / "told"
    process = _start(_command(photos, out, f"data.workers={workers}"), told, prepare=os.setpgrp)
    _wait_for(out / "metrics.jsonl", process)
    assert process.pid
    asked = time.monotonic()
    os.killpg(process.pid, number)
    process.join(60)
    assert process.exitcode == 75, told.read_text()
    assert time.monotonic() - asked < 30
    assert f"resume with: resnest train --resume {out}" in told.read_text()
    assert "Traceback" not in told.read_text()
    content, warnings = RunDirectory(out).load_checkpoint()
    assert content["step"] >= 1
    assert not warnings


def _one_long_instruction() -> None:
    """A step in which Python gets no turn for many seconds."""

    def stepping(self: Loop, *arguments: Any) -> Any:
        (self.run.path / "deep").write_text("in a step")
        torch.linalg.svd(torch.randn(6000, 6000))

    Loop._train_step = stepping  # type: ignore[assignment,method-assign]


@pytest.mark.parametrize("deep", [False, True], ids=["between instructions", "within a long one"])
def test_the_second_signal_ends_it_within_a_second(deep: bool, photos: Path, tmp_path: Path) -> None:
    out, told = tmp_path / "run", tmp_path / "told"

    def sleeping() -> None:
        def stepping(self: Loop, *arguments: Any) -> Any:
            (self.run.path / "deep").write_text("in a step")
            time.sleep(60)

        Loop._train_step = stepping  # type: ignore[assignment,method-assign]

    process = _start(_command(photos, out), told, prepare=_one_long_instruction if deep else sleeping)
    _wait_for(out / "deep", process)
    assert process.pid
    os.kill(process.pid, signal.SIGINT)
    time.sleep(0.3)
    assert process.is_alive()
    asked = time.monotonic()
    os.kill(process.pid, signal.SIGINT)
    process.join(20)
    assert time.monotonic() - asked < 1 + 0.5  # starting and joining a process here
    assert process.exitcode == 130, told.read_text()
