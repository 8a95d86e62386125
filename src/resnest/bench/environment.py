"""What stands beside every measured figure: the machine, the versions, the load, the command.

    file.write(head(environment(threads=2, notes=["seconds: per call"])))

Every line is `key: value`, so that a later comparison can tell which of them changed.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import resnest

PACKAGES = ("torch", "torchvision", "timm", "onnx", "onnxruntime", "openvino", "numpy", "pillow")
# what decides how fast float32, bfloat16 and int8 products are (names of /proc/cpuinfo)
INSTRUCTIONS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "i8mm")
SHARED = ("cpu", "instruction sets", "cores", "gpu", "threads", "versions")  # of two runs that may be compared


def environment(
    *, threads: int | None = None, device: str = "cpu", packages: Sequence[str] = PACKAGES, notes: Iterable[str] = ()
) -> list[str]:
    """Lines for the head of a CSV file.

    Args:
        threads: that the engines were given; None: not known here.
        device: "cuda" adds the GPU's name.
        packages: whose versions are named, where they are installed.
        notes: what the file holds, in `key: value` lines of its own.
    """
    model, sets = cpu()
    lines = [f"cpu: {model}", f"instruction sets: {' '.join(sets) or 'not known'}", f"cores: {cores()}"]
    if device == "cuda":
        import torch

        lines.append(f"gpu: {torch.cuda.get_device_name()}")
    if threads is not None:
        lines.append(f"threads: {threads}")
    lines.append(f"versions: {', '.join(versions(packages))}")
    load = (
        f", load average {' '.join(f'{value:.2f}' for value in os.getloadavg())}" if hasattr(os, "getloadavg") else ""
    )
    lines.append(f"date: {datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC{load}")
    lines += [f"commit: {known}"] if (known := commit()) else []
    return [*lines, f"command: {command()}", *notes]


def head(lines: Iterable[str]) -> str:
    """The lines as they stand before the rows of a CSV file."""
    return "".join(f"# {line}\n" for line in lines)


def of_run(account: Mapping[str, Any]) -> list[str]:
    """The lines for what a training run measured, from its own run.json: it ran elsewhere and earlier."""
    told = ", ".join(f"{name} {version}" for name, version in account["versions"].items())
    return [f"versions: {told}", f"threads: {account['threads']}", f"date: {account['started']}"]


def cpu() -> tuple[str, list[str]]:
    """Name of the processor, and those instruction sets that decide speed."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    found = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in reversed(lines))}
    flags = (found.get("flags") or found.get("Features") or "").split()
    name = found.get("model name") or platform.processor() or platform.machine()
    return name, [flag for flag in INSTRUCTIONS if flag in flags]


def cores() -> int:
    """Processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def versions(packages: Iterable[str]) -> list[str]:
    found = [f"resnest {resnest.__version__}", f"python {platform.python_version()}"]
    for name in packages:
        told = getattr(sys.modules.get(name), "__version__", "")  # torch's own word names its build, 2.15.0+cu132
        try:
            found.append(f"{name} {told or importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """Of the checkout that this code lies in; empty for an installed package."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        return ""
    try:
        told = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True)
    except OSError:
        return ""
    return told.stdout.strip()


def command() -> str:
    """As it was typed, but without the folder that the program lies in."""
    program = Path(sys.argv[0])
    name = f"python benchmarks/{program.name}" if program.parent.name == "benchmarks" else program.name
    return " ".join([name, *map(shlex.quote, sys.argv[1:])])
