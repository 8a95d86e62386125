"""Pictures for export: to compare a network and its file on, to calibrate int8, to see what int8 costs.

    calibration, held_back = find_photos("photos", model)
    for images, labels in held_back.batches(model.card): ...

Labelled pictures, in any data format, measure accuracy; others, how often int8 and float predict the same label.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.data.listing import is_bands_start, list_images
from resnest.data.samples import Samples
from resnest.data.sources import open_dataset, open_split
from resnest.data.splitting import Holdout
from resnest.errors import ResnestError, parameter
from resnest.inference.evaluation import exif_of_run
from resnest.inference.model import Model, provenance_of
from resnest.runtime.bands import RGB, Bands, read_picture
from resnest.runtime.card import ModelCard
from resnest.runtime.decode import BadImage
from resnest.runtime.raster import Raster
from resnest.tasks import check_task

# --- Pictures to compare a network and its export on: real ones if there are any, else seeded synthetic ones ---

COUNT = 64  # promise P15
BATCH = 8
SEED = 0

Read = Callable[[], Image.Image]


@dataclass(frozen=True)
class Pictures:
    """Decoded images, and what they are, for a report."""

    images: Sequence[Image.Image]
    kind: str  # "pictures of photos"
    real: bool = True  # of a folder or a data set, not drawn


def pixels(card: ModelCard, image: Image.Image) -> NDArray[np.float32]:
    """Preprocessed, (C, size, size)."""
    return np.ascontiguousarray(card.preprocess(image))


def synthetic(count: int = COUNT, bands: Bands = RGB) -> Pictures:
    """Soft coloured shapes with some grain, always the same; for other channels than three they are repeated."""
    rng = np.random.default_rng(SEED)
    images = []
    for _ in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
        smooth = np.asarray(coarse.resize((320, 240), Image.Resampling.BICUBIC), np.float32)
        grainy = smooth + rng.normal(0, 8, smooth.shape)
        images.append(_with_bands(grainy.clip(0, 255).astype(np.uint8), bands))
    return Pictures(images, "synthetic pictures", real=False)


def _with_bands(colours: NDArray[np.uint8], bands: Bands) -> Image.Image:
    """A picture as a model takes it, from (H, W, 3)."""
    if bands.plain:
        return Image.fromarray(colours)
    pixels = colours[..., [channel % 3 for channel in range(bands.channels)]]
    return Raster.of(pixels if bands.value_range is None else pixels * np.float32(bands.value_range / 255))


def find_pictures(where: str | Path, count: int = COUNT, bands: Bands = RGB) -> Pictures:
    """Some images of a folder or a data set of any format, always the same; unusable ones are skipped.

    If a data set has splits, they come from its validation split.

    Raises:
        ResnestError: nothing there, or no usable image in it.
    """
    images, there = usable_pictures(where, count, bands)
    if not images:
        raise ResnestError(f"{parameter('images', where)}: none of its {there} images can be used")
    return Pictures(images, f"pictures of {where}")


def usable_pictures(where: str | Path, count: int, bands: Bands) -> tuple[list[Image.Image], int]:
    """The images of `find_pictures`, perhaps none, and how many images are there. Raises ResnestError: nothing is."""
    reads = _in_folder(Path(where), bands) or _in_data_set(where, bands)
    random.Random(SEED).shuffle(reads)
    images: list[Image.Image] = []
    for read in reads:
        if len(images) == count:
            break
        with contextlib.suppress(BadImage):
            images.append(read())
    return images, len(reads)


def _in_folder(folder: Path, bands: Bands) -> list[Read]:
    """Pictures in a folder, with or without class folders."""
    return [partial(read_picture, folder / name, bands) for name in _images(folder)]


def _images(folder: Path) -> list[str]:
    return list_images(folder, is_bands_start).without_arrays().images if folder.is_dir() else []


def _in_data_set(where: str | Path, bands: Bands) -> list[Read]:
    samples = open_split(where, bands=bands).samples
    return [partial(samples.decode, index) for index in range(len(samples))]


# Ranges settle within a few hundred images (docs/int8.md). Of 100 held out, one is a point of accuracy.
LEAST_CALIBRATION, MOST_CALIBRATION = 32, 256
LEAST_HELD_BACK, MOST_HELD_BACK = 100, 2000


@dataclass
class Photos:
    """Pictures in a seeded order, with their labels if they have any."""

    reads: Sequence[Read]
    labels: NDArray[np.int64] | None = None  # (N,), as the model numbers its classes
    bad: list[str] = field(default_factory=list)  # why some were passed over, once they were read

    def batches(self, card: ModelCard, size: int = 8) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        """Preprocessed images and their labels (-1 without); unusable images are skipped."""
        images, labels = [], []
        self.bad = []
        for index, read in enumerate(self.reads):
            try:
                images.append(pixels(card, read()))
            except BadImage as error:
                self.bad.append(str(error))
                continue
            labels.append(-1 if self.labels is None else int(self.labels[index]))
            if len(images) == size:
                yield np.stack(images), np.array(labels)
                images, labels = [], []
        if images:
            yield np.stack(images), np.array(labels)


def find_photos(where: str | Path, model: Model) -> tuple[Photos, Photos]:
    """Disjoint pictures for calibration and the hold-out set.

    The splits of data that has them, the run's own splits of its training data, or else two halves.

    Raises:
        ResnestError: nothing there, or too few of them.
    """
    sets = _labelled(where, model) or _unlabelled(Path(where), model.card.bands)
    calibration, held_back = (_some(*pair) for pair in zip(sets, (MOST_CALIBRATION, MOST_HELD_BACK), strict=True))
    check_enough(where, len(calibration.reads), len(held_back.reads))
    return calibration, held_back


def check_enough(where: str | Path, calibration: int, held_back: int) -> None:
    """Raises ResnestError if there are too few for reliable ranges or accuracy."""
    if calibration < LEAST_CALIBRATION or held_back < LEAST_HELD_BACK:
        raise ResnestError(
            f"{parameter('photos', where)}: {calibration} usable images to calibrate on and {held_back} held out are"
            f" too few; it takes {LEAST_CALIBRATION} and {LEAST_HELD_BACK}, to tell a loss of one point from none"
        )


def _labelled(where: str | Path, model: Model) -> tuple[Photos, Photos] | None:
    """The samples of a data set; unlabelled, if its classes are not the model's."""
    if _has_no_classes(Path(where)):
        return None
    rule = _split(where, model)
    splits = open_dataset(
        where,
        val_fraction=rule.fraction,
        seed=rule.seed,
        group=rule.group,
        fold=rule.fold,
        exif=exif_of_run(Path(model.source)),
        bands=model.card.bands,
    )
    try:
        for samples in (splits.train, splits.val):
            check_task(samples, model.card.task, str(where), "the model")
        train, val = (samples.aligned(model.card, str(where)) for samples in (splits.train, splits.val))
    except ResnestError:
        return _photos(splits.train, labelled=False), _photos(splits.val, labelled=False)
    labelled = not model.card.multi_label  # type: ignore[attr-defined]
    return _photos(train, labelled=labelled), _photos(val, labelled=labelled)


def _split(where: str | Path, model: Model) -> Holdout:
    """What training held out, if this may be its data; else one half."""
    data = provenance_of(Path(model.source)).get("data")
    may_be = data in (None, str(where), str(Path(where).resolve()))
    return model.holdout if model.holdout and may_be else Holdout(0.5, SEED)


def _has_no_classes(folder: Path) -> bool:
    """Whether a folder has pictures in it, but no class folders."""
    images = _images(folder)
    return bool(images) and not any("/" in name for name in images)


def _unlabelled(folder: Path, bands: Bands) -> tuple[Photos, Photos]:
    files = np.random.default_rng(SEED).permutation(np.array(_images(folder), object))
    halves = files[: len(files) // 2], files[len(files) // 2 :]
    first, second = (Photos([partial(read_picture, folder / name, bands) for name in half]) for half in halves)
    return first, second


def _photos(samples: Samples, *, labelled: bool) -> Photos:
    reads = [partial(samples.decode, index) for index in range(len(samples))]
    return Photos(reads, np.asarray(samples.labels, np.int64) if labelled else None)  # type: ignore[attr-defined]


def _some(photos: Photos, most: int) -> Photos:
    order = np.random.default_rng(SEED).permutation(len(photos.reads))[:most]
    labels = None if photos.labels is None else photos.labels[order]
    return Photos([photos.reads[index] for index in order], labels)
