"""A data set that was found, before anything of it is read.

Found("folder", "flowers", whole=lambda: read_folder(Path("flowers")))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from resnest.data.samples import Samples

Read = Callable[[], Samples]


@dataclass(frozen=True)
class Found:
    """Either its parts, or one whole."""

    format: str
    where: str
    train: Read | None = None
    val: Read | None = None
    whole: Read | None = None
