"""Lists of pictures that training leaves out: `resnest train --exclude list.csv`, the setting `data.exclude`.

    excluded = read_exclusion(Path("list.csv"))
    splits = excluded.apply(splits)

A list is a table with the columns `image`, and if it has them `part` (train or val) and `decision`; or a text file with
a name a line. With decisions, those that say `exclude` count, and `keep` or nothing leaves the picture in. Names are
those that `resnest doctor` prints, the pictures' paths within the data set. Pictures are left out after the data is
split, so that the split of the others stays.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from resnest.data.samples import Samples
from resnest.data.sources import Splits
from resnest.errors import ResnestError
from resnest.figures import counted

PARTS = ("train", "val")
DECISIONS = ("exclude", "keep", "")
MOST_NAMED = 3
NAMES = ("image", "path", "file_name")  # columns of names


@dataclass(frozen=True)
class Exclusion:
    """Pictures to leave out, by part; "" for both."""

    where: str
    names: frozenset[tuple[str, str]]  # part, name

    def apply(self, splits: Splits) -> Splits:
        """The splits without these pictures.

        Raises:
            ResnestError: a name that the data has not; nothing would be left.
        """
        both = {"train": splits.train, "val": splits.val}
        known = {part: set(samples.keys) for part, samples in both.items()}
        unknown = [
            name
            for part, name in sorted(self.names)
            if not any(name in known[other] for other in PARTS if part in ("", other))
        ]
        if unknown:
            named = ", ".join(unknown[:MOST_NAMED]) + (", ..." if len(unknown) > MOST_NAMED else "")
            many = counted(len(unknown), "picture", "pictures")
            raise ResnestError(
                f"{self.where} names {many} that {splits.where} has not: {named}."
                f" Names are paths within the data set, such as {splits.train.keys[0]}"
            )
        kept = {part: self._kept(part, samples) for part, samples in both.items()}
        left_out = {part: len(both[part]) - len(samples) for part, samples in kept.items()}
        for part, samples in kept.items():
            if not len(samples):
                raise ResnestError(f"{self.where} leaves out every {part} picture of {splits.where}")
        many = f"{left_out['train']} training and {left_out['val']} validation images"
        notes = (*splits.notes, f"left out by {Path(self.where).name}: {many}")
        return replace(splits, train=kept["train"], val=kept["val"], notes=notes)

    def _kept(self, part: str, samples: Samples) -> Samples:
        out = [("", key) in self.names or (part, key) in self.names for key in samples.keys]
        return samples.subset(np.flatnonzero(~np.array(out, bool))) if any(out) else samples


def read_exclusion(path: Path) -> Exclusion:
    """The pictures that a list leaves out.

    Raises:
        ResnestError: it cannot be read, has no column of names, an unknown decision or part, or leaves nothing out.
    """
    option = f"data.exclude={path}"
    try:
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise ResnestError(f"{option} cannot be read: {error.strerror or error}") from None
    if path.suffix.lower() == ".csv":
        found = _of_table(list(csv.DictReader(text.splitlines())), option)
    else:
        found = {("", line.strip()) for line in text.splitlines() if line.strip()}
    if not found:
        raise ResnestError(f"{option} leaves out no picture: say exclude in its column decision, or leave out the list")
    return Exclusion(str(path), frozenset(found))


def _of_table(rows: Sequence[dict[str, str]], option: str) -> set[tuple[str, str]]:
    if not rows:
        raise ResnestError(f"{option} has no line below its header")
    name = next((column for column in NAMES if column in rows[0]), None)
    if name is None:
        raise ResnestError(f"{option} has no column {' or '.join(NAMES)}, but {', '.join(map(str, rows[0]))}")
    found = set()
    for number, row in enumerate(rows, start=2):
        decision, part = ((row.get(key) or "").strip().lower() for key in ("decision", "part"))
        _check_word(decision, DECISIONS, f"{option}, line {number}: the decision")
        _check_word(part, (*PARTS, ""), f"{option}, line {number}: the part")
        if decision == "exclude" or "decision" not in row:
            found.add((part, (row[name] or "").strip()))
    return found


def _check_word(word: str, known: Iterable[str], what: str) -> None:
    if word not in known:
        raise ResnestError(f"{what} {word!r} is none of {', '.join(entry or 'nothing' for entry in known)}")
