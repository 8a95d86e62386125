"""What is found in a data set: pictures worth a look, by kind, and the list of decisions about them.

review = Review(findings, notes)
review.lines()                                   # for people
write_decisions(Path("page.csv"), review, splits)
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resnest.data.sources import Splits
from resnest.errors import ResnestError
from resnest.figures import counted
from resnest.files import write_atomically, write_errors


@dataclass(frozen=True, order=True)
class Place:
    """A picture of a data set."""

    part: str  # "train" or "val"
    index: int


@dataclass(frozen=True)
class Kind:
    """A kind of finding."""

    name: str
    title: str
    score: str  # what the score is


KINDS = {
    kind.name: kind
    for kind in (
        Kind("label", "Likely label errors", "probability of the label minus that of the likeliest other"),
        Kind("disagree", "Annotations that disagree with the model", "agreement, 0 to 1"),
        Kind("leak", "Copies in both parts", "correlation once aligned"),
        Kind("copy", "Copies in one part", "correlation once aligned"),
        Kind("alike", "Most alike to the model", "cosine of features"),
        Kind("outlier", "Unlike all others", "mean cosine to the ten nearest"),
        Kind("blank", "Blank", "standard deviation of brightness"),
        Kind("dark", "Dark", "brightness of the 95th percentile"),
        Kind("bright", "Bright", "brightness of the 5th percentile"),
        Kind("blurred", "Blurred", "variance of the Laplacian"),
    )
}
COLUMNS = ("part", "image", "finding", "score", "label", "suggestion", "other_part", "other", "decision")


@dataclass(frozen=True)
class Finding:
    """A picture worth a look, and why."""

    kind: str
    place: Place
    score: float
    suggestion: str = ""  # the label that it seems to have
    other: Place | None = None  # the picture that it is like


@dataclass
class Review:
    """All findings, of each kind the most telling first, and what to know of them."""

    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def sort(self) -> None:
        """By kind, in the order of `KINDS`."""
        order = list(KINDS)
        self.findings.sort(key=lambda finding: order.index(finding.kind))

    def of(self, kind: str) -> list[Finding]:
        return [finding for finding in self.findings if finding.kind == kind]

    def lines(self) -> list[str]:
        found = [
            f"{kind.title.lower()}: {counted(len(mine), 'picture', 'pictures')}"
            for name, kind in KINDS.items()
            if (mine := self.of(name))
        ]
        return [*(found or ["nothing to look at"]), *self.notes]

    def to_dict(self, splits: Splits) -> dict[str, Any]:
        return {"findings": [row_of(finding, splits) for finding in self.findings], "notes": self.notes}


def row_of(finding: Finding, splits: Splits) -> dict[str, Any]:
    """A finding with names in place of numbers, without a decision."""
    samples = getattr(splits, finding.place.part)
    index, other = finding.place.index, finding.other
    return {
        "part": finding.place.part,
        "image": samples.keys[index],
        "finding": finding.kind,
        "score": round(finding.score, 6),
        "label": "|".join(samples.names_of(index)),
        "suggestion": finding.suggestion,
        "other_part": other.part if other else "",
        "other": getattr(splits, other.part).keys[other.index] if other else "",
    }


HEADER = ",".join(COLUMNS)


def check_decisions(path: Path) -> None:
    """Raises ResnestError for a file that is no list of ours, or that has decisions in it."""
    if not path.exists():
        return
    option = f"the page's list would be written to {path}, which"
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()))
        ours = not rows or set(COLUMNS) <= set(rows[0])
    except OSError as error:
        raise ResnestError(f"{path} cannot be read: {error.strerror or error}") from None
    if not ours:
        raise ResnestError(f"{option} is another file: choose another name")
    if any((row["decision"] or "").strip() for row in rows):
        raise ResnestError(f"{option} has decisions in it: move it, or choose another name")


def write_decisions(path: Path, review: Review, splits: Splits) -> None:
    """Write the list, with an empty column `decision`."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row_of(finding, splits), "decision": ""} for finding in review.findings)
    with write_errors(path):
        write_atomically(path, text.getvalue().encode("utf-8", "surrogateescape"))


def groups_of(pairs: Sequence[tuple[int, int]], count: int) -> list[int]:
    """(N,) the lowest number that each of `count` pictures is joined with by pairs.

    >>> groups_of([(0, 2), (2, 3)], 5)
    [0, 1, 0, 0, 4]
    """
    parent = list(range(count))

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    for one, other in pairs:
        low, high = sorted((root(one), root(other)))
        parent[high] = low
    return [root(number) for number in range(count)]
