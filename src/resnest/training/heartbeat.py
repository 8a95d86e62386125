"""Heartbeats: a lost or hanging process ends the run in seconds, not at the next timeout (promise P5).

    with watching(world, seconds=60):
        ...                                   # every process sends heartbeats and watches the others'

A crashed process is detected by torchrun, and by srun with an option; a hanging one (SIGSTOP, a hung disk or GPU) by
neither: the others wait in a collective that never completes. Here a thread of every process writes a counter into the
rendezvous store, and reads the others'.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from torch.distributed import Store, TCPStore  # type: ignore[attr-defined]

from resnest.errors import NumericalStop, Preempted, call
from resnest.training.distributed import ProcessGroup

LOST = 1  # exit code: torchrun restarts whatever is not 0
DONE = "done"


@contextmanager
def watching(world: ProcessGroup, *, seconds: float) -> Iterator[None]:
    """Within the block, a process without heartbeats for so long ends the run, also one that an error ended."""
    if world.size == 1:
        yield
        return
    heart = _Heartbeat(world, seconds)
    heart.start()
    together = False
    try:
        yield
        together = True
    except (Preempted, NumericalStop):  # what all decide alike
        together = True
        raise
    finally:
        heart.stop(done=together)


class _Heartbeat(threading.Thread):
    """Sends heartbeats and watches the others', some ten times in the allowed time."""

    def __init__(self, world: ProcessGroup, seconds: float) -> None:
        super().__init__(name="heartbeat", daemon=True)
        self.world, self.seconds = world, seconds
        self.over = threading.Event()
        self.done = False  # it leaves as all do, and need not be missed
        self.who = f"{socket.gethostname()} {os.getpid()}"
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # what an earlier attempt left in the store
        self.names = [f"resnest/{attempt}/{rank}" for rank in range(world.size)]

    def run(self) -> None:
        # a connection of its own: the processes' common one may be waiting for something else
        store = TCPStore(
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            is_master=False,
            wait_for_workers=False,
            timeout=timedelta(seconds=self.seconds),
        )
        heard = {rank: ("", time.monotonic()) for rank in range(self.world.size) if rank != self.world.rank}
        beat = 0
        while not self.over.wait(self.seconds / 10 if beat else 0):
            beat += 1
            try:
                store.set(self.names[self.world.rank], f"{beat} {self.who}")
                self._listen(store, heard)
            except RuntimeError:  # the store is gone, and with it the process or agent that hosted it
                if self.over.wait(self.seconds):
                    return
                self._end("the process that keeps the store (rank 0 or its agent)", "")
        if self.done:
            with contextlib.suppress(RuntimeError):
                store.set(self.names[self.world.rank], DONE)

    def _listen(self, store: Store, heard: dict[int, tuple[str, float]]) -> None:
        now = time.monotonic()
        for rank, (before, since) in list(heard.items()):
            said = store.get(self.names[rank]).decode() if store.check([self.names[rank]]) else ""
            if said == DONE:
                del heard[rank]
            elif said != before:
                heard[rank] = (said, now)
            elif now - since > self.seconds:  # all begin together: silence from the start counts too
                self._end(f"rank {rank}", before)

    def _end(self, lost: str, said: str) -> None:
        _, host, process = f"{said}  ".split(" ", 2)
        where = f" (process {process.strip()} on {host})" if host else ""
        print(
            f"resnest: {lost}{where} has sent no heartbeat for {self.seconds:g} s; the run ends here. Its last"
            f" checkpoint is intact: torchrun --max-restarts resumes automatically, otherwise {call('resume', 'RUN')}",
            file=sys.stderr,
            flush=True,
        )
        if host == socket.gethostname():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(int(process), signal.SIGKILL)  # a stopped process does not heed anything milder
        os._exit(LOST)  # the main thread waits in a collective and cannot be interrupted

    def stop(self, *, done: bool) -> None:
        self.done = done
        self.over.set()
        self.join(timeout=1)
