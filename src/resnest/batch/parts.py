"""Finished parts of a job: files whose names say which pictures they have, so that a rename is all that finishes one.

    parts = find_parts(folder, ".csv")   # part-0000000000-0000001000-2.csv: pictures 0 to 999, 2 of them unusable
    gaps(parts, 0, 5000)                 # [(1000, 5000)]
    write_part(folder, Part(1000, 2000, 0), ".csv", content)

Nothing else is recorded, and parts of any size fit together: whoever fills the gaps loses no picture and repeats none.
Of two processes that worked on the same pictures, parts that overlap others do not count.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from resnest.files import write_atomically

NAME = re.compile(r"part-(\d{10,})-(\d{10,})-(\d+)")


class Part(NamedTuple):
    """The pictures from number `start` up to `stop`."""

    start: int
    stop: int
    unusable: int

    @property
    def stem(self) -> str:
        return f"part-{self.start:010}-{self.stop:010}-{self.unusable}"


def find_parts(folder: Path, suffix: str) -> list[Part]:
    """Those that follow one another without overlap, in order."""
    found = (NAME.fullmatch(name.removesuffix(suffix)) for name in os.listdir(folder) if name.endswith(suffix))
    return [*_apart(Part(*map(int, match.groups())) for match in found if match)]


def _apart(parts: Iterable[Part]) -> Iterator[Part]:
    reached = 0
    for part in sorted(parts, key=lambda part: (part.start, -part.stop)):
        if part.start >= reached:
            reached = part.stop
            yield part


def gaps(parts: Iterable[Part], start: int, stop: int) -> list[tuple[int, int]]:
    """The pictures from `start` up to `stop` that no part has."""
    missing, reached = [], start
    for part in parts:
        if part.start > reached:
            missing.append((reached, min(part.start, stop)))
        reached = max(reached, part.stop)
        if reached >= stop:
            break
    else:
        missing.append((reached, stop))
    return [(first, last) for first, last in missing if first < last]


def write_part(folder: Path, part: Part, suffix: str, content: bytes) -> None:
    """Write a part atomically. Raises OSError."""
    write_atomically(folder / f"{part.stem}{suffix}", content)
