"""What `resnest predict` writes of segments: lines on standard output, and masks for other tools.

writer = LabelMapWriter("text")
writer.write(found)                              # x.jpg: road 31 %, sky 22 %
masks = LabelMapFolder(Path("masks"), pictures, found.classes)
masks.add(picture, found)                        # masks/x.png; masks/classes.json
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from resnest.cli.pictures import OutputFolder, Picture

if TYPE_CHECKING:
    from resnest.runtime.label_map import LabelMap, PixelClasses


class LabelMapWriter:
    """Results on standard output: the classes of a picture's pixels, the largest first."""

    def __init__(self, form: str) -> None:
        self.form = form
        self.table = csv.writer(sys.stdout)
        if form == "csv":
            self.table.writerow(["image", "label", "category_id", "pixels", "share", "score"])

    def write(self, found: LabelMap) -> None:
        from resnest.runtime.label_map import in_percent

        if self.form == "json":
            typer.echo(json.dumps(found.to_dict(), ensure_ascii=False))
        elif self.form == "csv":
            for one in found.to_dict()["segments"]:
                figures = [one["pixels"], f"{one['share']:.6f}", f"{one['score']:.6f}"]
                self.table.writerow([found.name, one["label"], one["category_id"], *figures])
        else:
            shares = ", ".join(f"{name} {in_percent(share)}" for name, share in found.shares().items())
            typer.echo(f"{found.name}: {shares}")


class LabelMapFolder:
    """Masks named after their pictures, and the list of classes: with the pictures beside it, a data set."""

    def __init__(self, folder: Path, pictures: Sequence[Picture], classes: PixelClasses) -> None:
        from resnest.runtime.label_files import save_class_list

        self.files = OutputFolder(folder, "--masks", pictures)
        with self.files.writing(Path("classes.json")) as path:
            save_class_list(classes, path)

    def add(self, picture: Picture, found: LabelMap) -> None:
        from resnest.runtime.label_files import save_labels

        with self.files.writing(picture.place.with_suffix(".png")) as path:
            save_labels(found, path)

    def close(self) -> str:
        """Say what was written."""
        return f"{len(self.files.names) - 1} masks and classes.json in {self.files.folder}"
