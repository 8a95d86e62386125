"""An exported file in an engine, with what the file says of itself, checked against what it computes.

A file carries two texts: `resnest`, the model card, and `resnest_origin`, where its weights came from.

engine = open_loaded(loaded, path, card=None)
engine(images)                       # of a classifier, (N, 3, H, W) float32 -> logits (N, K) float32
engine(images, sizes)                # of a detector, (N, 3, H, W) float32 -> RawDetections
engine.card, engine.origin.get("weights_sha256")
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnest.errors import ResnestError
from resnest.runtime.card import ModelCard
from resnest.runtime.detections import RawDetections
from resnest.runtime.files import CARD_NAME

CARD_KEY, ORIGIN_KEY = "resnest", "resnest_origin"
CHANNELS = 3
DETECTED = {
    "boxes": (1, None, 4),
    "scores": (1, None),
    "labels": (1, None),
}  # what a detector's file gives, and perhaps
MASKS = {"masks": (1, None, None, None)}
Shape = tuple[int | None, ...]  # None where any number goes
Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]


Compute = Callable[[NDArray[np.float32]], list[NDArray[Any]]]


@dataclass(frozen=True)
class Loaded:
    """What an engine made of a file: its one input, and the outputs that are the network's."""

    name: str  # of the engine, for people
    compute: Compute  # all outputs, in their order
    images: Shape  # (N, C, H, W)
    outputs: Mapping[str, Shape]  # logits (N, K) alone, whatever they are called, or boxes, scores, labels, masks
    metadata: Mapping[str, str]

    @property
    def detects(self) -> bool:
        return is_detector(self.outputs)

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """The first output."""
        return self.compute(images)[0]


def is_detector(outputs: Iterable[str]) -> bool:
    """Whether these are the outputs of a detector."""
    return set(DETECTED) <= set(outputs)


def chosen_outputs(names: Sequence[str]) -> list[int]:
    """Places of the outputs that count among those of a file: a detector's, one that is called logits, or all."""
    if is_detector(names):
        return [names.index(name) for name in (*DETECTED, *MASKS) if name in names]
    return [names.index("logits")] if "logits" in names else list(range(len(names)))


class Exported:
    """What an exported file says of itself.

    Args:
        card: in place of the one in the file, which a file of another program does not have.

    Raises:
        ResnestError: no card.
    """

    def __init__(self, loaded: Loaded, path: Path, card: ModelCard | None = None) -> None:
        self.name = loaded.name
        self.path = path
        self.card = card or _card(loaded.metadata, path)
        self.origin = _origin(loaded.metadata)


class ExportedEngine(Exported):
    """Runs an exported classifier.

    Raises:
        ResnestError: no card, or the network takes or gives something else than the card says.
    """

    def __init__(self, loaded: Loaded, path: Path, card: ModelCard | None = None) -> None:
        super().__init__(loaded, path, card)
        self._run = loaded.run
        self._batch = loaded.images[0] if loaded.images else None  # a file may be made for one batch size
        _check_shapes(self.card, loaded, path)

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        images = np.ascontiguousarray(images, np.float32)
        logits = self._run(images) if self._batch in (None, len(images)) else self._in_parts(images)
        if logits.shape != (len(images), len(self.card.class_names)):
            raise ResnestError(
                f"{self.path} gave {logits.shape} for {len(images)} images, and its card names"
                f" {len(self.card.class_names)} classes: give the card of this network"
            )
        return logits

    def _in_parts(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """As many at a time as the file was made for; the last part is filled up with its first image."""
        size, logits = self._batch, []
        assert size is not None
        for start in range(0, len(images), size):
            part = images[start : start + size]
            filled = np.concatenate([part, np.repeat(part[:1], size - len(part), axis=0)])
            logits.append(self._run(filled)[: len(part)])
        return np.concatenate(logits) if logits else np.empty((0, len(self.card.class_names)), np.float32)


class ExportedDetector(Exported):
    """Runs an exported detector, one image after the other: its file is made for one, of one size.

    Raises:
        ResnestError: no card, or the network takes or gives something else than the card says.
    """

    def __init__(self, loaded: Loaded, path: Path, card: ModelCard | None = None) -> None:
        super().__init__(loaded, path, card)
        self._compute, self._names = loaded.compute, list(loaded.outputs)
        _check_detector(self.card, loaded, path)

    def __call__(self, images: NDArray[np.float32], sizes: NDArray[np.int64]) -> RawDetections:
        """`sizes` play no role: what is found in the padding lies outside the picture, and falls away there."""
        images = np.ascontiguousarray(images, np.float32)
        found = [self._compute(images[place : place + 1]) for place in range(len(images))]
        named = dict(zip(self._names, (np.concatenate(column) for column in zip(*found, strict=True)), strict=True))
        return RawDetections(named["boxes"], named["scores"], named["labels"].astype(np.int64), named.get("masks"))


AnyExported = ExportedEngine | ExportedDetector


def open_loaded(loaded: Loaded, path: Path, card: ModelCard | None = None) -> AnyExported:
    """The engine for what is in the file."""
    return (ExportedDetector if loaded.detects else ExportedEngine)(loaded, path, card)


def _card(metadata: Mapping[str, str], path: Path) -> ModelCard:
    if CARD_KEY not in metadata:
        raise ResnestError(
            f"{path} has no metadata {CARD_KEY!r}, which names its classes and preprocessing: it was not exported here."
            f" Give a {CARD_NAME} that does, with --card FILE (in Python: card=)"
        )
    return ModelCard.from_json(metadata[CARD_KEY], where=f"the metadata of {path}")


def _origin(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Where the weights came from; empty if that is not told, or cannot be understood."""
    try:
        told = json.loads(metadata.get(ORIGIN_KEY, "{}"))
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _check_shapes(card: ModelCard, loaded: Loaded, path: Path) -> None:
    """That the network can take what the card's preprocessing makes, and gives as many logits as it has classes."""
    if card.detector is not None:
        raise ResnestError(f"{path} gives {', '.join(loaded.outputs)}, and its card is that of a detector")
    size, classes = card.classifier_input.size, len(card.class_names)
    (logits,) = loaded.outputs.values()
    needed = (None, card.in_chans, size, size)
    if card.in_chans != CHANNELS:
        raise ResnestError(f"{path} takes {card.in_chans} channels: images of files have {CHANNELS}, red, green, blue")
    if not _goes(loaded.images, needed):
        raise ResnestError(
            f"{path} takes images {_shown(loaded.images)}, and its card prepares (any, {CHANNELS}, {size}, {size}):"
            " give the card of this network, or export it with a free size"
        )
    if not _goes(logits, (None, classes)):
        raise ResnestError(
            f"{path} gives {_shown(logits)}, and its card names {classes} classes, so (any, {classes}) is"
            " expected: give the card of this network"
        )


def _check_detector(card: ModelCard, loaded: Loaded, path: Path) -> None:
    """That the network can take the card's canvas, and gives what a detector gives."""
    if card.detector is None:
        raise ResnestError(f"{path} gives {', '.join(loaded.outputs)}, and its card is that of a classifier")
    canvas = card.detector_input.canvas
    needed = (1, CHANNELS, *(canvas or (None, None)))
    if canvas is None or not _goes(loaded.images, needed):
        raise ResnestError(
            f"{path} takes images {_shown(loaded.images)}, and its card prepares {_shown(needed)}: give the card of"
            " this network"
        )
    for name, shape in {**DETECTED, **(MASKS if card.detector.masks else {})}.items():
        given = loaded.outputs.get(name)
        if given is None or not _goes(given, shape):
            told = "lacks" if given is None else f"gives {_shown(given)} as"
            raise ResnestError(f"{path} {told} {name}, and {_shown(shape)} is expected: give the card of this network")


def _goes(declared: Shape, needed: Shape) -> bool:
    if len(declared) != len(needed):
        return False
    return all(mine is None or wanted is None or mine == wanted for mine, wanted in zip(declared, needed, strict=True))


def _shown(shape: Shape) -> str:
    return f"({', '.join('any' if side is None else str(side) for side in shape)})"
