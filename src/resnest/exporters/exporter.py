"""The exporter interface of a task: sizes, inputs and outputs of its files, and when two outputs agree.

exporter = find_exporter(model)              # raises ResnestError where no format can hold such a model
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from resnest.errors import ResnestError, parameter
from resnest.exporters.capture import Interface
from resnest.exporters.formats import Format
from resnest.exporters.gate import TOLERANCE, Agree, Measure, Shape
from resnest.inference.model import Model
from resnest.tasks import load_object, task_type

MAX_PIXELS = 2048  # of a side: the gate runs five such images at once
Size = int | tuple[int, int] | None  # pixels of a side, or height and width


class Exporter(ABC):
    """Base class for tasks whose network returns logits."""

    int8: ClassVar[bool] = False  # whether quantization is written for it
    by_layers: ClassVar[bool] = True  # whether the first layer that differs can be looked for
    most_pictures: ClassVar[int | None] = None  # compared; None: all that there are
    unlike: ClassVar[str] = "another label"  # what pictures get that do not agree

    @abstractmethod
    def sized(self, model: Model, size: Size, form: Format) -> Model:
        """The model with a card for its file's image size. Raises ResnestError for an impossible size."""

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

    def agree(self, card: Any) -> Agree:
        """Whether two outputs for a picture are equivalent."""
        raise NotImplementedError

    def measure(self, card: Any) -> Measure | None:
        """The difference of two outputs; None: the largest difference of values."""
        return None

    def tolerances(self, card: Any) -> Mapping[str, float]:
        """Tolerances by output; of logits relative to the largest one."""
        return {"logits": TOLERANCE}

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
    return exporter


def check_sides(canvas: tuple[int, int], *, least: int, most: int, what: str, multiple: int = 1) -> None:
    """Raises ResnestError for a size that no file can have."""
    if any(side % multiple or not least <= side <= most for side in canvas):
        expected = f"multiples of {multiple}, up to {most}" if multiple > 1 else f"{least} to {most} pixels"
        raise ResnestError(f"{parameter('size', canvas)}: the sides of {what} must be {expected}")
