"""P1, crash-safe saves: real processes, killed with SIGKILL in the middle of saving, leave a checkpoint that loads."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch

from conftest import FULL, pico, small_file_system
from resnest.errors import ResnestError
from resnest.training.run import RunDirectory
from resnest.training.train import resume, train

KILLS = 60 if FULL else 8


def _saving(run: RunDirectory, said: int, told: Connection) -> None:
    os.environ["TMPDIR"] = "/dev/shm"  # another file system: a save must not pass through it
    tempfile.tempdir = None
    torch.set_num_threads(1)
    for step in count(said + 1):
        run.save_checkpoint({"step": step, "model": {"weight": torch.full((400_000,), float(step))}})
        told.send(step)


@pytest.mark.timeout(240)
def test_killed_at_any_instant(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    run.create()
    pick, fork = random.Random(0), get_context("fork")
    saved = said = 0
    for _ in range(KILLS):
        mine, theirs = fork.Pipe(duplex=False)
        process = fork.Process(target=_saving, args=(run, said, theirs))
        process.start()
        theirs.close()
        for _ in range(pick.randint(1, 12)):
            said = mine.recv()
            saved += 1
        time.sleep(pick.random() * 0.02)  # anywhere in the next save
        process.kill()
        process.join()
        with contextlib.suppress(EOFError):
            while True:
                said = mine.recv()
        content, warnings = run.load_checkpoint()
        assert warnings == []
        assert content["step"] >= said  # nothing that was reported as saved is lost
        assert torch.equal(content["model"]["weight"], torch.full((400_000,), float(content["step"])))
        strays = [path for path in run.checkpoints.iterdir() if path.name.endswith(".tmp")]
        assert len(strays) <= 1
        run.remove_partial_files()
        assert not list(run.checkpoints.glob(".*.tmp"))
        said = int(content["step"])
    assert saved > 3 * KILLS  # at full figures some 400


def test_two_are_kept_and_no_more(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    run.create()
    for step in range(1, 6):
        run.save_checkpoint({"step": step})
    names = ["step-00000004.pt", "step-00000004.sha256", "step-00000005.pt", "step-00000005.sha256"]
    assert sorted(path.name for path in run.checkpoints.iterdir()) == names


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with small_file_system(tmp_path / "disk", "8m") as place:
        yield place


def test_a_disk_that_fills_up_in_the_middle_of_a_save(small_disk: Path) -> None:
    """Twenty times, after some bytes of the new checkpoint; then there is room again, and it goes on."""
    run = RunDirectory(small_disk / "run")
    run.create()
    pick = random.Random(0)
    ballast = small_disk / "ballast"
    for step in range(1, 41, 2):
        run.save_checkpoint({"step": step, "weight": torch.full((400_000,), float(step))})
        free = shutil.disk_usage(small_disk).free
        ballast.write_bytes(bytes(free - pick.randrange(0, 1_500_000)))
        with pytest.raises(ResnestError, match=r"the disk is full: .* what was saved before is intact"):
            run.save_checkpoint({"step": step + 1, "weight": torch.full((400_000,), float(step + 1))})
        content, warnings = run.load_checkpoint()
        assert (content["step"], warnings) == (step, [])
        assert torch.equal(content["weight"], torch.full((400_000,), float(step)))
        assert not list(run.checkpoints.glob(".*.tmp"))
        ballast.unlink()


def test_a_run_on_a_full_disk(photos: Path, small_disk: Path) -> None:
    (small_disk / "ballast").write_bytes(bytes(shutil.disk_usage(small_disk).free - 2_500_000))
    with pytest.raises(ResnestError, match=r"the disk is full: .* intact"):
        train("imagenette", data=photos, out=small_disk / "run", settings=pico("train.epochs=4", "train.save_every=1"))
    assert not list((small_disk / "run").rglob("*.tmp"))
    (small_disk / "ballast").unlink()
    assert resume(small_disk / "run").figures
