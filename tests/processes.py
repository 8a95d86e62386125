"""Several processes of one run, forked from this warm one: importing torch once is enough.

results = in_processes(2, lambda rank: rank * 10)         # [0, 10]
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

SECONDS = 100
ONE_NODE = {"min_nodes": 1, "max_nodes": 1, "rdzv_backend": "c10d", "rdzv_endpoint": "127.0.0.1:0"}


def in_processes(count: int, act: Callable[[int], Any], *, group: bool = True) -> list[Any]:
    """What `act(rank)` gives in each of `count` processes, started as torchrun would; an exception stays one."""
    port = free_port()
    context = multiprocessing.get_context("fork")
    pipes, processes = [], []
    for rank in range(count):
        mine, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_run, args=(act, rank, count, port, theirs, group))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # fork with threads: children compute on one thread
            process.start()
        theirs.close()
        pipes.append(mine)
        processes.append(process)
    results = []
    for pipe, process in zip(pipes, processes, strict=True):
        try:
            results.append(pickle.loads(pipe.recv_bytes()) if pipe.poll(SECONDS) else TimeoutError("no result"))
        except EOFError:
            results.append(ProcessLookupError("killed"))
        process.join(10)
        if process.is_alive():
            process.kill()
    return results


def alone(act: Callable[[int], Any]) -> Any:
    """What it gives in a process of one thread: on another number, sums have other last bits."""
    [result] = in_processes(1, act, group=False)
    assert not isinstance(result, BaseException), result
    return result


def _run(act: Callable[[int], Any], rank: int, count: int, port: int, pipe: Connection, group: bool) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)  # the parent's OpenMP threads are not there after a fork
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(count),
        LOCAL_WORLD_SIZE=str(count),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        TORCHELASTIC_RUN_ID="test",
    )
    try:
        if group:
            torch.distributed.init_process_group("gloo", rank=rank, world_size=count)
        result = act(rank)
    except BaseException as error:
        traceback.print_exc()
        result = error
    pipe.send_bytes(pickle.dumps(result))  # `send` would share a tensor's memory, which goes with this process
    pipe.close()
    sys.stderr.flush()
    os._exit(0)  # without the parent's exit handlers


class Elastic:
    """torchrun's agent and its processes, forked from this one, which run a command of ours; looks like a Popen.

    job = Elastic(["resnest", "train", ...], count=2, restarts=3, told=tmp_path / "run.log")
    job.ranks()                                              # process numbers by rank
    """

    def __init__(
        self,
        words: list[str],
        *,
        count: int,
        restarts: int,
        told: Path,
        nodes: Mapping[str, Any] | None = None,
        enter: Callable[[], None] = lambda: None,
    ) -> None:
        """`nodes`: what the launcher is told of several hosts; `enter`: done first, in the agent's own process."""
        import resnest.training  # noqa: F401  # seconds, once and here

        self.told = told
        arguments = (words, count, restarts, told, nodes or ONE_NODE, enter)
        self.process = multiprocessing.get_context("fork").Process(target=_agent, args=arguments)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # as above
            self.process.start()
        self.pid, self.terminate, self.kill = self.process.pid, self.process.terminate, self.process.kill

    def ranks(self) -> dict[int, int]:
        """Of those that are there now."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        noted = {int(path.suffix[1:]): path.read_text() for path in self.told.parent.glob(f"{self.told.stem}.[0-9]")}
        return {rank: int(pid) for rank, pid in sorted(noted.items()) if pid in children}

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self, seconds: float | None = None) -> int:
        self.process.join(seconds)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired("the job", seconds or 0)
        return self.process.exitcode


def _agent(
    words: list[str], count: int, restarts: int, told: Path, nodes: Mapping[str, Any], enter: Callable[[], None]
) -> None:
    """As torch.distributed.run, but that its processes are forked too."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(told, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
    enter()
    config = LaunchConfig(nproc_per_node=count, run_id="test", max_restarts=restarts, start_method="fork", **nodes)
    code = 0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            elastic_launch(config, _command)(words, told)
    except ChildFailedError as error:
        print(error, file=sys.stderr)  # it names rank and process
        code = 1
    except BaseException:
        traceback.print_exc()
        code = 1
    os._exit(code)


def _command(words: list[str], told: Path) -> None:
    """One of its processes."""
    from resnest.cli.app import main

    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the agent's own handler came along
    torch.set_num_threads(1)
    told.with_suffix(f".{os.environ['RANK']}").write_text(str(os.getpid()))
    sys.argv = words
    code = 0
    try:
        main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException:
        traceback.print_exc()
        code = 1
    if code:
        sys.stderr.flush()
        # The agent of forked processes looks every 0.1 s and names one of those that have ended since, the lowest rank:
        # who ends because another was killed must not come before it. torchrun's own names all.
        time.sleep(2)
        os._exit(code)


class Workers:
    """A dataset of who made it: an item is the process that was asked."""

    def __getitem__(self, key: int) -> int:
        if key < 0:
            raise RuntimeError(f"DataLoader worker or not, {key} is no index")
        return os.getpid()

    def collate(self, items: list[int]) -> list[int]:
        return items


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
