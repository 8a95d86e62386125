"""Images whose every pixel has a class: what a segmenter is trained and measured on.

samples = open_dataset("camvid", task="segmentation").train           # PixelSamples
samples.mask(0), samples.class_names, samples.classes.colours         # (H, W) uint8, 255 does not count
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnest.data.samples import Samples, Store
from resnest.runtime.label_map import PixelClasses


@dataclass(frozen=True)
class PixelSamples(Samples):
    """Images with a mask each; `labels` is (N,) zeros, since masks are read only when they are needed."""

    classes: PixelClasses
    masks: Store
    mask_keys: Sequence[str]  # (N,) names of the masks in their store
    lookup: dict[Any, int]  # a mask's value, or colour (R, G, B) -> class, or 255 for what does not count

    def mask(self, index: int) -> NDArray[np.uint8]:
        """The class of every pixel, (H, W), 255 for those that do not count.

        Raises:
            BadImage: names the mask: it cannot be read, or has a value that stands for no class, or is in colours
                where numbers are expected.
        """
        raise NotImplementedError

    def subset(self, indices: NDArray[np.int64]) -> PixelSamples:
        return replace(
            self,
            keys=[self.keys[index] for index in indices],
            labels=self.labels[indices],
            mask_keys=[self.mask_keys[index] for index in indices],
        )
