"""Progress on standard error: a rich bar with the time left on a terminal, plain lines elsewhere, nothing if quiet.

    with Progress("predicting:", rate="images") as bar:
        bar.start(200, "photos (folder)")
        bar.advance(64)                      # predicting: 64 of 200  50 images/s  [bar]  3 s left

A closed standard error does not end a run.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
from typing import IO, Any, Self, cast

LINE_SECONDS = 15.0  # between lines where there is no terminal
SLOW_SECONDS = 3.0
REDRAW_SECONDS = 0.1


class StandardError(io.TextIOBase):
    """Standard error, which may be closed: a closed terminal, `| head`, sys.stderr that is None.

    A live rich display puts a proxy into sys.stderr that writes to its console, so a console must keep the stream.
    """

    def __init__(self) -> None:
        self.stream: Any = sys.stderr

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError, AttributeError):  # no reader, closed, None
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            self.stream.flush()

    def isatty(self) -> bool:
        return self.stream is not None and not self.stream.closed and self.stream.isatty()

    def fileno(self) -> int:
        return int(self.stream.fileno())  # rich asks it for the width of the terminal


class Progress:
    """Progress of some work.

    Args:
        what: text before the count.
        rate: what is counted a second, such as "images"; "" for no rate.
        megabytes: the count is of bytes.
        if_slow: show nothing before SLOW_SECONDS of work.
        lines: whether lines are printed where there is no terminal.
        quiet: print nothing at all.
    """

    def __init__(
        self,
        what: str,
        *,
        rate: str = "",
        megabytes: bool = False,
        if_slow: bool = False,
        lines: bool = True,
        quiet: bool = False,
    ) -> None:
        self.what, self.rate, self.megabytes, self.quiet = what, rate, megabytes, quiet
        self.after = SLOW_SECONDS if if_slow else 0.0
        self.lines = lines and not quiet
        self.rich: Any = None
        self.total: int | None = None
        self.done = 0
        self.started = False

    def start(self, total: int | None, title: str = "", *, done: int = 0) -> None:
        """Show `title`, and count from `done` on; total: None if unknown."""
        self.stop()
        if title:
            self.say(title)
        self.started, self.total, self.done, self.first = True, total, done, done
        self.began = time.perf_counter()
        self.due = self.began + (self.after or LINE_SECONDS)  # of the next line
        self.drawn = float("-inf")
        if not self.quiet and StandardError().isatty() and os.environ.get("TERM") != "dumb":
            from rich import progress
            from rich.console import Console

            text = progress.TextColumn("{task.description}", markup=False)
            left = progress.TextColumn("{task.fields[left]}", markup=False)
            console = Console(file=cast(IO[str], StandardError()))
            self.rich = progress.Progress(text, progress.BarColumn(), left, console=console, transient=True)
            self.task = self.rich.add_task(self.what, total=total, completed=done, left="")
            if not self.after:
                self.rich.start()

    def advance(self, count: int = 1) -> None:
        self.update(self.done + count)

    def grow(self, count: int) -> None:
        """There is more to do than was said, or less."""
        if self.total is not None:
            self.total += count
            if self.rich is not None:
                self.rich.update(self.task, total=self.total)

    def update(self, done: int, text: str = "") -> None:
        """Set the count, and further text; nothing before the start."""
        if not self.started:
            return
        self.done, now = done, time.perf_counter()
        if self.rich is not None:
            if now - self.began < self.after or (now - self.drawn < REDRAW_SECONDS and done != self.total):
                return
            self.rich.start()  # once, however often it is called
            self.drawn = now
            self.rich.update(self.task, completed=done, description=self._text(now, text), left=self._left(now))
        elif self.lines and now >= self.due:
            self.due = now + LINE_SECONDS
            self.say(f"{self._text(now, text)}  {self._left(now)}")

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        if self.rich is not None:
            self.rich.console.print(text, highlight=False, markup=False)
        elif not self.quiet:
            say(text)

    def _text(self, now: float, text: str) -> str:
        count = f"{self.done:,}" if self.total is None else f"{self.done:,} of {self.total:,}"
        if self.megabytes:
            count = f"{self.done / 1e6:.0f}" + (f" of {self.total / 1e6:.0f}" if self.total is not None else "") + " MB"
        speed = (self.done - self.first) / max(now - self.began, 1e-9)
        rate = f"{speed:.{0 if speed >= 10 else 1}f} {self.rate}/s" if self.rate else ""
        return "  ".join(part for part in (f"{self.what} {count}", text, rate) if part)

    def _left(self, now: float) -> str:
        if self.total is None or self.done == self.first:
            return ""
        seconds = (now - self.began) / (self.done - self.first) * (self.total - self.done)
        return f"{clock(seconds)} left" if seconds >= 60 else f"{seconds:.0f} s left"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        if self.rich is not None:
            self.rich.stop()
            self.rich = None


def say(text: str) -> None:
    """Print a line on standard error."""
    print(text, file=StandardError(), flush=True)


def clock(seconds: float) -> str:
    """
    >>> clock(75)
    '1:15'
    >>> clock(3675)
    '1:01:15'
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
