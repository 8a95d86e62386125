"""Where the output files of pictures lie: under their folder as the pictures lie under the pictures' common folder.

pictures = place([(Path("in/a/1.jpg"), Path("in/a")), (Path("in/b/1.jpg"), Path("in/b"))])   # a/1 and b/1
folder = OutputFolder(Path("masks"), ".png", [picture.path for picture in pictures])
folder.check(pictures)                                # before the first is written
with folder.writing(pictures[0]) as path: ...         # masks/a/1.png
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from resnest.errors import ResnestError
from resnest.files import write_errors


class Placed(NamedTuple):
    """A picture, and what its output is called."""

    path: Path
    stem: Path  # of its files, without suffix, within their folder
    number: int  # its id in files of many pictures


def place(pictures: Sequence[tuple[Path, Path]]) -> list[Placed]:
    """Pictures with the folders that they were found in: each keeps its path below the common folder of these.

    Pictures that differ in their suffix alone keep it: a.png and a.bmp give a.png.jpg and a.bmp.jpg. A picture's name
    and number do not depend on whether another one can be used; a picture that occurs twice has the same both times.
    """
    common = _common({os.path.abspath(folder) for _, folder in pictures})
    names = [_below(common, path) for path, _ in pictures]
    numbers: dict[Path, int] = {}
    for name in names:
        numbers.setdefault(name, len(numbers) + 1)
    count = Counter(name.with_suffix("") for name in numbers)
    stems = {name: name.with_suffix("") if count[name.with_suffix("")] == 1 else name for name in numbers}
    if len(set(stems.values())) < len(stems):  # a.png.jpg beside a.png and a.bmp
        stems = {name: name for name in numbers}
    return [Placed(path, stems[name], numbers[name]) for (path, _), name in zip(pictures, names, strict=True)]


def _common(folders: set[str]) -> str:
    try:
        return os.path.commonpath(folders) if folders else ""
    except ValueError:  # on several drives of Windows
        return ""


def _below(common: str, path: Path) -> Path:
    full = Path(os.path.abspath(path))
    return full.relative_to(common or full.anchor)


class OutputFolder:
    """Files of one suffix for pictures; never two under one name, and never over one of the `inputs`.

    Raises:
        ResnestError: the folder cannot be made.
    """

    def __init__(self, folder: Path, suffix: str, inputs: Iterable[Path] = ()) -> None:
        self.folder, self.suffix = folder, suffix
        self.inputs = {path.resolve() for path in inputs}
        self.written: set[Path] = set()  # stems
        self._copies: Counter[Path] = Counter()
        with write_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)

    def __str__(self) -> str:
        beside = any(path.parent == self.folder.resolve() for path in self.inputs)
        return f"{self.folder}{', the folder of the pictures' if beside else ''}"

    def check(self, pictures: Iterable[Placed]) -> None:
        """Raises ResnestError if a picture might be replaced, or if earlier output is among the pictures."""
        here, folders = self.folder.resolve(), {path.parent for path in self.inputs}
        inside = sum(here in path.parents for path in self.inputs)
        if 0 < inside < len(self.inputs):
            raise ResnestError(
                f"{self.folder} is for output, and {inside} of the {len(self.inputs)} pictures lie in it, perhaps as"
                f" earlier output: take a folder outside of theirs"
            )
        for picture in pictures:
            path = self._path(picture.stem)
            if not os.path.lexists(path):
                continue
            self._refuse_input(path)
            if path.parent.resolve() in folders:
                raise ResnestError(
                    f"{path} is there already, in a folder of the pictures: it may be one of them. Take another folder"
                    f" than {self.folder}"
                )

    @contextmanager
    def writing(self, picture: Placed | None, name: str = "") -> Iterator[Path]:
        """The path for a picture's file; without a picture that of `name`, with a number if it is taken.

        Raises:
            ResnestError: it would replace an input, or cannot be written.
        """
        stem = picture.stem if picture else self._free(Path(Path(name).stem))
        self.written.add(stem)
        path = self._path(stem)
        self._refuse_input(path)
        with write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield path

    def _path(self, stem: Path) -> Path:
        return self.folder / stem.with_name(stem.name + self.suffix)

    def _free(self, stem: Path) -> Path:
        wanted = stem
        while stem in self.written:
            self._copies[wanted] += 1
            stem = wanted.with_name(f"{wanted.name}-{self._copies[wanted] + 1}")
        return stem

    def _refuse_input(self, path: Path) -> None:
        if path.resolve() in self.inputs:
            raise ResnestError(f"{path} is a picture that is looked at: take another folder than {self.folder}")
