"""Batches (P2, P11): order and augmentation depend on the seed alone, unusable files are left out and named."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from resnest.classification.dataset import ClassificationDataset
from resnest.data.loading import evaluation_batches, training_batches
from resnest.data.order import seeded
from resnest.data.settings import DataSettings
from resnest.data.sources import open_dataset
from resnest.runtime.preprocess import Preprocess

VARIED = DataSettings(size=16, augment="trivial", jitter=0.3, shift=0.1)


def _dataset(samples: Any, settings: DataSettings) -> ClassificationDataset:
    return ClassificationDataset(samples, settings, seed=0, epochs=1)


def _hashes(photos: Path, *, workers: int, epoch: int = 0, seed: int = 0, skip: int = 0) -> list[str]:
    samples = open_dataset(photos).train
    settings = DataSettings(size=16, augment="trivial", jitter=0.3, shift=0.1, workers=workers)
    batches = training_batches(
        ClassificationDataset(samples, settings, seed=seed, epochs=2),
        settings,
        batch_size=8,
        seed=seed,
        epoch=epoch,
        skip=skip,
    )
    return [
        hashlib.sha256(batch.images.numpy().tobytes() + batch.labels.numpy().tobytes()).hexdigest() for batch in batches
    ]


def test_workers_change_nothing(photos: Path) -> None:
    alone = _hashes(photos, workers=0)
    assert alone == _hashes(photos, workers=2)
    assert len(alone) == 4


def test_epochs_and_seeds_differ(photos: Path) -> None:
    runs = [_hashes(photos, workers=0, epoch=epoch, seed=seed) for epoch, seed in ((0, 0), (1, 0), (0, 1))]
    assert len({tuple(run) for run in runs}) == 3


def test_skipping_gives_the_rest(photos: Path) -> None:
    assert _hashes(photos, workers=0, skip=2) == _hashes(photos, workers=0)[2:]


def test_ranks_share_a_batch(photos: Path) -> None:
    samples = open_dataset(photos).train
    together = next(training_batches(_dataset(samples, VARIED), VARIED, batch_size=8, seed=0, epoch=0))
    parts = [
        next(
            training_batches(_dataset(samples, VARIED), VARIED, batch_size=4, seed=0, epoch=0, rank=rank, world_size=2)
        )
        for rank in (0, 1)
    ]
    assert sorted(torch.cat([part.indices for part in parts]).tolist()) == sorted(together.indices.tolist())


def test_accumulated_batches_are_a_step_of_one(photos: Path) -> None:
    samples = open_dataset(photos).train
    whole = list(training_batches(_dataset(samples, VARIED), VARIED, batch_size=8, seed=0, epoch=0, skip=1))
    parts = list(
        training_batches(_dataset(samples, VARIED), VARIED, batch_size=2, accumulate=4, seed=0, epoch=0, skip=1)
    )
    assert [len(part.labels) for part in parts] == [2] * 4 * len(whole)
    for number, batch in enumerate(whole):
        assert torch.equal(torch.cat([part.images for part in parts[4 * number : 4 * number + 4]]), batch.images)


def test_repeats_are_augmented_anew_and_the_first_as_before(photos: Path) -> None:
    samples = open_dataset(photos).train
    data = dataclasses.replace(VARIED, repeats=4)
    once, often = (
        {
            (int(index), number): image
            for batch in training_batches(_dataset(samples, settings), settings, batch_size=8, seed=0, epoch=0)
            for number, (index, image) in enumerate(zip(batch.indices, batch.images, strict=True))
        }
        for settings in (VARIED, data)
    )
    first = {index: image for (index, _), image in once.items()}
    for index in {index for index, _ in often}:
        copies = [image for (other, _), image in often.items() if other == index]
        assert len({image.numpy().tobytes() for image in copies}) == 4
        assert index not in first or torch.equal(copies[0], first[index])


def test_evaluation_sees_every_sample_once_in_order(photos: Path) -> None:
    samples = open_dataset(photos).train
    batches = list(evaluation_batches(samples, Preprocess(size=16), batch_size=7, workers=0))
    assert [index for batch in batches for index in batch.indices] == list(range(len(samples)))
    expected = Preprocess(size=16)(samples.decode(0))
    assert np.array_equal(batches[0].pixels[0].numpy(), expected)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_file_shortens_its_batch(photos: Path, workers: int) -> None:
    samples = open_dataset(photos).train
    (photos / samples.keys[3]).write_bytes(b"")
    batches = list(evaluation_batches(samples, Preprocess(size=16), batch_size=8, workers=workers))
    assert batches[0].bad == [(samples.keys[3], "empty file")]
    assert 3 not in batches[0].indices
    assert len(batches[0].truths) == 7


def test_a_bad_file_shortens_a_training_batch_too(photos: Path) -> None:
    samples = open_dataset(photos).train
    path = photos / samples.keys[3]
    path.write_bytes(path.read_bytes()[:200])
    batches = list(training_batches(_dataset(samples, VARIED), VARIED, batch_size=len(samples), seed=0, epoch=0))
    assert [(index, key) for index, key, _ in batches[0].bad] == [(3, samples.keys[3])]
    assert sorted(batches[0].indices.tolist()) == [index for index in range(len(samples)) if index != 3]


def test_a_batch_without_any_usable_file(photos: Path) -> None:
    samples = open_dataset(photos).train
    (photos / samples.keys[0]).write_bytes(b"x")
    first = next(evaluation_batches(samples, Preprocess(size=16), batch_size=1, workers=0))
    assert len(first.truths) == 0
    assert len(first.bad) == 1


def test_seeded_leaves_the_generator_as_it_was() -> None:
    before = torch.get_rng_state()
    with seeded(1, 2):
        inside = torch.rand(3)
    with seeded(1, 2):
        assert torch.equal(torch.rand(3), inside)
    assert torch.equal(torch.get_rng_state(), before)
