"""P5, lost worker: of two real processes one is killed or stands still; the job ends or restarts, and names it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from conftest import FULL, pico
from processes import Elastic
from runs import checkpoint

SECONDS = 60  # after which the job has ended


class Job:
    """`torchrun --nproc-per-node 2 -m resnest train ...`, and what it says.

    Interpreters of their own at full figures; else its agent and its processes are forked from this warm one.
    """

    def __init__(self, photos: Path, out: Path, *settings: str, restarts: int = 0) -> None:
        words = ["train", "imagenette", "--data", str(photos), "--out", str(out)]
        words += [word for setting in pico(*settings) for word in ("--set", setting)]
        self.told = out.with_suffix(".log")
        self.process = self._torchrun(words, restarts) if FULL else self._forked(words, restarts)
        self.metrics = out / "metrics.jsonl"

    def _forked(self, words: list[str], restarts: int) -> Elastic:
        return Elastic(["resnest", *words], count=2, restarts=restarts, told=self.told)

    def _torchrun(self, words: list[str], restarts: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--max-restarts={restarts}"]
        command += ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "-m", "resnest", *words]
        with self.told.open("w") as told:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=told, env=environment)

    def started(self) -> list[int]:
        """Process numbers by rank, once training goes on."""
        while not self.metrics.exists():
            assert self.process.poll() is None, self.told.read_text()
            time.sleep(0.1)
        if isinstance(self.process, Elastic):
            return list(self.process.ranks().values())
        found: dict[int, int] = {}
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for child in children:
            environment = Path(f"/proc/{child}/environ").read_bytes().decode().split("\0")
            for entry in environment:
                if entry.startswith("RANK="):
                    found[int(entry[5:])] = int(child)
        return [found[rank] for rank in sorted(found)]

    def end(self, seconds: float = SECONDS) -> int:
        return self.process.wait(seconds)

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *error: object) -> None:
        """Whatever happened, nothing of it runs on."""
        self.process.terminate()  # the agent passes it on to its processes
        try:
            self.process.wait(40)  # it gives them 30 s
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("number", "rank"), [(signal.SIGKILL, 1), (signal.SIGSTOP, 1), (signal.SIGSTOP, 0)])
def test_the_job_ends_and_names_the_process(number: signal.Signals, rank: int, photos: Path, tmp_path: Path) -> None:
    settings = ("train.epochs=2000", "train.batch_size=4", "trainer.timeout_seconds=5")
    with Job(photos, tmp_path / "run", *settings) as job:
        pids = job.started()
        lost = time.monotonic()
        os.kill(pids[rank], number)
        code = job.end()
        told = job.told.read_text()
        assert code != 0
        assert time.monotonic() - lost < SECONDS
        assert re.search(rf"rank\W+:? ?{rank} \(.*local_rank|rank {rank} \(process {pids[rank]}", told), told
        if number == signal.SIGSTOP:
            assert f"rank {rank} (process {pids[rank]} on " in told
            assert "has sent no heartbeat for 5 s; the run ends here" in told
        assert not Path(f"/proc/{pids[1 - rank]}").exists()


@pytest.mark.timeout(500)
def test_restarted_it_comes_to_the_same(photos: Path, tmp_path: Path) -> None:
    """A process is killed, at full figures three times; the result equals that of an uninterrupted run, bit for bit."""
    times = 3 if FULL else 1
    settings = ("train.batch_size=4", "train.epochs=6", "train.save_every=3", "trainer.timeout_seconds=10")
    with Job(photos, tmp_path / "straight", *settings) as straight:
        assert straight.end(120) == 0, straight.told.read_text()
    killed = 0
    with Job(photos, tmp_path / "killed", *settings, restarts=3) as job:
        while killed < times and job.process.poll() is None:
            pids = job.started()
            if len(pids) == 2 and any((tmp_path / "killed" / "checkpoints").glob("*.pt")):
                before = job.told.read_text().count("resumed at step")
                os.kill(pids[killed % 2], signal.SIGKILL)
                killed += 1
                deadline = time.monotonic() + 2 * SECONDS
                while job.process.poll() is None and job.told.read_text().count("resumed at step") == before:
                    assert time.monotonic() < deadline, job.told.read_text()
                    time.sleep(0.05)
            time.sleep(0.05)
        assert job.end(120) == 0, job.told.read_text()
    assert job.told.read_text().count("resumed at step") == killed > 0
    one, other = (checkpoint(tmp_path / name) for name in ("straight", "killed"))
    assert one["step"] == other["step"] == 24
    assert all(torch.equal(tensor, other["model"][name]) for name, tensor in one["model"].items())
