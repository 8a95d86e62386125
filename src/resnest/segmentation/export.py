"""Exporter of segmenters: pictures of any or a fixed size in, logits of every pixel out; labels are compared."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.errors import ResnestError, parameter
from resnest.exporters.capture import Arrays, Interface
from resnest.exporters.formats import MAX_PIXELS, Exporter, Format, Size, check_sides
from resnest.exporters.gate import SIZES, TOLERANCE, Agree, Shape
from resnest.exporters.int8 import same_label
from resnest.inference.model import Model
from resnest.segmentation.card import LEAST, SegmentationCard
from resnest.segmentation.mask_stack import MaskStack
from resnest.segmentation.result import LabelMap

BATCHES = (1, 2)  # maps are as large as images
PICTURES = 16  # that are compared: one takes as long as a dozen of a classifier
SAME_PIXELS = 0.99  # of a picture that was prepared in two ways
CORNER = 1024  # pixels of a side that are compared of a large picture


class SegmentationExporter(Exporter):
    """Exporter of segmenters."""

    most_pictures = PICTURES
    things = f"labels of {SAME_PIXELS:.0%} of the pixels"
    on_data = True

    def sized(self, model: Model, size: Size, form: Format) -> Model:
        if size is None:
            if not form.any_size:
                option = parameter("format", form.name)
                raise ResnestError(f"{option} is made for one size of image: give it with {parameter('size')}")
            return model
        assert isinstance(model.card, SegmentationCard)
        canvas = (size, size) if isinstance(size, int) else size
        check_sides(canvas, least=LEAST, most=MAX_PIXELS, what="a segmenter's image")
        return replace(model, card=replace(model.card, preprocess=replace(model.card.preprocess, canvas=canvas)))

    def same_result(self, before: LabelMap | MaskStack, after: LabelMap | MaskStack) -> bool:
        one, other = (found.masks if isinstance(found, MaskStack) else found.labels for found in (before, after))
        return bool((one == other).mean() >= SAME_PIXELS)

    def interface(self, card: SegmentationCard, form: Format) -> Interface:
        return Interface(card.in_chans, form.batch, card.preprocess.canvas)

    def shapes(self, card: SegmentationCard, form: Format) -> list[Shape]:
        sizes = [card.preprocess.canvas] if card.preprocess.canvas else SIZES
        counts = [form.batch] if form.batch else BATCHES
        return [(count, card.in_chans, high, wide) for high, wide in sizes for count in counts]

    def agree(self, card: SegmentationCard) -> Agree:
        if card.segmenter.multi_label:
            return partial(same_masks, math.log(card.threshold / (1 - card.threshold)))
        return same_label

    def settings(self, card: SegmentationCard) -> Mapping[str, Any]:
        threshold = {"threshold": card.threshold} if card.segmenter.multi_label else {}
        return {"category_ids": list(card.category_ids), **threshold}

    def batches(self, card: Any, images: Sequence[Image.Image], size: int) -> Iterator[NDArray[np.float32]]:
        """Pictures to compare; large ones of any size are cropped to a corner."""
        for batch in super().batches(card, images, size):
            yield batch if card.preprocess.canvas else np.ascontiguousarray(batch[..., :CORNER, :CORNER])


def same_masks(border: float, expected: Arrays, got: Arrays) -> NDArray[np.bool_]:
    """Whether each pixel is in the same masks, those whose logit reaches the border, except within the tolerance."""
    ours, theirs = expected["logits"], got["logits"]  # (N, K, H, W)
    near = np.abs(ours - border) <= 2 * TOLERANCE * np.abs(ours).max((1, 2, 3), keepdims=True)
    alike = (((ours >= border) == (theirs >= border)) | near) & np.isfinite(theirs)
    same: NDArray[np.bool_] = alike.reshape(len(alike), -1).all(1)
    return same
