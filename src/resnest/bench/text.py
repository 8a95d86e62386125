"""A table for people, and the same for machines.

print("\\n".join(lines(table)))
json.dumps(to_dict(table))
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from resnest.bench.table import Case, Table, base_of, ratio_of

HEAD = f"{'ms a call':>10}  {'quartiles':>17} {'images/s':>9} {'ratio':>7}  {'95 % interval':<15} {'peak MiB':>8}"


def lines(table: Table) -> Iterator[str]:
    """A block for each batch, quickest first."""
    width = max(len(_name(case)) for case in table.cases)
    energy = any(case.joules for case in table.cases)
    for batch in dict.fromkeys(case.batch for case in table.cases):
        cases = sorted((case for case in table.cases if case.batch == batch), key=lambda case: case.median)
        yield f"{f'batch {batch}':<{width}} {HEAD}" + ("  J/image" if energy else "")
        for case in cases:
            yield f"{_name(case):<{width}} {_row(table, case)}"
        yield ""
    rounds = len(table.cases[0].seconds)
    yield f"Medians over {rounds} rounds. ratio: how many times faster than the line with 1.00x, round by round;"
    coverage = table.cases[0].interval.coverage
    yield f"its interval holds the median with {coverage:.0%}." + (
        "" if rounds >= 6 else " Six rounds or more give 95 %."
    )
    if not energy:
        yield "Energy: not reported by this machine."


def to_dict(table: Table) -> dict[str, Any]:
    """Environment and cases; seconds, not milliseconds."""
    return {"environment": table.environment, "cases": [_case(table, case) for case in table.cases]}


def _name(case: Case) -> str:
    kind = "" if case.precision == "float32" else f" {case.precision}"
    return f"{case.model} {case.size} px, {case.engine}{kind} {case.layout}"


def _row(table: Table, case: Case) -> str:
    low, high = (1e3 * value for value in case.quartiles)
    ratio, interval = ratio_of(table.cases, case)
    sure = "-" if base_of(table.cases, case) is case else f"{interval.low:.2f} to {interval.high:.2f}"
    peak = "-" if case.peak_mib is None else f"{case.peak_mib:.0f}"
    energy = f" {sum(case.joules) / len(case.joules) / case.batch:8.2f}" if case.joules else ""
    return (
        f"{1e3 * case.median:>10.2f}  {f'{low:.2f} to {high:.2f}':>17} {case.batch / case.median:>9.1f} {ratio:>6.2f}x"
        f"  {sure:<15} {peak:>8}{energy}"
    )


def _case(table: Table, case: Case) -> dict[str, Any]:
    ratio, interval = ratio_of(table.cases, case)
    base = base_of(table.cases, case)
    names = ("model", "engine", "layout", "precision", "batch", "size")
    return {
        **dict(zip(names, case.key, strict=True)),
        "median_seconds": case.median,
        "quartiles": list(case.quartiles),
        "ratio": ratio,
        "ratio_interval": [interval.low, interval.high],
        "coverage": interval.coverage,
        "base": dict(zip(names, base.key, strict=True)),
        "peak_mib": case.peak_mib,
        "joules_per_call": sum(case.joules) / len(case.joules) if case.joules else None,
        "seconds": case.seconds,
    }
