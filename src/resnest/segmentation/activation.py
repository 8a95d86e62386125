"""How a segmenter's logits become probabilities, and back: softmax over its classes, or a sigmoid for each.

SIGMOID.probabilities(logits)             # (K, h, w) -> (K, h, w)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.float32]

LEAST_PROBABILITY = np.finfo(np.float32).tiny  # whose logarithm is finite
NEAR = np.finfo(np.float32).epsneg  # 1 minus this is the last float32 below 1


class Activation(NamedTuple):
    """Both ways; of means of probabilities the second gives logits that the first turns into these means."""

    probabilities: Callable[[Map], Map]
    logits: Callable[[Map], Map]  # in place


def softmax(logits: Map) -> Map:
    """Over the first axis."""
    probabilities: Map = np.exp(logits - logits.max(0))
    probabilities /= probabilities.sum(0)
    return probabilities


def logarithms(probabilities: Map) -> Map:
    """Logarithms, in place."""
    return np.log(np.maximum(probabilities, LEAST_PROBABILITY, out=probabilities), out=probabilities)


def sigmoid(logits: Map) -> Map:
    """Of each value; by the hyperbolic tangent, which does not overflow."""
    probabilities: Map = np.tanh(logits * np.float32(0.5))
    probabilities += 1
    probabilities *= 0.5
    return probabilities


def log_odds(probabilities: Map) -> Map:
    """The inverse of the sigmoid, in place."""
    np.clip(probabilities, LEAST_PROBABILITY, 1 - NEAR, out=probabilities)
    return np.subtract(np.log(probabilities), np.log1p(-probabilities), out=probabilities)


SOFTMAX = Activation(softmax, logarithms)
SIGMOID = Activation(sigmoid, log_odds)
