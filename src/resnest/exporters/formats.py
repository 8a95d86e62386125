"""The export formats and their capabilities.

find_format("onnx").suffix                  # ".onnx"
find_format(None, Path("model.pte")).name   # "executorch"
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import nn

from resnest.errors import ResnestError, parameter, unknown
from resnest.exporters import aotinductor, executorch, exported_program, onnx, openvino
from resnest.exporters.capture import Interface
from resnest.exporters.layers import Arrays, Runner

PIP = {"onnx": "onnx", "onnxruntime": "onnx", "onnxscript": "onnx", "openvino": "openvino", "executorch": "executorch"}


class Write(Protocol):
    """Writes a prepared network with `strings` as metadata; returns notes about the file."""

    def __call__(
        self, net: nn.Module, path: Path, strings: dict[str, str], takes: Interface
    ) -> dict[str, object] | None: ...


@dataclass(frozen=True)
class Format:
    """How files of a format are written, run and inspected."""

    name: str
    suffix: str
    engine: str  # what runs it, and what the gate runs it with
    needs: tuple[str, ...]  # packages beside torch
    write: Write
    load: Callable[[Path], Runner]
    layers: Callable[[Path, NDArray[np.float32]], Arrays] | None = None  # None: layers of the file cannot be inspected
    batch: int | None = None  # images at a time; None: any number
    any_size: bool = True  # False: images of the one size that it was made for
    companion: str = ""  # suffix of a second file that belongs to it
    many_outputs: bool = False  # whether it can hold a network that gives several arrays, such as a detector

    def check_installed(self) -> None:
        """Raises ResnestError that names what is missing, and how to install it."""
        missing = [name for name in self.needs if importlib.util.find_spec(name) is None]
        if missing:
            extras = ",".join(dict.fromkeys(PIP[name] for name in missing))
            told = f"{parameter('format', self.name)} needs {', '.join(missing)}, not installed here"
            raise ResnestError(f"{told}: pip install 'resnest[{extras}]'")


FORMATS = {
    form.name: form
    for form in (
        Format(
            "onnx",
            ".onnx",
            "onnxruntime",
            ("onnx", "onnxscript", "onnxruntime"),
            onnx.write,
            onnx.load,
            onnx.layers,
            many_outputs=True,
        ),
        Format(
            "openvino",
            ".xml",
            "openvino",
            ("openvino", "onnx", "onnxscript"),
            openvino.write,
            openvino.load,
            openvino.layers,
            many_outputs=True,
            companion=".bin",
        ),
        Format(
            "torch",
            ".pt2",
            "torch",
            (),
            exported_program.write,
            exported_program.load,
            exported_program.layers,
            many_outputs=True,
        ),
        Format("aotinductor", ".pt2", "torch", (), aotinductor.write, aotinductor.load, any_size=False),
        Format(
            "executorch",
            ".pte",
            "executorch",
            ("executorch",),
            executorch.write,
            executorch.load,
            batch=1,
            any_size=False,
        ),
    )
}


def find_format(name: str | None, out: Path | None = None) -> Format:
    """The format by name, or by a file's suffix; ONNX by default.

    Raises:
        ResnestError: unknown.
    """
    if name is not None:
        if name not in FORMATS:
            raise unknown("format", name, FORMATS)
        return FORMATS[name]
    if out is None:
        return FORMATS["onnx"]
    for form in FORMATS.values():
        if form.suffix == out.suffix:
            return form
    endings = ", ".join(f"{form.suffix} ({form.name})" for form in FORMATS.values())
    raise ResnestError(f"{parameter('out', out)}: its suffix names no format; known: {endings}")
