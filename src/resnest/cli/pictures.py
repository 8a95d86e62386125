"""The pictures that `resnest predict` takes: files, folders, globs, lists of them; of a batch job tar files, too."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from glob import glob, has_magic
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import typer

from resnest.cli.picture_lists import is_list, is_table, read_list
from resnest.errors import ResnestError, parameter

if TYPE_CHECKING:
    from resnest.batch.pictures import Entry
    from resnest.cli.sources import Sources
    from resnest.runtime.outputs import Placed

Also = Callable[[str, bytes], object]  # by name and first bytes, whether a file of a folder is taken


TARS = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")


class Picture(NamedTuple):
    """A picture file."""

    path: Path
    relative: Path  # within the folder that was named, or its name


def find_pictures(paths: Iterable[str], sources: Sources | None = None, also: Also | None = None) -> Iterator[Picture]:
    """Files in the order given; a folder's images in sorted order, subfolders included.

    What is left out of a folder is said on standard error.

    Raises:
        ResnestError: a folder without images, a pattern that no file matches.
    """
    for text in paths:
        path = Path(text)
        if path.is_dir():
            yield from _in_folder(path, sources.takes if sources else also, sources)
        elif has_magic(text) and not path.exists():
            matches = [Path(match) for match in sorted(glob(text, recursive=True)) if Path(match).is_file()]
            if not matches:
                raise ResnestError(f"no file matches {text}")
            yield from (Picture(file, Path(file.name)) for file in matches)
        else:
            yield Picture(path, Path(path.name))


def _in_folder(folder: Path, also: Also | None, sources: Sources | None) -> Iterator[Picture]:
    from resnest.data.listing import Listing, nothing_found, walk_images

    found, empty = Listing(str(folder), also=also), True
    before = sources.left if sources else 0
    for name in walk_images(folder, found):
        empty = False
        yield Picture(folder / name, Path(name))
    videos = sources.left - before if sources else 0
    how = f"{parameter('every', 1)} takes the videos of folders, too: {videos} here" if videos else ""
    if empty:
        raise ResnestError(f"no images in {folder} ({how or nothing_found(found)})")
    if how:
        typer.echo(f"{folder}: {how}", err=True)
    for note in found.notes():
        typer.echo(f"{folder}: {note}", err=True)


def collect(paths: list[str], sources: Sources) -> tuple[list[Placed], int]:
    """The pictures and sources, placed for output, and how many lists are unusable: of several words, others go on."""
    from resnest.runtime.outputs import place

    found: list[Picture] = []
    unusable = 0
    for text in paths:
        try:
            found += [*(_listed(text, sources) if is_list(text) else _named(text, sources))]
        except ResnestError as error:
            if len(paths) == 1 or not is_list(text):
                raise
            unusable += 1
            typer.echo(f"skipped: {error}", err=True)
    placed = place([(picture.path, picture.path.parents[len(picture.relative.parts) - 1]) for picture in found])
    return placed, unusable


def _named(text: str, sources: Sources) -> Iterator[Picture]:
    """What a word of the command line names, other than a list."""
    from resnest.runtime.sources import is_address

    if is_address(text):
        path = sources.stand_in(text)
        return iter([Picture(path, Path(path.name))])
    return find_pictures([text], sources)


def _listed(text: str, sources: Sources) -> Iterator[Picture]:
    for path in dict.fromkeys(read_list(text)) if is_table(text) else read_list(text):
        if isinstance(path, str) or path.is_dir():
            yield from _named(str(path), sources)
        else:
            yield Picture(path, Path(path.name))


def entries(words: list[str], also: Also | None = None) -> Iterator[Entry]:
    """The same pictures one by one, of any number, for a batch job; tar files give the pictures in them.

    Args:
        also: by name and first bytes, what of folders and tar files is taken, too.

    Raises:
        ResnestError: as `find_pictures` and `read_list`; a tar file that is damaged or holds no picture.
    """
    for word in words:
        listed = is_list(word)
        for path in map(Path, read_list(word)) if listed else [Path(word)]:
            for picture in (
                find_pictures([str(path)], also=also) if path.is_dir() or not listed else [Picture(path, path)]
            ):
                yield from _in_tar(picture.path, also) if _is_tar(picture.path) else [str(picture.path)]


def _is_tar(path: Path) -> bool:
    """Whether it is a tar file by its name, also a compressed one, which is refused with what to do."""
    return path.name.lower().endswith(TARS) and path.is_file()


def _in_tar(path: Path, also: Also | None) -> Iterator[Entry]:
    from resnest.batch.pictures import tar_entries
    from resnest.data.listing import Listing, nothing_found

    found, empty = Listing(str(path), also=also), True
    for entry in tar_entries(path, found):
        empty = False
        yield entry
    if empty:
        raise ResnestError(f"no images in {path} ({nothing_found(found)})")
    for note in found.notes():
        typer.echo(f"{path}: {note}", err=True)
