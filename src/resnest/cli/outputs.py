"""Where `resnest predict` writes to, by the model's task: standard output, folders of masks, drawings.

shown = writer("segmentation", "text", top=None, threshold=0.5)
shown.write(result)
drawn = Drawings(Path("out"), pictures, top=None, threshold=0.5)
drawn.add(picture, result)                       # out/x.jpg
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from resnest.cli.labels import LabelWriter
from resnest.cli.objects import ObjectWriter
from resnest.cli.pictures import OutputFolder, Picture
from resnest.cli.segments import LabelMapFolder, LabelMapWriter, PanopticFolder, PanopticMapWriter

if TYPE_CHECKING:
    from PIL import Image


class Writer(Protocol):
    """Results on standard output."""

    def write(self, result: Any, /) -> None: ...


class Output(Protocol):
    """What goes into files."""

    def add(self, picture: Picture, result: Any, /) -> None: ...

    def close(self) -> str: ...  # says what was written


def writer(task: str, form: str, top: int | None, threshold: float) -> Writer:
    """`form` is text, json or csv."""
    if task == "detection":
        return ObjectWriter(form, threshold)
    if task == "segmentation":
        return LabelMapWriter(form)
    if task == "panoptic":
        return PanopticMapWriter(form)
    return LabelWriter(form, top)


def mask_folder(folder: Path, pictures: list[Picture], card: Any) -> Output:
    """Raises ResnestError: it cannot be made."""
    if card.task == "panoptic":
        return PanopticFolder(folder, pictures, card.classes)
    return LabelMapFolder(folder, pictures, card.classes)


class Drawings:
    """Pictures with what is in them, one file each. Raises ResnestError: the folder cannot be made."""

    def __init__(self, folder: Path, pictures: list[Picture], top: int | None, threshold: float) -> None:
        self.files = OutputFolder(folder, "--draw", pictures)
        self.top, self.threshold = top, threshold

    def add(self, picture: Picture, result: Any) -> None:
        from resnest.runtime.decode import decode_image

        with self.files.writing(Path(f"{picture.path.stem}.jpg")) as path:
            self._drawn(decode_image(picture.path), result).save(path, quality=90)

    def close(self) -> str:
        return f"{len(self.files.names)} pictures in {self.files.folder}"

    def _drawn(self, image: Image.Image, result: Any) -> Image.Image:
        from resnest.runtime.detections import Detections
        from resnest.runtime.draw import draw_labels
        from resnest.runtime.draw_detections import draw_detections
        from resnest.runtime.draw_segments import draw_segments
        from resnest.runtime.label_map import LabelMap
        from resnest.runtime.panoptic_map import PanopticMap

        if isinstance(result, Detections):
            return draw_detections(image, result.shown(self.threshold))
        if isinstance(result, LabelMap | PanopticMap):
            return draw_segments(image, result)
        return draw_labels(image, result.shown(self.top))
