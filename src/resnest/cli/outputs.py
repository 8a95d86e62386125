"""Outputs of `resnest predict`, for any task: lines on standard output, drawings, files for other programs.

printer = Printer("text", RESULTS[task], Show())
printer.write(result)                            # x.jpg: 12 RBC, 1 WBC
outputs = Outputs([], Path("drawn"), Show(), inputs=pictures)
outputs.add(result, picture)                     # drawn/x.jpg
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from resnest.errors import ResnestError

if TYPE_CHECKING:
    from resnest.cli.pictures import Picture
    from resnest.runtime.results import Result, ResultFiles, Show


class Printer:
    """Results on standard output, as text, json or csv."""

    def __init__(self, form: str, kind: type[Result], show: Show) -> None:
        self.form, self.show = form, show
        self.table = csv.writer(sys.stdout)
        if form == "csv":
            self.table.writerow(kind.COLUMNS)

    def write(self, result: Result) -> None:
        if self.form == "csv":
            self.table.writerows(result.cells(self.show))
        else:
            typer.echo(result.to_json(self.show) if self.form == "json" else result.text(self.show))


class Outputs:
    """Files for each picture: drawings in a folder, and the task's files for other programs.

    Raises:
        ResnestError: a file or folder cannot be written.
    """

    def __init__(self, files: Iterable[ResultFiles], drawings: Path | None, show: Show, inputs: Iterable[Path]) -> None:
        from resnest.files import OutputFolder

        self.files = list(files)
        self.drawings = OutputFolder(drawings, inputs) if drawings else None
        self.show = show

    def add(self, result: Result, picture: Picture) -> None:
        for files in self.files:
            files.add(result, picture.place)
        if self.drawings:
            with self.drawings.writing(Path(f"{picture.path.stem}.jpg")) as path:
                result.save(path, picture.path, self.show)

    def close(self) -> list[str]:
        """Write what is left; returns a summary."""
        told = [files.close() for files in self.files]
        drawn = [f"{len(self.drawings.names)} pictures in {self.drawings.folder}"] if self.drawings else []
        return told + drawn


def given(**options: Any) -> dict[str, Any]:
    """Options that are set."""
    return {name: value for name, value in options.items() if value is not None}


def check_options(task: str, options: Iterable[str]) -> None:
    """Raises ResnestError for an option that is for another kind of model."""
    from resnest.tasks import TASKS, load_object, task_info

    def takes(name: str, option: str) -> bool:
        return option in {*load_object(task_info(name).result).OPTIONS, *task_info(name).files}

    for option in options:
        if not takes(task, option):
            owners = [task_info(name) for name in TASKS if takes(name, option)]
            others = " and ".join(f"{owner.noun.removeprefix('a ')}s" for owner in owners)
            raise ResnestError(f"--{option} is for {others}, and this model is {task_info(task).noun}: leave it out")
