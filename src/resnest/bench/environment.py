"""The environment of a measurement: machine, versions, load, command; the head of every table.

    file.write(head(environment(threads=2, notes=["seconds: per call"])))

Every line is `key: value`, so that a later comparison can list those that changed.
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
from resnest.runtime.hardware import instruction_sets, processor, usable_cores

PACKAGES = ("torch", "torchvision", "timm", "onnx", "onnxruntime", "openvino", "numpy", "pillow")
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
    sets = " ".join(instruction_sets()) or "not known"
    lines = [f"cpu: {processor()}", f"instruction sets: {sets}", f"cores: {usable_cores()}"]
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
    """The lines at the head of a CSV file."""
    return "".join(f"# {line}\n" for line in lines)


def facts(lines: Iterable[str]) -> dict[str, str]:
    """The lines by their keys."""
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def of_run(account: Mapping[str, Any]) -> list[str]:
    """Environment lines of a training run, from its run.json: it ran elsewhere and earlier."""
    told = ", ".join(f"{name} {version}" for name, version in account["versions"].items())
    return [f"versions: {told}", f"threads: {account['threads']}", f"date: {account['started']}"]


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
    """Commit of the checkout that this code is in; empty for an installed package."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        return ""
    try:
        told = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True)
    except OSError:
        return ""
    return told.stdout.strip()


def command() -> str:
    """The command line, without the program's folder."""
    program = Path(sys.argv[0])
    name = f"python benchmarks/{program.name}" if program.parent.name == "benchmarks" else program.name
    return " ".join([name, *map(shlex.quote, sys.argv[1:])])
