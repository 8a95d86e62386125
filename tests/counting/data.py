"""Pictures with a count each, and the format that has them: a folder with counts.csv."""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.data.formats import DatasetHandle, Finder
from resnest.data.samples import Samples
from resnest.data.stores import FolderStore
from resnest.errors import ResnestError

FILE = "counts.csv"


@dataclass(frozen=True)
class CountSamples(Samples):
    """Pictures with a count each."""

    task = "counting"
    has = "counts"

    values: NDArray[np.float32]  # (N,)

    def example(self, index: int) -> tuple[Image.Image, float]:
        return self.decode(index), float(self.values[index])

    def subset(self, indices: NDArray[np.int64]) -> CountSamples:
        return replace(self, keys=[self.keys[index] for index in indices], values=self.values[indices])

    def check(self, where: str) -> None:
        if not self.values.any():
            raise ResnestError(f"{where} has no picture with a dot: nothing to learn")

    def matched(self, val: CountSamples, where: str) -> tuple[CountSamples, CountSamples]:
        return self, val

    def aligned(self, card: Any, where: str) -> CountSamples:
        return self

    def counts(self) -> NDArray[np.int64]:
        return np.array([len(self)])


def find_counts(path: Path, task: str | None) -> DatasetHandle | None:
    return DatasetHandle("counts", str(path), unsplit=lambda: read_counts(path)) if (path / FILE).is_file() else None


def read_counts(path: Path) -> CountSamples:
    rows = list(csv.reader((path / FILE).read_text(encoding="utf-8").splitlines()))
    return CountSamples(FolderStore(path), [row[0] for row in rows], ("dots",), np.array([row[1] for row in rows], "f"))


FINDERS = (Finder("counts", ("counting",), find_counts),)
