"""A progress bar on standard error: images, images a second, the time left; nothing where there is no terminal.

with counting("evaluating") as bar:
    bar.start(1966, "imagenette128 (zip)")
    bar.advance(64)
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Bar:
    """Silent until a rich progress is given to it."""

    def __init__(self, what: str, rich: Any = None) -> None:
        self.what = what
        self.rich = rich
        self.task: Any = None
        self.done = 0

    def start(self, total: int, title: str = "") -> None:
        if title:
            print(title, file=sys.stderr)
        if self.rich is not None:
            self.started = time.perf_counter()
            self.task = self.rich.add_task(self.what, total=total, rate="")

    def advance(self, count: int = 1) -> None:
        if self.rich is not None:
            self.done += count
            rate = self.done / (time.perf_counter() - self.started)
            self.rich.update(self.task, advance=count, rate=f"{rate:.{0 if rate >= 10 else 1}f} images/s")


@contextmanager
def counting(what: str) -> Iterator[Bar]:
    if not sys.stderr.isatty():
        yield Bar(what)
        return
    from rich import progress
    from rich.console import Console

    columns = (
        "{task.description}",
        progress.BarColumn(),
        "{task.completed}/{task.total}",
        "{task.fields[rate]}",
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, "left", console=Console(stderr=True), transient=True) as rich:
        yield Bar(what, rich)
