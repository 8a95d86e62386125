"""From samples to batches, in an order and with randomness that depend on the seed alone.

    for batch in training_batches(samples, settings, batch_size=64, seed=0, epoch=3, epochs=5):
        batch.images, batch.labels         # (N, 3, H, W) uint8, (N,)

The order of an epoch is f(seed, epoch) and a sample's augmentation f(seed, epoch, index, repeat), whatever the
number of worker processes. A file that cannot be used leaves its batch one shorter and is named in `batch.bad`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from resnest.data.batch import Batch as Batch
from resnest.data.batch import stack_images
from resnest.data.detection import DetectionSamples
from resnest.data.detection_batches import EvaluationScenes, TrainingScenes, collate_scenes, evaluation_places
from resnest.data.order import step_batches
from resnest.data.pixel_batches import EvaluationPixels, TrainingPixels, collate_pixels, collate_truth
from resnest.data.pixels import PixelSamples
from resnest.data.samples import Samples
from resnest.data.seeding import seeded as seeded
from resnest.data.settings import DataSettings, DetectionSettings, SegmentationSettings
from resnest.errors import ResnestError
from resnest.runtime.decode import BadImage
from resnest.runtime.preprocess import AnyPreprocess, DetectionPreprocess, Preprocess, SegmentationPreprocess

Item = tuple[int, Tensor | BadImage, Any]  # index, image, label or labels


class TrainingImages(Dataset[Any]):
    """Augmented images of one epoch, by (index, repeat)."""

    def __init__(self, samples: Samples, settings: DataSettings, seed: int, epoch: int, epochs: int) -> None:
        from resnest.data.transforms import training_transform  # torchvision, which evaluation can do without

        self.samples = samples
        self.seed = (seed, epoch)
        self.transform = training_transform(settings, settings.size_at(epoch, epochs))

    def __getitem__(self, place: Sequence[int]) -> Item:
        index, repeat = map(int, place)
        try:
            with seeded(*self.seed, index, *([repeat] if repeat else [])):
                image = self.transform(self.samples.read(index), self.samples.keys[index])
        except BadImage as error:
            return index, error, 0
        return index, image, self.samples.labels[index]


class EvaluationImages(Dataset[Any]):
    """Images as prediction sees them."""

    def __init__(self, samples: Samples, preprocess: Preprocess) -> None:
        self.samples = samples
        self.preprocess = preprocess

    def __getitem__(self, index: int) -> Item:
        try:
            image = self.samples.decode(index)
        except BadImage as error:
            return index, error, 0
        return index, torch.from_numpy(self.preprocess(image)), self.samples.labels[index]


def training_batches(
    samples: Samples,
    settings: DataSettings,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    epochs: int,
    skip: int = 0,
    accumulate: int = 1,
    rank: int = 0,
    world_size: int = 1,
    detection: DetectionSettings | None = None,
    masks: bool = False,
    segmentation: SegmentationSettings | None = None,
) -> Iterator[Batch]:
    """This process's batches of one epoch from step `skip` on, `accumulate` of them a step (see `step_batches`).

    Args:
        detection: with `DetectionSamples`, as their `trainable()` gives them: labels are then a list of `Target`s.
        masks: targets have masks.
        segmentation: with `PixelSamples`: labels are then (N, H, W) uint8, 255 for pixels that do not count.
    """
    order = step_batches(
        len(samples),
        batch_size=batch_size,
        accumulate=accumulate,
        world_size=world_size,
        rank=rank,
        seed=seed,
        epoch=epoch,
        balance=settings.balance,
        groups=samples.groups() if settings.balance else None,
        repeats=settings.repeats,
    )
    batches = list(order[skip:].reshape(-1, *order.shape[2:]))  # each (images, 2)
    if isinstance(samples, DetectionSamples):
        if detection is None:
            raise ResnestError("this data has objects to detect: a recipe for a detector is needed")
        scenes = TrainingScenes(samples, settings, detection, masks=masks, seed=seed, epoch=epoch)
        return _load(scenes, batches, settings.workers, collate_scenes)
    if isinstance(samples, PixelSamples):
        if segmentation is None:
            raise ResnestError("this data has masks: a recipe for a segmenter is needed")
        if settings.balance:
            raise ResnestError(
                f"data.balance={settings.balance}: what a mask shows is not known before it is read. Set data.balance=0"
            )
        pixels = TrainingPixels(samples, settings, segmentation, seed=seed, epoch=epoch)
        return _load(pixels, batches, settings.workers, collate_pixels)
    return _load(TrainingImages(samples, settings, seed, epoch, epochs), batches, settings.workers)


def evaluation_batches(
    samples: Samples,
    preprocess: AnyPreprocess,
    *,
    batch_size: int,
    workers: int | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[Batch]:
    """Every sample once, in order, prepared as for prediction; of several processes each takes its turn, none twice.

    With a `DetectionPreprocess` or a `SegmentationPreprocess`, images of one padded shape at a time; the labels of the
    latter are a list of (H, W) uint8 masks, each in its picture's own size.
    """
    share = {"rank": rank, "world_size": world_size}
    if isinstance(preprocess, DetectionPreprocess):
        if not isinstance(samples, DetectionSamples):
            raise ResnestError("a detector is evaluated on images with boxes: this data has classes only")
        places = evaluation_places(samples.objects.sizes, preprocess, batch_size=batch_size, **share)
        return _load(EvaluationScenes(samples, preprocess), places, workers, collate_scenes)
    if isinstance(preprocess, SegmentationPreprocess):
        if not isinstance(samples, PixelSamples):
            raise ResnestError("a segmenter is evaluated on images with masks: this data has none")
        places = evaluation_places(samples.sizes(), preprocess, batch_size=batch_size, **share)
        return _load(EvaluationPixels(samples, preprocess), places, workers, collate_truth)
    mine = list(range(rank, len(samples), world_size))
    batches = [mine[start : start + batch_size] for start in range(0, len(mine), batch_size)]
    return _load(EvaluationImages(samples, preprocess), batches, workers)


def _load(
    dataset: Dataset[Any],
    batches: Sequence[Any],
    workers: int | None,
    collate: Callable[[list[Any]], Batch] | None = None,
) -> Iterator[Batch]:
    count = min(default_workers() if workers is None else workers, len(batches))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create")  # more than cores: as was asked for
        loader: DataLoader[Any] = DataLoader(
            dataset,
            batch_sampler=batches,
            num_workers=count,
            collate_fn=collate or _collate,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_quiet_worker if count else None,
        )
        return iter(loader)


def default_workers() -> int:
    """One process on two cores, where the network wants the rest; at most eight. Processes of one run share cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - 1, 8))


def _quiet_worker(_: int) -> None:
    """Leave requests to stop to the main process, which finishes its step first, and the cores to the others."""
    import signal

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)


def _collate(items: list[Item]) -> Batch:
    good = [(index, image, label) for index, image, label in items if isinstance(image, Tensor)]
    bad = [(index, error.name, error.reason) for index, error, _ in items if isinstance(error, BadImage)]
    images = stack_images([image for _, image, _ in good]) if good else torch.empty(0, 3, 1, 1)
    labels = torch.from_numpy(np.array([label for _, _, label in good]))  # (N,), or (N, K) bool
    labels = labels.float() if labels.ndim == 2 else labels.long()
    return Batch(images, labels, torch.tensor([index for index, _, _ in good], dtype=torch.int64), bad)
