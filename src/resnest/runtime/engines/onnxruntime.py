"""onnxruntime on the CPU: reads .onnx.

loaded = load(Path("model.onnx"), threads=2)

All settings are its defaults (every graph optimisation, sequential operators) except one: idle threads sleep instead of
spinning. Spinning suits an otherwise idle machine; where images are decoded at the same time, or another program runs,
a spinning thread blocks a core that is needed. ResNeSt-50, two cores, batch 1: 33 ms sleeping and 31 ms spinning on an
idle machine; 70 and 222 ms with other work on it (medians, measured alternately).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from resnest.errors import ResnestError
from resnest.runtime.engines.exported import Loaded, Output, Shape

SUFFIXES = (".onnx",)
_FATAL = 4  # of onnxruntime's levels of logging: what goes wrong is raised, too


def package() -> Any:
    """onnxruntime without its telemetry, unless ORT_DISABLE_TELEMETRY=0 asks for it. Raises ImportError.

    From 1.29 on its Linux packages send usage data, and write an identifier into the home directory, or a warning where
    there is none to write into (microsoft/onnxruntime#27379). It reads the variable when it is imported.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


def version() -> str:
    return str(package().__version__)


def open_session(model: str | bytes, *, threads: int) -> Any:
    """A session for a file, or for a file's content."""
    onnxruntime = package()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def load(path: Path, *, threads: int) -> Loaded:
    """Raises ResnestError if the file cannot be read, and ImportError if there is no onnxruntime."""
    package()  # whether it is installed
    try:
        session = open_session(_named(path), threads=threads)
    except Exception as error:  # its exceptions have no common base of their own
        raise ResnestError(
            f"{path} cannot be read as an ONNX file: it was cut off, is damaged, or something else ({_message(error)})"
        ) from None
    images = _only_input(session.get_inputs(), path)

    def compute(batch: NDArray[Any], names: Sequence[str]) -> list[NDArray[Any]]:
        try:
            result: list[NDArray[Any]] = session.run(list(names), {images.name: batch})
        except Exception as error:
            raise ResnestError(f"{path} cannot take images {batch.shape} ({_message(error)})") from None
        return result

    plural = "s" if threads > 1 else ""
    metadata = session.get_modelmeta().custom_metadata_map
    outputs = {output.name: Output(_shape(output), _dtype(output)) for output in session.get_outputs()}
    return Loaded(
        f"onnxruntime, {threads} thread{plural}", compute, _shape(images), outputs, metadata, dtype=_dtype(images)
    )


def _named(path: Path) -> str | bytes:
    """The path, or the content of a file whose name is not UTF-8, which onnxruntime cannot open."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return path.read_bytes()
    return str(path)


def _only_input(values: list[Any], path: Path) -> Any:
    """The only input, of 32-bit floats or 8-bit pixels."""
    expected = "images (N, 3, H, W)"
    if len(values) != 1:
        raise ResnestError(f"{path} has {len(values)} inputs: expected one, {expected}")
    if values[0].type not in ("tensor(float)", "tensor(uint8)"):
        raise ResnestError(f"{path} has inputs of {values[0].type}: expected {expected} of tensor(float)")
    return values[0]


def _dtype(value: Any) -> str:
    """ "tensor(float)" -> "float32"."""
    kind = str(value.type).removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(kind, kind)


def _shape(value: Any) -> Shape:
    """A name, or nothing, is a dynamic dimension."""
    return tuple(side if isinstance(side, int) else None for side in value.shape)


def _message(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
