"""Two hosts, as network namespaces joined by a virtual cable: one run, and a host that is cut off ends it.

Interpreters of their own at full figures; else torchrun's agents and their processes are forked from this warm one.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from conftest import FULL, pico
from processes import Elastic

ADDRESSES = ("10.213.77.1", "10.213.77.2")
PORT = 29517
CLONE_NEWNET = 0x40000000  # sched.h


@dataclass(frozen=True)
class Hosts:
    """Two network namespaces and the ends of the cable between them."""

    names: tuple[str, str]

    def start(self, rank: int, told: Path, words: list[str]) -> subprocess.Popen[bytes] | Elastic:
        return self._torchrun(rank, told, words) if FULL else self._forked(rank, told, words)

    def _torchrun(self, rank: int, told: Path, words: list[str]) -> subprocess.Popen[bytes]:
        launch = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
        launch += [f"--node-rank={rank}", f"--master-addr={ADDRESSES[0]}", f"--master-port={PORT}"]
        with told.open("wb") as file:
            return subprocess.Popen(
                ["ip", "netns", "exec", self.names[rank], *launch, "-m", "resnest", *words],
                stdout=subprocess.DEVNULL,
                stderr=file,
                env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": f"{self.names[rank]}-v"},
            )

    def _forked(self, rank: int, told: Path, words: list[str]) -> Elastic:
        """What the options above come to in torch.distributed.run."""
        nodes = {"min_nodes": 2, "max_nodes": 2, "rdzv_backend": "static", "rdzv_configs": {"rank": rank}}
        nodes["rdzv_endpoint"] = f"{ADDRESSES[0]}:{PORT}"
        enter = partial(_enter, self.names[rank])
        return Elastic(["resnest", *words], count=1, restarts=0, told=told, nodes=nodes, enter=enter)

    def cut(self) -> None:
        _ip("-n", self.names[1], "link", "set", f"{self.names[1]}-v", "down")


def _enter(name: str) -> None:
    """This process moves into the namespace, and those that it starts are born there."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/run/netns", name).open() as namespace:
        if libc.setns(namespace.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    os.environ["GLOO_SOCKET_IFNAME"] = f"{name}-v"


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    if shutil.which("ip") is None:
        pytest.skip("needs the program ip (iproute2)")
    names = (f"rn{os.getpid() % 10000}a", f"rn{os.getpid() % 10000}b")
    try:
        for name in names:
            _ip("netns", "add", name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"network namespaces are not allowed here: {error.stderr.decode().strip()}")
    ends = [f"{name}-v" for name in names]
    _ip("link", "add", ends[0], "netns", names[0], "type", "veth", "peer", "name", ends[1], "netns", names[1])
    for name, end, address in zip(names, ends, ADDRESSES, strict=True):
        _ip("-n", name, "addr", "add", f"{address}/24", "dev", end)
        _ip("-n", name, "link", "set", end, "up")
        _ip("-n", name, "link", "set", "lo", "up")
    yield Hosts(names)
    for name in names:
        _ip("netns", "del", name)


def _command(photos: Path, out: Path, *settings: str) -> list[str]:
    words = [word for setting in pico("train.batch_size=4", *settings) for word in ("--set", setting)]
    return ["train", "imagenette", "--data", str(photos), "--out", str(out), *words]


@pytest.mark.timeout(240)
def test_two_hosts_train_one_network(hosts: Hosts, photos: Path, tmp_path: Path) -> None:
    command = _command(photos, tmp_path / "run", "train.sync_norm=true")
    started = [hosts.start(rank, tmp_path / f"{rank}.log", command) for rank in (0, 1)]
    codes = [process.wait(180) for process in started]
    assert codes == [0, 0], (tmp_path / "0.log").read_text() + (tmp_path / "1.log").read_text()
    assert json.loads((tmp_path / "run" / "run.json").read_text())["processes"] == 2
    assert (tmp_path / "run" / "report.html").exists()
    assert "a step: 8 images in 2 processes" in (tmp_path / "0.log").read_text()


@pytest.mark.timeout(300)
def test_a_host_that_is_cut_off_ends_the_run(hosts: Hosts, photos: Path, tmp_path: Path) -> None:
    command = _command(photos, tmp_path / "run", "train.epochs=3000", "trainer.timeout_seconds=8")
    started = [hosts.start(rank, tmp_path / f"{rank}.log", command) for rank in (0, 1)]
    while not (tmp_path / "run" / "metrics.jsonl").exists():
        assert all(process.poll() is None for process in started), (tmp_path / "0.log").read_text()
        time.sleep(0.2)
    hosts.cut()
    lost = time.monotonic()
    assert started[0].wait(60) != 0
    assert time.monotonic() - lost < 60
    assert "rank 1 (process" in (tmp_path / "0.log").read_text()
    assert "has sent no heartbeat for 8 s" in (tmp_path / "0.log").read_text()
    assert started[1].wait(60) != 0
