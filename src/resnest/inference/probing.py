"""Classes read off features: k nearest neighbours, and a linear probe.

scores = neighbour_scores(queries, bank, labels, classes)           # (Q, K)
probe = LinearProbe.fit(bank, labels, classes)
scores = probe(queries)                                             # (Q, K) probabilities
scores = out_of_sample(rows, labels, classes, folds=5)              # (N, K), each row by a probe that never saw it
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from resnest.errors import ResnestError
from resnest.runtime.embedding import Features, nearest

NEIGHBOURS = 20  # DINO's best k of 10, 20, 100, 200 (arXiv 2104.14294, appendix: k-NN classification)
TEMPERATURE = 0.07  # of the votes (Wu et al., arXiv 1805.01978, section 3.4; DINO has the same)
# Of the probe on standardised features, by the mean loss. On 1,966 photographs of ten classes, with 5 % of the labels
# flipped, it agreed with 81.1 % of the right labels at 0.01, with 83.7 % at 0.3, and with 84.0 % at 1
WEIGHT_DECAY = 0.3
STEPS = 100  # of L-BFGS: the loss changes no more
Labels = NDArray[np.int64]


def neighbour_scores(
    queries: Features,
    bank: Features,
    labels: Labels,
    classes: int,
    *,
    neighbours: int = NEIGHBOURS,
    temperature: float = TEMPERATURE,
) -> NDArray[np.float64]:
    """Shares of the votes of the nearest neighbours, each with weight exp(cosine / temperature): (Q, K).

    Args:
        queries, bank: (Q, D) and (M, D), rows of length 1.
        labels: (M,) of the bank.
    """
    numbers, cosines = nearest(queries, bank, neighbours)
    weights = np.exp((cosines.astype(np.float64) - cosines.max(1, keepdims=True)) / temperature)  # (Q, k)
    scores = np.zeros((len(queries), classes))
    rows = np.repeat(np.arange(len(queries)), numbers.shape[1])
    np.add.at(scores, (rows, labels[numbers].ravel()), weights.ravel())
    return scores / scores.sum(1, keepdims=True)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class LinearProbe:
    """Multinomial logistic regression on standardised features."""

    mean: Tensor  # (D,)
    std: Tensor  # (D,)
    weight: Tensor  # (K, D)
    bias: Tensor  # (K,)

    @classmethod
    def fit(cls, rows: Features, labels: Labels, classes: int, *, decay: float = WEIGHT_DECAY) -> LinearProbe:
        """Fit it to (N, D) and (N,); the same rows give the same probe.

        Args:
            decay: half of it times the squared weights is added to the mean loss.
        """
        features, targets = torch.from_numpy(np.ascontiguousarray(rows, np.float32)), torch.from_numpy(labels)
        mean, std = features.mean(0), features.std(0, correction=0).clamp_min(1e-6)
        features = (features - mean) / std
        weight = torch.zeros(classes, features.shape[1], requires_grad=True)
        bias = torch.zeros(classes, requires_grad=True)
        optimiser = torch.optim.LBFGS([weight, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimiser.zero_grad()
            value = torch.nn.functional.cross_entropy(features @ weight.T + bias, targets)
            value = value + 0.5 * decay * weight.square().sum()
            value.backward()
            return value

        optimiser.step(loss)
        return cls(mean, std, weight.detach(), bias.detach())

    def __call__(self, rows: Features) -> NDArray[np.float64]:
        """Probabilities, (N, K)."""
        features = (torch.from_numpy(np.ascontiguousarray(rows, np.float32)) - self.mean) / self.std
        logits = (features @ self.weight.T + self.bias).double()
        probabilities: NDArray[np.float64] = logits.softmax(1).numpy()
        return probabilities


def out_of_sample(
    rows: Features, labels: Labels, classes: int, *, folds: int = 5, seed: int = 0, groups: Any = None
) -> NDArray[np.float64]:
    """Probabilities of each row by a probe that was fitted to the other folds, (N, K).

    Args:
        groups: (N,) numbers; rows of one group, such as copies of a picture, are in one fold. None: each row alone.

    Raises:
        ResnestError: fewer rows, or groups, than folds, or than classes.
    """
    units = np.arange(len(rows)) if groups is None else np.unique(groups, return_inverse=True)[1]
    count = int(units.max(initial=-1)) + 1
    if count < max(folds, classes):
        raise ResnestError(
            f"{count} pictures are too few to look for label errors among {classes} classes: it takes"
            f" {max(folds, classes)} or more that differ"
        )
    order = np.random.default_rng(seed).permutation(count)
    first = np.zeros(count, np.int64)
    first[units[::-1]] = labels[::-1]  # a group's first label: folds are stratified by it
    order = order[np.argsort(first[order], kind="stable")]
    fold = np.empty(count, np.int64)
    fold[order] = np.arange(count) % folds
    own = fold[units]
    scores = np.empty((len(rows), classes))
    for number in range(folds):
        held = own == number
        scores[held] = LinearProbe.fit(rows[~held], labels[~held], classes)(rows[held])
    return scores
