"""Where the files of a format lie: in the folder itself, in folders named by part, or files named by part.

handle = by_part("labelme", Path("photos"), holds_labelme, read_labelme)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from resnest.data.folders import find_parts
from resnest.data.formats import DatasetHandle, handle_of_folders, handle_of_parts
from resnest.data.parts import choose_splits
from resnest.detection.data import DetectionSamples
from resnest.errors import ResnestError

MOST_LISTED = 50  # files of a folder that are looked into


def by_part(
    format: str, path: Path, holds: Callable[[Path], bool], read: Callable[[Path], DetectionSamples]
) -> DatasetHandle | None:
    """The data set in a folder, or in folders in it that are named by part. Raises ResnestError for two of one part."""
    if holds(path):
        return DatasetHandle(format, str(path), unsplit=partial(read, path))
    parts = find_parts(path, lambda name: holds(path / name))
    return handle_of_folders(format, path, parts, lambda name: partial(read, path / name)) if parts else None


def by_part_files(
    format: str, path: Path, files_in: Callable[[Path], list[Path]], read: Callable[[Path], DetectionSamples]
) -> DatasetHandle | None:
    """The same of a format with a file for each part."""

    def read_in(folder: Path) -> DetectionSamples:
        found = files_in(folder)
        if len(found) > 1:
            raise ResnestError(f"{folder} has several annotation files: {', '.join(file.name for file in found)}")
        return read(found[0])

    return by_part(format, path, lambda folder: bool(files_in(folder)), read_in)


def of_files(
    format: str, path: Path, names: Sequence[str], read: Callable[[Path], DetectionSamples]
) -> DatasetHandle | None:
    """The data set of files or folders below a folder, one for each part. Raises ResnestError for two of one part."""
    parts = choose_splits(names)
    for chosen in parts:
        if len(chosen) > 1:
            raise ResnestError(
                f"{path} has several annotation files of one split: {', '.join(chosen)}; give one of them, or leave"
                " one training and one validation file there"
            )
    if parts.val:
        return handle_of_parts(format, str(path), parts, lambda chosen: partial(read, path / chosen[0]))
    return DatasetHandle(format, str(path), unsplit=partial(read, path / parts.unsplit[0])) if parts.unsplit else None


def visible(folder: Path) -> list[Path]:
    """The files and folders in a folder, in the order of their names, without hidden ones; none if it is no folder."""
    if not folder.is_dir():
        return []
    return sorted(file for file in folder.iterdir() if not file.name.startswith((".", "__MACOSX")))


def with_suffix(folder: Path, *suffixes: str) -> list[Path]:
    """The files in a folder that end so, in any case."""
    return [file for file in visible(folder) if file.suffix.lower() in suffixes and file.is_file()]
