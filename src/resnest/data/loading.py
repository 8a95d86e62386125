"""Data loading: batches whose order and augmentation depend on the seed alone.

    for batch in training_batches(dataset, settings, batch_size=64, seed=0, epoch=3):
        batch.images, batch.labels         # (N, C, H, W) uint8, and what the task's dataset makes of targets
    for batch in evaluation_batches(samples, preprocess, batch_size=64):
        batch.prepared(samples), batch.truths

The order of an epoch is f(seed, epoch) and a sample's augmentation f(seed, epoch, index, repeat), whatever the
number of worker processes. A file that cannot be used leaves its batch one shorter and is named in `batch.bad`.
Workers are started for these batches and end with them, where they are not a run's (`loading`).
"""

from __future__ import annotations

import atexit
import os
import signal
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from resnest.data.long_tail import repeat_factors
from resnest.data.order import seeded, step_batches
from resnest.data.samples import Samples
from resnest.data.settings import DataSettings
from resnest.data.sharing import cannot_start, send_what_cannot_be_shared
from resnest.errors import ResnestError, one_line
from resnest.progress import say
from resnest.runtime.decode import BadImage
from resnest.runtime.engines.exported import Prepared
from resnest.runtime.preprocess import ImageTransform

Load = Callable[[str, Sequence[Any]], Iterator[Any]]  # of `loading`: name of a dataset, keys of each batch -> batches


class Batch(NamedTuple):
    """A batch of augmented images with their labels; `bad` lists unusable files as (index, key, reason)."""

    images: Tensor  # (N, C, H, W) uint8 of 0 to 255, or float32 of 0 to 1
    labels: Any  # by the task: (N,) int64, (N, K) float32, (N, H, W) uint8, a list of N targets
    indices: Tensor  # (N,) into the samples
    bad: list[tuple[int, str, str]]


class EvaluationBatch(NamedTuple):
    """A batch of preprocessed images with their ground truth; `bad` lists unusable files as (key, reason)."""

    pixels: Tensor  # (N, C, H, W) float32
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
    """(N, C, H, W) in the memory order of the images, so that no pixel is transposed."""
    if not images:
        return torch.empty(0, 3, 1, 1)
    images = of_one_type(images)
    if images[0].stride(0) != 1:
        return torch.stack(images)
    return torch.stack([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)  # (N, H, W, C) in memory


def of_one_type(images: list[Tensor]) -> list[Tensor]:
    """All as bytes, or all as floats of 0 to 1 where some are."""
    if len({image.dtype for image in images}) < 2:
        return images
    return [image.float() / 255 if image.dtype == torch.uint8 else image for image in images]


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """(N, C, H, W) uint8 of 0 to 255, or floats of 0 to 1 -> float32 in channels_last."""
    count, channels, height, width = images.shape
    rows = images.permute(0, 2, 3, 1).reshape(count * height, width * channels)  # long ones: twice as fast on a CPU
    means, stds = (torch.tensor(values, device=images.device).repeat(width) for values in (mean, std))
    units = rows.float().div_(255) if rows.dtype == torch.uint8 else rows.clone()
    normal = units.sub_(means).div_(stds)
    return normal.view(count, height, width, channels).permute(0, 3, 1, 2)


class TrainingDataset(Dataset[Any], ABC):
    """Augmented images of a task, by (epoch, index, repeat)."""

    def __init__(self, samples: Samples, *, seed: int) -> None:
        self.samples = samples
        self.seed = seed

    @abstractmethod
    def augment(self, index: int, epoch: int) -> tuple[Tensor, Any]:
        """Image `index`, (C, H, W) as `normalise` takes it, and its target, with torch's generator. Raises BadImage."""

    def stack_images(self, images: list[Tensor]) -> Tensor:
        """(N, C, H, W)."""
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
    load: Load | None = None,
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
        factors=_factors(dataset.samples, settings.repeat_threshold),
        repeats=settings.repeats,
    )
    pairs = order[skip:].reshape(-1, *order.shape[2:])  # (batches, images, 2): index, repeat
    keys = np.concatenate([np.full_like(pairs[..., :1], epoch), pairs], axis=-1)
    return _load("train", dataset, list(keys), load or settings.workers)


def _factors(samples: Samples, threshold: float) -> NDArray[np.float64] | None:
    return repeat_factors(*samples.marks(), len(samples), threshold) if threshold else None


class Example(NamedTuple):
    """A preprocessed image and its ground truth."""

    number: int  # among the samples
    pixels: Tensor  # (C, H, W)
    size: tuple[int, int]  # width, height of the picture
    truth: Any
    image: Image.Image | None


class EvaluationDataset(Dataset[Any]):
    """Preprocessed images with their ground truth, by index; without preprocessing the pixels are empty."""

    def __init__(self, samples: Samples, preprocess: ImageTransform | None, *, keep_images: bool = False) -> None:
        self.samples, self.preprocess, self.keep_images = samples, preprocess, keep_images

    def __getitem__(self, index: int) -> Example | tuple[int, BadImage]:
        try:
            image, truth = self.samples.example(index)
        except BadImage as error:
            return index, error
        try:
            pixels = torch.from_numpy(self.preprocess(image)) if self.preprocess else torch.empty(3, 0, 0)
        except BadImage as error:
            return index, BadImage(self.samples.keys[index], error.reason)
        return Example(index, pixels, image.size, truth, image if self.keep_images else None)

    def collate(self, items: list[Example | tuple[int, BadImage]]) -> EvaluationBatch:
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


def evaluation_batches(
    samples: Samples,
    preprocess: ImageTransform | None,
    *,
    batch_size: int,
    workers: int | Load | None = None,
    rank: int = 0,
    world_size: int = 1,
    keep_images: bool = False,
) -> Iterator[EvaluationBatch]:
    """Every sample once, preprocessed, in batches of a single padded shape.

    Of several processes each takes its turn, and no sample comes twice.

    Args:
        workers: how many, or those of `loading`, whose "val" is these samples.
        preprocess: none: batches have the pictures alone.
        keep_images: batches have the pictures themselves, too.
    """
    indices = shape_batches(samples, preprocess, batch_size=batch_size, rank=rank, world_size=world_size)
    dataset = EvaluationDataset(samples, preprocess, keep_images=keep_images)
    return _load("val", dataset, indices, workers)


def shape_batches(
    samples: Samples, preprocess: ImageTransform | None, *, batch_size: int, rank: int = 0, world_size: int = 1
) -> list[list[int]]:
    """Batches of one process, each of a single padded shape; every image occurs once over all processes."""
    sizes, shapes = samples.sizes() if preprocess else None, [(0, 0)] * len(samples)
    if preprocess and sizes is not None:
        shapes = [preprocess.padded_size(*size) for size in sizes.tolist()]
    order = sorted(zip(shapes, range(len(samples)), strict=True))
    groups = [[index for _, index in group] for _, group in groupby(order[rank::world_size], key=itemgetter(0))]
    return [group[start : start + batch_size] for group in groups for start in range(0, len(group), batch_size)]


@dataclass
class _Batches(Dataset[Any]):
    """Whole batches, by name of a dataset and keys."""

    datasets: dict[str, Any]

    def __getitem__(self, where: tuple[str, Sequence[Any]]) -> Any:
        dataset = self.datasets[where[0]]
        return dataset.collate([dataset[key] for key in where[1]])


@contextmanager
def loading(workers: int | None, most: int, *, advice: str = "use fewer of them", **datasets: Any) -> Iterator[Load]:
    """Passes over datasets by the same workers, `most` at most. Raises ResnestError: one of them died.

    A run's training and evaluation share them, as they never overlap: a set for each would be twice the processes.
    Where they cannot be started, this process loads.
    """
    batches: list[tuple[str, Any]] = []  # of the current pass
    count = min(default_workers() if workers is None else workers, most)
    if count and (problem := cannot_start(count)):
        say(problem)
        count = 0
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create")  # more than cores: as was asked for
        loader: DataLoader[Any] = DataLoader(
            _Batches(datasets),
            sampler=batches,
            num_workers=count,
            collate_fn=itemgetter(0),  # one item is a whole batch
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_quiet_worker,
            persistent_workers=count > 0,
        )
        started: Any = iter(loader)  # the workers, with nothing to do yet
    processes = started._workers if count else []

    def load(name: str, keys: Sequence[Any]) -> Iterator[Any]:
        batches[:] = [(name, batch) for batch in keys]
        yield from loader

    def close() -> None:
        if processes:
            started._shutdown_workers()  # private; else they stay until nothing holds the loader, as a traceback does
        for process in processes:
            process.kill()  # one that is still busy: it does not heed torch's SIGTERM
            process.join()

    atexit.register(close)  # where the caller has not left: multiprocessing would wait for them for ever
    try:
        yield load
    except RuntimeError as error:
        if all(process.is_alive() for process in processes):
            raise
        what = f"a data-loading worker died, perhaps out of memory ({one_line(error)})"
        raise ResnestError(f"{what}: {advice}") from error
    finally:
        close()
        atexit.unregister(close)


def _load(name: str, dataset: Any, keys: Sequence[Any], workers: int | Load | None) -> Iterator[Any]:
    own = nullcontext(workers) if callable(workers) else loading(workers, len(keys), **{name: dataset})
    with own as load:
        yield from load(name, keys)


def default_workers() -> int:
    """Data-loading workers of a process: one fewer than its share of the cores, at least one, at most eight."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - 1, 8))


def _quiet_worker(_: int) -> None:
    """Workers ignore stop signals, which the main process handles after its step, and use one thread."""
    send_what_cannot_be_shared()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)


def labels_to_tensor(labels: list[Any]) -> Tensor:
    """Class numbers (N,) int64, or multi-label targets (N, K) float32."""
    stacked: NDArray[Any] = np.array(labels)
    tensor = torch.from_numpy(stacked)
    return tensor.float() if tensor.ndim == 2 else tensor.long()
