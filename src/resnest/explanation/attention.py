"""Split attention at work: which split each channel of every block used, in a picture and in the average of many.

    with recorded(net) as blocks:
        net(images)
    blocks[0].weights                      # (N, R, C): those of a channel add up to 1
    average_of(batches).compare(blocks)

A block without a choice has radix 1: its attention is a gate from 0 to 1 for each channel.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from resnest.network.split_attention import SplitAttention

Floats = NDArray[np.float32]


@dataclass(kw_only=True)
class Recorded:
    """The attention of one block in a batch."""

    name: str  # "layer1.0"
    radix: int
    cardinality: int
    weights: Floats  # (N, R, C)
    maps: Floats  # (N, R, h, w): each split's own map, the mean of its channels


@dataclass(frozen=True, kw_only=True)
class BlockAttention:
    """The attention of one block in one picture, beside an average."""

    name: str
    radix: int
    cardinality: int
    weights: Floats  # (R, C)
    maps: Floats  # (R, h, w)
    average: Floats | None = None  # (R, C) of the data
    average_entropy: float | None = None  # mean over the data's pictures
    unusual: float | None = None  # distance to the average, in those of the data's pictures: 1 is a usual picture

    @property
    def entropy(self) -> float:
        """How undecided channels are, their mean: 0, all use one split; 1, all use each equally."""
        return entropy(self.weights)

    @property
    def shares(self) -> list[float]:
        """Of channels, those with their largest weight in each split, (R,); of one split its mean gate."""
        if self.radix == 1:
            return [float(self.weights.mean())]
        return [
            float(share) for share in np.bincount(self.weights.argmax(0), minlength=self.radix) / self.weights[0].size
        ]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        content: dict[str, Any] = {
            "block": self.name,
            "radix": self.radix,
            "cardinality": self.cardinality,
            "entropy": None if math.isnan(self.entropy) else round(self.entropy, 6),
            "shares": [round(share, 6) for share in self.shares],
            "weights": [[round(float(weight), 4) for weight in row] for row in self.weights],
        }
        if self.average is not None:
            content |= {
                "average_weights": [[round(float(weight), 4) for weight in row] for row in self.average],
                "average_entropy": None if self.radix == 1 else round(float(self.average_entropy or 0), 6),
                "unusual": None if self.unusual is None else round(self.unusual, 4),
            }
        return content


def entropy(weights: Floats) -> float:
    """Mean entropy of the channels' weights (..., R, C), 0 to 1; NaN for one split, which has no choice."""
    radix = weights.shape[-2]
    if radix < 2:
        return math.nan
    shares = np.clip(weights.astype(np.float64), 1e-12, 1)
    return float(-(shares * np.log(shares)).sum(-2).mean() / math.log(radix))


@contextmanager
def recorded(net: nn.Module, prefix: str = "") -> Iterator[list[Recorded]]:
    """Within, each forward pass appends what its blocks did, in the network's order.

    Args:
        prefix: of modules' names, which blocks are called without.
    """
    found: list[Recorded] = []
    hooks = []
    for name, module in net.named_modules():
        if isinstance(module, SplitAttention):
            block = name.removeprefix(prefix).removesuffix(".conv2")
            hooks += _hooks(module, block, found)
    try:
        yield found
    finally:
        for handle in hooks:
            handle.remove()


def _hooks(module: SplitAttention, name: str, found: list[Recorded]) -> list[Any]:
    """The splits pass `relu` first, then `rsoftmax` gives their weights."""
    maps: list[Floats] = []

    def splits(_: nn.Module, inputs: Any, output: Tensor) -> None:  # (N, R*C, h, w), radix-major
        maps[:] = [output.detach().unflatten(1, (module.radix, -1)).mean(2).float().cpu().numpy()]

    def weights(_: nn.Module, inputs: Any, output: Tensor) -> None:  # (N, R*C, 1, 1)
        rows = output.detach().flatten(1).unflatten(1, (module.radix, -1)).float().cpu().numpy()
        own = {"radix": module.radix, "cardinality": module.cardinality}
        found.append(Recorded(name=name, weights=rows, maps=maps.pop(), **own))

    return [module.relu.register_forward_hook(splits), module.rsoftmax.register_forward_hook(weights)]


@dataclass(frozen=True, kw_only=True)
class Average:
    """The attention of a data set's pictures, by block."""

    count: int  # of pictures
    weights: Mapping[str, Floats]  # (R, C)
    entropies: Mapping[str, float]
    distances: Mapping[str, float]  # mean distance of a picture to the average


def average_of(batches: Iterable[Sequence[Recorded]]) -> Average:
    """The average of what `recorded` gave for each of some batches."""
    rows: dict[str, list[Floats]] = {}
    for blocks in batches:
        for block in blocks:
            rows.setdefault(block.name, []).append(block.weights)
    stacked = {name: np.concatenate(own) for name, own in rows.items()}  # (N, R, C)
    means = {name: own.mean(0) for name, own in stacked.items()}
    return Average(
        count=max(map(len, stacked.values()), default=0),
        weights=means,
        entropies={name: entropy(own) for name, own in stacked.items()},
        distances={name: float(np.abs(own - means[name]).mean()) for name, own in stacked.items()},
    )


def blocks_of(blocks: Sequence[Recorded], average: Average | None = None) -> tuple[BlockAttention, ...]:
    """The blocks of the first picture of a batch."""
    return tuple(_compared(block, average) for block in blocks)


def _compared(block: Recorded, average: Average | None) -> BlockAttention:
    own: dict[str, Any] = {"name": block.name, "radix": block.radix, "cardinality": block.cardinality}
    own |= {"weights": block.weights[0], "maps": block.maps[0]}
    if average is None:
        return BlockAttention(**own)
    mean, usual = average.weights[block.name], average.distances[block.name]
    distance = float(np.abs(block.weights[0] - mean).mean())
    return BlockAttention(
        **own,
        average=mean,
        average_entropy=average.entropies[block.name],
        unusual=distance / usual if usual > 1e-7 else None,  # all pictures alike, or one picture alone
    )
