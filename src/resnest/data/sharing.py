"""How data-loading workers hand tensors over: in shared memory, or through their pipe where there is too little of it.

Containers often have 64 MB of /dev/shm. torch asks for it in a thread of the worker, whose error nobody receives: the
batch never comes, and the run would wait for it for ever.

    send_what_cannot_be_shared()      # in a worker
"""

from __future__ import annotations

import multiprocessing
import shutil
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import torch
from torch import UntypedStorage
from torch.multiprocessing import reductions

from resnest.errors import one_line
from resnest.progress import say

SHARED_MEMORY = Path("/dev/shm")
MORE = "give the container more (docker run --shm-size=8g)"

_said = False


def send_what_cannot_be_shared() -> None:
    """In this process: tensors for which there is no shared memory are sent as bytes."""
    ForkingPickler.register(UntypedStorage, _share_or_send)


def cannot_start(workers: int) -> str:
    """A warning if so many workers cannot be started; their queues' locks are files in the shared memory."""
    try:
        queues: list[Any] = [multiprocessing.Queue() for _ in range(workers + 3)]  # a few more than torch makes
        for queue in queues:
            queue.close()
    except OSError as error:
        return (
            f"warning: data-loading workers cannot be started ({one_line(error)}; their locks are files in"
            f" {_described()}): this process loads, which is slower; {MORE}"
        )
    return ""


def _share_or_send(storage: UntypedStorage) -> Any:
    try:
        return reductions.reduce_storage(storage)
    except (RuntimeError, OSError) as error:
        return _sent(storage, one_line(error))


def _sent(storage: UntypedStorage, reason: str) -> tuple[Any, tuple[bytearray, str]]:
    values = torch.empty(0, dtype=torch.uint8).set_(storage)
    return _received, (bytearray(values.numpy().tobytes()), reason)


def _received(content: bytearray, reason: str) -> UntypedStorage:
    """In the process that reads: the storage, and once the reason why it was sent."""
    global _said
    if not _said:
        _said = True
        say(
            f"warning: batches do not fit into {_described()} and go through pipes, which is slower: {MORE}, or load"
            f" with fewer workers (data.workers of a run). {reason}"
        )
    return torch.frombuffer(content, dtype=torch.uint8).untyped_storage() if content else UntypedStorage(0)


def _described() -> str:
    try:
        size = shutil.disk_usage(SHARED_MEMORY).total
    except OSError:
        return f"the shared memory ({SHARED_MEMORY}, which is not there)"
    return f"the shared memory ({SHARED_MEMORY}, {size / 2**20:.0f} MB)"
