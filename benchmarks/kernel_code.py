"""What Triton makes of the kernels for GPUs that need not be here: registers, spills, the width of loads, matrix units.

    python benchmarks/kernel_code.py              # writes results/kernel-code.csv, prints a table
    python benchmarks/kernel_code.py --smoke      # one architecture and type, into a temporary folder

Compiled for the shapes of ResNeSt-50's first and last stage at 224 pixels by Triton's own compiler and the assembler
that comes with it; nothing is launched. It says nothing about time, but spilled registers, narrow loads or products
outside the matrix units would say that there is none to be won.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

os.environ["TRITON_INTERPRET"] = "0"  # before triton is imported

import torch
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from resnest.bench.table import environment, head
from resnest.kernels import reference, triton_backend

ARCHITECTURES = {80: "A100", 90: "H100", 100: "B200"}
TYPES = ("bfloat16", "float32")
LAYOUTS = {"channels_last": torch.channels_last, "nchw": torch.contiguous_format}
STAGES = {1: (64, 56), 4: (512, 7)}  # channels of a split, side of the map
RADIX, IMAGES, POOL = 2, 128, 2


@dataclass(frozen=True)
class Row:
    """One kernel as it was compiled."""

    gpu: str
    architecture: int
    dtype: str
    layout: str
    stage: int
    kernel: str
    registers: int
    spilled_bytes: int
    shared_bytes: int
    widest_load_bytes: int
    matrix_units: str  # the instruction, where there is one


class Absent:
    """A GPU that is not here, as far as Triton's compiler asks."""

    def __init__(self, architecture: int) -> None:
        self.architecture = architecture

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.architecture, 32)

    def get_current_device(self) -> int:
        return self.architecture  # Triton keeps what it compiled by device

    def get_current_stream(self, device: int) -> int:
        return 0


def compiled(architecture: int, launches: Callable[[], None]) -> Iterator[tuple[str, Any]]:
    """Every kernel that `launches` would launch, compiled and left at that."""
    found: dict[tuple[str, str], Any] = {}
    run = JITFunction.run

    def compile_alone(kernel: Any, *given: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        made = run(kernel, *given, grid=grid, warmup=True, **options)
        found[kernel.fn.__name__, made.hash] = made
        return made

    driver.set_active(Absent(architecture))
    JITFunction.run = compile_alone
    try:
        launches()
    finally:
        JITFunction.run = run
    return ((name, made) for (name, _), made in found.items())


def launches(dtype: torch.dtype, layout: torch.memory_format, channels: int, side: int) -> Callable[[], None]:
    """All kernels of a training step and of inference, for one block."""
    sums = reference.accumulator(dtype)
    y = torch.empty(IMAGES, RADIX * channels, side, side, dtype=dtype, device="meta").to(memory_format=layout)
    y = torch.empty_strided(y.shape, y.stride(), dtype=dtype)  # never read

    def small(*shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=sums)

    def run() -> None:
        parts, inner = triton_backend, max(channels * RADIX // 4, 32)
        scale, shift, logits = small(RADIX * channels), small(RADIX * channels), small(IMAGES, RADIX * channels)
        parts.moments(y)
        pooled = parts.pool_splits(y, scale, shift, RADIX)
        layers = small(inner, channels, 1, 1).to(dtype), small(inner), small(RADIX * channels, inner, 1, 1).to(dtype)
        before, *_ = parts.first_layer(small(IMAGES, channels), layers[0], layers[1], 1)
        parts.second_layer(before, small(inner), small(inner), layers[2], scale, 1)
        parts.attention_logits(pooled, side * side, layers[0], None, layers[1], layers[2], scale, 1)
        for pool in (0, POOL):
            v = parts.weigh_splits(y, scale, shift, logits, RADIX, 1, pool)
            parts.gradient_sums(v, y, scale, scale, scale, shift, RADIX, pool)
            corrections = small(2, RADIX * channels)
            parts.input_gradient(
                v, y, scale, scale, scale, shift, logits, small(IMAGES, channels), corrections, RADIX, pool
            )
        if layout == torch.channels_last:
            weight = torch.empty(RADIX * 9, channels // RADIX, channels, dtype=dtype)
            parts.split_convolution(y[:, :channels].contiguous(memory_format=layout), weight, scale, RADIX, RADIX, 1, 1)

    return run


def assembled(made: Any, architecture: int) -> tuple[int, int]:
    """Registers of a thread and bytes that it spills, by the assembler's report."""
    name = f"sm_{architecture}{'a' if architecture >= 90 else ''}"
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(made.asm["ptx"])
        file.flush()
        command = [get_ptxas(architecture).path, "-v", f"--gpu-name={name}", file.name, "-o", os.devnull]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    registers, spilled = re.search(r"Used (\d+) registers", told), re.search(r"(\d+) bytes spill stores", told)
    assert registers
    assert spilled
    return int(registers[1]), int(spilled[1])


def widest_load(ptx: str) -> int:
    """Bytes of the widest load from memory of one thread."""
    copies = [int(size, 0) for size in re.findall(r"cp\.async\.c[ag]\.shared\.global[^;]*?, (0x[0-9a-f]+|\d+)", ptx)]
    loads = re.findall(r"ld\.global[.\w:]*?\.(?:v(\d)\.)?b(\d+)", ptx)
    return max([*copies, *(int(count or 1) * int(bits) // 8 for count, bits in loads)], default=0)


def rows(architecture: int, dtype: str, layout: str) -> Iterator[Row]:
    for stage, (channels, side) in STAGES.items():
        run = launches(getattr(torch, dtype), LAYOUTS[layout], channels, side)
        for name, made in compiled(architecture, run):
            ptx = made.asm["ptx"]
            product = re.search(r"(?:wgmma|mma|tcgen05\.mma)[.\w:]*?\.(?:m\d+n\d+k\d+|kind)", ptx)
            yield Row(
                gpu=ARCHITECTURES[architecture],
                architecture=architecture,
                dtype=dtype,
                layout=layout,
                stage=stage,
                kernel=name.strip("_").removesuffix("_kernel"),
                registers=(report := assembled(made, architecture))[0],
                spilled_bytes=report[1],
                shared_bytes=made.metadata.shared,
                widest_load_bytes=widest_load(ptx),
                matrix_units=product[0].split(".")[0] if product else "",
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/kernel-code.csv"))
    parser.add_argument("--smoke", action="store_true", default=os.environ.get("SMOKE") == "1")
    options = parser.parse_args()
    architectures, types, layouts = list(ARCHITECTURES), list(TYPES), list(LAYOUTS)
    if options.smoke:
        architectures, types, layouts = [90], ["bfloat16"], ["channels_last"]
        options.out = Path(tempfile.mkdtemp(prefix="resnest-smoke-")) / options.out.name
    notes = [f"compiled, not run: batch {IMAGES}, radix {RADIX}, stages 1 and 4 of ResNeSt-50 at 224 pixels"]
    lines = head(environment(packages=("torch", "triton"), notes=notes))
    with options.out.open("w", newline="") as file:
        file.write(lines)
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([field.name for field in fields(Row)])
        for architecture in architectures:
            for dtype in types:
                for layout in layouts:
                    for row in rows(architecture, dtype, layout):
                        writer.writerow(astuple(row))
                        print(*astuple(row), flush=True)
    print(options.out)


if __name__ == "__main__":
    main()
