"""The engine interface: a function from images to named arrays.

outputs = engine(images, sizes)              # {"logits": (N, K)}, or {"boxes": ..., "scores": ..., "labels": ...}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Arrays = Mapping[str, NDArray[Any]]
Shape = tuple[int | None, ...]  # None where any number goes


class Engine(Protocol):
    """The interface to run a network of any task."""

    name: str  # for people: what runs it, and on what

    def __call__(self, images: NDArray[np.float32], sizes: NDArray[np.int64], /) -> Arrays:
        """Images (N, 3, H, W), and height and width of each without its padding (N, 2) -> outputs by name."""


class Prepared(NamedTuple):
    """A preprocessed image."""

    name: str  # the picture's path as it was given
    pixels: NDArray[np.float32]  # (3, H, W), as the network gets it
    size: tuple[int, int]  # width, height of the picture
    image: Image.Image | None = None  # the picture itself, for what looks at it in several views


class Views(NamedTuple):
    """Test-time augmentation: scales, and whether to flip."""

    scales: tuple[float, ...] = ()  # what they mean is the task's; none: the model's own size
    flip: bool = False


class Output(NamedTuple):
    """Declaration of an output of a file."""

    shape: Shape
    dtype: str  # of numpy


@dataclass(frozen=True)
class ExportedForm:
    """Inputs and outputs of a task's exported files, by the model's card."""

    takes: Callable[[Any], Shape]  # images (N, C, H, W)
    gives: Callable[[Any], Mapping[str, Shape]]  # outputs by name


@dataclass(frozen=True)
class Loaded:
    """An exported file in an engine, before its task is known."""

    name: str  # of the engine, for people
    compute: Callable[[NDArray[np.float32], Sequence[str]], list[NDArray[Any]]]  # images, names of outputs
    images: Shape  # (N, C, H, W)
    outputs: Mapping[str, Output]
    metadata: Mapping[str, str]
    aliases: Mapping[str, str] = field(default_factory=dict)  # other names of outputs


def stack_pixels(images: Sequence[Prepared]) -> NDArray[np.float32]:
    """(N, 3, H, W) of images of one shape."""
    return np.stack([image.pixels for image in images])
