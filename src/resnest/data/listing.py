"""The images of a folder, by their names and, where a name says nothing, by their content.

    listing = list_images(Path("photos"))
    listing.images, listing.notes()          # relative paths in sorted order; what was left out, and why

One rule for data sets and predictions, for folders and archives: files of the usual suffixes are images, others are
if they begin like one. What a system leaves behind is ignored (`is_ignored`), and so are run directories and folders of
drawn pictures (`files.is_output`); everything else that is left out has a reason. Links are followed.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from resnest.errors import ResnestError
from resnest.files import is_output
from resnest.runtime.band_files import NUMPY
from resnest.runtime.band_files import SUFFIXES as BANDS
from resnest.runtime.decode import FORMATS, SUFFIXES
from resnest.runtime.tiff import STARTS as TIFF

# Left by macOS, Synology, QNAP, Windows, Python; lower case. Beside these, whatever begins with a dot: ._1.jpg,
# .DS_Store, .ipynb_checkpoints
IGNORED = {
    "__macosx", "@eadir", "@tmp", "#recycle", "#snapshot", "@recycle", "$recycle.bin", "system volume information",
    "lost+found", "__pycache__", "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r",
}  # fmt: skip
# Files beside images that are read otherwise, or by people
NO_DATA = re.compile(r"(classes\.json|classnames\.txt|(readme|licen[cs]e|copying|citation)\b.*)", re.IGNORECASE)
ARRAY = ".npy"
START = 32  # bytes of a file that tell its format
DIB_SIZES = {12, 16, 40, 52, 56, 64, 108, 124}  # of a BMP's second header
UNREAD = (  # first bytes, where they stand, format
    *((start, 0, "TIFF") for start in TIFF),
    (b"ftypavif", 4, "AVIF"),
    (b"ftyphei", 4, "HEIC"),
    (b"ftyphev", 4, "HEIC"),
    (b"ftypmif1", 4, "HEIC"),
    (b"\0\0\0\x0cJXL ", 0, "JPEG XL"),
    (b"\xff\x0a", 0, "JPEG XL"),
    (b"\0\0\0\x0cjP  ", 0, "JPEG 2000"),
    (b"8BPS", 0, "PSD"),
    (b"%PDF", 0, "PDF"),
)


def is_ignored(name: str) -> bool:
    """Whether a file or folder of this name is a system's own."""
    return name.startswith(".") or name.lower() in IGNORED


def is_image_start(start: bytes) -> bool:
    """Whether a file that begins like this is of one of `decode.FORMATS`."""
    return (
        start.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a"))
        or (start[:4] == b"RIFF" and start[8:12] == b"WEBP")
        or (start[:2] == b"BM" and int.from_bytes(start[14:18], "little") in DIB_SIZES)
    )


def is_bands_start(name: str, start: bytes) -> bool:
    """Whether a file of a data set is a picture that `runtime.bands` reads: TIFF, or NumPy's."""
    return start.startswith((*TIFF, NUMPY))


def why_no_image(name: str, start: Callable[[], bytes]) -> str:
    """Why a file is not an image, or "" if it is one; `start` reads its first bytes, if the name says nothing."""
    suffix = os.path.splitext(name)[1].lower()
    if suffix in SUFFIXES:
        return ""
    try:
        head = start()
    except (OSError, RuntimeError, NotImplementedError, EOFError) as error:
        return f"cannot be read ({getattr(error, 'strerror', None) or error})"
    if is_image_start(head):
        return ""
    other = next((kind for mark, at, kind in UNREAD if head[at : at + len(mark)] == mark), "")
    if other:
        return f"{other}, which is not read: save as PNG or JPEG"
    return "empty" if not head else f"no image ({suffix})" if suffix else "no image"


@dataclass
class Listing:
    """Images found below a folder or in an archive, in sorted order, and what was left out."""

    where: str
    images: list[str] = field(default_factory=list)  # relative paths with "/"
    reasons: Counter[str] = field(default_factory=Counter)  # of files that are left out
    examples: dict[str, str] = field(default_factory=dict)  # reason -> the first of them
    ignored: Counter[str] = field(default_factory=Counter)  # a system's file or folder -> number of files
    folders: set[str] = field(default_factory=set)  # those below, of any depth
    also: Callable[[str, bytes], object] | None = None  # by name and first bytes, what else is taken for images

    def leave_out(self, name: str, reason: str) -> None:
        """Count a file with the reason why it is no image; without one, it is a system's own."""
        if not reason:
            self.ignored[shown_ignored(next(filter(is_ignored, name.split("/"))))] += 1
            return
        if "/" in name:
            self.folders.add(name.rpartition("/")[0])
        self.reasons[reason] += 1
        self.examples.setdefault(reason, name)

    def add(self, name: str, start: Callable[[], bytes]) -> None:
        """A file that is none of a system's own: an image, or left out; lists and licences are nobody's loss."""
        if self.takes(name, start):
            self.images.append(name)

    def takes(self, name: str, start: Callable[[], bytes]) -> bool:
        """Whether a file is an image, or taken for one; if not, it is left out."""
        reason = why_no_image(name, start)
        if reason and self.also and not reason.startswith("cannot be read") and self.also(name, start()):
            return True
        if reason and not NO_DATA.fullmatch(name.rpartition("/")[2]):
            self.leave_out(name, reason)
        return not reason

    def without_arrays(self) -> Listing:
        """Without NumPy's files where there are other pictures, beside which they are features or labels."""
        arrays = [name for name in self.images if name.lower().endswith(ARRAY)]
        if len(arrays) < len(self.images):
            self.images = [name for name in self.images if not name.lower().endswith(ARRAY)]
            for name in arrays:
                self.leave_out(name, "an array beside pictures")
        return self

    def notes(self) -> tuple[str, ...]:
        """One on the files that are left out, one on those that are ignored."""
        left = [
            f"{count} files such as {self.examples[reason]} ({reason})"
            if count > 1
            else f"{self.examples[reason]} ({reason})"
            for reason, count in self.reasons.items()
        ]
        total = sum(self.ignored.values())
        return (
            *(f"left out: {text}" for text in left),
            *((f"ignored: {total} {'files' if total != 1 else 'file'} of {', '.join(self.ignored)}",) if total else ()),
        )

    def below(self, folder: str) -> Listing:
        """What was left out in one of the folders, as a reason for an error; images are not kept."""
        part = Listing(f"{self.where}/{folder}")
        for reason, name in self.examples.items():
            if name.startswith(f"{folder}/"):
                part.reasons[reason], part.examples[reason] = self.reasons[reason], name
        return part


def list_images(folder: Path, also: Callable[[str, bytes], object] | None = None) -> Listing:
    """The images below a folder, and what is `also` taken. Raises ResnestError if a folder cannot be read."""
    found = Listing(str(folder), also=also)
    found.images.extend(walk_images(folder, found))
    return found


def walk_images(folder: Path, found: Listing) -> Iterator[str]:
    """The names of the images one by one, in the same order; what is left out is noted in `found`."""
    return _walk(str(folder), "", found, (_identity(folder),))


def files_below(folder: Path) -> Iterator[Path]:
    """The files of a folder and of those below, without a system's own and our output; linked folders are not read."""
    for entry in _entries(str(folder)) if folder.is_dir() else ():
        path = Path(entry.path)
        if is_ignored(entry.name) or (entry.is_dir() and is_output(path)):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from files_below(path)
        elif not entry.is_dir():
            yield path


def _walk(path: str, inside: str, found: Listing, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    for entry in _entries(path):
        name = f"{inside}{entry.name}"
        if is_ignored(entry.name):
            found.ignored[shown_ignored(entry.name)] += _count_files(entry)
        elif entry.is_dir() and is_output(entry.path):
            found.ignored[f"{name} (output of resnest)"] += _count_files(entry)
        elif entry.is_dir():
            identity = _identity(Path(entry.path))
            if identity in above:
                found.leave_out(name, "a link to a folder that it lies in")
                continue
            found.folders.add(name)
            yield from _walk(entry.path, f"{name}/", found, (*above, identity))
        elif entry.is_file():
            if found.takes(name, lambda path=entry.path: read_start(path)):  # type: ignore[misc]
                yield name
        else:
            found.leave_out(name, "a broken link" if entry.is_symlink() else "neither a file nor a folder")


def _entries(path: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise ResnestError(f"{path} cannot be read: {error.strerror or error}") from None


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def shown_ignored(name: str) -> str:
    """What ignored files are counted under: their name, or ._* for the copies that macOS makes."""
    return "._*" if name.startswith("._") else name


def _count_files(entry: os.DirEntry[str]) -> int:
    if not entry.is_dir(follow_symlinks=False):
        return 1
    return sum(len(files) for _, _, files in os.walk(entry.path))


def read_start(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(START)


class FolderTree:
    """The folders of a folder, read level by level: data of millions of files opens without a look at each."""

    def __init__(self, root: Path) -> None:
        self.where = str(root)
        self.root = root

    @staticmethod
    def _is_picture(entry: os.DirEntry[str]) -> bool:
        if not why_no_image(entry.name, lambda: read_start(entry.path)):
            return True
        return entry.name.lower().endswith(BANDS) and is_bands_start(entry.name, read_start(entry.path))

    def folders(self, inside: str) -> list[str]:
        entries = _entries(str(self.root / inside))
        return [
            entry.name
            for entry in entries
            if entry.is_dir() and not is_ignored(entry.name) and not is_output(entry.path)
        ]

    def holds_images(self, inside: str) -> bool:
        """Whether images lie directly in a folder."""
        return any(
            not is_ignored(entry.name) and entry.is_file() and self._is_picture(entry)
            for entry in _entries(str(self.root / inside))
        )


class ArchiveTree:
    """The same of the images in an archive."""

    def __init__(self, where: str, paths: Iterable[str], folders: Iterable[str]) -> None:
        self.where = where
        self._with_images = {path.rpartition("/")[0] for path in paths}
        self._folders: dict[str, set[str]] = {}
        for folder in {*self._with_images, *folders} - {""}:
            for above, name in _steps(folder):
                self._folders.setdefault(above, set()).add(name)

    def folders(self, inside: str) -> list[str]:
        return sorted(self._folders.get(inside, ()))

    def holds_images(self, inside: str) -> bool:
        return inside in self._with_images


def _steps(folder: str) -> Iterator[tuple[str, str]]:
    """ "a/b" -> ("", "a"), ("a", "b")."""
    parts = folder.split("/")
    yield from (("/".join(parts[:depth]), name) for depth, name in enumerate(parts))


def nothing_found(listing: Listing) -> str:
    """Why there is no image: what was looked for, or what is there instead."""
    return "; ".join(listing.notes()) or f"looked for {', '.join(FORMATS)} files"
