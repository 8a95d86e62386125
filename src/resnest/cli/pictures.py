"""The pictures that `resnest predict` takes: files, folders and globs.

for picture in find_pictures(["photos", "a.jpg"]):
    picture.path, picture.place                  # photos/b/c.jpg, b/c.jpg: its path within the named folder
"""

from __future__ import annotations

from collections.abc import Iterator
from glob import glob, has_magic
from pathlib import Path
from typing import NamedTuple

from resnest.errors import ResnestError


class Picture(NamedTuple):
    """A picture file."""

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
