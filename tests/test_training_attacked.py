"""What a user or the machine does to a run: a second process in its directory, files that others wrote, no reader."""

from __future__ import annotations

import io
import json
import multiprocessing
import re
import signal
import sys
import time
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import Outcome, pico
from resnest.errors import NumericalStop, ResnestError
from resnest.files import sha256_of
from resnest.progress import Progress, say
from resnest.recipes import find_recipe, override
from resnest.training.distributed import open_fabric
from resnest.training.run import Lock, RunDirectory
from resnest.training.stopping import StopRequests
from resnest.training.train import train


def _hold(folder: Path, pipe: Connection) -> None:
    lock = Lock(folder)
    lock.acquire()
    pipe.send_bytes(b"held")
    time.sleep(60)


def test_a_directory_has_one_run_and_a_killed_one_lets_go(
    photos: Path, tmp_path: Path, cli: Callable[..., Outcome]
) -> None:
    out = tmp_path / "run"
    settings = [word for setting in pico("train.max_steps=1") for word in ("--set", setting)]
    again = ("train", "imagenette", "--data", photos, "--out", out, "--device", "cpu", *settings)
    assert cli(*again).code == 0
    assert not (out / ".lock").exists()
    mine, theirs = multiprocessing.Pipe(duplex=False)
    other = multiprocessing.get_context("fork").Process(target=_hold, args=(out, theirs))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork with threads
        other.start()
    try:
        assert mine.recv_bytes() == b"held"
        before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
        for command in ((*again, "--overwrite"), ("train", "--resume", out, "--device", "cpu")):
            done = cli(*command)
            assert done.code == 2
            assert f"{out} is in use by another run (process {other.pid} on " in done.err
        assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    finally:
        other.kill()
        other.join()
    assert cli("train", "--resume", out, "--device", "cpu").code == 0


NOT_RESUMED: list[tuple[str, bytes, int, str]] = [
    ("recipe.yaml", b"", 2, "recipe.yaml is not a recipe"),
    ("recipe.yaml", b"train: {newthing: 3}", 2, "'train.newthing' is not a known setting"),
    ("run.json", b"[]", 2, "no readable run.json"),
    ("run.json", b"{}", 2, "no readable run.json"),
    ("run.json", b"\xff\xfe", 2, "no readable run.json"),
    ("metrics.jsonl", b'[1]\n{}\nxx\n\xff\xfe\0{"step": 1', 0, ""),
    ("bad_images.jsonl", b"{}\n5\n\xff", 0, ""),
]
OTHER_CHECKPOINTS: dict[str, tuple[Callable[[dict[str, Any]], Any], int, str]] = {
    "a list": (lambda content: [1], 3, r"no usable checkpoint \(1 damaged ones\)"),
    "no optimizers": (lambda content: content | {"optimizers": []}, 3, "step 4 in .* does not fit its recipe"),
    "no model": (
        lambda content: {name: content[name] for name in content if name != "model"},
        3,
        "does not fit its recipe, .* no model",
    ),
    "another network": (lambda content: content | {"model": {"a": torch.zeros(1)}}, 3, "does not fit its recipe"),
    "a setting to come": (
        lambda content: content | {"recipe": content["recipe"] | {"more": 1}},
        2,
        "'more' is not a known setting",
    ),
}


def test_what_others_left_in_a_run(photos: Path, tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    """Files of a run that are not as they were written: one line each, or the run goes on without them."""
    out = tmp_path / "run"
    train("imagenette", data=photos, out=out, settings=pico("train.max_steps=4"), device="cpu")

    def resumes(path: Path, content: bytes, code: int, message: str) -> None:
        before = path.read_bytes() if path.exists() else None
        path.write_bytes(content)
        if path.suffix == ".pt":
            path.with_suffix(".sha256").write_text(sha256_of(path))
        done = cli("train", "--resume", out, "--device", "cpu")
        assert (done.code, bool(re.search(message, done.err))) == (code, True), done.err
        assert path.unlink() is None if before is None else path.write_bytes(before)

    for name, content, code, message in NOT_RESUMED:
        resumes(out / name, content, code, message)
    (checkpoint,) = (out / "checkpoints").glob("*.pt")
    whole = torch.load(checkpoint, weights_only=True)
    for change, code, message in OTHER_CHECKPOINTS.values():
        buffer = io.BytesIO()
        torch.save(change(whole), buffer)
        resumes(checkpoint, buffer.getvalue(), code, message)


@pytest.mark.parametrize(
    ("left", "refused"),
    [
        (["recipe.yaml", "run.json", "bad_images.jsonl"], False),  # ended before its first step
        (["recipe.yaml", "run.json", "metrics.jsonl"], True),
        (["checkpoints/step-00000004.pt"], True),
        (["model.safetensors"], True),
    ],
)
def test_a_run_that_never_began_is_replaced(tmp_path: Path, left: list[str], refused: bool) -> None:
    run = RunDirectory(tmp_path)
    run.checkpoints.mkdir()
    for name in left:
        (tmp_path / name).write_text(json.dumps({"data": "photos", "class_names": ["a"], "train_images": 1}))
    if refused:
        with pytest.raises(ResnestError, match=r"already holds a run|is no run, and has model"):
            run.create()
    else:
        run.create()
    assert all((tmp_path / name).exists() is refused for name in left)


@pytest.mark.parametrize("name", ["recipe.yaml", "run.json", "wandb/mine", "config.json", "report.html", "data.html"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_files_of_no_run_are_kept(name: str, overwrite: bool, tmp_path: Path) -> None:
    """--out . where a recipe of one's own lies, or other experiments are logged."""
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    with pytest.raises(ResnestError, match=r"is no run, and has .*, which a run would replace: choose another `out`"):
        RunDirectory(tmp_path).create(overwrite=overwrite)
    assert path.read_text() == "mine"
    assert not (tmp_path / "checkpoints").exists()


def test_weights_that_diverged_are_not_the_best(photos: Path, tmp_path: Path) -> None:
    """Too few steps for the guard of P6, all of them finite: the evaluation tells."""
    settings = pico("optim.name=sgd", "optim.lr=1e30", "optim.warmup_epochs=0", "train.epochs=1")
    with pytest.raises(NumericalStop, match="the evaluation at step 4 gave no finite loss"):
        train("imagenette", data=photos, out=tmp_path / "run", settings=settings, device="cpu")
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_machines_that_nobody_named_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    recipe = override(find_recipe("imagenette"), ["trainer.num_nodes=5"])
    with pytest.raises(ResnestError, match=r"trainer.num_nodes=5, but nothing says where the other machines are"):
        open_fabric(recipe, "cpu")


def test_hanging_up_asks_once_however_often() -> None:
    with StopRequests() as stop:
        for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM, signal.SIGHUP):
            signal.raise_signal(number)
        assert stop.requested


def test_nohup_is_heeded() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequests() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop.requested
    finally:
        signal.signal(signal.SIGHUP, before)


def test_nobody_has_to_read_what_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        closed = False

        def write(self, text: str) -> int:
            raise BrokenPipeError

        flush = isatty = lambda self: False

    for stream in (Gone(), None):
        monkeypatch.setattr(sys, "stderr", stream)
        say("hello")
        with Progress("step") as show:
            show.start(1)
            show.say("hello")
