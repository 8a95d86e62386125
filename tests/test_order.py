"""The order of an epoch (P2, P7): f(seed, epoch) alone, shared evenly, balanced and repeated as asked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from resnest.data.long_tail import repeat_factors
from resnest.data.order import epoch_order, epoch_steps, step_batches
from resnest.errors import ResnestError

FACTORS = np.repeat([1.0, 4.0], 50)
UNEVEN = np.repeat([0, 1, 2], [900, 90, 10])


def _steps(count: int = 100, **settings: Any) -> np.ndarray:
    return step_batches(count, **{"batch_size": 8, "seed": 0, "epoch": 0, **settings})


def _seen(parts: list[np.ndarray]) -> list[list[tuple[int, int]]]:
    """What each step sees over all parts, sorted."""
    steps = np.concatenate([part.reshape(len(part), -1, 2) for part in parts], axis=1)
    return [sorted(map(tuple, step.tolist())) for step in steps]


def test_the_order_is_that_of_a_seed_and_an_epoch() -> None:
    """A golden value: what runs saw before there was balance, repeats or accumulation must not move."""
    assert _steps(20)[..., 0].ravel().tolist() == np.random.default_rng((0, 0)).permutation(20)[:16].tolist()
    assert epoch_order(10, 0, 3).tolist() == np.random.default_rng((0, 3)).permutation(10).tolist()
    assert not np.array_equal(_steps(epoch=1), _steps(epoch=0))
    assert not np.array_equal(_steps(seed=1), _steps(seed=0))


@pytest.mark.parametrize(
    "more", [{}, {"repeats": 3}, {"balance": 0.5, "groups": np.arange(100) % 7 // 3}, {"factors": FACTORS}]
)
@pytest.mark.parametrize("ways", [(1, 1), (1, 4), (2, 2), (4, 1), (8, 1), (1, 8)])
def test_processes_and_micro_batches_share_one_step(ways: tuple[int, int], more: dict[str, Any]) -> None:
    world, accumulate = ways
    shared = {"batch_size": 32 // (world * accumulate), "world_size": world, "accumulate": accumulate}
    parts = [_steps(rank=rank, **shared, **more) for rank in range(world)]
    assert {part.shape for part in parts} == {(3, accumulate, 32 // (world * accumulate), 2)}
    assert _seen(parts) == _seen([_steps(batch_size=32, **more)])


@pytest.mark.parametrize(
    ("count", "settings", "expected"),
    [
        (20, {"batch_size": 8}, (2, 8)),
        (8, {"batch_size": 8}, (1, 8)),
        (5, {"batch_size": 8}, (1, 5)),
        (1, {"batch_size": 1}, (1, 1)),
        (40, {"batch_size": 8, "world_size": 4}, (1, 8)),
        (30, {"batch_size": 8, "world_size": 4}, (1, 7)),
        (30, {"batch_size": 8, "world_size": 2, "accumulate": 2}, (1, 7)),
        (8, {"batch_size": 64, "accumulate": 4}, (1, 2)),
    ],
)
def test_every_batch_has_the_same_size(count: int, settings: dict[str, int], expected: tuple[int, int]) -> None:
    assert epoch_steps(count, **settings) == expected
    for rank in range(settings.get("world_size", 1)):
        part = _steps(count, rank=rank, **settings)
        assert part.shape == (expected[0], settings.get("accumulate", 1), expected[1], 2)
        assert len(np.unique(part[..., 0])) == part[..., 0].size


@pytest.mark.parametrize(
    ("count", "settings", "message"),
    [
        (1, {}, r"1 training image\(s\): a batch needs two or more"),
        (7, {"world_size": 4}, "7 training images are too few for 4 processes, which need two each"),
        (15, {"world_size": 4, "accumulate": 2}, "too few for 4 processes of 2 micro-batches"),
        (3, {"batch_size": 1, "accumulate": 4}, "too few for 4 micro-batches"),
    ],
)
def test_too_few_to_share(count: int, settings: dict[str, int], message: str) -> None:
    with pytest.raises(ResnestError, match=message):
        _steps(count, **settings)


@pytest.mark.parametrize(
    ("balance", "expected"), [(0.0, [900, 90, 10]), (0.5, [703.6, 222.5, 74.2]), (1.0, [333.3, 333.3, 333.3])]
)
def test_balance_draws_classes_as_often_as_it_says(balance: float, expected: list[float]) -> None:
    for seed in range(5):
        order = epoch_order(1000, seed, 0, balance=balance, groups=UNEVEN)
        assert len(order) == 1000
        drawn = np.bincount(UNEVEN[order], minlength=3)
        assert np.abs(drawn - expected).max() < 1
        times = np.bincount(order, minlength=1000)
        for group in range(3):  # within a class nobody is favoured
            assert np.ptp(times[np.equal(UNEVEN, group)]) <= 1


def test_balance_reaches_everything_in_time() -> None:
    seen = {int(index) for epoch in range(20) for index in epoch_order(1000, 0, epoch, balance=1.0, groups=UNEVEN)}
    assert len(seen) == 1000


def test_repeat_factors_of_the_paper() -> None:
    """f = (1, 1e-3, 1e-5) at t = 1e-3: r = (1, 1, 10); an image has the largest of its classes, or 1 without any."""
    count = 100_000
    images = np.concatenate([np.arange(count - 1), np.arange(100), [50, 50, 999]])  # twice is once
    classes = np.concatenate([np.zeros(count - 1, int), np.ones(100, int), [2, 2, 0]])
    factors = repeat_factors(images, classes, count, 1e-3)
    assert factors[[0, 99, 200, count - 1]] == pytest.approx([1, 1, 1, 1], rel=1e-4)
    assert factors[50] == pytest.approx(10)
    assert (repeat_factors(images, classes, count, 1e-5) == 1).all()


def test_factors_are_rounded_at_random_in_each_epoch() -> None:
    factors = np.repeat([1.0, 1.7, 10.0], [80, 15, 5])
    expected = 100 * factors / factors.sum()
    epochs = np.stack([np.bincount(epoch_order(100, 3, e, factors=factors), minlength=100) for e in range(1000)])
    assert (epochs.sum(1) == 100).all()  # an epoch keeps its length
    assert ((epochs == np.floor(expected)) | (epochs == np.ceil(expected))).all()
    by_kind = [epochs[:, chosen].mean() for chosen in (factors == 1, factors == 1.7, factors == 10)]
    assert by_kind == pytest.approx(np.unique(expected), rel=0.01)


def test_an_image_drawn_again_gets_a_new_number() -> None:
    steps = _steps(1000, balance=1.0, groups=UNEVEN)
    pairs = list(map(tuple, steps.reshape(-1, 2).tolist()))
    assert len(set(pairs)) == len(pairs)
    rare = [repeat for index, repeat in pairs if index == 995]
    assert rare == list(range(len(rare)))
    assert len(rare) > 30


@pytest.mark.parametrize(("repeats", "batch_size"), [(2, 8), (3, 6), (4, 8), (3, 8)])
def test_repeats_stand_in_one_step(repeats: int, batch_size: int) -> None:
    steps = _steps(100, batch_size=batch_size, repeats=repeats).reshape(-1, batch_size, 2)
    assert len(steps) == 100 // batch_size  # an epoch keeps its length
    shown = [index for step in steps for index in set(step[:, 0].tolist())]
    assert len(shown) == len(set(shown))
    for step in steps:
        indices, times = np.unique(step[:, 0], return_counts=True)
        assert sorted(times.tolist(), reverse=True) == [repeats] * (batch_size // repeats) + [
            rest for rest in [batch_size % repeats] if rest
        ]
        assert all(
            sorted(step[step[:, 0] == index, 1]) == list(range(n)) for index, n in zip(indices, times, strict=True)
        )
