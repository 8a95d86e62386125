"""Exporter of keypoint models: crops of one size in, heatmaps out; the points that are read of them are compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnest.exporters.capture import Arrays, Interface
from resnest.exporters.formats import MAX_PIXELS, Exporter, Format, Size, check_sides
from resnest.exporters.gate import Agree, Shape
from resnest.inference.model import Model
from resnest.keypoints.card import DIVISOR, KeypointCard
from resnest.keypoints.heatmaps import STRIDE, decode
from resnest.keypoints.predict import OUTPUT, gives
from resnest.keypoints.result import Poses

SAME_PLACE = 0.25  # of a cell: points of two outputs that agree
SURE = 0.05  # value of a peak below which its place is chance


class KeypointExporter(Exporter):
    """Exporter of keypoint models."""

    unlike = "other points"
    things = "points"
    on_data = True

    def sized(self, model: Model, size: Size, form: Format) -> Model:
        if size is None:
            return model
        assert isinstance(model.card, KeypointCard)
        sides = (size, size) if isinstance(size, int) else size
        check_sides(sides, least=DIVISOR, most=MAX_PIXELS, what="a crop", multiple=DIVISOR)
        high, wide = sides
        return replace(
            model, card=replace(model.card, preprocess=replace(model.card.preprocess, height=high, width=wide))
        )

    def same_result(self, before: Poses, after: Poses) -> bool:
        """Every sure point is at about the same place, on the scale of the crop's heatmap."""
        if len(before) != len(after):
            return False
        sure = before.point_scores >= SURE
        apart = np.abs(before.points - after.points).max(-1)
        cell = max(before.size) / 64  # of 256 pixels and a stride of 4
        return bool((apart[sure] <= 2 * cell).all())

    def interface(self, card: KeypointCard, form: Format) -> Interface:
        sides = (card.preprocess.height, card.preprocess.width)
        return Interface(card.in_chans, form.batch, sides, tuple(gives(card)))

    def shapes(self, card: KeypointCard, form: Format) -> list[Shape]:
        high, wide = card.preprocess.height, card.preprocess.width
        return [(count, card.in_chans, high, wide) for count in ([form.batch] if form.batch else [1, 3])]

    def agree(self, card: KeypointCard) -> Agree:
        return lambda expected, got: same_points(expected, got, card)

    def settings(self, card: KeypointCard) -> Mapping[str, Any]:
        head = card.head
        return {"sigma": head.sigma, "decode": head.decode, "threshold": head.threshold, "stride": STRIDE}


def same_points(expected: Arrays, got: Arrays, card: KeypointCard) -> NDArray[np.bool_]:
    """For each crop, whether all sure points are at the same place, (N,)."""
    how: dict[str, Any] = {"sigma": card.head.sigma, "how": card.head.decode}
    places, values = decode(expected[OUTPUT], **how)
    others, _ = decode(got[OUTPUT], **how)
    near = (np.abs(places - others) <= SAME_PLACE * STRIDE).all(-1)
    return np.asarray((near | (values < SURE)).all(1))
