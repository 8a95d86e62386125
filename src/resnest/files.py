"""Atomic writes, file hashes, the cache folder, and the file names of a saved model for timm and the hub.

with replacing(Path("config.json")) as temporary:
    temporary.write_text("{}")
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from resnest.errors import ResnestError
from resnest.progress import say

CARD_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
OUTPUT_MARK = ".resnest-output"  # in a folder of drawn pictures: reading data passes over it
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


def mark_output(folder: Path) -> None:
    """Mark a folder for output, unless other files are in it already; where that is not possible, it has no mark."""
    with contextlib.suppress(OSError):
        if not any(folder.iterdir()):
            (folder / OUTPUT_MARK).touch()


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
    """The folder for all that can be made or downloaded again: $RESNEST_HOME, ~/.cache/resnest by default.

    Without a home directory, as of a container's user that its system does not know, it is one of the user's own in the
    temporary directory.

    Raises:
        ResnestError: there, somebody else has a folder of that name.
    """
    chosen = os.environ.get("RESNEST_HOME")
    if chosen and not chosen.startswith("~"):
        return Path(chosen)
    try:
        return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "resnest"
    except RuntimeError:  # no HOME, and a user id that is not in the password database
        return _temporary_cache()


@functools.cache
def _temporary_cache() -> Path:
    """Says once that there is no home directory."""
    user = os.getuid()
    folder = Path(tempfile.gettempdir()) / f"resnest-{user}"
    with write_errors(folder):
        folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != user:
        raise ResnestError(f"{folder} belongs to another user: set RESNEST_HOME to a folder for the cache")
    say(f"warning: there is no home directory: the cache is {folder}; RESNEST_HOME sets another folder")
    return folder
