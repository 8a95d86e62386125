"""Engines: a function from images to named arrays; an exported file is one, checked against what it says of itself.

A file has two metadata strings: `resnest`, the model card, and `resnest_origin`, the provenance of its weights.

    engine = open_loaded(loaded, path, card=None)
    engine(images, sizes)                # (N, C, H, W) float32 -> outputs by name, as of any engine
    engine.card, engine.origin.get("weights_sha256")
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.errors import ResnestError, parameter
from resnest.files import CARD_NAME
from resnest.runtime.card import ModelCard
from resnest.runtime.preprocess import denormalise

# --- The engine interface: a function from images to named arrays ---

Arrays = Mapping[str, NDArray[Any]]
Shape = tuple[int | None, ...]  # None where any number goes


class Engine(Protocol):
    """The interface to run a network of any task."""

    name: str  # for people: what runs it, and on what

    def __call__(self, images: NDArray[np.float32], sizes: NDArray[np.int64], /) -> Arrays:
        """Images (N, C, H, W), and height and width of each without its padding (N, 2) -> outputs by name."""


class Prepared(NamedTuple):
    """A preprocessed image."""

    name: str  # the picture's path as it was given
    pixels: NDArray[np.float32]  # (C, H, W), as the network gets it
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
class IOSpec:
    """Inputs and outputs of a task's exported files, by the model's card."""

    takes: Callable[[Any], Shape]  # images (N, C, H, W)
    gives: Callable[[Any], Mapping[str, Shape]]  # outputs by name


@dataclass(frozen=True)
class Loaded:
    """An exported file in an engine, before its task is known."""

    name: str  # of the engine, for people
    compute: Callable[[NDArray[Any], Sequence[str]], list[NDArray[Any]]]  # images, names of outputs
    images: Shape  # (N, C, H, W); of 8-bit pixels perhaps (N, H, W, C)
    outputs: Mapping[str, Output]
    metadata: Mapping[str, str]
    aliases: Mapping[str, str] = field(default_factory=dict)  # other names of outputs
    dtype: str = "float32"  # of the images


def stack_pixels(images: Sequence[Prepared]) -> NDArray[np.float32]:
    """(N, C, H, W) of images of one shape."""
    return np.stack([image.pixels for image in images])


CARD_KEY, ORIGIN_KEY = "resnest", "resnest_origin"
FEATURES = "features"  # of an engine or a file: the pooled features that the linear head gets, (N, D)
INPUT_KEY = (
    "input"  # of the card and the origin of a file that takes 8-bit pixels: {"dtype": "uint8", "layout": "nhwc"}
)


class ExportedEngine:
    """Runs an exported file.

    Raises:
        ResnestError: its card is another task's, or the network's inputs or outputs contradict the card.
    """

    def __init__(self, loaded: Loaded, path: Path, card: ModelCard) -> None:
        self.name, self.path, self.card, self._loaded = loaded.name, path, card, loaded
        self.origin = _origin(loaded.metadata)
        exported = card.info.exported
        if exported is None:
            raise ResnestError(f"{path} is said to hold {card.info.noun}, which no exported file can")
        self._takes = exported.takes(card)
        self._gives = exported.gives(card)
        self._names = self._choose_outputs()
        self._layout = self._find_layout()
        self._batch = loaded.images[0] if loaded.images else None  # a file may be made for one batch size
        self._check()

    def __call__(self, images: NDArray[np.float32], sizes: NDArray[np.int64] | None = None) -> Arrays:
        """`sizes` are for 8-bit pixels alone: detections in the padding are outside the picture and dropped later."""
        taken = self._to_pixels(images, sizes) if self._layout else np.ascontiguousarray(images, np.float32)
        at_once = self._batch in (None, len(taken)) and len(taken)
        outputs = self._compute(taken) if at_once else self._in_parts(taken)
        for name, shape in self._gives.items():
            got, wanted = outputs[name].shape, (len(images), *shape[1:])
            if not _fits(got, wanted):
                raise ResnestError(
                    f"{self.path} gave {got} for {len(images)} images, and its card names"
                    f" {len(self.card.class_names)} classes: give the card of this network"
                )
        return outputs

    @property
    def gives_features(self) -> bool:
        """Whether the file was exported with pooled features."""
        return FEATURES in self._loaded.outputs or FEATURES in self._loaded.aliases

    def with_features(self, *, alone: bool = False) -> ExportedEngine:
        """The same file, which gives its features beside the task's outputs, or alone; itself if it has none."""
        if not self.gives_features:
            return self
        engine = copy.copy(self)
        engine._gives = {**({} if alone else self._gives), FEATURES: (None, None)}
        engine._names = {**({} if alone else self._names), FEATURES: self._loaded.aliases.get(FEATURES, FEATURES)}
        return engine

    def _find_layout(self) -> str:
        """ "nhwc" or "nchw" of a file that normalises 8-bit pixels itself, else ""."""
        if self._loaded.dtype == "float32":
            return ""
        said = self.origin.get(INPUT_KEY)
        layout = said.get("layout") if isinstance(said, dict) else None
        if layout not in ("nhwc", "nchw"):
            raise ResnestError(
                f"{self.path} has inputs of {self._loaded.dtype}: expected images (N, 3, H, W) of float32"
            )
        return str(layout)

    def _to_pixels(self, images: NDArray[np.float32], sizes: NDArray[np.int64] | None) -> NDArray[np.uint8]:
        """The 8-bit pixels that normalised images were made from; where the file pads them itself, without padding."""
        high, wide = images.shape[2:]
        if sizes is not None and len(images) == 1 and self._pads:
            high, wide = sizes[0]
        preprocess = self.card.preprocess
        pixels = denormalise(images[:, :, :high, :wide], preprocess.mean, preprocess.std)
        return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1) if self._layout == "nhwc" else pixels)

    @property
    def _pads(self) -> bool:
        """Whether the file takes 8-bit pixels of any size, and its card says one size."""
        return self._images[2] is None and self._takes[2] is not None

    @property
    def _images(self) -> Shape:
        """(N, C, H, W) of its input, whatever its layout."""
        shape = self._loaded.images
        return (shape[0], shape[3], *shape[1:3]) if self._layout == "nhwc" and len(shape) == 4 else shape

    def _compute(self, images: NDArray[Any]) -> dict[str, NDArray[Any]]:
        values = self._loaded.compute(images, list(self._names.values()))
        return dict(zip(self._names, values, strict=True))

    def _in_parts(self, images: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Run in the file's fixed batch size; the last batch is filled up with its first image."""
        size = self._batch or 1
        parts: list[dict[str, NDArray[Any]]] = []
        for start in range(0, len(images), size):
            part = images[start : start + size]
            filled = np.concatenate([part, np.repeat(part[:1], size - len(part), axis=0)])
            parts.append({name: value[: len(part)] for name, value in self._compute(filled).items()})
        empty = {
            name: np.empty([0, *(side or 0 for side in shape[1:])], np.float32) for name, shape in self._gives.items()
        }
        return {name: np.concatenate([part[name] for part in parts]) if parts else empty[name] for name in self._names}

    def _choose_outputs(self) -> dict[str, str]:
        """The file's name for each output of the card's task; a single output may have any name."""
        outputs, aliases = self._loaded.outputs, self._loaded.aliases
        missing = [name for name in self._gives if name not in outputs and name not in aliases]
        if not missing:
            return {name: name if name in outputs else aliases[name] for name in self._gives}
        if len(self._gives) == len(outputs) == 1:
            (ours,), (theirs,) = self._gives, outputs
            if len(outputs[theirs].shape) in (0, len(self._gives[ours])):
                return {ours: theirs}
        if len(missing) < len(self._gives):
            raise ResnestError(
                f"{self.path} lacks {missing[0]}, and {_shown(self._gives[missing[0]])} is expected: give the card of"
                " this network"
            )
        raise ResnestError(
            f"{self.path} gives {', '.join(outputs)}, and its card is that of {self.card.info.noun}: give the card of"
            " this network"
        )

    def _check(self) -> None:
        """Check the file's input against the card's preprocessing, and its outputs against the task's."""
        images = self._images
        free = zip(images[2:], self._takes[2:], strict=False)  # a file for one size takes no others
        if not _fits(images, self._takes) or any(mine is not None and wanted is None for mine, wanted in free):
            raise ResnestError(
                f"{self.path} takes images {_shown(images)}, and its card prepares {_shown(self._takes)}: give the card"
                " of this network, or export it with a free size"
            )
        for name, theirs in self._names.items():
            (shape, dtype), wanted = self._loaded.outputs[theirs], self._gives[name]
            if len(self._names) == 1 and dtype != "float32":
                raise ResnestError(f"{self.path} has outputs of {dtype}: expected {name} {_shown(wanted)} of float32")
            if not _fits(shape, wanted):
                known = "" if len(self._names) == 1 else f" as {name}"
                raise ResnestError(
                    f"{self.path} gives {_shown(shape)}{known}, and its card names {len(self.card.class_names)}"
                    f" classes, so {_shown(wanted)} is expected: give the card of this network"
                )


def open_loaded(loaded: Loaded, path: Path, card: ModelCard | None = None) -> ExportedEngine:
    """The engine for a loaded file.

    Args:
        card: in place of the one in the file, which a file of another program does not have.

    Raises:
        ResnestError: no card, or one that does not fit the file.
    """
    return ExportedEngine(loaded, path, card or _card(loaded.metadata, path))


def _card(metadata: Mapping[str, str], path: Path) -> ModelCard:
    if CARD_KEY not in metadata:
        raise ResnestError(
            f"{path} has no metadata {CARD_KEY!r}, which names its classes and preprocessing: it was not exported here."
            f" Give a {CARD_NAME} that does, with {parameter('card', 'FILE')}"
        )
    return ModelCard.from_json(metadata[CARD_KEY], where=f"the metadata of {path}")


def _origin(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Provenance of the weights; empty if it is missing or invalid."""
    try:
        origin = json.loads(metadata.get(ORIGIN_KEY, "{}"))
    except (ValueError, RecursionError):
        return {}
    return origin if isinstance(origin, dict) else {}


def _fits(declared: Shape, needed: Shape) -> bool:
    if len(declared) != len(needed):
        return False
    return all(mine is None or wanted is None or mine == wanted for mine, wanted in zip(declared, needed, strict=True))


def _shown(shape: Shape) -> str:
    return f"({', '.join('any' if side is None else str(side) for side in shape)})"
