"""Messages of the library name parameters and functions; at the command line the same messages name options."""

from __future__ import annotations

from pathlib import Path

import pytest

from resnest.cli.words import at_command_line
from resnest.errors import call, parameter, wording

FORMS = {  # a piece of a message: in Python, at the command line
    "no value": (lambda: parameter("max_drop"), "`max_drop`", "--max-drop"),
    "text": (lambda: parameter("split", 'a "b"'), r'`split="a \"b\""`', '--split a "b"'),
    "a path": (lambda: parameter("out", Path("a/ü b")), '`out="a/ü b"`', "--out a/ü b"),
    "a switch": (lambda: parameter("overwrite", True), "`overwrite=True`", "--overwrite"),
    "numbers": (lambda: parameter("max_drop", -1.0), "`max_drop=-1.0`", "--max-drop -1"),
    "height and width": (lambda: parameter("size", (64, 96)), "`size=(64, 96)`", "--size 64x96"),
    "several": (lambda: parameter("batches", [1, 16]), "`batches=[1, 16]`", "--batch 1,16"),
    "another name": (lambda: parameter("network", "NAME"), '`network="NAME"`', "--model NAME"),
    "settings": (
        lambda: parameter("settings", {"a.b": 1, "c": "d"}), '`settings={"a.b": 1, "c": "d"}`', "--set a.b=1 --set c=d",
    ),
    "settings as text": (lambda: parameter("settings", "a.b"), '`settings="a.b"`', "--set a.b"),
    "a function": (lambda: call("list_models"), "resnest.list_models()", "resnest models"),
    "a call": (
        lambda: call("resume", Path("a b")), 'resnest.resume("a b")', "resnest train --resume 'a b'",
    ),
    "a call with names": (
        lambda: call("export", "a", out="b"), 'resnest.export("a", out="b")', "resnest export a --out b",
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_forms(form: str) -> None:
    piece, python, command = FORMS[form]
    assert piece() == python
    with wording(at_command_line):
        assert piece() == command
    assert piece() == python
