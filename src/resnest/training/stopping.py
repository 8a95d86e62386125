"""Ctrl-C, SIGTERM, SIGUSR1, SIGHUP: stop after the current step; a second signal stops within a second (promise P4).

    with StopRequests() as stop:
        ...
        if stop.requested: save and leave

SLURM sends SIGUSR1 ahead of its time limit (`#SBATCH --signal=USR1@120`). A closing terminal sends SIGHUP, possibly
more than once; under nohup it is ignored.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from types import FrameType
from typing import Any

from resnest.errors import INTERRUPTED

TWICE = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # may come a second time, and then want an end at once
SIGNALS = (*TWICE, signal.SIGHUP)
PATIENCE = 0.7  # seconds for the main thread to react to a second signal


class StopRequests:
    """Within the block, the first signal sets `requested`; a second interrupts, or kills what cannot be interrupted."""

    def __init__(self) -> None:
        self.requested = False
        self._asked = 0
        self._before: dict[int, Any] = {}
        self._left = threading.Event()

    def __enter__(self) -> StopRequests:
        if threading.current_thread() is threading.main_thread():
            heeded = (number for number in SIGNALS if number in TWICE or signal.getsignal(number) != signal.SIG_IGN)
            self._before = {number: signal.signal(number, self._note) for number in heeded}
            self._hearing, self._told = socket.socketpair()
            self._told.setblocking(False)
            self._wakeup = signal.set_wakeup_fd(self._told.fileno(), warn_on_full_buffer=False)
            threading.Thread(target=self._listen, name="second signal", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        if self._before:
            signal.set_wakeup_fd(self._wakeup)
            for number, handler in self._before.items():
                signal.signal(number, handler)
            with contextlib.suppress(BrokenPipeError):  # after a second signal the listener may have left by itself
                self._told.send(b"\0")  # ends the listener; closing would not while a forked process has it open
            self._told.close()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._asked += number in TWICE
        if self._asked > 1:
            raise KeyboardInterrupt

    def _listen(self) -> None:
        """A listener thread: Python runs `_note` only between two instructions, and one may take as long as a step."""
        count = 0
        with self._hearing:
            while not self._left.is_set():
                heard = self._hearing.recv(16)
                count += sum(number in TWICE for number in heard)
                if count > 1 and not self._left.wait(PATIENCE):
                    os._exit(INTERRUPTED)
