"""Times and memory of the contenders of benchmarks/gpu.py: built one after the other, timed in turns, in one process.

    device = measured_device(torch.device("cuda"))       # bandwidth, rate
    result = measure(case, device, rounds=10, calls=5, compiled=torch.compile)

A contender is timed only if its logits are as near to timm's in float32 as those of timm in bfloat16, times SLACK. In a
turn the first call is not counted: it finds the caches and the allocator as the contender before left them.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from statistics import median

import torch
from torch import Tensor

from gpu_bench.cases import Case, Compile, Contender, Run, contenders, reference, relative_error, weights
from resnest.errors import ResnestError

SLACK = 2  # of the error of timm's eager network in bfloat16
COPY, SIDE = 2**31, 8192  # bytes, and the side of square matrices: large beside any cache
SMALL_COPY, SMALL_SIDE = 2**20, 64  # on a CPU, where this is a look at the path alone


@dataclass(frozen=True)
class Device:
    """A device, with what it reaches: bytes a second of a copy, operations a second of a bfloat16 product."""

    device: torch.device
    bandwidth: float
    rate: float


@dataclass
class Result:
    """A contender in a case: seconds of single calls, its memory, its logits' error."""

    contender: Contender
    error: float
    peak: int | None = None  # bytes; None: not known on this device
    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return median(self.seconds)


@dataclass(frozen=True)
class Measured:
    """A case as it was timed in the end, which may be at a smaller batch, and what was left out."""

    case: Case
    results: list[Result]
    refused: list[str]

    def best(self, prefix: str) -> Result:
        """The fastest whose name starts so."""
        return min((one for one in self.results if one.contender.name.startswith(prefix)), key=lambda one: one.median)

    def compiled_base(self) -> Result | None:
        """timm's network compiled in channels_last, the yardstick."""
        label = f"{self.case.network.base} compiled, channels_last"
        return next((one for one in self.results if one.contender.label == label), None)


def measured_device(device: torch.device) -> Device:
    """What the device reaches now."""
    is_gpu = device.type == "cuda"
    size, side = (COPY, SIDE) if is_gpu else (SMALL_COPY, SMALL_SIDE)
    source = torch.empty(size, dtype=torch.uint8, device=device).random_()
    target = torch.empty_like(source)
    a, b = (torch.randn(side, side, device=device).bfloat16() for _ in range(2))
    copied = median(_seconds(lambda: target.copy_(source), device, 20))
    product = median(_seconds(lambda: a @ b, device, 20))
    return Device(device, 2 * size / copied, 2 * side**3 / product)


def measure(
    case: Case, device: Device, *, rounds: int, calls: int, compiled: Compile, tell: Callable[[str], None] = print
) -> Measured:
    """Every contender of the case; where memory does not do for one, all at half the batch.

    Raises:
        ResnestError: memory does not do for the smallest batch.
    """
    least = 2 if case.what == "training" else 1
    while True:
        try:
            return _measure(case, device, rounds, calls, compiled, tell)
        except Exception as error:
            if not _is_memory(error):
                raise
        # outside, when the error and all that it holds is gone
        _clear(device.device)
        if case.batch // 2 < least:
            raise ResnestError(f"{case.network.name}, {case.what}: memory does not do for a batch of {case.batch}")
        tell(f"{case.network.name}, {case.what}: out of memory at batch {case.batch}; all at {case.batch // 2}")
        case = replace(case, batch=case.batch // 2)


def _measure(
    case: Case, device: Device, rounds: int, calls: int, compiled: Compile, tell: Callable[[str], None]
) -> Measured:
    place, size = device.device, case.network.size
    _clear(place)
    state = weights(case.network, place)
    images = torch.randn(case.batch, 3, size, size, generator=torch.Generator().manual_seed(1)).to(place)
    expected = reference(case, state, images)
    turns: list[tuple[Result, Run]] = []
    refused: list[str] = []
    allowed = 0.0
    for contender in contenders(case, place, compiled):
        tell(f"  building {contender.label}")
        try:
            result, run = _built(contender, case, state, images, expected)
        except Exception as error:  # a compiler's, say: the others go on without it
            if _is_memory(error) or contender.name == f"{case.network.base} eager":
                raise
            refused.append(f"{contender.label}: did not run: {type(error).__name__}: {str(error).strip()[:200]!r}")
            tell(f"  {refused[-1]}")
            continue
        if contender.name == f"{case.network.base} eager":
            allowed = max(allowed, SLACK * result.error)
        elif not result.error <= allowed:
            refused.append(f"{contender.label}: not timed, relative error {result.error:.2g}, allowed {allowed:.2g}")
            tell(f"  {refused[-1]}")
            continue
        turns.append((result, run))
    for first in (index % len(turns) for index in range(rounds)):
        for result, run in turns[first:] + turns[:first]:
            result.seconds += list(_seconds(run, place, calls))
    return Measured(case, [result for result, _ in turns], refused)


def _is_memory(error: Exception) -> bool:
    """Compilers wrap the error in their own."""
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error)


def _built(
    contender: Contender, case: Case, state: dict[str, Tensor], images: Tensor, expected: Tensor
) -> tuple[Result, Run]:
    """Warm, and with the memory of its own that it took at most after its first call, in which compilers work."""
    is_gpu = images.device.type == "cuda"
    _collect(images.device)
    before = torch.cuda.memory_allocated() if is_gpu else 0
    run = contender.build(case.network, state, images)
    result = Result(contender, relative_error(run(), expected))
    _collect(images.device)
    if is_gpu:
        torch.cuda.reset_peak_memory_stats()
    for _ in range(3):  # the second call may record a graph
        _step(images.device)
        run()
    if is_gpu:
        torch.cuda.synchronize()
        result.peak = torch.cuda.max_memory_allocated() - before
    return result, run


def _seconds(run: Callable[[], object], device: torch.device, calls: int) -> Iterator[float]:
    """Of single calls: by CUDA events, elsewhere by the clock."""
    _step(device)
    run()
    if device.type != "cuda":
        for _ in range(calls):
            start = time.perf_counter()
            run()
            yield time.perf_counter() - start
        return
    torch.cuda.synchronize()
    for _ in range(calls):
        start_event, end_event = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        _step(device)
        start_event.record()
        run()
        end_event.record()
        torch.cuda.synchronize()
        yield start_event.elapsed_time(end_event) / 1e3


def _step(device: torch.device) -> None:
    """Outputs of graphs that torch.compile recorded may be written over from here on."""
    if device.type == "cuda":
        torch.compiler.cudagraph_mark_step_begin()


def _clear(device: torch.device) -> None:
    """Forget what was compiled for the case before."""
    torch._dynamo.reset()
    _collect(device)


def _collect(device: torch.device) -> None:
    if device.type == "cuda":
        gc.collect()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
