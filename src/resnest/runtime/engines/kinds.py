"""What an engine is, for each kind of network: a function of numpy arrays that has a name.

engine(images)                           # (N, 3, H, W) -> logits (N, K)
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from resnest.runtime.detections import RawDetections, RawPanoptic


class Engine(Protocol):
    """Whatever runs a network."""

    name: str  # for people: what runs it, and on what

    def __call__(self, images: NDArray[np.float32], /) -> NDArray[np.float32]: ...


class DetectorEngine(Protocol):
    """Whatever runs a detector."""

    name: str

    def __call__(self, images: NDArray[np.float32], sizes: NDArray[np.int64], /) -> RawDetections: ...


class SegmenterEngine(Protocol):
    """Whatever runs a segmenter."""

    name: str

    def __call__(self, images: NDArray[np.float32], /) -> NDArray[np.float32]: ...  # (N, K, H, W), of the images' size


class PanopticEngine(Protocol):
    """Whatever runs a panoptic detector."""

    name: str

    def __call__(self, images: NDArray[np.float32], sizes: NDArray[np.int64], /) -> RawPanoptic: ...


AnyEngine = Engine | DetectorEngine | SegmenterEngine | PanopticEngine
