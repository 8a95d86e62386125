"""COCO json of detections, for COCO's tools and labelling programs.

file = CocoFile(Path("found.json"), threshold=0.3)
for result in predict.stream(paths):
    file.add(result)
print(file.close())
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnest.errors import ResnestError
from resnest.files import replacing, write_errors
from resnest.runtime.results import Show
from resnest.runtime.rle import area

if TYPE_CHECKING:
    from resnest.detection.result import Detections


class CocoFile:
    """COCO json with the pictures as `images` and detections as `annotations`, each with its `score`.

    The annotations are a COCO results list, and the file is a data set. Pictures are numbered from 1 in their order;
    `file_name` is the path as it was given.
    """

    def __init__(self, path: str | Path, threshold: float = 0.0) -> None:
        self.path, self.threshold = Path(path), threshold
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self.categories: list[dict[str, Any]] = []
        if not self.path.parent.is_dir():
            raise ResnestError(f"{path} cannot be written: there is no folder {self.path.parent}")
        if self.path.is_dir():
            raise ResnestError(f"{path} is a folder: name a file")

    @classmethod
    def open(cls, path: Path, card: Any, show: Show, inputs: Iterable[Path]) -> CocoFile:
        return cls(path, show.threshold)

    def add(self, result: Detections, name: Path | None = None) -> None:
        """Add the objects of a picture that score at least `threshold`; its own name is used, not `name`."""
        number = len(self.images) + 1
        self.images.append({"id": number, "file_name": result.name, "width": result.width, "height": result.height})
        self.categories = [{"id": key, "name": name} for name, key in zip(*result.classes, strict=True)]
        for entry in result.shown(self.threshold).to_coco(number):
            pixels = area(entry["segmentation"]) if "segmentation" in entry else entry["bbox"][2] * entry["bbox"][3]
            self.annotations.append({"id": len(self.annotations) + 1, **entry, "area": pixels, "iscrowd": 0})

    def close(self) -> str:
        """Write the file; returns a summary. Raises ResnestError."""
        content = {"images": self.images, "categories": self.categories, "annotations": self.annotations}
        with write_errors(self.path), replacing(self.path) as temporary:
            temporary.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        return f"{len(self.annotations)} objects of {len(self.images)} pictures in {self.path}"
