"""Pictures to compare a network and its export on: real ones if there are any, else seeded synthetic ones.

pictures = synthetic()
for batch in exporter.batches(card, pictures.images, BATCH): ...    # (N, C, H, W), preprocessed as the card says
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.data.sources import open_part
from resnest.errors import ResnestError, parameter
from resnest.runtime.card import ModelCard
from resnest.runtime.decode import SUFFIXES, BadImage, decode_image

COUNT = 64  # promise P15
BATCH = 8
SEED = 0

Read = Callable[[], Image.Image]


@dataclass(frozen=True)
class Pictures:
    """Decoded images, and their description for a report."""

    images: Sequence[Image.Image]
    told: str


def pixels(card: ModelCard, image: Image.Image) -> NDArray[np.float32]:
    """Preprocessed, (C, size, size); for other channels than three they are repeated or dropped."""
    channels = [index % 3 for index in range(card.in_chans)]
    return np.ascontiguousarray(card.preprocess(image)[channels])


def synthetic(count: int = COUNT) -> Pictures:
    """Soft coloured shapes with some grain, always the same."""
    rng = np.random.default_rng(SEED)
    images = []
    for _ in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
        smooth = np.asarray(coarse.resize((320, 240), Image.Resampling.BICUBIC), np.float32)
        grainy = smooth + rng.normal(0, 8, smooth.shape)
        images.append(Image.fromarray(grainy.clip(0, 255).astype(np.uint8)))
    return Pictures(images, f"{count} synthetic pictures")


def find_pictures(where: str | Path, count: int = COUNT) -> Pictures:
    """Some images of a folder or a data set of any format, always the same; unusable ones are skipped.

    If a data set has splits, they come from its validation split.

    Raises:
        ResnestError: nothing there, or no usable image in it.
    """
    reads = _in_folder(Path(where)) or _in_data_set(where)
    random.Random(SEED).shuffle(reads)
    images: list[Image.Image] = []
    for read in reads:
        if len(images) == count:
            break
        with contextlib.suppress(BadImage):
            images.append(read())
    if not images:
        raise ResnestError(f"{parameter('images', where)}: none of its {len(reads)} images can be used")
    return Pictures(images, f"{len(images)} pictures of {where}")


def _in_folder(folder: Path) -> list[Read]:
    """Pictures in a folder, with or without class folders."""
    return [partial(decode_image, path) for path in image_files(folder.rglob("*"))]


def image_files(paths: Iterable[Path]) -> list[Path]:
    """The picture files by their names, sorted."""
    return sorted(path for path in paths if path.suffix.lower() in SUFFIXES and path.is_file())


def _in_data_set(where: str | Path) -> list[Read]:
    samples = open_part(where).samples
    return [partial(samples.decode, index) for index in range(len(samples))]
