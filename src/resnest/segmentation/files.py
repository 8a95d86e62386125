"""Label maps in files, as data sets have them: a PNG with the ids of the classes, and the list of the classes.

    folder = LabelFolder(Path("masks"), predict.card.pixel_classes)
    for result in predict.stream(paths):
        folder.add(result)                    # masks/x.png
    print(folder.close())                     # masks/classes.json

The PNG has a palette of the classes' colours: a viewer shows them, and the index of a pixel is the id of its class.
With ids above 255 it has 16 bits and no colours.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from resnest.files import OutputFolder, replacing
from resnest.runtime.palette import class_colours
from resnest.segmentation.result import LabelMap, PixelClasses

if TYPE_CHECKING:
    from resnest.segmentation.result import LabelMap, PixelClasses

MOST = 2**16  # ids that a PNG can hold
IN_PALETTE = 2**8


class LabelFolder:
    """Masks named after their pictures, and the list of classes: with the pictures beside it, a data set.

    Args:
        inputs: pictures that must not be replaced.

    Raises:
        ResnestError: as all of its methods: the files cannot be written.
    """

    def __init__(self, folder: str | Path, classes: PixelClasses, inputs: Iterable[Path] = ()) -> None:
        self.files = OutputFolder(Path(folder), inputs)
        self.classes = classes

    def add(self, result: LabelMap, name: Path | None = None) -> None:
        """`name` of the picture within its folder, by default the last part of the result's."""
        name = name or Path(Path(result.name).name)
        with self.files.writing(name.with_suffix(".png")) as path:
            label_image(result).save(path)

    def close(self) -> str:
        """Write the list, and say so; last, so that a folder of pictures that is refused stays as it is."""
        masks = len(self.files.names)
        with self.files.writing(Path("classes.json")) as path:
            save_class_list(self.classes, path)
        return f"{masks} masks and classes.json in {self.files.folder}"


def file_ids(classes: PixelClasses) -> tuple[int, ...]:
    """What files call the classes: the data's ids, or their numbers from 0 where a PNG cannot hold those."""
    fits = all(0 <= number < MOST for number in classes.ids)
    return classes.ids if fits else tuple(range(len(classes.names)))


def label_image(found: LabelMap) -> Image.Image:
    """The ids of the classes as an image for a PNG."""
    ids = np.array(file_ids(found.classes))
    if ids.max() >= IN_PALETTE:
        return Image.fromarray(ids.astype(np.uint16)[found.labels])
    image = Image.fromarray(ids.astype(np.uint8)[found.labels], "L")
    palette = np.zeros((IN_PALETTE, 3), np.uint8)
    palette[ids] = class_colours(found.classes)
    image.putpalette(palette.tobytes())
    return image


def save_class_list(classes: PixelClasses, path: Path) -> None:
    """Raises OSError."""
    rows = [
        {"index": number, "name": name, "color": list(colour), "ignore": False}
        for number, name, colour in zip(file_ids(classes), classes.names, class_colours(classes), strict=True)
    ]
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(rows, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
