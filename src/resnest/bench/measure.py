"""Turn by turn: in every round each contender has one turn, in an order that moves on, each in its own process.

    heat = [(contender, file), ...]
    cases = measure(heat, settings, on_turn=bar.advance)

What slows the machine down for a while slows whoever has its turn then; over rounds that is everyone, and ratios are
taken within a round. A heat has one batch, so that no more processes are alive than there are networks and engines.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from resnest.bench.contenders import Contender
from resnest.bench.energy import Nvml, Rapl, find_meter
from resnest.bench.table import Case
from resnest.errors import ResnestError

TURN = 0.2  # seconds that a turn lasts at least: short calls are repeated
MOST_CALLS = 50
SETTLE = 0.02  # seconds between turns: thread pools of the last one look for work a little longer before they sleep


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How it is measured."""

    rounds: int
    threads: int
    device: str = "cpu"
    precision: str = "float32"  # of torch's engines; a file has its own


def nothing(*_: object) -> None:
    """For whoever does not look at progress."""


def measure(
    heat: Sequence[tuple[Contender, str]],
    settings: Settings,
    *,
    on_ready: Callable[[Contender], None] = nothing,
    on_turn: Callable[[], None] = nothing,
    on_round: Callable[[list[Case]], None] = nothing,
) -> list[Case]:
    """All contenders of one batch.

    Args:
        heat: contenders, each with the exported file that its engine reads, or "".
        on_ready: called before a contender is opened.
        on_turn: called after every turn.
        on_round: called with the cases so far after every round: what is written then outlives an interruption.

    Raises:
        ResnestError: a contender cannot be opened or ends early.
    """
    meter = find_meter(settings.device)
    with ExitStack() as stack:
        workers = []
        for contender, file in heat:
            on_ready(contender)
            workers.append(stack.enter_context(Worker(contender, file, settings)))
        for number in range(settings.rounds):
            first = number % len(workers)
            for worker in workers[first:] + workers[:first]:
                worker.turn(meter)
                on_turn()
            on_round([worker.case for worker in workers])
    return [worker.case for worker in workers]


class Worker:
    """The process of one contender (resnest.bench.worker), and what it measured."""

    def __init__(self, contender: Contender, file: str, settings: Settings) -> None:
        entrant = contender.entrant
        told = {"model": entrant.reference, "kind": entrant.kind, "engine": contender.engine, "file": file}
        how = {"layout": contender.layout, "batch": contender.batch, "size": contender.size}
        run = {"threads": settings.threads, "device": settings.device, "precision": settings.precision}
        self.name = f"{entrant.name} in {contender.engine}"
        self.errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-m", "resnest.bench.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )
        try:
            ready = self._ask(json.dumps({**told, **how, **run}))
        except BaseException:
            self.close()
            raise
        calls = max(1, min(int(TURN / ready["seconds"]) + 1, MOST_CALLS)) if ready["seconds"] < TURN else 1
        self.case = Case(
            entrant.name,
            contender.engine,
            contender.layout,
            ready["precision"],
            contender.batch,
            contender.size,
            calls=calls,
            is_peer=entrant.is_peer,
        )

    def turn(self, meter: Rapl | Nvml | None) -> None:
        time.sleep(SETTLE)
        before = meter.joules() if meter else 0.0
        answer = self._ask(f"turn {self.case.calls}")
        done = self.case.calls + (self.case.calls > 1)  # the one ahead does not count, but costs
        self.case.seconds.append(answer["seconds"])
        self.case.peak_mib = answer["peak_mib"]
        if meter:
            self.case.joules.append((meter.joules() - before) / done)

    def _ask(self, line: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
            answer = json.loads(self.process.stdout.readline())
        except (OSError, ValueError):
            raise ResnestError(f"{self.name} ended early: {self._last_words()}") from None
        if "error" in answer:
            raise ResnestError(f"{self.name}: {answer['error']}")
        return dict(answer)

    def _last_words(self) -> str:
        code = self.process.wait()
        self.errors.seek(0)
        said = self.errors.read().strip().splitlines()
        killed = f"killed by signal {-code} (not enough memory?)" if code < 0 else f"exit code {code}"
        return said[-1] if said and code > 0 else killed

    def close(self) -> None:
        self.process.kill()  # it has nothing to save
        self.process.communicate()
        self.errors.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
