"""A complete benchmark: find the networks, export them for engines that read files, measure batch by batch.

    table = bench(["resnest50", "timm:resnest50d"], engines=["eager", "onnxruntime"], batches=[1, 16], rounds=9)

Without engines: every installed engine of BY_ITSELF; without networks: ResNeSt-50, against timm's if that is installed.

In every round each contender runs once, in its own process, in an order that rotates. A temporary slowdown of the
machine then affects all contenders over the rounds, and ratios are taken within a round. A heat has one batch, so that
there are no more processes than networks and engines.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from resnest.bench.contenders import (
    FILE_ENGINES,
    LAYOUTS,
    LEAST_SIZE,
    Contender,
    Entrant,
    check_engine,
    check_export,
    contenders,
    find_entrant,
    has,
)
from resnest.bench.table import Case, Table, environment
from resnest.errors import ResnestError, one_line, parameter, unknown
from resnest.runtime.hardware import usable_cores

BY_ITSELF = (
    "eager",
    "prepared",
    "torch",
    "onnxruntime",
    "openvino",
)  # the default, if installed
PRECISIONS = ("float32", "bfloat16")
DEVICES = ("cpu", "cuda")
TURN = 0.2  # seconds that a turn lasts at least: short calls are repeated
MOST_CALLS = 50
SETTLE = 0.02  # seconds between turns: thread pools of the last one look for work a little longer before they sleep


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a benchmark."""

    rounds: int
    threads: int
    device: str = "cpu"
    precision: str = "float32"  # of torch's engines; a file has its own


def nothing(*_: object) -> None:
    """Ignores progress."""


@dataclass
class Plan:
    """Contenders by heats; nothing is built yet."""

    heats: list[list[Contender]]
    settings: Settings

    @property
    def turns(self) -> int:
        return self.settings.rounds * sum(map(len, self.heats))


def plan(
    models: Sequence[str | Entrant] = (),
    *,
    engines: Sequence[str] = (),
    batches: Sequence[int] = (1, 16),
    sizes: Sequence[int | None] = (None,),
    layouts: Sequence[str] = (),
    rounds: int = 9,
    threads: int | None = None,
    device: str = "cpu",
    precision: str = "float32",
) -> Plan:
    """Plan a benchmark, and raise every error that needs no network to be built.

    Args:
        models: names of ours, timm:NAME, torchvision:NAME, runs, checkpoints, .onnx and .xml files; or entrants.
        engines: empty: those of BY_ITSELF that are installed.
        sizes: of images, pixels a side; None: each network's own evaluation crop.
        layouts: of torch's engines; empty: both for `eager`, channels_last for the others.
        threads: None: the number of cores, or OMP_NUM_THREADS.
        precision: that torch's engines compute in.

    Raises:
        ResnestError: an unknown name, an engine that is not installed, a number that makes no sense.
    """
    for kind, names, known in (("layout", layouts, LAYOUTS), ("device", [device], DEVICES)):
        for name in names:
            if name not in known:
                raise unknown(kind, name, known)
    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    numbers = {
        parameter("batches", [*batches]): batches,
        parameter("rounds", rounds): [rounds],
        parameter("threads", threads): [1 if threads is None else threads],
    }
    for option, values in numbers.items():
        if any(value < 1 for value in values):
            raise ResnestError(f"{option}: there must be 1 or more")
    for size in sizes:
        if size is not None and size < LEAST_SIZE:
            option = parameter("sizes", [size])
            raise ResnestError(f"{option}: these networks halve an image five times, {LEAST_SIZE} is the least")
    _check_device(device)
    chosen = list(engines) or [name for name in BY_ITSELF if _runs(name, device)]
    for engine in chosen:
        check_engine(engine, device=device)
    entrants = [item if isinstance(item, Entrant) else find_entrant(item) for item in models or defaults()]
    heats = [
        contenders(entrants, engines=chosen, layouts=layouts, batch=batch, size=size)
        for batch, size in itertools.product(batches, sizes)
    ]
    for contender in itertools.chain.from_iterable(heats):
        check_export(contender.entrant, contender.engine)
    settings = Settings(rounds=rounds, threads=threads or usable_cores(), device=device, precision=precision)
    return Plan(heats, settings)


def bench(
    planned: Plan,
    *,
    traced: bool = False,
    notes: Sequence[str] = (),
    on_step: Callable[[str], None] = nothing,
    on_turn: Callable[[], None] = nothing,
    on_round: Callable[[Table], None] = nothing,
) -> Table:
    """Measure a plan.

    Args:
        traced: export our networks by tracing, as others are, instead of as `resnest export` does, which
            takes ten times as long: for many networks.
        notes: more lines for the environment.
        on_step: called with a description of each step.
        on_turn: called after every turn.
        on_round: called with all there is after every round.

    Raises:
        ResnestError: a network that cannot be built, exported or run.
    """
    settings = planned.settings
    kind = "memory allocated on the GPU" if settings.device == "cuda" else "peak resident memory of its own process"
    lines = [f"peak_mib: {kind}", "seconds: of one call, a turn each round", *notes]
    table = Table(environment(threads=settings.threads, device=settings.device, notes=lines))
    with tempfile.TemporaryDirectory(prefix="resnest-bench-") as folder:
        files = Files(Path(folder), on_step, traced=traced)
        for heat in planned.heats:
            before = list(table.cases)

            def keep(cases: list[Case], before: list[Case] = before) -> None:
                table.cases = [*before, *cases]
                on_round(table)

            measure(
                [(contender, files.of(contender)) for contender in heat],
                settings,
                on_ready=lambda entry: on_step(
                    f"opening {entry.entrant.name} in {entry.engine}, {entry.layout}, batch {entry.batch}"
                ),
                on_turn=on_turn,
                on_round=keep,
            )
    return table


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
    with ExitStack() as stack:
        workers = []
        for contender, file in heat:
            on_ready(contender)
            workers.append(stack.enter_context(Worker(contender, file, settings)))
        for number in range(settings.rounds):
            first = number % len(workers)
            for worker in workers[first:] + workers[:first]:
                worker.turn()
                on_turn()
            on_round([worker.case for worker in workers])
    return [worker.case for worker in workers]


class Worker:
    """The process of one contender (resnest.bench.worker), and its measurements."""

    def __init__(self, contender: Contender, file: str, settings: Settings) -> None:
        entrant = contender.entrant
        model = {"model": entrant.reference, "kind": entrant.kind, "engine": contender.engine, "file": file}
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
            ready = self._ask(json.dumps({**model, **how, **run}))
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

    def turn(self) -> None:
        time.sleep(SETTLE)
        answer = self._ask(f"turn {self.case.calls}")
        self.case.seconds.append(answer["seconds"])
        self.case.peak_mib = answer["peak_mib"]

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
        lines = self.errors.read().strip().splitlines()
        killed = f"killed by signal {-code} (not enough memory?)" if code < 0 else f"exit code {code}"
        return lines[-1] if lines and code > 0 else killed

    def close(self) -> None:
        self.process.kill()  # it has nothing to save
        self.process.communicate()
        self.errors.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def defaults() -> list[str]:
    """The default networks."""
    return ["resnest50", *(["timm:resnest50d"] if has("timm") else [])]


class Files:
    """Exported files, each written once: an entrant at a size."""

    def __init__(self, folder: Path, on_step: Callable[[str], None] = nothing, *, traced: bool = False) -> None:
        self.folder, self.on_step, self.traced = folder, on_step, traced
        self.written: dict[tuple[str, int], str] = {}

    def of(self, contender: Contender) -> str:
        """The file for the contender's engine; "" for torch's engines."""
        entrant = contender.entrant
        if contender.engine not in FILE_ENGINES:
            return ""
        if entrant.kind == "file":
            return entrant.reference
        key = (entrant.reference, contender.size)
        if key not in self.written:
            from resnest.bench.networks import export

            self.on_step(f"exporting {entrant.name}")
            path = self.folder / f"{len(self.written)}.onnx"
            try:
                export(entrant.reference, entrant.kind, path, contender.size, traced=self.traced)
            except ResnestError:
                raise
            except Exception as error:  # the exporter's have no common base, nor have the networks'
                reason = f"{type(error).__name__}: {one_line(error)}"
                raise ResnestError(f"{entrant.name} cannot be exported at {contender.size} pixels: {reason}") from error
            self.written[key] = str(path)
        return self.written[key]


def _runs(engine: str, device: str) -> bool:
    try:
        check_engine(engine, device=device)
    except ResnestError:
        return False
    return True


def _check_device(device: str) -> None:
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise ResnestError(f"{parameter('device', device)}: torch finds no CUDA device here")
