"""ResNeSt on a GPU in bfloat16 against timm's, eager and compiled: inference and the training step, with memory.

    python benchmarks/gpu.py                          # writes results/gpu.csv and docs/gpu.svg, prints a table
    python benchmarks/gpu.py --models resnest50 --what inference --batches 128
    python benchmarks/gpu.py --floors                 # results/gpu-floors.csv, computed: needs no GPU
    python benchmarks/gpu.py --smoke                  # the same path on a CPU in seconds, into a temporary folder

Contenders have the same weights and take turns in one process, in an order that moves on from round to round; a ratio
is timm's median time / ours, so above 1 means faster here. Beside every time stands the floor (gpu_bench.floor) at
the bandwidth and the rate that this device reached in a copy and in a product of matrices just before.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch

from gpu_bench.cases import LAYOUTS, Case, Network, published
from gpu_bench.measure import Device, Measured, Result, measure, measured_device
from gpu_bench.plot import draw
from resnest.bench.table import environment, head
from resnest.errors import ResnestError
from resnest.spec import Spec

MODELS = ("resnest50", "resnest101", "resnest200", "resnest269")
# H100 SXM: device memory, and dense bfloat16 (half of the 1,979 with sparsity); NVIDIA H100 Tensor Core GPU datasheet
H100_BANDWIDTH, H100_RATE = 3.35e12, 989e12
TINY = Network("tiny", Spec(depths=(1, 1, 1, 1), planes=(8, 16, 32, 64), stem_width=8), size=32)
COLUMNS = (
    "model", "size", "what", "batch", "contender", "layout", "repetition", "seconds", "floor_seconds", "peak_mib",
    "relative_error",
)  # fmt: skip
FLOOR_COLUMNS = ("model", "size", "what", "batch", "bytes", "operations", "memory_ms", "operations_ms", "floor_ms")


def cases(options: argparse.Namespace) -> list[Case]:
    """Training takes the largest batch alone."""
    networks = [TINY] if options.smoke else [published(name) for name in options.models]
    found = []
    for network in networks:
        if "inference" in options.what:
            found += [Case(network, "inference", batch, tuple(options.layouts)) for batch in options.batches]
        if "training" in options.what:
            found.append(Case(network, "training", max(options.batches), tuple(options.layouts)))
    return found


def compiler(case: Case, options: argparse.Namespace) -> Any:
    if options.smoke:
        return partial(torch.compile, backend="eager", dynamic=False)
    mode = options.mode if case.what == "inference" else options.training_mode
    return partial(torch.compile, mode=mode, dynamic=False)  # layouts are not to make strides variable


def rows(measured: Measured, device: Device) -> list[tuple[object, ...]]:
    case, network, found = measured.case, measured.case.network, list[tuple[object, ...]]()
    floor = f"{case.floor.seconds(device.bandwidth, device.rate):.7f}"
    for result in measured.results:
        who = result.contender.name, result.contender.layout
        told = floor, "" if result.peak is None else round(result.peak / 2**20), f"{result.error:.3g}"
        for index, seconds in enumerate(result.seconds):
            found.append((network.name, network.size, case.what, case.batch, *who, index, f"{seconds:.7f}", *told))
    return found


def write(done: list[Measured], device: Device, options: argparse.Namespace) -> None:
    """All that is there; after each case, so that what was measured stays."""
    notes = [
        f"measured bandwidth: {device.bandwidth / 1e12:.3f} TB/s, of a copy, bytes read and written",
        f"measured rate: {device.rate / 1e12:.1f} TFLOP/s, of a bfloat16 product",
        f"modes of torch.compile: inference {options.mode}, training {options.training_mode}",
        "seconds: of single calls; floor_seconds: computed, at the bandwidth and the rate above",
    ]
    notes += [f"left out: {one.case.network.name}, {one.case.what}, {told}" for one in done for told in one.refused]
    packages = ("torch", "timm", "triton")
    path: Path = options.out
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        file.write(head(environment(device=device.device.type, packages=packages, notes=notes)))
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for measured in done:
            table.writerows(rows(measured, device))


def report(measured: Measured, device: Device) -> None:
    """A table of the case: medians, the floor, ratios to timm."""
    case, compiled = measured.case, measured.compiled_base()
    floor = case.floor.seconds(device.bandwidth, device.rate)
    best = measured.best(case.network.base)
    print(f"\n{case.network.name} @{case.network.size}, {case.what}, batch {case.batch}; floor {1e3 * floor:.3f} ms")
    print(f"| contender | ms | x floor | / {case.network.base} compiled, channels_last | / its best | MiB |")
    print("|---|---|---|---|---|---|")
    for result in measured.results:
        against = f"{compiled.median / result.median:.2f}" if compiled else "-"
        told = f"| {result.contender.label} | {1e3 * result.median:.3f} | {result.median / floor:.2f} | {against} |"
        print(f"{told} {best.median / result.median:.2f} | {_memory(result, compiled)} |", flush=True)


def _memory(result: Result, compiled: Result | None) -> str:
    if result.peak is None:
        return "-"
    beside = f" ({result.peak / compiled.peak:.2f})" if compiled and compiled.peak else ""
    return f"{result.peak / 2**20:.0f}{beside}"


def write_floors(options: argparse.Namespace) -> None:
    """What the counts alone say, at a published bandwidth and rate."""
    notes = [
        "computed, not measured: bytes and operations by gpu_bench.floor, bfloat16",
        f"times: at {H100_BANDWIDTH / 1e12} TB/s and {H100_RATE / 1e12:.0f} TFLOP/s, an H100 SXM by NVIDIA's datasheet",
    ]
    path: Path = options.out
    path.parent.mkdir(parents=True, exist_ok=True)
    print("computed, not measured: H100 SXM by its datasheet")
    print(f"| {' | '.join(FLOOR_COLUMNS)} |\n|{'---|' * len(FLOOR_COLUMNS)}")
    with path.open("w", newline="") as file:
        file.write(head(environment(packages=("torch",), notes=notes)))
        table = csv.writer(file, lineterminator="\n")
        table.writerow(FLOOR_COLUMNS)
        for case in cases(options):
            floor, batch = case.floor, case.batch
            times = floor.bytes / H100_BANDWIDTH, floor.operations / H100_RATE, floor.seconds(H100_BANDWIDTH, H100_RATE)
            row = (case.network.name, case.network.size, case.what, batch, floor.bytes, floor.operations)
            table.writerow(written := (*row, *(f"{1e3 * seconds:.3f}" for seconds in times)))
            print(f"| {' | '.join(map(str, written))} |", flush=True)
    print(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--what", nargs="+", choices=("inference", "training"), default=["inference", "training"])
    parser.add_argument("--batches", type=int, nargs="+", default=[128, 1])
    parser.add_argument("--layouts", nargs="+", choices=tuple(LAYOUTS), default=list(LAYOUTS))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--calls", type=int, default=5, help="timed calls of a turn")
    parser.add_argument("--mode", default="max-autotune", help="of torch.compile, for inference")
    parser.add_argument("--training-mode", default="default", help="of torch.compile, for training")
    parser.add_argument("--out", type=Path, help="by default results/gpu.csv, or results/gpu-floors.csv")
    parser.add_argument("--plot", type=Path, default=Path("docs/gpu.svg"))
    parser.add_argument("--floors", action="store_true", help="compute the floors, measure nothing")
    parser.add_argument("--smoke", action="store_true", default=os.environ.get("SMOKE") == "1")
    options = parser.parse_args()
    options.out = options.out or Path("results", "gpu-floors.csv" if options.floors else "gpu.csv")
    if options.smoke:
        folder = Path(tempfile.mkdtemp(prefix="resnest-smoke-"))
        options.out, options.plot = folder / options.out.name, folder / options.plot.name
        options.rounds, options.calls, options.batches = 1, 1, [4]
        options.layouts = ["channels_last"]
    if options.floors:
        options.batches = [max(options.batches)]
        return write_floors(options)
    if not options.smoke and not torch.cuda.is_available():
        print("no CUDA device here: nothing was measured (--floors computes the floors alone)", file=sys.stderr)
        sys.exit(2)
    torch.backends.cudnn.benchmark = True
    device = measured_device(torch.device("cpu" if options.smoke else "cuda"))
    print(f"bandwidth {device.bandwidth / 1e12:.3f} TB/s, rate {device.rate / 1e12:.1f} TFLOP/s, measured", flush=True)
    done: list[Measured] = []
    for case in cases(options):
        try:
            told = partial(print, flush=True)
            compiled = compiler(case, options)
            done.append(measure(case, device, rounds=options.rounds, calls=options.calls, compiled=compiled, tell=told))
        except ResnestError as error:
            print(f"left out: {error}", flush=True)
            continue
        report(done[-1], device)
        write(done, device, options)
        draw(options.plot, done, device)
    print(f"{options.out}\n{options.plot}")


if __name__ == "__main__":
    main()
