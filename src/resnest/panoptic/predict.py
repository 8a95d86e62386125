"""Prediction of a panoptic network: arrays to a panoptic map. No torch.

predict(engine, card, [Prepared("x.jpg", card.preprocess(image), image.size)])         # [PanopticMap(...)]
"""

from __future__ import annotations

from collections.abc import Sequence

from resnest.detection.predict import raw_detections, unpadded_sizes
from resnest.detection.result import RawPanoptic
from resnest.errors import ResnestError
from resnest.panoptic.card import PanopticCard
from resnest.panoptic.merge import panoptic_map
from resnest.panoptic.result import PanopticMap
from resnest.runtime.engines.engine import Engine, Prepared, Views, stack_pixels


def predict(
    engine: Engine, card: PanopticCard, images: Sequence[Prepared], views: Views | None = None
) -> list[PanopticMap]:
    """A segment for every pixel, an object or a region of stuff; for images of one padded shape."""
    outputs = engine(stack_pixels(images), unpadded_sizes(card.preprocess, images))
    found = RawPanoptic(raw_detections(outputs), outputs["semantic"])
    return [
        panoptic_map(
            found,
            index,
            name=image.name,
            size=image.size,
            preprocess=card.preprocess,
            classes=card.classes,
            spec=card.panoptic,
        )
        for index, image in enumerate(images)
    ]


def check_views(views: Views) -> None:
    """Raises ResnestError: there is no test-time augmentation."""
    raise ResnestError("a panoptic detector looks at one view: several scales and mirrored views are for others")
