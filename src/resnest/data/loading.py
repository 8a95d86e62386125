"""From samples to batches, in an order and with randomness that depend on the seed alone.

    for batch in training_batches(samples, settings, batch_size=64, seed=0, epoch=3, epochs=5):
        batch.images, batch.labels         # (N, 3, H, W) uint8, (N,)

The order of an epoch is f(seed, epoch) and a sample's augmentation f(seed, epoch, index, repeat), whatever the
number of worker processes. A file that cannot be used leaves its batch one shorter and is named in `batch.bad`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from resnest.data.order import step_batches
from resnest.data.samples import Samples
from resnest.data.settings import DataSettings
from resnest.runtime.decode import BadImage
from resnest.runtime.preprocess import Preprocess

Item = tuple[int, Tensor | BadImage, Any]  # index, image, label or labels


class Batch(NamedTuple):
    """What a loader yields; `bad` lists unusable files as (index, key, reason)."""

    images: Tensor  # (N, 3, H, W): uint8 to train on, normalised float32 to evaluate on
    labels: Tensor  # (N,) int64; multi-label: (N, K) float32, 0 or 1
    indices: Tensor  # (N,) into the samples
    bad: list[tuple[int, str, str]]


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


class seeded:
    """Within it, torch's CPU generator starts from the given whole numbers; afterwards it is as before.

    Gives the seed that it makes of them, for other generators.
    """

    def __init__(self, *numbers: int) -> None:
        self.seed = int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)

    def __enter__(self) -> int:
        self.before = torch.default_generator.get_state()
        torch.default_generator.manual_seed(self.seed)  # torch.manual_seed would wake up CUDA in a worker
        return self.seed

    def __exit__(self, *_: object) -> None:
        torch.default_generator.set_state(self.before)


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
) -> Iterator[Batch]:
    """This process's batches of one epoch from step `skip` on, `accumulate` of them a step (see `step_batches`)."""
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
    return _load(TrainingImages(samples, settings, seed, epoch, epochs), batches, settings.workers)


def evaluation_batches(
    samples: Samples,
    preprocess: Preprocess,
    *,
    batch_size: int,
    workers: int | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[Batch]:
    """Every sample once, in order, prepared as for prediction; of several processes each takes its turn, none twice."""
    mine = list(range(rank, len(samples), world_size))
    batches = [mine[start : start + batch_size] for start in range(0, len(mine), batch_size)]
    return _load(EvaluationImages(samples, preprocess), batches, workers)


def _load(dataset: Dataset[Any], batches: Sequence[Any], workers: int | None) -> Iterator[Batch]:
    count = min(default_workers() if workers is None else workers, len(batches))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create")  # more than cores: as was asked for
        loader: DataLoader[Any] = DataLoader(
            dataset,
            batch_sampler=batches,
            num_workers=count,
            collate_fn=_collate,
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
    images = _stack([image for _, image, _ in good]) if good else torch.empty(0, 3, 1, 1)
    labels = torch.from_numpy(np.array([label for _, _, label in good]))  # (N,), or (N, K) bool
    labels = labels.float() if labels.ndim == 2 else labels.long()
    return Batch(images, labels, torch.tensor([index for index, _, _ in good], dtype=torch.int64), bad)


def _stack(images: list[Tensor]) -> Tensor:
    """(N, 3, H, W) in the memory order of the images, so that no pixel is transposed."""
    if images[0].stride(0) != 1:
        return torch.stack(images)
    return torch.stack([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)  # (N, H, W, 3) in memory
