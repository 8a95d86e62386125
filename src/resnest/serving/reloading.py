"""Opening a model again when its file changes, for `resnest serve --reload`.

A file that is still being written, or that cannot be opened, changes nothing: the model that runs goes on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from resnest.errors import one_line
from resnest.files import CARD_NAME, WEIGHTS_NAME
from resnest.runtime.predictor import ImagePredictor
from resnest.serving.guard import Log
from resnest.serving.models import Served

SECONDS = 1.0  # between two looks; what did not change between them is whole
State = tuple[tuple[int, int, int], ...]


class Reloader:
    """A thread that looks at a model's files.

    Args:
        open_again: a new predictor of the model. Raises ResnestError.
    """

    def __init__(
        self, served: Served, reference: str, open_again: Callable[[], ImagePredictor], log: Log, every: float = SECONDS
    ) -> None:
        self.served, self.open_again, self.log, self.every = served, open_again, log, every
        self.files = _files(Path(reference))
        self._used = self._seen = self._state()
        self._thread = threading.Thread(target=self._run, name="reload", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        while True:
            time.sleep(self.every)
            state = self._state()
            if state == self._seen != self._used:  # changed, and not any more
                self._used = state
                self._reload()
            self._seen = state

    def _reload(self) -> None:
        try:
            self.served.replace(self.open_again())
        except Exception as error:  # of engines, anything: the next file may be good
            self.log({"level": "error", "message": f"{self.served.name} was not opened again: {one_line(error)}"})
        else:
            self.log({"level": "info", "message": f"{self.served.name} was opened again"})

    def _state(self) -> State:
        return tuple(_signature(path) for path in self.files)


def _files(path: Path) -> list[Path]:
    """The files of a model: itself and what lies beside it under its name, or a run's weights, card and exports."""
    if path.is_dir():
        names = [WEIGHTS_NAME, CARD_NAME, "model.onnx", "model.xml", "model.bin"]
        return [path / name for name in names]
    return [path, path.with_name(f"{path.name}.data"), path.with_suffix(".bin")]


def _signature(path: Path) -> tuple[int, int, int]:
    try:
        about = path.stat()
    except OSError:
        return (0, 0, 0)
    return about.st_ino, about.st_size, about.st_mtime_ns
