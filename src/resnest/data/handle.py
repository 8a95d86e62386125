"""A data set that was recognised, before anything of it is read; and what recognises one.

DatasetHandle("folder", "flowers", whole=lambda: read_folder(Path("flowers")))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Read = Callable[[], Any]  # -> Samples


@dataclass(frozen=True)
class DatasetHandle:
    """Either its parts, or one whole."""

    format: str
    where: str
    train: Read | None = None
    val: Read | None = None
    whole: Read | None = None


@dataclass(frozen=True)
class Finder:
    """Recognises a format of a task's own, in a folder or a file."""

    format: str
    tasks: tuple[str, ...]  # that this format has annotations for
    find: Callable[[Path, str | None], DatasetHandle | None]  # path, the task that is asked for
    suffix: str = ""  # of a file that is a data set of this format
    first: bool = False  # looked for before other tasks' formats
