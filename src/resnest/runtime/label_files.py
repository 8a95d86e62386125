"""Label maps in files, as data sets have them: a PNG with the ids of the classes, and the list of the classes.

    save_labels(found, Path("masks/x.png"))
    save_class_list(found.classes, Path("masks/classes.json"))

The PNG has a palette of the classes' colours: a viewer shows them, and the index of a pixel is the id of its class.
With ids above 255 it has 16 bits and no colours.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from resnest.files import replacing
from resnest.runtime.label_map import LabelMap, PixelClasses
from resnest.runtime.palette import class_colours

MOST = 2**16  # ids that a PNG can hold
IN_PALETTE = 2**8


def file_ids(classes: PixelClasses) -> tuple[int, ...]:
    """What files call the classes: the data's ids, or their numbers from 0 where a PNG cannot hold those."""
    fits = all(0 <= number < MOST for number in classes.ids)
    return classes.ids if fits else tuple(range(len(classes.names)))


def save_labels(found: LabelMap, path: Path) -> None:
    """Raises OSError."""
    ids = np.array(file_ids(found.classes))
    if ids.max() >= IN_PALETTE:
        Image.fromarray(ids.astype(np.uint16)[found.labels]).save(path)
        return
    image = Image.fromarray(ids.astype(np.uint8)[found.labels], "L")
    palette = np.zeros((IN_PALETTE, 3), np.uint8)
    palette[ids] = class_colours(found.classes)
    image.putpalette(palette.tobytes())
    image.save(path)


def save_class_list(classes: PixelClasses, path: Path) -> None:
    """Raises OSError."""
    rows = [
        {"index": number, "name": name, "color": list(colour), "ignore": False}
        for number, name, colour in zip(file_ids(classes), classes.names, class_colours(classes), strict=True)
    ]
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(rows, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
