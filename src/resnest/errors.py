"""Errors for users: one line that says what, where and what to do.

The command line prints the message of a `ResnestError` without a traceback and exits with its `exit_code`.

    raise ResnestError("no images under data/train (looked for .jpg, .png, .webp)")
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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
