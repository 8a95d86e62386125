"""Data loading: batches whose order and augmentation depend on the seed alone.

    for batch in training_batches(dataset, settings, batch_size=64, seed=0, epoch=3):
        batch.images, batch.labels         # (N, 3, H, W) uint8, and what the task's dataset makes of targets
    for batch in evaluation_batches(samples, preprocess, batch_size=64):
        batch.prepared(samples), batch.truths

The order of an epoch is f(seed, epoch) and a sample's augmentation f(seed, epoch, index, repeat), whatever the
number of worker processes. A file that cannot be used leaves its batch one shorter and is named in `batch.bad`.
"""

from __future__ import annotations

import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from resnest.data.order import seeded, step_batches
from resnest.data.samples import Samples
from resnest.data.settings import DataSettings
from resnest.runtime.decode import BadImage
from resnest.runtime.engines.engine import Prepared
from resnest.runtime.preprocess import ImageTransform


class Batch(NamedTuple):
    """A batch of augmented images with their labels; `bad` lists unusable files as (index, key, reason)."""

    images: Tensor  # (N, 3, H, W) uint8
    labels: Any  # by the task: (N,) int64, (N, K) float32, (N, H, W) uint8, a list of N targets
    indices: Tensor  # (N,) into the samples
    bad: list[tuple[int, str, str]]


class EvaluationBatch(NamedTuple):
    """A batch of preprocessed images with their ground truth; `bad` lists unusable files as (key, reason)."""

    pixels: Tensor  # (N, 3, H, W) float32
    indices: list[int]  # into the samples
    sizes: list[tuple[int, int]]  # width, height of the pictures
    truths: list[Any]
    images: list[Image.Image | None]
    bad: list[tuple[str, str]]

    def prepared(self, samples: Samples) -> list[Prepared]:
        """The input of a task's `predict`."""
        rows = zip(self.indices, self.pixels.numpy(), self.sizes, self.images, strict=True)
        return [Prepared(samples.keys[index], pixels, size, image) for index, pixels, size, image in rows]


def stack_images(images: list[Tensor]) -> Tensor:
    """(N, 3, H, W) in the memory order of the images, so that no pixel is transposed."""
    if not images:
        return torch.empty(0, 3, 1, 1)
    if images[0].stride(0) != 1:
        return torch.stack(images)
    return torch.stack([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)  # (N, H, W, 3) in memory


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """(N, 3, H, W) uint8 -> float32 in channels_last."""
    count, channels, height, width = images.shape
    rows = images.permute(0, 2, 3, 1).reshape(count * height, width * channels)  # long ones: twice as fast on a CPU
    means, stds = (torch.tensor(values, device=images.device).repeat(width) for values in (mean, std))
    normal = rows.float().div_(255).sub_(means).div_(stds)
    return normal.view(count, height, width, channels).permute(0, 3, 1, 2)


class TrainingDataset(Dataset[Any], ABC):
    """Augmented images of a task, by (epoch, index, repeat)."""

    def __init__(self, samples: Samples, *, seed: int) -> None:
        self.samples = samples
        self.seed = seed

    @abstractmethod
    def augment(self, index: int, epoch: int) -> tuple[Tensor, Any]:
        """Image `index`, (3, H, W) uint8, and its target, with torch's default generator. Raises BadImage."""

    def stack_images(self, images: list[Tensor]) -> Tensor:
        """(N, 3, H, W)."""
        return stack_images(images)

    @abstractmethod
    def stack_targets(self, targets: list[Any]) -> Any:
        """The labels of a batch."""

    def __getitem__(self, key: Sequence[int]) -> tuple[int, Tensor | BadImage, Any]:
        epoch, index, repeat = map(int, key)
        try:
            with seeded(self.seed, epoch, index, *([repeat] if repeat else [])):
                return index, *self.augment(index, epoch)
        except BadImage as error:
            return index, error, None

    def collate(self, items: list[tuple[int, Tensor | BadImage, Any]]) -> Batch:
        good = [(index, image, target) for index, image, target in items if isinstance(image, Tensor)]
        bad = [(index, error.name, error.reason) for index, error, _ in items if isinstance(error, BadImage)]
        return Batch(
            images=self.stack_images([image for _, image, _ in good]),
            labels=self.stack_targets([target for *_, target in good]),
            indices=torch.tensor([index for index, *_ in good], dtype=torch.int64),
            bad=bad,
        )


def training_batches(
    dataset: TrainingDataset,
    settings: DataSettings,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    skip: int = 0,
    accumulate: int = 1,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[Batch]:
    """This process's batches of one epoch from step `skip` on, `accumulate` of them per step (see `step_batches`)."""
    order = step_batches(
        len(dataset.samples),
        batch_size=batch_size,
        accumulate=accumulate,
        world_size=world_size,
        rank=rank,
        seed=seed,
        epoch=epoch,
        balance=settings.balance,
        groups=dataset.samples.groups() if settings.balance else None,
        repeats=settings.repeats,
    )
    pairs = order[skip:].reshape(-1, *order.shape[2:])  # (batches, images, 2): index, repeat
    keys = np.concatenate([np.full_like(pairs[..., :1], epoch), pairs], axis=-1)
    batches: Iterator[Batch] = _load(dataset, list(keys), settings.workers, dataset.collate)
    return batches


class Example(NamedTuple):
    """A preprocessed image and its ground truth."""

    number: int  # among the samples
    pixels: Tensor  # (3, H, W)
    size: tuple[int, int]  # width, height of the picture
    truth: Any
    image: Image.Image | None


class EvaluationDataset(Dataset[Any]):
    """Preprocessed images with their ground truth, by index."""

    def __init__(self, samples: Samples, preprocess: ImageTransform, *, keep_images: bool = False) -> None:
        self.samples, self.preprocess, self.keep_images = samples, preprocess, keep_images

    def __getitem__(self, index: int) -> Example | tuple[int, BadImage]:
        try:
            image, truth = self.samples.example(index)
        except BadImage as error:
            return index, error
        pixels = torch.from_numpy(self.preprocess(image))
        return Example(index, pixels, image.size, truth, image if self.keep_images else None)


def evaluation_batches(
    samples: Samples,
    preprocess: ImageTransform,
    *,
    batch_size: int,
    workers: int | None = None,
    rank: int = 0,
    world_size: int = 1,
    keep_images: bool = False,
) -> Iterator[EvaluationBatch]:
    """Every sample once, preprocessed, in batches of a single padded shape.

    Of several processes each takes its turn, and no sample comes twice.

    Args:
        keep_images: batches have the pictures themselves, too.
    """
    indices = shape_batches(samples, preprocess, batch_size=batch_size, rank=rank, world_size=world_size)
    dataset = EvaluationDataset(samples, preprocess, keep_images=keep_images)
    batches: Iterator[EvaluationBatch] = _load(dataset, indices, workers, _collate_examples)
    return batches


def shape_batches(
    samples: Samples, preprocess: ImageTransform, *, batch_size: int, rank: int = 0, world_size: int = 1
) -> list[list[int]]:
    """Batches of one process, each of a single padded shape; every image occurs once over all processes."""
    sizes = samples.sizes()
    by_shape: dict[tuple[int, int], list[int]] = {}
    if sizes is None:
        by_shape[0, 0] = list(range(len(samples)))
    else:
        for index, (width, height) in enumerate(sizes.tolist()):
            by_shape.setdefault(preprocess.padded_size(width, height), []).append(index)
    order = [(shape, index) for shape in sorted(by_shape) for index in by_shape[shape]]
    batches: list[list[int]] = []
    last = None
    for shape, index in order[rank::world_size]:
        if shape != last or len(batches[-1]) == batch_size:
            batches.append([])
        batches[-1].append(index)
        last = shape
    return batches


def _collate_examples(items: list[Example | tuple[int, BadImage]]) -> EvaluationBatch:
    good = [item for item in items if isinstance(item, Example)]
    bad = [(item[1].name, item[1].reason) for item in items if not isinstance(item, Example)]
    return EvaluationBatch(
        pixels=stack_images([item.pixels for item in good]),
        indices=[item.number for item in good],
        sizes=[item.size for item in good],
        truths=[item.truth for item in good],
        images=[item.image for item in good],
        bad=bad,
    )


def _load(dataset: Dataset[Any], keys: Sequence[Any], workers: int | None, collate: Callable[[list[Any]], Any]) -> Any:
    """An iterator over batches, by their keys."""
    count = min(default_workers() if workers is None else workers, len(keys))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create")  # more than cores: as was asked for
        loader: DataLoader[Any] = DataLoader(
            dataset,
            batch_sampler=keys,
            num_workers=count,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_quiet_worker if count else None,
        )
        return iter(loader)


def default_workers() -> int:
    """Data-loading workers: one per two cores, at most eight, over all processes of a run."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - 1, 8))


def _quiet_worker(_: int) -> None:
    """Workers ignore stop signals, which the main process handles after its step, and use one thread."""
    import signal

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)


def labels_to_tensor(labels: list[Any]) -> Tensor:
    """Class numbers (N,) int64, or multi-label targets (N, K) float32."""
    stacked: NDArray[Any] = np.array(labels)
    tensor = torch.from_numpy(stacked)
    return tensor.float() if tensor.ndim == 2 else tensor.long()
