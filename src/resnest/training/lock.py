"""The lock of a run directory, released when its process dies, by kill -9 too.

    lock = Lock(Path("runs/a"))
    lock.acquire()          # raises ResnestError while another process has it
    lock.release()

A POSIX record lock (fcntl(2)): unlike flock's, forked data-loading workers do not hold it. On a file system without
locks there is none.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
from pathlib import Path

from resnest.errors import ResnestError

NAME = ".lock"
TAKEN = (errno.EACCES, errno.EAGAIN)  # which of them is up to the system: fcntl(2)


class Lock:
    """The lock of a run directory, for the duration of a run."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._file: int | None = None

    def acquire(self) -> None:
        """Raises ResnestError if another process holds it, with that process; OSError for an unwritable folder."""
        self.release()
        while self._file is None:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                who = os.read(file, 200).decode(errors="replace").strip()
                os.close(file)
                if error.errno not in TAKEN:
                    return
                raise ResnestError(
                    f"{self.path.parent} is in use by another run ({who or 'process unknown'}): wait for its end or"
                    " stop it, or choose another directory"
                ) from None
            if self._is_current(file):
                self._file = file
            else:  # its last holder has removed it since it was opened
                os.close(file)
        with contextlib.suppress(OSError):  # a full disk: the name is a courtesy
            os.ftruncate(self._file, 0)
            os.write(self._file, f"process {os.getpid()} on {socket.gethostname()}\n".encode())

    def release(self) -> None:
        if self._file is None:
            return
        with contextlib.suppress(OSError):
            if self._is_current(self._file):
                self.path.unlink()
        os.close(self._file)
        self._file = None

    def _is_current(self, file: int) -> bool:
        try:
            return os.path.samestat(os.fstat(file), self.path.stat())
        except OSError:
            return False
