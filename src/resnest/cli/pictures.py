"""The pictures that `resnest predict` takes, and files that it writes for each of them.

for picture in find_pictures(["photos", "a.jpg"]):
    picture.path, picture.place                  # photos/b/c.jpg, b/c.jpg: where it lies in the folder that was named
folder = OutputFolder(Path("out"), "--draw", pictures)
with folder.writing(picture.place.with_suffix(".jpg")) as path: ...
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from glob import glob, has_magic
from pathlib import Path
from typing import NamedTuple

from resnest.errors import ResnestError


class Picture(NamedTuple):
    """A file to look at."""

    path: Path
    place: Path  # within the folder that was named, or its name


def find_pictures(paths: list[str]) -> Iterator[Picture]:
    """Files in the order given; a folder's images in sorted order, subfolders included.

    Raises:
        ResnestError: a folder without images, a pattern that no file matches.
    """
    from resnest.runtime.decode import SUFFIXES

    for text in paths:
        path = Path(text)
        if path.is_dir():
            found = [file for file in sorted(path.rglob("*")) if file.suffix.lower() in SUFFIXES and file.is_file()]
            if not found:
                raise ResnestError(f"no images in {path} (looked for {', '.join(SUFFIXES)})")
            yield from (Picture(file, file.relative_to(path)) for file in found)
        elif has_magic(text) and not path.exists():
            matches = [Path(match) for match in sorted(glob(text, recursive=True)) if Path(match).is_file()]
            if not matches:
                raise ResnestError(f"no file matches {text}")
            yield from (Picture(file, Path(file.name)) for file in matches)
        else:
            yield Picture(path, Path(path.name))


class OutputFolder:
    """Files that go into one folder, never two under one name, and never over a picture that is looked at.

    Raises:
        ResnestError: it cannot be made.
    """

    def __init__(self, folder: Path, option: str, pictures: Iterable[Picture]) -> None:
        self.folder, self.option = folder, option
        self.inputs = {picture.path.resolve() for picture in pictures}
        self.names: set[Path] = set()
        with self._told(folder):
            folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def writing(self, name: Path) -> Iterator[Path]:
        """The path for a file of this name, or with a number behind its stem if the name is taken.

        Raises:
            ResnestError: it would replace a picture, or cannot be written.
        """
        stem, number = name.stem, 1
        while name in self.names:
            number += 1
            name = name.with_name(f"{stem}-{number}{name.suffix}")
        self.names.add(name)
        path = self.folder / name
        if path.resolve() in self.inputs:
            raise ResnestError(
                f"{self.option} {self.folder}: {path} is a picture that is looked at: take another folder"
            )
        with self._told(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield path

    @contextmanager
    def _told(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ResnestError(
                f"{self.option} {self.folder}: {path} cannot be written: {error.strerror or error}"
            ) from None
