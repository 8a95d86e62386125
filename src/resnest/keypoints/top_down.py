"""From whole pictures to poses: boxes first, of a detector or a file, then the points in a crop around each.

source = BoxSource.open("runs/detector", pose.card)             # or "found.json"; "runs/detector@person": one class
predict = source.predictor(pose)                                # pose: a Predictor of a keypoint model
predict("street.jpg").points                                    # (M, K, 2)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from resnest.data.stores import read_from
from resnest.detection.card import DetectionCard
from resnest.detection.result import Detections
from resnest.errors import ResnestError, parameter
from resnest.inference.predicting import Predictor
from resnest.keypoints.boxes import Boxes, BoxFile
from resnest.keypoints.card import KeypointCard
from resnest.keypoints.data import KeypointSamples
from resnest.keypoints.evaluation import joined
from resnest.keypoints.metrics import suppress
from resnest.keypoints.result import Poses
from resnest.runtime.bands import to_picture
from resnest.runtime.decode import BadImage
from resnest.runtime.hardware import usable_cores
from resnest.runtime.inputs import ImageInput, name_of
from resnest.runtime.predictor import ImagePredictor, prefetch

AHEAD = 4  # pictures that are decoded while another one is looked at
CLASS = "@"  # between a detector and the class whose boxes are taken


@dataclass(frozen=True)
class BoxSource:
    """Where boxes come from: a detector, or a file."""

    card: KeypointCard
    file: BoxFile | None = None
    detector: ImagePredictor | None = None
    label: int | None = None  # the detector's class; None: it has one

    @classmethod
    def open(cls, where: str | Path, card: Any, *, device: str = "auto") -> BoxSource:
        """A .json file, or any reference of a detector. Raises ResnestError."""
        path = Path(where)
        if path.suffix.lower() == ".json":
            return cls(card, file=BoxFile.read(path, thing=card.thing, category_id=card.category_id))
        reference, mark, name = str(where).rpartition(CLASS)
        if not mark or path.exists():
            reference, name = str(where), ""
        detector = Predictor(reference, device=device)
        if not isinstance(detector.card, DetectionCard):
            raise ResnestError(
                f"{parameter('boxes', where)} is {detector.card.info.noun}: expected a detector, or json of detections"
            )
        return cls(card, detector=detector, label=_label(detector.card, name or card.thing, bool(name), str(where)))

    def of(self, name: str, picture: Image.Image) -> Boxes:
        """The boxes of a picture. Raises ResnestError."""
        if self.file is not None:
            return self.file.of_picture(name)
        assert self.detector is not None
        return self._of_detections(self.detector(picture))

    def _of_detections(self, found: Any) -> Boxes:
        assert isinstance(found, Detections)
        chosen = found if self.label is None else found[found.labels == self.label]
        return Boxes(chosen.boxes.astype(np.float64), chosen.scores.astype(np.float64))

    def predictor(self, pose: ImagePredictor) -> TopDown:
        """A keypoint model's predictor for whole pictures."""
        return TopDown(pose, self)

    def samples(self, samples: KeypointSamples) -> KeypointSamples:
        """All pictures of the samples with these boxes in place of annotated ones. Raises ResnestError without any."""
        pictures, found = samples.pictures, list[Boxes]()
        for owner in samples.measured.tolist():
            if self.file is not None and self.file.named is None:
                found.append(self.file.of_id(int(pictures.ids[owner])))
            elif self.file is not None:
                found.append(self.file.of_picture(pictures.keys[owner]))
            else:
                assert self.detector is not None
                found.append(self._of_detections(self.detector(read_from(samples.store, pictures.keys[owner]))))
        owners = np.repeat(samples.measured, [len(one.scores) for one in found])
        if not len(owners):
            raise ResnestError("there is no box in any picture: nothing to evaluate")
        boxes, scores = (np.concatenate([getattr(one, name) for one in found]) for name in ("boxes", "scores"))
        return samples.with_boxes(owners, boxes, scores)


def _label(card: DetectionCard, name: str, asked: bool, where: str) -> int | None:
    """The number of the class whose boxes are taken. Raises ResnestError where it cannot be told."""
    if name in card.class_names:
        return card.class_names.index(name)
    if len(card.class_names) == 1 and not asked:
        return None
    raise ResnestError(
        f"{parameter('boxes', where)}: the detector has no class {name!r}; it has"
        f" {', '.join(card.class_names[:5])}{', ...' if len(card.class_names) > 5 else ''}: name one as DETECTOR@CLASS"
    )


class TopDown(ImagePredictor):
    """Boxes of a picture, then the points in each; objects as one `Poses`, the best first."""

    def __init__(self, pose: ImagePredictor, source: BoxSource) -> None:
        super().__init__(pose.engine, pose.card, batch_size=pose.batch_size)
        self.source, self.note = source, getattr(pose, "note", "")

    def __call__(self, image: Any) -> Any:
        if isinstance(image, list | tuple):
            return super().__call__(image)
        name = name_of(image, "image")
        return self._looked(name, to_picture(image, self.card.bands, name))

    def stream_named(self, images: Iterable[tuple[str, ImageInput | BadImage]]) -> Iterator[Any]:
        def opened(named: tuple[str, ImageInput | BadImage]) -> tuple[str, Image.Image | BadImage]:
            name, image = named
            try:
                return name, image if isinstance(image, BadImage) else to_picture(image, self.card.bands, name)
            except BadImage as error:
                return name, error

        with prefetch(opened, images, most=AHEAD, threads=usable_cores()) as pictures:
            for name, picture in pictures:
                yield picture if isinstance(picture, BadImage) else self._looked(name, picture)

    def _looked(self, name: str, picture: Image.Image) -> Poses:
        card = self.source.card
        found = self.source.of(name, picture)
        parts: list[Poses] = []
        for start in range(0, len(found.scores), self.batch_size):
            rows = range(start, min(start + self.batch_size, len(found.scores)))
            windows = [card.frame.window(found.boxes[row]) for row in rows]
            crops: list[Any] = self.run([self.prepare(picture.crop(window), name) for window in windows])
            for row, (left, top, *_), crop in zip(rows, windows, crops, strict=True):
                place = {"boxes": found.boxes[[row]], "points": crop.points + np.array([left, top])}
                parts.append(replace(crop, **place, scores=crop.scores * found.scores[row]))
        whole = suppress(joined(parts), card.head.nms) if parts else _nobody(card, name)
        return replace(whole, name=name, width=picture.width, height=picture.height)


def _nobody(card: KeypointCard, name: str) -> Poses:
    """The result of a picture without a box."""
    count = len(card.class_names)
    return Poses(
        name=name,
        width=1,
        height=1,
        layout=card.layout,
        thing=card.thing,
        category_id=card.category_id,
        boxes=np.zeros((0, 4)),
        points=np.zeros((0, count, 2)),
        point_scores=np.zeros((0, count), np.float32),
        scores=np.zeros(0),
    )
