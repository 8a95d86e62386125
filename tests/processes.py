"""Several processes of one run, forked from this warm one: importing torch once is enough.

results = in_processes(2, lambda rank: rank * 10)         # [0, 10]
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import socket
import sys
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch

SECONDS = 100


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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
