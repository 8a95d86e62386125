"""What `resnest predict` writes of segments: lines on standard output, and masks for other tools.

Of a segmenter (LabelMap) and of a panoptic detector (PanopticMap):

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
    from resnest.runtime.panoptic_map import PanopticClasses, PanopticMap


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
        self.files = OutputFolder(folder, "--masks", pictures)
        self.classes = classes

    def add(self, picture: Picture, found: LabelMap) -> None:
        from resnest.runtime.label_files import save_labels

        with self.files.writing(picture.place.with_suffix(".png")) as path:
            save_labels(found, path)

    def close(self) -> str:
        """Write the list, and say so; last, so that a folder of pictures that is refused stays as it is."""
        from resnest.runtime.label_files import save_class_list

        masks = len(self.files.names)
        with self.files.writing(Path("classes.json")) as path:
            save_class_list(self.classes, path)
        return f"{masks} masks and classes.json in {self.files.folder}"


class PanopticMapWriter:
    """Results on standard output: how many objects of each class, and what stuff."""

    def __init__(self, form: str) -> None:
        self.form = form
        self.table = csv.writer(sys.stdout)
        if form == "csv":
            self.table.writerow(
                ["image", "id", "label", "category_id", "thing", "score", "area", "x", "y", "width", "height"]
            )

    def write(self, found: PanopticMap) -> None:
        if self.form == "json":
            typer.echo(json.dumps(found.to_dict(), ensure_ascii=False))
        elif self.form == "csv":
            for one in found.to_dict()["segments"]:
                told = [one["label"], one["category_id"], int(one["thing"]), f"{one['score']:.6f}", one["area"]]
                self.table.writerow([found.name, one["id"], *told, *one["bbox"]])
            if not found.segments:
                self.table.writerow([found.name, *[""] * 10])
        else:
            things = found.classes.names[: found.classes.things]
            counts = found.counts().items()
            typer.echo(
                f"{found.name}: {', '.join(f'{n} {name}' if name in things else name for name, n in counts) or '-'}"
            )


class PanopticFolder:
    """COCO's files: panoptic.json with the segments, and in panoptic/ a PNG of their ids for each picture."""

    def __init__(self, folder: Path, pictures: Sequence[Picture], classes: PanopticClasses) -> None:
        from resnest.runtime.panoptic_files import PanopticWriter

        self.files = OutputFolder(folder, "--masks", pictures)
        self.writer = PanopticWriter(folder / "panoptic.json", classes)

    def add(self, picture: Picture, found: PanopticMap) -> None:
        with self.files.writing("panoptic" / picture.place.with_suffix(".png")) as path:
            number = len(self.files.names)
            self.writer.add(number, found, path.relative_to(self.writer.folder).as_posix())

    def close(self) -> str:
        """Write the json, and say so."""
        self.writer.close()
        return f"{len(self.files.names)} maps in {self.writer.folder}, and {self.writer.path.name} beside it"
