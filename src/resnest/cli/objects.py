"""What `resnest predict` writes of objects: lines on standard output, and a file for COCO's tools.

writer = ObjectWriter("text", threshold=0.5)
writer.write(found)                              # x.jpg: 12 RBC, 1 WBC
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from resnest.errors import ResnestError
from resnest.files import replacing

if TYPE_CHECKING:
    from resnest.cli.pictures import Picture
    from resnest.runtime.detections import Detections


class ObjectWriter:
    """Results on standard output: the objects with a score of `threshold` or more."""

    def __init__(self, form: str, threshold: float) -> None:
        self.form, self.threshold = form, threshold
        self.table = csv.writer(sys.stdout)
        if form == "csv":
            self.table.writerow(["image", "label", "score", "x", "y", "width", "height"])

    def write(self, found: Detections) -> None:
        shown = found.shown(self.threshold)
        if self.form == "json":
            typer.echo(json.dumps(shown.to_dict(), ensure_ascii=False))
        elif self.form == "csv":
            for one in shown.to_dict()["objects"]:
                sides = [f"{side:.2f}" for side in one["bbox"]]
                self.table.writerow([shown.name, one["label"], f"{one['score']:.6f}", *sides])
            if not len(shown):
                self.table.writerow([shown.name, *[""] * 6])
        else:
            counts = ", ".join(f"{count} {name}" for name, count in shown.counts().items())
            typer.echo(f"{shown.name}: {counts or '-'}")


class CocoFile:
    """COCO json with the pictures as `images` and what was found as `annotations`, each with its `score`.

    The annotations are a COCO results list, and the whole is a data set, which labelling tools open. Pictures are
    numbered from 1 in their order; `file_name` is the path as it was given.
    """

    def __init__(self, path: Path, threshold: float) -> None:
        self.path, self.threshold = path, threshold
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self.categories: list[dict[str, Any]] = []
        if not path.parent.is_dir():
            raise ResnestError(f"--coco {path}: there is no folder {path.parent}")
        if path.is_dir():
            raise ResnestError(f"--coco {path} is a folder: name a file")

    def add(self, picture: Picture, found: Detections) -> None:
        from resnest.runtime.rle import area

        number = len(self.images) + 1
        self.images.append({"id": number, "file_name": found.name, "width": found.width, "height": found.height})
        self.categories = [{"id": key, "name": name} for name, key in zip(*found.classes, strict=True)]
        for entry in found.shown(self.threshold).to_coco(number):
            pixels = area(entry["segmentation"]) if "segmentation" in entry else entry["bbox"][2] * entry["bbox"][3]
            self.annotations.append({"id": len(self.annotations) + 1, **entry, "area": pixels, "iscrowd": 0})

    def close(self) -> str:
        """Write it, and say so. Raises ResnestError."""
        content = {"images": self.images, "categories": self.categories, "annotations": self.annotations}
        try:
            with replacing(self.path) as temporary:
                temporary.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        except OSError as error:
            raise ResnestError(f"--coco {self.path} cannot be written: {error.strerror or error}") from None
        return f"{len(self.annotations)} objects of {len(self.images)} pictures in {self.path}"
