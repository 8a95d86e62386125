"""Where the output files of pictures lie: under their folder as the pictures lie under the pictures' common folder.

pictures = place([(Path("in/a/1.jpg"), Path("in/a")), (Path("in/b/1.jpg"), Path("in/b"))])   # a/1 and b/1
folder = OutputFolder(Path("masks"), ".png", [picture.path for picture in pictures])
folder.check(pictures, MASKS_MARK)                    # before the first is written
with folder.writing(pictures[0]) as path: ...         # masks/a/1.png
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from resnest.errors import ResnestError
from resnest.files import WRITTEN, check_replaceable, use_for_output, write_errors


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
    """Files of one suffix for pictures; never two under one name, over one of the `inputs`, or over anybody else's.

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
        return str(self.folder)

    def check(self, pictures: Iterable[Placed], mark: str, root: Path | None = None) -> None:
        """Mark the folder for output, or the one above it, `root`.

        Raises:
            ResnestError: a picture, or a file that somebody else wrote, might be replaced or is in the folder; earlier
                output is among the pictures.
        """
        here = self.folder.resolve()
        inside = sum(here in path.parents for path in self.inputs)
        if 0 < inside < len(self.inputs):
            raise ResnestError(
                f"{self.folder} is for output, and {inside} of the {len(self.inputs)} pictures lie in it, perhaps as"
                f" earlier output: take a folder outside of theirs"
            )
        for picture in pictures:
            self._refuse(self.path_of(picture.stem))
        use_for_output(root or self.folder, mark)

    @contextmanager
    def writing(self, picture: Placed | None, name: str = "") -> Iterator[Path]:
        """The path for a picture's file; without a picture that of `name`, with a number if it is taken.

        Raises:
            ResnestError: it would replace an input or somebody else's file, or cannot be written.
        """
        stem = picture.stem if picture else self._free(Path(Path(name).stem))
        self.written.add(stem)
        path = self.path_of(stem)
        self._refuse(path)
        with write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield path

    def path_of(self, stem: Path) -> Path:
        """Of the file with this stem."""
        return self.folder / stem.with_name(stem.name + self.suffix)

    def _free(self, stem: Path) -> Path:
        wanted = stem
        while stem in self.written:
            self._copies[wanted] += 1
            stem = wanted.with_name(f"{wanted.name}-{self._copies[wanted] + 1}")
        return stem

    def _refuse(self, path: Path) -> None:
        if path.resolve() in self.inputs:
            raise ResnestError(f"{path} is a picture that is looked at: take another folder than {self.folder}")
        check_replaceable(path)


def save_marked(picture: Image.Image, path: Path, **options: Any) -> None:
    """Save a picture with our mark, in JPEG and PNG. Raises OSError."""
    info = PngInfo()
    info.add_text("Software", WRITTEN)
    picture.save(path, pnginfo=info, comment=WRITTEN, **options)
