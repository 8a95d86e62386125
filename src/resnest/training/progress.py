"""What a person sees of a run: a bar with the time left on a terminal, plain lines elsewhere.

with progress(total=1000) as show:
    show.step(loss=1.2, epoch=0.5, speed=61.0)
"""

from __future__ import annotations

import contextlib
import io
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Protocol, cast

PLAIN_SECONDS = 15.0  # between lines where there is no terminal


class Progress(Protocol):
    """Hears of every step and says some of it."""

    def step(self, *, step: int, epoch: float, loss: float, speed: float) -> None: ...

    def say(self, text: str) -> None: ...


class Silent:
    """For library callers: nothing is printed."""

    def step(self, *, step: int, epoch: float, loss: float, speed: float) -> None:
        pass

    def say(self, text: str) -> None:
        pass


class Plain:
    """Lines for log files, with the time left."""

    def __init__(self, total: int, start: int) -> None:
        self.total = total
        self.start = start
        self.began = self.said = time.monotonic()

    def step(self, *, step: int, epoch: float, loss: float, speed: float) -> None:
        now = time.monotonic()
        if now - self.said >= PLAIN_SECONDS:
            self.said = now
            left = (now - self.began) / max(step - self.start, 1) * (self.total - step)
            self.say(
                f"step {step}/{self.total}  epoch {epoch:.2f}  loss {loss:.3f}"
                f"  {speed:.0f} images/s  {clock(left)} left"
            )

    def say(self, text: str) -> None:
        print(text, file=Listener(), flush=True)


class Listener(io.TextIOBase):
    """Standard error, whose reader may be gone (a closed terminal, `| head`): no run ends because nobody reads."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError, AttributeError):  # no reader, closed, None
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stderr.flush()

    def isatty(self) -> bool:
        return sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty()

    def fileno(self) -> int:
        return sys.stderr.fileno()  # rich asks it for the width of the terminal


class Bar:
    """A rich progress bar."""

    def __init__(self, total: int, start: int) -> None:
        from rich import progress as rich
        from rich.console import Console

        columns = ("{task.description}", rich.BarColumn(), "{task.completed}/{task.total}", rich.TimeRemainingColumn())
        self.bar = rich.Progress(*columns, "left", console=Console(file=cast(IO[str], Listener())), transient=True)
        self.task = self.bar.add_task("starting", total=total, completed=start)

    def step(self, *, step: int, epoch: float, loss: float, speed: float) -> None:
        text = f"epoch {epoch:5.2f}  loss {loss:.3f}  {speed:.0f} images/s"
        self.bar.update(self.task, completed=step, description=text)

    def say(self, text: str) -> None:
        self.bar.console.print(text, highlight=False, markup=False)


@contextmanager
def progress(total: int, *, start: int = 0, quiet: bool = False) -> Iterator[Progress]:
    """A bar if standard error is a terminal."""
    if quiet:
        yield Silent()
    elif Listener().isatty():
        bar = Bar(total, start)
        with bar.bar:
            yield bar
    else:
        yield Plain(total, start)


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
