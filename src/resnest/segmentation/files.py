"""Label maps in files, readable as a data set: PNGs with class ids, and the list of classes.

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
from typing import Any

from resnest.files import OutputFolder, replacing
from resnest.runtime.palette import class_colours
from resnest.runtime.results import Show
from resnest.segmentation.result import LabelMap, PixelClasses, file_ids, label_image


class LabelFolder:
    """Masks named after their pictures, and the list of classes: with the pictures, a data set.

    Args:
        inputs: pictures that must not be replaced.

    Raises:
        ResnestError: as all of its methods: the files cannot be written.
    """

    def __init__(self, folder: str | Path, classes: PixelClasses, inputs: Iterable[Path] = ()) -> None:
        self.files = OutputFolder(Path(folder), inputs)
        self.classes = classes

    @classmethod
    def open(cls, path: Path, card: Any, show: Show, inputs: Iterable[Path]) -> LabelFolder:
        return cls(path, card.classes, inputs)

    def add(self, result: LabelMap, name: Path | None = None) -> None:
        """Add a result; `name` of the picture within its folder, by default the last part of the result's."""
        name = name or Path(Path(result.name).name)
        with self.files.writing(name.with_suffix(".png")) as path:
            label_image(result).save(path)

    def close(self) -> str:
        """Write the class list, after all masks, so that a refused folder is not changed; returns a summary."""
        masks = len(self.files.names)
        with self.files.writing(Path("classes.json")) as path:
            save_class_list(self.classes, path)
        return f"{masks} masks and classes.json in {self.files.folder}"


def save_class_list(classes: PixelClasses, path: Path) -> None:
    """Raises OSError."""
    rows = [
        {"index": number, "name": name, "color": list(colour), "ignore": False}
        for number, name, colour in zip(file_ids(classes), classes.names, class_colours(classes), strict=True)
    ]
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(rows, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
