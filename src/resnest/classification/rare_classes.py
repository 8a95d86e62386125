"""Losses of a classifier whose classes are uneven, from the training images of each class, (K,).

weights = class_balanced_weights(images, beta=0.9999)        # of each image's loss, by its class
logits = logits + log_priors(images)                         # in training alone
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def class_balanced_weights(images: NDArray[np.int64], beta: float) -> Floats:
    """Weights by the effective number of images (Cui et al., arXiv 1901.05555); their mean is 1.

    >>> class_balanced_weights(np.array([1000, 10]), 0.0).tolist()
    [1.0, 1.0]
    >>> class_balanced_weights(np.array([1000, 10]), 0.99).round(2).tolist()
    [0.17, 1.83]
    """
    effective = (1 - beta ** np.maximum(images, 1)) / (1 - beta)
    weights: Floats = 1 / effective
    weights *= len(images) / weights.sum()
    return weights


def log_priors(images: NDArray[np.int64]) -> Floats:
    """Logarithms of the shares of the classes (Menon et al., arXiv 2007.07314)."""
    shares: Floats = np.log(np.maximum(images, 1) / np.maximum(images, 1).sum())
    return shares
