"""Seeded order of images: those of every step of an epoch, the same on every machine.

    step_batches(9469, batch_size=64, seed=0, epoch=3)        # (147, 1, 64, 2): steps, micro-batches, images, ...

The last axis holds (index, repeat): `repeat` counts how often the epoch has shown that image before, so that a
repeated image is augmented anew. A step's images are chosen first and then shared out, so they are the same for any
number of processes and micro-batches that make up the same step.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from resnest.errors import ResnestError

Numbers = NDArray[np.int64]
Floats = NDArray[np.float64]


def step_batches(
    count: int,
    *,
    batch_size: int,
    accumulate: int = 1,
    world_size: int = 1,
    rank: int = 0,
    seed: int,
    epoch: int,
    balance: float = 0.0,
    groups: Numbers | None = None,
    factors: Floats | None = None,
    repeats: int = 1,
) -> Numbers:
    """The images of one process in an epoch: (steps, accumulate, images, 2), the last axis (index, repeat).

    Args:
        batch_size: images of a micro-batch of one process.
        accumulate: micro-batches that make up a step.
        balance: 0 draws images as they are, 1 every group equally often, 0.5 by the square root of its size.
        groups: (count,) what `balance` evens out, as a rule the class of each image.
        factors: (count,) how often each image is drawn in relation to the others, in place of `balance`.
        repeats: how often an image occurs in its step (repeated augmentation, arXiv 1901.09335). An epoch keeps its
            length and so sees one in `repeats` of the images: the first of its order, and others in the next epoch.
            (timm's sampler instead cuts the repeated order anywhere, and rounds an epoch to 256 images.)

    Raises:
        ResnestError: fewer images than processes and micro-batches need.
    """
    steps, per_batch = epoch_steps(count, batch_size=batch_size, accumulate=accumulate, world_size=world_size)
    per_step = accumulate * per_batch * world_size  # images of a step
    different = -(-per_step // repeats)  # if it does not divide, a step's last image occurs less often
    drawn = epoch_order(count, seed, epoch, draws=steps * different, balance=balance, groups=groups, factors=factors)
    order = drawn.reshape(steps, different).repeat(repeats, axis=1)[:, :per_step]
    pairs = np.stack([order, _occurrences(order)], axis=-1)  # (steps, per_step, 2)
    return pairs.reshape(steps, accumulate, per_batch, world_size, 2)[:, :, :, rank]


def epoch_steps(count: int, *, batch_size: int, accumulate: int = 1, world_size: int = 1) -> tuple[int, int]:
    """Steps of an epoch, and images per process in each micro-batch.

    What is left over after the last full step is dropped. Where there are fewer images than one step takes, the step
    is smaller: every micro-batch of every process gets the same number, two or more.

    >>> epoch_steps(100, batch_size=16), epoch_steps(10, batch_size=16), epoch_steps(10, batch_size=16, world_size=4)
    ((6, 16), (1, 10), (1, 2))

    Raises:
        ResnestError: not even that.
    """
    parts = accumulate * world_size
    if count >= batch_size * parts:
        return count // (batch_size * parts), batch_size
    if count // parts < min(2, batch_size):
        ways = [f"{world_size} processes"] * (world_size > 1) + [f"{accumulate} micro-batches"] * (accumulate > 1)
        if not ways:
            raise ResnestError(f"{count} training image(s): a batch needs two or more")
        raise ResnestError(
            f"{count} training images are too few for {' of '.join(ways)}, which need two each:"
            " use fewer of them, or more images"
        )
    return 1, count // parts


def epoch_order(
    count: int,
    seed: int,
    epoch: int,
    *,
    draws: int | None = None,
    balance: float = 0.0,
    groups: Numbers | None = None,
    factors: Floats | None = None,
) -> Numbers:
    """The images of an epoch in order: `draws` of `count`, (draws,). Drawn evenly, no image occurs twice."""
    rng = np.random.default_rng((seed, epoch))
    draws = count if draws is None else draws
    if factors is not None:
        return rng.permutation(_draw(rng.permutation(count), factors, draws, rng))
    if balance == 0 or groups is None:
        return rng.permutation(count)[:draws]
    mixed = rng.permutation(count)
    indices = mixed[np.argsort(groups[mixed], kind="stable")]  # group by group, mixed within each
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    weights = (sizes[group] ** -float(balance)).astype(np.float64)  # size ** (1 - balance) / size
    return rng.permutation(_draw(indices, weights, draws, rng))


def _draw(indices: Numbers, weights: Floats, draws: int, rng: np.random.Generator) -> Numbers:
    """Indices, (draws,), in proportion to their weights, (count,).

    Systematic sampling: of each image, and of each run of images, the number drawn is its expected number, rounded up
    or down at random.
    """
    ends = np.cumsum(weights[indices])
    points = (np.arange(draws) + rng.random()) * (ends[-1] / draws)
    drawn: Numbers = indices[np.minimum(np.searchsorted(ends, points, side="right"), len(indices) - 1)]
    return drawn


def _occurrences(order: Numbers) -> Numbers:
    """The number of earlier occurrences of each entry: [7, 3, 7] -> [0, 0, 1], of the same shape."""
    flat = order.ravel()
    by_value = np.argsort(flat, kind="stable")
    _, first, sizes = np.unique(flat[by_value], return_index=True, return_counts=True)
    before = np.empty_like(flat)
    before[by_value] = np.arange(len(flat)) - np.repeat(first, sizes)
    return before.reshape(order.shape)


class seeded:
    """Seeds torch's CPU generator within the block and restores it afterwards.

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


def random_int(count: int) -> int:
    """A random integer from 0 to count - 1, by torch's generator, which `seeded` sets."""
    return int(torch.randint(count, ()))
