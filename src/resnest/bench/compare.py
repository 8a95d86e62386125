"""Performance regressions against an older table, beyond noise.

    for change in compare(old, new): print(change)

A case is slower where three things hold: the 95 % intervals of the two medians do not touch; it is 3 % or more (two
runs of the same program differ by that much through their memory layout); and, if both tables have a base that is
not the case itself, the intervals of the ratios to it do not touch either, so that a slower machine is not taken for
slower code.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from resnest.bench.environment import SHARED, facts
from resnest.bench.table import Case, Table, base_of, ratio_of

LEAST = 0.03  # what two runs of one program may differ by
Verdict = Literal["slower", "faster", "same"]


@dataclass(frozen=True)
class Change:
    """A case that is in both tables."""

    case: Case
    before: Case
    verdict: Verdict
    against: str  # "its own time", or the base too

    @property
    def factor(self) -> float:
        """New time / old time."""
        return self.case.median / self.before.median

    def __str__(self) -> str:
        moved = f"{1e3 * self.before.median:.2f} -> {1e3 * self.case.median:.2f} ms ({self.factor - 1:+.1%})"
        return f"{self.verdict:<7} {self.case}: {moved}, by {self.against}"


def compare(old: Table, new: Table) -> list[Change]:
    """All cases of both tables, in the order of the new one."""
    pairs = [(old.find(case.key), case) for case in new.cases]
    return [_judge(old, new, before, case) for before, case in pairs if before is not None]


def missing(old: Table, new: Table) -> list[Case]:
    """Cases of the old table that were not measured now."""
    return [case for case in old.cases if new.find(case.key) is None]


def differences(old: Table, new: Table) -> Iterator[str]:
    """Differences of the two environments, one line each: they may explain a difference in speed."""
    before, now = facts(old.environment), facts(new.environment)
    for key in SHARED:
        if before.get(key) != now.get(key):
            yield f"{key}: {before.get(key, '-')} -> {now.get(key, '-')}"


def _judge(old: Table, new: Table, before: Case, case: Case) -> Change:
    verdict = _verdict(case.median / before.median, before.interval.apart(case.interval))
    bases = base_of(old.cases, before), base_of(new.cases, case)
    if bases[0].key != bases[1].key or case.key == bases[1].key:
        return Change(case, before, verdict, "its own time")
    was, now = ratio_of(old.cases, before), ratio_of(new.cases, case)
    relative = _verdict(was[0] / now[0], was[1].apart(now[1]))
    both = verdict if relative == verdict else "same"
    return Change(
        case, before, both, f"its own time and the ratio to {bases[1].model} ({was[0]:.2f}x -> {now[0]:.2f}x)"
    )


def _verdict(factor: float, apart: bool) -> Verdict:
    if not apart or abs(factor - 1) < LEAST:
        return "same"
    return "slower" if factor > 1 else "faster"
