"""Atomic writes, our own output, file hashes, the cache folder, and the file names of a saved model.

with replacing(Path("config.json")) as temporary:
    temporary.write_text("{}")
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import mmap
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from resnest.errors import ResnestError
from resnest.progress import say

CARD_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
OUTPUT_MARK = ".resnest-output"  # in a folder of drawn pictures: reading data passes over it
MASKS_MARK = ".resnest-masks"  # in a folder of predicted masks: with the pictures, they are data
WRITTEN = "written by resnest"  # at the start of files that may be replaced: a comment of JPEG, PNG, html, json
RESULTS = re.compile(rb'\[(\]|\{"id": 1, "image_id": .{,400}?"score": )')  # COCO's lists of results have no comment
START = 4096  # bytes of a file in which the mark is searched
RUN_FILES = ("run.json", "recipe.yaml")  # that every run directory has
FULL = 2**20  # bytes: with fewer left on a disk, what went wrong in a write was that it is full


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A temporary file beside `target` that replaces it once written and synced to disk; each process has its own."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file atomically, and create its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def write_errors(path: Path | str) -> Iterator[None]:
    """Turns an OSError within into a ResnestError that names the file, or the option that names it."""
    try:
        yield
    except OSError as error:
        raise ResnestError(f"{path} cannot be written: {error.strerror or error}") from None


def is_replaceable(path: Path | str) -> bool:
    """Whether there is no file, an empty one, or one that we wrote."""
    if not os.path.lexists(path):
        return True
    try:
        if not os.path.isfile(path):
            return False
        with open(path, "rb") as file:
            start = file.read(START)
    except OSError:
        return False
    return not start or WRITTEN.encode() in start or RESULTS.match(start) is not None


def check_replaceable(path: Path, is_ours: Callable[[Path], bool] = is_replaceable) -> None:
    """Raises ResnestError for a file that somebody else wrote, by its mark or by `is_ours`."""
    if not is_ours(path):
        raise ResnestError(
            f"{path} is there already, and nothing says that resnest wrote it: name another file, or remove it"
        )


def check_is_not(path: Path, source: Path | str, what: str) -> None:
    """Raises ResnestError for an output that is the input itself, be it by a link."""
    with contextlib.suppress(OSError):
        if os.path.samefile(path, source):
            raise ResnestError(f"{path} is {what}: name another")


def holds(path: Path, mark: bytes) -> bool:
    """Whether a mark is anywhere in a file, where its format has it; also if there is no file, or an empty one."""
    try:
        if not os.path.lexists(path) or path.stat().st_size == 0:
            return True
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(mark) >= 0
    except OSError:
        return False


def use_for_output(folder: Path, mark: str) -> None:
    """Mark a folder for output, `OUTPUT_MARK` or `MASKS_MARK`; one that cannot be marked is used without.

    Raises:
        ResnestError: as `check_for_output`.
    """
    check_for_output(folder)
    with contextlib.suppress(OSError):
        (folder / mark).touch()


def check_for_output(folder: Path) -> None:
    """Raises ResnestError for a folder with files that somebody else wrote."""
    foreign = _foreign(folder)
    if foreign:
        raise ResnestError(
            f"{folder} is not empty, and nothing says that resnest wrote {foreign}: name a new or an empty folder"
        )


def _foreign(folder: Path) -> str:
    """A file that we did not write, or "": what lies in a marked folder is not looked at."""
    if is_output(folder) or os.path.lexists(folder / MASKS_MARK):
        return ""
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError:
        return ""
    for entry in entries:
        found = _foreign(entry) if entry.is_dir() else "" if is_replaceable(entry) else entry.name
        if found:
            return f"{entry.name}/{found}" if entry.is_dir() else found
    return ""


def is_output(folder: Path | str) -> bool:
    """Whether a folder is a run directory or a marked one, or has nothing but such folders in it."""
    if os.path.lexists(os.path.join(folder, OUTPUT_MARK)):
        return True
    if all(os.path.isfile(os.path.join(folder, name)) for name in RUN_FILES):
        return True
    try:
        with os.scandir(folder) as entries:
            found = False
            for entry in entries:
                if not entry.name.startswith("."):
                    if not entry.is_dir(follow_symlinks=False) or not is_output(entry.path):
                        return False
                    found = True
            return found
    except OSError:
        return False


def is_full(folder: Path) -> bool:
    """Whether the disk of a folder is full: torch.save, safetensors and exporters report it in their own ways."""
    try:
        return shutil.disk_usage(folder).free < FULL
    except OSError:
        return False


def digest_of(path: Path, algorithm: str) -> str:
    """Hexadecimal digits of the file's "sha256" or "sha1"."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def sha256_of(path: Path) -> str:
    return digest_of(path, "sha256")


def cache_folder() -> Path:
    """The folder for all that can be made or downloaded again: $RESNEST_HOME, else resnest in the user's cache folder.

    That is $XDG_CACHE_HOME, by default ~/.cache. Where it cannot be made, as without a home directory, in one that is
    nobody's, or on a read-only disk, it is one of the user's own in the temporary directory.

    Raises:
        ResnestError: there, somebody else has a folder of that name.
    """
    chosen = os.environ.get("RESNEST_HOME")
    if chosen and not chosen.startswith("~"):
        return Path(chosen)
    try:
        if chosen:
            return Path(chosen).expanduser()
        shared = os.environ.get("XDG_CACHE_HOME", "")
        folder = (Path(shared) if os.path.isabs(shared) else Path.home() / ".cache") / "resnest"
    except RuntimeError:  # no HOME, and a user id that is not in the password database
        return _temporary_cache("there is no home directory")
    return folder if _can_be_made(folder) else _temporary_cache(f"{folder} cannot be made")


def _can_be_made(folder: Path) -> bool:
    """Whether it is there, if only for reading, or may be made."""
    if os.path.exists(folder):
        return True
    above = next(parent for parent in folder.parents if os.path.lexists(parent))
    return os.path.isdir(above) and os.access(above, os.W_OK | os.X_OK)


@functools.cache
def _temporary_cache(why: str) -> Path:
    """Says once why it is used."""
    user = os.getuid()
    folder = Path(tempfile.gettempdir()) / f"resnest-{user}"
    with write_errors(folder):
        folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != user:
        raise ResnestError(f"{folder} belongs to another user: set RESNEST_HOME to a folder for the cache")
    say(f"warning: {why}: the cache is {folder}; RESNEST_HOME sets another folder")
    return folder
