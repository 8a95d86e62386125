"""Panoptic maps as semantic masks of all classes, things and stuff, to train segmenters on.

pixels = all_classes(samples)                # PixelSamples of PanopticSamples
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from resnest.errors import ResnestError
from resnest.panoptic.data import PanopticSamples
from resnest.segmentation.data import PixelSamples
from resnest.segmentation.mask_values import MaskMeaning
from resnest.segmentation.result import PixelClasses
from resnest.segmentation.spec import IGNORED


@dataclass(frozen=True, kw_only=True)
class PanopticPixels(PixelSamples):
    """Samples whose masks are panoptic maps, with classes by the category of a segment."""

    panoptic: PanopticSamples

    def mask(self, index: int) -> NDArray[np.uint8]:
        """The class of every pixel, (H, W), 255 for void. Raises BadImage: names the map."""
        truth = self.panoptic.truth(index)
        classes = [self.meaning.lookup[truth.classes.ids[k]] for k in range(len(truth.classes.ids))]
        table = np.full(IGNORED + 1, IGNORED, np.uint8)
        table[: len(classes)] = classes
        mask: NDArray[np.uint8] = table[self.panoptic.labels_of(truth)]
        return mask

    def size(self, index: int) -> tuple[int, int]:
        """Width and height in the json."""
        width, height = map(int, self.panoptic.objects.sizes[index])
        return width, height

    def subset(self, indices: NDArray[np.int64]) -> PanopticPixels:
        base = super().subset(indices)
        assert isinstance(base, PanopticPixels)
        return replace(base, panoptic=self.panoptic.subset(indices))


def all_classes(samples: PanopticSamples) -> PanopticPixels:
    """The same images with things and stuff as classes. Raises ResnestError for more classes than a mask can hold."""
    count = len(samples.class_names)
    if count > IGNORED:
        raise ResnestError(f"a segmenter has {IGNORED} classes at most, and this data {count}")
    classes = PixelClasses(samples.classes.names, samples.classes.ids, samples.classes.colours)
    return PanopticPixels(
        store=samples.store,
        keys=samples.keys,
        class_names=samples.class_names,
        classes=classes,
        masks=samples.maps,
        mask_keys=samples.map_keys,
        meaning=MaskMeaning({key: place for place, key in enumerate(samples.classes.ids)}),
        notes=samples.notes,
        panoptic=samples,
    )
