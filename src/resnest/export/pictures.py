"""Pictures to compare a network and its export on: real ones if there are any, else seeded synthetic ones.

pictures = synthetic(card)
for batch in pictures.batches(card): ...    # (N, C, size, size), preprocessed as the card says
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.errors import ResnestError
from resnest.runtime.card import ModelCard
from resnest.runtime.decode import SUFFIXES, BadImage, decode_image

COUNT = 64  # promise P15
BATCH = 8
SEED = 0


@dataclass(frozen=True)
class Pictures:
    """Images, decoded, and what to call them in a report."""

    images: Sequence[Image.Image]
    told: str

    def batches(self, card: ModelCard, size: int = BATCH) -> Iterator[NDArray[np.float32]]:
        """What the network gets; for other numbers of channels than three they are repeated or left out."""
        channels = [index % 3 for index in range(card.in_chans)]
        for start in range(0, len(self.images), size):
            rows = [card.preprocess(image)[channels] for image in self.images[start : start + size]]
            yield np.ascontiguousarray(np.stack(rows))


def synthetic(count: int = COUNT) -> Pictures:
    """Soft coloured shapes with some grain, the same ones every time."""
    rng = np.random.default_rng(SEED)
    images = []
    for _ in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
        smooth = np.asarray(coarse.resize((320, 240), Image.Resampling.BICUBIC), np.float32)
        grainy = smooth + rng.normal(0, 8, smooth.shape)
        images.append(Image.fromarray(grainy.clip(0, 255).astype(np.uint8)))
    return Pictures(images, f"{count} synthetic pictures")


def from_folder(folder: Path, count: int = COUNT) -> Pictures:
    """Some of a folder's images, the same ones every time, subfolders included; unusable files are passed over.

    Raises:
        ResnestError: no such folder, or no usable image in it.
    """
    if not folder.is_dir():
        raise ResnestError(f"--images {folder}: there is no such folder")
    files = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES and path.is_file()]
    random.Random(SEED).shuffle(files)
    images: list[Image.Image] = []
    for path in files:
        if len(images) == count:
            break
        try:
            images.append(decode_image(path))
        except BadImage:
            continue
    if not images:
        raise ResnestError(f"--images {folder}: no usable images in it (looked for {', '.join(SUFFIXES)})")
    return Pictures(images, f"{len(images)} pictures of {folder}")
