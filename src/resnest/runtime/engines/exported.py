"""An exported file in an engine, with what the file says of itself, checked against what it computes.

A file carries two texts: `resnest`, the model card, and `resnest_origin`, where its weights came from.

engine = open_loaded(loaded, path, card=None)
engine(images)                       # of a classifier, (N, 3, H, W) float32 -> logits (N, K) float32
engine(images, sizes)                # of a detector, (N, 3, H, W) float32 -> RawDetections
engine(images)                       # of a segmenter, (N, 3, H, W) float32 -> logits (N, K, H, W) float32
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
from resnest.files import CARD_NAME
from resnest.runtime.card import NOUNS, ModelCard
from resnest.runtime.detections import RawDetections

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
    outputs: Mapping[str, Shape]  # logits alone, whatever they are called, or boxes, scores, labels, masks
    metadata: Mapping[str, str]

    @property
    def task(self) -> str | None:
        """What its outputs are for; None if they do not tell."""
        if is_detector(self.outputs):
            return "detection"
        ranks = {2: "classification", 4: "segmentation"}
        return next((ranks.get(len(shape)) for shape in self.outputs.values()), None)

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

    Raises:
        ResnestError: its card is another task's.
    """

    task = ""  # of its card

    def __init__(self, loaded: Loaded, path: Path, card: ModelCard) -> None:
        self.name = loaded.name
        self.path = path
        self.card = card
        self.origin = _origin(loaded.metadata)
        if card.task != self.task or loaded.task not in (self.task, None):
            raise ResnestError(
                f"{path} gives {', '.join(loaded.outputs)}, and its card is that of {NOUNS[card.task]}: give the card"
                " of this network"
            )


class ExportedEngine(Exported):
    """Runs an exported classifier.

    Raises:
        ResnestError: the network takes or gives something else than the card says.
    """

    task = "classification"

    def __init__(self, loaded: Loaded, path: Path, card: ModelCard) -> None:
        super().__init__(loaded, path, card)
        self._run = loaded.run
        self._batch = loaded.images[0] if loaded.images else None  # a file may be made for one batch size
        self._check(loaded)

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        images = np.ascontiguousarray(images, np.float32)
        logits = self._run(images) if self._batch in (None, len(images)) else self._in_parts(images)
        if logits.shape != (len(images), *self._given(images.shape[2:])):
            raise ResnestError(
                f"{self.path} gave {logits.shape} for {len(images)} images, and its card names"
                f" {len(self.card.class_names)} classes: give the card of this network"
            )
        return logits

    def _given(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of an image's logits, for images of a size."""
        return (len(self.card.class_names),)

    def _in_parts(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """As many at a time as the file was made for; the last part is filled up with its first image."""
        size, logits = self._batch, [np.empty((0, *self._given(images.shape[2:])), np.float32)]
        assert size is not None
        for start in range(0, len(images), size):
            part = images[start : start + size]
            filled = np.concatenate([part, np.repeat(part[:1], size - len(part), axis=0)])
            logits.append(self._run(filled)[: len(part)])
        return np.concatenate(logits)

    def _check(self, loaded: Loaded) -> None:
        """That the network can take what the card's preprocessing makes, and gives logits for its classes."""
        side = self.card.classifier_input.size
        if self.card.in_chans != CHANNELS:
            raise ResnestError(
                f"{self.path} takes {self.card.in_chans} channels: images of files have {CHANNELS}, red, green, blue"
            )
        _check_images(loaded, (None, CHANNELS, side, side), self.path)
        _check_logits(loaded, (None, len(self.card.class_names)), self.path)


class ExportedSegmenter(ExportedEngine):
    """Runs an exported segmenter, of one size or of any.

    Raises:
        ResnestError: the network takes or gives something else than the card says.
    """

    task = "segmentation"

    def _given(self, size: tuple[int, ...]) -> tuple[int, ...]:
        return (len(self.card.class_names), *size)

    def _check(self, loaded: Loaded) -> None:
        canvas = self.card.segmenter_input.canvas or (None, None)
        _check_images(loaded, (None, CHANNELS, *canvas), self.path)
        _check_logits(loaded, (None, len(self.card.class_names), *canvas), self.path)


class ExportedDetector(Exported):
    """Runs an exported detector, one image after the other: its file is made for one, of one size.

    Raises:
        ResnestError: the network takes or gives something else than the card says.
    """

    task = "detection"

    def __init__(self, loaded: Loaded, path: Path, card: ModelCard) -> None:
        super().__init__(loaded, path, card)
        self._compute, self._names = loaded.compute, list(loaded.outputs)
        self._check(loaded)

    def __call__(self, images: NDArray[np.float32], sizes: NDArray[np.int64]) -> RawDetections:
        """`sizes` play no role: what is found in the padding lies outside the picture, and falls away there."""
        images = np.ascontiguousarray(images, np.float32)
        found = [self._compute(images[place : place + 1]) for place in range(len(images))]
        named = dict(zip(self._names, (np.concatenate(column) for column in zip(*found, strict=True)), strict=True))
        return RawDetections(named["boxes"], named["scores"], named["labels"].astype(np.int64), named.get("masks"))

    def _check(self, loaded: Loaded) -> None:
        """That the network can take the card's canvas, and gives what a detector gives."""
        assert self.card.detector is not None
        _check_images(loaded, (1, CHANNELS, *(self.card.detector_input.canvas or (None, None))), self.path)
        for name, shape in {**DETECTED, **(MASKS if self.card.detector.masks else {})}.items():
            given = loaded.outputs.get(name)
            if given is None or not _goes(given, shape):
                told = "lacks" if given is None else f"gives {_shown(given)} as"
                raise ResnestError(
                    f"{self.path} {told} {name}, and {_shown(shape)} is expected: give the card of this network"
                )


AnyExported = ExportedEngine | ExportedDetector | ExportedSegmenter


def open_loaded(loaded: Loaded, path: Path, card: ModelCard | None = None) -> AnyExported:
    """The engine for what is in a file.

    Args:
        card: in place of the one in the file, which a file of another program does not have.

    Raises:
        ResnestError: no card, or one that does not fit the file.
    """
    card = card or _card(loaded.metadata, path)
    kinds = {kind.task: kind for kind in (ExportedEngine, ExportedDetector, ExportedSegmenter)}
    if card.task not in kinds:
        raise ResnestError(f"{path} is said to hold {NOUNS[card.task]}, which no exported file can")
    return kinds[card.task](loaded, path, card)


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


def _check_images(loaded: Loaded, prepared: Shape, path: Path) -> None:
    """That the network takes images as the card prepares them: a file for one size takes no others."""
    sides = zip(loaded.images[2:], prepared[2:], strict=False)
    if not _goes(loaded.images, prepared) or any(mine is not None and wanted is None for mine, wanted in sides):
        raise ResnestError(
            f"{path} takes images {_shown(loaded.images)}, and its card prepares {_shown(prepared)}: give the card of"
            " this network, or export it with a free size"
        )


def _check_logits(loaded: Loaded, needed: Shape, path: Path) -> None:
    (logits,) = loaded.outputs.values()
    if not _goes(logits, needed):
        raise ResnestError(
            f"{path} gives {_shown(logits)}, and its card names {needed[1]} classes, so {_shown(needed)} is expected:"
            " give the card of this network"
        )


def _goes(declared: Shape, needed: Shape) -> bool:
    if len(declared) != len(needed):
        return False
    return all(mine is None or wanted is None or mine == wanted for mine, wanted in zip(declared, needed, strict=True))


def _shown(shape: Shape) -> str:
    return f"({', '.join('any' if side is None else str(side) for side in shape)})"
