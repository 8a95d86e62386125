"""Errors for users: one line that says what, where and what to do.

The command line prints the message of a `ResnestError` without a traceback and exits with its `exit_code`.

    raise ResnestError(f"{parameter('split', 'middle')}: expected auto, val, train or all")
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager


class ResnestError(ValueError):
    """An error that the user can fix; the command line exits with `exit_code`.

    The message is one line, whatever names from a file it contains: unprintable characters are escaped.
    """

    exit_code = 2

    def __init__(self, message: str = "") -> None:
        shown = message if message.isprintable() else "".join(map(_printable, message))
        super().__init__(shown)


def _printable(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()


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


def _in_python(function: str, given: Sequence[object], named: Mapping[str, object]) -> str:
    words = [*map(_literal, given)]
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


def call(function: str, *given: object, **named: object) -> str:
    """A call of a function of ours: resnest.resume("runs/a"), or resnest train --resume runs/a at the command line."""
    return _form(function, given, named)


def one_line(error: object, most: int = 300) -> str:
    """The first line of an error's message, which may be pages long; its type if the message is empty.

    >>> one_line(ValueError())
    'ValueError'
    """
    said = str(getattr(error, "strerror", None) or error)
    return next((line.strip() for line in said.splitlines() if line.strip()), type(error).__name__)[:most]


def unknown(kind: str, name: str, known: Iterable[str], *, like: str = "", hint: str = "") -> ResnestError:
    """The error for an unknown name, with the closest known name, also to `like`.

    >>> str(unknown("model", "resnet50", ["resnest50", "resnest101"]))
    "'resnet50' is not a known model. Did you mean 'resnest50'?"
    """
    choices = list(known)
    near = difflib.get_close_matches(like or name, choices, n=1, cutoff=0.6)
    if near:
        advice = f"Did you mean {near[0]!r}?"
    elif len(choices) <= 12:
        advice = f"Known: {', '.join(choices)}."
    else:
        advice = ""
    return ResnestError(" ".join(part for part in (f"{name!r} is not a known {kind}.", advice, hint) if part))
