"""Opening an exported file with the requested engine, or with the fastest one installed.

engine = open_engine("model.onnx")                       # the fastest of those that are installed and can read it
engine = open_engine("model.xml", "openvino", threads=4)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from resnest.errors import ResnestError, parameter, unknown
from resnest.runtime.card import ModelCard
from resnest.runtime.engines import onnxruntime, openvino
from resnest.runtime.engines.exported import ExportedEngine, Loaded, open_loaded
from resnest.runtime.hardware import instruction_sets, usable_cores


class Reader(Protocol):
    """The interface of an engine's module."""

    @property
    def SUFFIXES(self) -> tuple[str, ...]: ...  # of the files that it reads

    def load(self, path: Path, *, threads: int) -> Loaded: ...


ENGINES: dict[str, Reader] = {"onnxruntime": onnxruntime, "openvino": openvino}
SUFFIXES = tuple(dict.fromkeys(suffix for engine in ENGINES.values() for suffix in engine.SUFFIXES))


def is_exported(reference: str | Path) -> bool:
    """Whether a model reference is an exported file for one of these engines, by its name."""
    return Path(reference).suffix.lower() in SUFFIXES


def open_engine(
    path: str | Path,
    name: str = "auto",
    device: str = "auto",
    *,
    threads: int | None = None,
    batch_size: int = 1,
    card: ModelCard | None = None,
) -> ExportedEngine:
    """Open a file in an engine.

    Args:
        name: "auto", "onnxruntime" or "openvino".
        device: "auto" or "cpu": these engines run on the CPU.
        threads: to compute with; by default as many as there are physical cores for this process.
        batch_size: of most calls, for "auto": see `preferred`.
        card: the model card, if the file has none.

    Raises:
        ResnestError: no such file, engine or device; not installed; damaged; no metadata, or some that does not fit.
    """
    path = Path(path)
    if device not in ("auto", "cpu"):
        option = parameter("device", device)
        raise ResnestError(f"{option}: exported files run on the CPU here; use cpu, or the run itself")
    if threads is not None and threads < 1:
        raise ResnestError(f"threads={threads}: expected 1 or more")
    if not path.is_file():
        raise ResnestError(f"there is no model at {path}: expected an exported file")
    readers = [name for name, engine in ENGINES.items() if path.suffix.lower() in engine.SUFFIXES]
    if name != "auto" and name not in ENGINES:
        raise unknown("engine", name, ["auto", *ENGINES])
    if not readers:
        raise ResnestError(f"{path} is not an exported file that engines read (those are {', '.join(SUFFIXES)})")
    if name != "auto" and name not in readers:
        raise ResnestError(f"{name} cannot read {path}: {' and '.join(readers)} can")
    threads = threads or usable_cores()
    if name != "auto":
        return open_loaded(_load(path, [name], threads), path, card)
    wanted = preferred(readers, batch_size)
    engine = open_loaded(_load(path, wanted, threads), path, card)
    quickest = measured_best(engine.origin, batch_size)
    if quickest not in readers or engine.name.startswith(quickest):
        return engine
    return open_loaded(_load(path, [quickest, *wanted], threads), path, card)


def preferred(names: list[str], batch_size: int) -> list[str]:
    """Engines that can read a file, fastest first: onnxruntime before OpenVINO, at batch 1 and at 16.

    With ResNeSt-50 in float32 they are equally fast within a few percent (results/engines-cpu.csv). One picture in a
    process of its own takes 1.6 times as long with OpenVINO (results/predict-cpu.csv), which has more to load, and its
    idle threads spin, so that it suffers more from other work. `resnest bench` compares them elsewhere.
    """
    assert batch_size > 0
    return sorted(names, key=list(ENGINES).index)


def measured_best(origin: Mapping[str, Any], batch_size: int) -> str:
    """The engine that was fastest with an int8 file when it was exported, on a machine with these instructions; or "".

    `fastest` in a file's origin has it by batch, such as {"1": "openvino int8", "16": "openvino int8"}.
    """
    fastest = origin.get("fastest")
    here = origin.get("precision") == "int8" and origin.get("instruction_set") == " ".join(instruction_sets())
    if not here or not isinstance(fastest, dict):
        return ""
    batches = [batch for batch in fastest if batch.isdigit()]
    nearest = min(batches, key=lambda batch: abs(int(batch) - batch_size), default="")
    engine, _, kind = str(fastest.get(nearest, "")).partition(" ")
    return engine if kind == "int8" else ""


def _load(path: Path, names: list[str], threads: int) -> Loaded:
    """The file in the first of these engines that is installed."""
    reasons = []
    for name in names:
        try:
            return ENGINES[name].load(path, threads=threads)
        except ImportError as error:
            reasons.append(f"{name} is not installed ({error}): pip install {name}")
    raise ResnestError(f"{path} cannot be run: {'; or '.join(reasons)}")
