"""What a model is evaluated on: samples with labels as it numbers its classes, and the views that its task takes.

chosen = align(open_part("flowers").samples, card, "flowers")
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from resnest.data.detection import DetectionSamples
from resnest.data.panoptic import PanopticSamples
from resnest.data.pixels import PixelSamples
from resnest.data.samples import Samples
from resnest.errors import ResnestError
from resnest.runtime.card import ModelCard
from resnest.runtime.detections import Views
from resnest.runtime.segmenting import SegmentViews

SAMPLES: dict[str, type[Samples]] = {
    "classification": Samples,
    "detection": DetectionSamples,
    "panoptic": PanopticSamples,
    "segmentation": PixelSamples,
}
NEEDS = {
    "classification": "images with labels",
    "detection": "data with boxes",
    "panoptic": "COCO panoptic data",
    "segmentation": "pictures with a mask each",
}
HAS: tuple[tuple[type[Samples], str], ...] = (
    (PanopticSamples, "segments"),
    (DetectionSamples, "boxes"),
    (PixelSamples, "masks of classes"),
    (Samples, "labels"),
)


def align(samples: Samples, card: ModelCard, where: str) -> Samples:
    """The samples with labels as the model numbers its classes.

    A class may be called by the model's name for it, by its key (ImageNet's synset), or, if all of them are numbers,
    by its index (ImageNet-V2).
    """
    if _kind(samples) is not SAMPLES[card.task]:
        has = next(told for known, told in HAS if isinstance(samples, known))
        raise ResnestError(f"{where} has {has}, and the model is for {card.task}: give {NEEDS[card.task]}")
    if isinstance(samples, PanopticSamples):
        return samples.named_as(card.panoptic_classes, where)
    known = {name: index for names in (card.class_keys, card.class_names) for index, name in enumerate(names)}
    count = len(card.class_names)
    strange = [name for name in samples.class_names if name not in known]
    if strange and all(name.isdigit() and int(name) < count for name in samples.class_names):
        known, strange = {name: int(name) for name in samples.class_names}, []
    if strange:
        shown = ", ".join(strange[:5]) + (", ..." if len(strange) > 5 else "")
        raise ResnestError(
            f"{where} has {len(strange)} classes that the model does not know: {shown}."
            f" The model has {count}: {', '.join(card.class_names[:5])}{', ...' if count > 5 else ''}"
        )
    index = np.array([known[name] for name in samples.class_names], np.int64)
    if isinstance(samples, DetectionSamples):
        return replace(samples.renumbered(index, card.class_names), category_ids=card.category_ids)
    if isinstance(samples, PixelSamples):
        return replace(samples.renumbered(index, card.class_names), classes=card.pixel_classes)
    if samples.multi_label and not card.multi_label:
        raise ResnestError(f"{where} has several labels an image, and the model gives one: train one on such data")
    return samples.renumbered(index, card.class_names, multi_label=card.multi_label)


def _kind(samples: Samples) -> type[Samples]:
    """The first that fits: panoptic samples are detection samples too, with other classes."""
    return next(known for known, _ in HAS if isinstance(samples, known))


def views_for(views: Views | SegmentViews | None, task: str) -> Views | SegmentViews | None:
    """The same for a model of this task: without scales, views are for detectors and segmenters alike.

    Raises:
        ResnestError: it takes none, or other scales.
    """
    if views is None:
        return None
    if task == "segmentation":
        if isinstance(views, Views) and views.scales:
            raise ResnestError("the scales of a segmenter are factors of its own size, such as 0.75,1,1.25")
        return views if isinstance(views, SegmentViews) else SegmentViews(flip=views.flip)
    if task == "detection":
        if isinstance(views, SegmentViews) and views.scales != (1.0,):
            raise ResnestError("the scales of a detector are pixels of the short side, such as 640,800")
        return views if isinstance(views, Views) else Views(flip=views.flip)
    raise ResnestError(f"several scales and mirrored views are for detectors and segmenters, and this is for {task}")
