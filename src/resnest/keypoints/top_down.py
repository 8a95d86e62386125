"""From whole pictures to poses: boxes first, of a detector or a file, then the points in a crop around each.

source = BoxSource.open("runs/detector", pose.card)             # or "found.json"; "runs/detector@person": one class
predict = source.predictor(pose)                                # pose: a Predictor of a keypoint model
predict("street.jpg").points                                    # (M, K, 2)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from resnest.detection.card import DetectionCard
from resnest.detection.result import Detections
from resnest.errors import ResnestError, parameter
from resnest.inference.predicting import Predictor
from resnest.keypoints.boxes import Boxes, BoxFile, NotListed, nameless
from resnest.keypoints.card import KeypointCard
from resnest.keypoints.looking import Look, clipped, read_boxes
from resnest.keypoints.result import Poses
from resnest.runtime.bands import to_picture
from resnest.runtime.decode import BadImage
from resnest.runtime.hardware import usable_cores
from resnest.runtime.inputs import ImageInput, name_of
from resnest.runtime.predictor import ImagePredictor, prefetch

if TYPE_CHECKING:
    from resnest.keypoints.data import KeypointSamples

AHEAD = 4  # pictures that are decoded while another one is looked at
CLASS = "@"  # between a detector and the class whose boxes are taken


@dataclass(frozen=True)
class BoxSource:
    """Where boxes come from: a detector, or a file."""

    card: KeypointCard
    file: BoxFile | None = None
    finder: ImagePredictor | None = None  # a detector
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
        return cls(card, finder=detector, label=_label(detector.card, name or card.thing, bool(name), str(where)))

    def of(self, name: str, picture: Image.Image) -> Boxes:
        """The boxes of a picture. Raises ResnestError."""
        if self.file is not None:
            return self.file.of_picture(name)
        assert self.finder is not None
        return self.of_result(self.finder(picture))

    def of_result(self, found: Any) -> Boxes:
        """The boxes of what the detector found."""
        assert isinstance(found, Detections)
        chosen = found if self.label is None else found[found.labels == self.label]
        return Boxes(chosen.boxes.astype(np.float64), chosen.scores.astype(np.float64))

    def predictor(self, pose: ImagePredictor) -> TopDown:
        """A keypoint model's predictor for whole pictures. Raises ResnestError: a list of results has no names."""
        if self.file is not None and self.file.named is None:
            raise nameless(self.file.path)
        return TopDown(pose, self)

    @staticmethod
    def look(pose: ImagePredictor, name: str, picture: Image.Image, boxes: Boxes) -> Look:
        """A picture with these boxes, for whoever runs the model on the crops."""
        return Look(pose, name, picture, clipped(boxes, picture.size))

    @staticmethod
    def read(text: str) -> Boxes:
        """Boxes that somebody wrote down. Raises ResnestError."""
        return read_boxes(text)

    def samples(self, samples: KeypointSamples) -> KeypointSamples:
        """All pictures of the samples with these boxes in place of annotated ones. Raises ResnestError without any."""
        from resnest.data.stores import read_from

        pictures, found = samples.pictures, list[Boxes]()
        for owner in samples.measured.tolist():
            if self.file is not None and self.file.named is None:
                found.append(self.file.of_id(int(pictures.ids[owner])))
            elif self.file is not None:
                found.append(self.file.of_picture(pictures.keys[owner]))
            else:
                assert self.finder is not None
                found.append(self.of_result(self.finder(read_from(samples.store, pictures.keys[owner]))))
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
        self.beside = (source.file.path if source.file else source.finder, source.label)

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
                try:
                    yield picture if isinstance(picture, BadImage) else self._looked(name, picture)
                except NotListed as error:  # of this picture alone
                    yield BadImage(name, error.reason)

    def _looked(self, name: str, picture: Image.Image) -> Poses:
        look = Look(self, name, picture, self.source.of(name, picture))
        crops: list[Any] = []
        for start in range(0, len(look), self.batch_size):
            crops += self.run(look.prepared(start, start + self.batch_size))
        return look.result(crops)
