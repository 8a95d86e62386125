"""What `resnest predict` writes of labels on standard output.

writer = LabelWriter("text", top=3)
writer.write(result)                             # x.jpg: rose 91.2%  tulip 6.0%  daisy 1.4%
"""

from __future__ import annotations

import csv
import json
import sys
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from resnest.runtime.results import Classification


class LabelWriter:
    """Results on standard output: the `top` most likely classes."""

    def __init__(self, form: str, top: int | None) -> None:
        self.form = form
        self.top = top
        self.table = csv.writer(sys.stdout)
        if form == "csv":
            self.table.writerow(["image", "rank", "label", "score"])

    def write(self, result: Classification) -> None:
        if self.form == "json":
            typer.echo(json.dumps(result.to_dict(self.top or 1), ensure_ascii=False))
        elif self.form == "csv":
            for rank, (label, score) in enumerate(result.shown(self.top), start=1):
                self.table.writerow([result.name, rank, label, f"{score:.6f}"])
            if not result.shown(self.top):
                self.table.writerow([result.name, "", "", ""])
        else:
            ranking = "  ".join(f"{label} {score:.1%}" for label, score in result.shown(self.top))
            typer.echo(f"{result.name}: {ranking or '-'}")
