"""What a kind of detector says of the names of its tensors, in our code and others'.

NAMING = Naming(parts=("fpn", "dense"), known=("fpn.", "dense."), marks=..., rules=..., rows=...)

`weights` reads it: the backbone and its layouts are common to all kinds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from resnest.checkpoints.multipart import Rules

State = Mapping[str, Tensor]
Convert = Callable[[str, Tensor, State], Tensor]  # a name of ours, its tensor, the state that it comes from


def as_it_is(name: str, tensor: Tensor, state: State) -> Tensor:
    return tensor


def no_advice(name: str) -> str:
    return "the part it belongs to is built in another way there"


@dataclass(frozen=True, kw_only=True)
class Naming:
    """The names of a kind, by layout: "official" (ours), "detectron2", "torchvision"."""

    parts: tuple[str, ...]  # of a network beside its backbone, ours
    known: tuple[str, ...]  # starts of names, ours and theirs: one without a rule is an error
    marks: Mapping[str, tuple[str, ...]]  # by layout: starts of names that together only this kind has
    rules: Callable[[str, State], Rules]  # layout, a state of either side -> rules; not for "official"
    rows: Callable[[State, Sequence[Hashable]], Mapping[str, Sequence[Hashable]]]  # as `Parts.rows`
    # torchvision counts the background as class 0
    from_torchvision: Convert = as_it_is
    to_torchvision: Convert = as_it_is
    # layout, state of ours: what that code does not have, in words
    refusal: Callable[[str, State], str | None] = lambda layout, state: None
    advice: Callable[[str], str] = no_advice  # about a name of a known part that has no rule
    added: Mapping[str, Tensor] = field(default_factory=dict)  # of our networks alone, with what they start as
    counts: tuple[re.Pattern[str], ...] = ()  # what our losses count in training: other code has none of it

    def is_only_ours(self, name: str) -> bool:
        """Whether other code has no such tensor, and needs none."""
        return name in self.added or any(pattern.search(name) for pattern in self.counts)
