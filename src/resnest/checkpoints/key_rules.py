"""Key rules: names in a checkpoint and ours, in both directions.

keys = KeyMap([("fpn.output.{i}.conv.{leaf}", "backbone.fpn_output{i+2}.{leaf}")])
keys.to_ours("backbone.fpn_output2.bias")           # "fpn.output.0.conv.bias"
keys.to_theirs("fpn.output.0.conv.bias")
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

Rules = list[tuple[str, str]]  # (ours, theirs); {i} is a number, {i+2} that number plus 2, {leaf} a tensor of a module
FIELD = re.compile(r"\{(\w+)(?:\+(\d+))?\}")  # of a rule


@dataclass(frozen=True)
class KeyMap:
    """The first rule that fits decides."""

    rules: Rules

    def to_ours(self, name: str) -> str | None:
        return next((told for ours, theirs in self.rules if (told := _rewrite(name, theirs, ours))), None)

    def to_theirs(self, name: str) -> str | None:
        return next((told for ours, theirs in self.rules if (told := _rewrite(name, ours, theirs))), None)


def conv_norm(ours: str, conv: str, norm: str) -> Rules:
    """Of a `ConvNorm` of ours and two modules of theirs."""
    return [(f"{ours}.conv.{{leaf}}", f"{conv}.{{leaf}}"), (f"{ours}.norm.{{leaf}}", f"{norm}.{{leaf}}")]


def _rewrite(name: str, source: str, target: str) -> str | None:
    """`name` in the form of `target` if it has that of `source`; None otherwise.

    >>> _rewrite("fpn.output.0.conv.bias", "fpn.output.{i}.conv.{leaf}", "backbone.fpn_output{i+2}.{leaf}")
    'backbone.fpn_output2.bias'
    """
    pattern, shifts = _pattern(source)
    match = pattern.fullmatch(name)
    if match is None:
        return None

    def fill(place: re.Match[str]) -> str:
        value = match[place[1]]
        return str(int(value) - shifts[place[1]] + int(place[2] or 0)) if value.isdigit() else value

    return FIELD.sub(fill, target)


@cache
def _pattern(form: str) -> tuple[re.Pattern[str], dict[str, int]]:
    """A regular expression for a form, and what its numbers are shifted by."""
    kinds, shifts, pattern, end = {"any": ".+", "leaf": "[a-z_]+"}, {}, "", 0
    for place in FIELD.finditer(form):
        pattern += re.escape(form[end : place.start()]) + f"(?P<{place[1]}>{kinds.get(place[1], '[0-9]+')})"
        shifts[place[1]], end = int(place[2] or 0), place.end()
    return re.compile(pattern + re.escape(form[end:])), shifts
