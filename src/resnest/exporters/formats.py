"""The formats, what each of them can, and what exporting needs to know of a task.

find_format("onnx").suffix                  # ".onnx"
find_format(None, Path("model.pte")).name   # "executorch"
"""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from resnest.errors import ResnestError, parameter, unknown
from resnest.exporters import executorch, onnx, openvino, pt2
from resnest.exporters.capture import Arrays, Interface, Runner
from resnest.exporters.gate import TOLERANCE, Agree, Measure, Shape
from resnest.inference.model import Model
from resnest.tasks import load_object, task_type

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
            problem = f"{parameter('format', self.name)} needs {', '.join(missing)}, not installed here"
            raise ResnestError(f"{problem}: pip install 'resnest[{extras}]'")


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
            pt2.write_program,
            pt2.load_program,
            pt2.layers,
            many_outputs=True,
        ),
        Format("aotinductor", ".pt2", "torch", (), pt2.compile_package, pt2.load_package, any_size=False),
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


# --- The exporter interface of a task: sizes, inputs and outputs of its files, and when two outputs agree ---

MAX_PIXELS = 2048  # of a side: the gate runs five such images at once
Size = int | tuple[int, int] | None  # pixels of a side, or height and width


class Exporter(ABC):
    """Base class for tasks whose network returns logits."""

    int8: ClassVar[bool] = False  # whether quantization is written for it
    by_layers: ClassVar[bool] = True  # whether the first layer that differs can be looked for
    most_pictures: ClassVar[int | None] = None  # compared; None: all that there are
    unlike: ClassVar[str] = "another label"  # what pictures get that do not agree
    things: ClassVar[str] = "labels"  # what is the same in two results that agree
    on_data: ClassVar[bool] = False  # whether a run's own data is used to compare on
    can_give_features: ClassVar[bool] = False  # whether its files may have the pooled features as an output
    features = False  # whether this file has

    @abstractmethod
    def sized(self, model: Model, size: Size, form: Format) -> Model:
        """The model with a card for its file's image size. Raises ResnestError for an impossible size."""

    def explain_size(self, model: Model, size: Size) -> str:
        """Where the size of the file's images comes from, where it is not the model's own."""
        return ""

    def same_result(self, before: Any, after: Any) -> bool:
        """Whether two results of a picture, which may have been prepared differently, mean the same."""
        raise NotImplementedError

    @abstractmethod
    def interface(self, card: Any, form: Format) -> Interface:
        """Inputs and outputs of the model's file."""

    @abstractmethod
    def shapes(self, card: Any, form: Format) -> list[Shape]:
        """Shapes of the noise that is compared."""

    def module(self, model: Model) -> nn.Module:
        """The prepared network in the form to export."""
        task = task_type(model.card.task)
        return task.prepared(model.net, memory_format=torch.contiguous_format, kernels=False)

    def reference(self, model: Model) -> nn.Module:
        """The network that the file is compared with."""
        return model.net  # type: ignore[no-any-return]

    def agree(self, card: Any) -> Agree:
        """Whether two outputs for a picture are equivalent."""
        raise NotImplementedError

    def measure(self, card: Any) -> Measure | None:
        """The difference of two outputs; None: the largest difference of values."""
        return None

    def tolerances(self, card: Any) -> Mapping[str, float]:
        """Tolerances by output; of logits relative to the largest one."""
        return {"logits": TOLERANCE}

    def settings(self, card: Any) -> Mapping[str, Any]:
        """What a hand-over kit's programs need to turn outputs into results, beside the classes."""
        return {}

    def batches(self, card: Any, images: Sequence[Image.Image], size: int) -> Iterator[NDArray[np.float32]]:
        """Preprocessed pictures, one by one."""
        for image in images[: self.most_pictures]:
            yield card.preprocess(image)[None]


def find_exporter(model: Model) -> Exporter:
    """The exporter of a model. Raises ResnestError where no format can hold such a model."""
    where = model.card.info.exporter
    if not where:
        raise ResnestError(f"{model.source} is {model.card.info.noun}: no format can hold one yet")
    exporter: Exporter = load_object(where)()
    exporter.features = model.features
    return exporter


def check_sides(canvas: tuple[int, int], *, least: int, most: int, what: str, multiple: int = 1) -> None:
    """Raises ResnestError for a size that no file can have."""
    if any(side % multiple or not least <= side <= most for side in canvas):
        expected = f"multiples of {multiple}, up to {most}" if multiple > 1 else f"{least} to {most} pixels"
        raise ResnestError(f"{parameter('size', canvas)}: the sides of {what} must be {expected}")
