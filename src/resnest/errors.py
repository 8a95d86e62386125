"""Errors for users: one line that says what, where and what to do.

The command line prints the message of a `ResnestError` without a traceback and exits with its `exit_code`.

    raise ResnestError(f"{parameter('split', 'middle')}: expected auto, val, test, train or all")
"""

from __future__ import annotations

import difflib
import functools
import json
import math
import os
import typing
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any


class ResnestError(ValueError):
    """An error that the user can fix; the command line exits with `exit_code`.

    The message is one line, whatever names from a file it contains: unprintable characters are escaped.
    """

    exit_code = 2

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(message))


BREAKING = ("Cc", "Cs", "Zl", "Zp")  # of unicode's categories: control, half a pair, line and paragraph separators


def printable(text: str) -> str:
    """One line for a terminal: control characters and bytes of file names that are no text are escaped.

    >>> printable("a\\tb")
    'a\\\\tb'
    """
    return text if text.isprintable() else "".join(map(_printable, text))


def _printable(character: str) -> str:
    return character.encode("unicode_escape").decode() if unicodedata.category(character) in BREAKING else character


INTERRUPTED = 130  # exit code of a second Ctrl-C: 128 + SIGINT, what shells expect


class NoValidCheckpoint(ResnestError):
    """All checkpoints of a run are missing or damaged."""

    exit_code = 3


class NumericalStop(ResnestError):
    """The loss or the gradients became non-finite."""

    exit_code = 4


class ParityFailure(ResnestError):
    """The outputs of an exported file differ from its network's."""

    exit_code = 5


class Preempted(ResnestError):
    """The run was asked to stop and can be resumed."""

    exit_code = 75  # EX_TEMPFAIL: "try again later"


def _in_python(function: str, positional: Sequence[object], named: Mapping[str, object]) -> str:
    words = [*map(_literal, positional)]
    words += [name if value is None else f"{name}={_literal(value)}" for name, value in named.items()]
    return f"resnest.{function}({', '.join(words)})" if function else f"`{', '.join(words)}`"


def _literal(value: object) -> str:
    if isinstance(value, str | os.PathLike):
        return json.dumps(os.fsdecode(value), ensure_ascii=False)
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_literal(key)}: {_literal(entry)}' for key, entry in value.items())}}}"
    return repr(value)


Form = Callable[[str, Sequence[object], Mapping[str, object]], str]  # of a function's name, or "", and what it is given
_form: Form = _in_python


@contextmanager
def wording(form: Form) -> Iterator[None]:
    """Messages that arise within have parameters and calls in this form; elsewhere they have Python's."""
    global _form
    before, _form = _form, form
    try:
        yield
    finally:
        _form = before


def parameter(name: str, value: object = None) -> str:
    """A parameter and its value, if any, as it can be given: `split="val"`, or --split val at the command line."""
    return _form("", (), {name: value})


def call(function: str, *positional: object, **named: object) -> str:
    """A call of a function of ours: resnest.resume("runs/a"), or resnest train --resume runs/a at the command line."""
    return _form(function, positional, named)


def one_line(error: object, most: int = 300) -> str:
    """The first line of an error's message, which may be pages long; its type if the message is empty.

    >>> one_line(ValueError())
    'ValueError'
    """
    message = str(getattr(error, "strerror", None) or error)
    return next((line.strip() for line in message.splitlines() if line.strip()), type(error).__name__)[:most]


LISTED = 200  # letters of all known names, which are listed then


def unknown(kind: str, name: str, known: Iterable[str], *, like: str = "", hint: str = "") -> ResnestError:
    """The error for an unknown name, with the closest known name, also to `like`.

    >>> str(unknown("model", "resnet50", ["resnest50", "resnest101"]))
    "'resnet50' is not a known model. Did you mean 'resnest50'?"
    """
    choices = list(known)
    near = difflib.get_close_matches(like or name, choices, n=1, cutoff=0.6)
    if near:
        advice = f"Did you mean {near[0]!r}?"
    elif sum(map(len, choices)) <= LISTED:
        advice = f"Known: {', '.join(choices)}."
    else:
        advice = ""
    return ResnestError(" ".join(part for part in (f"{name!r} is not a known {kind}.", advice, hint) if part))


@dataclass(frozen=True)
class Range:
    """The numbers that a setting, or each part of it, may have; beside its type: `lr: Annotated[float, Range(0)]`.

    >>> str(Range(1)), str(Range(0, 30)), str(Range(0, 1.0, "(]"))
    ('be 1 or more', 'lie in 0 to 30', 'lie in (0, 1]')
    """

    least: float
    most: float = math.inf
    ends: str = "[]"  # a round one is not of them
    hint: str = ""  # what an end means, or the way out

    def __contains__(self, number: Any) -> bool:
        above = number > self.least if self.ends[0] == "(" else number >= self.least
        return bool(above and (number < self.most if self.ends[1] == ")" else number <= self.most))

    def __str__(self) -> str:
        if self.most == math.inf:
            return f"be more than {self.least}" if self.ends[0] == "(" else f"be {self.least} or more"
        if self.ends == "()":
            return f"lie between {self.least} and {self.most}"
        if isinstance(self.most, int):
            return f"lie in {self.least} to {self.most}"
        return f"lie in {self.ends[0]}{self.least}, {self.most:g}{self.ends[1]}"


def check_ranges(settings: Any, prefix: str) -> None:
    """Raises ResnestError for a field of a dataclass that is no number of its `Range`; None is let through."""
    for name, limit, is_integer, may_be_several in _ranges(settings.__class__):
        value = getattr(settings, name)
        several = may_be_several and isinstance(value, list | tuple)
        for number in value if several else () if value is None else (value,):
            if isinstance(number, bool) or not isinstance(number, Integral if is_integer else Real):
                raise ResnestError(f"{prefix}{name}={value!r} must be {'an integer' if is_integer else 'a number'}")
            if number not in limit:
                raise ResnestError(f"{prefix}{name}={list(value) if several else value} must {limit}{limit.hint}")


@functools.cache
def _ranges(kind: type) -> tuple[tuple[str, Range, bool, bool], ...]:
    """Of its fields: name, range, whether the type is int, and whether it has several of them."""
    return tuple(
        (name, limit, _is_integer(part.__origin__), typing.get_origin(hint) in (tuple, list))
        for name, hint in typing.get_type_hints(kind, include_extras=True).items()
        for part in (hint, *typing.get_args(hint))  # X, X | None, tuple[X, ...]
        for limit in getattr(part, "__metadata__", ())
        if isinstance(limit, Range)
    )


def _is_integer(kind: Any) -> bool:
    """Whether a type is int, or int | None."""
    return {*(typing.get_args(kind) or (kind,))} - {type(None)} == {int}
