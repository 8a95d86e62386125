"""Progress under a real pseudo-terminal, in a log file, and for whoever wants silence."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading
from typing import Any

import pytest

from resnest import progress
from resnest.progress import Progress

SCRIPT = """
import time
from resnest.progress import Progress
with Progress("step") as show:
    show.start(4, "a [title]", done=1)
    for step in (2, 3, 4):
        time.sleep(0.12)
        show.update(step, "loss 1.5")
        show.say(f"line {step}")
        print("printed while the bar is there")
"""


def test_a_bar_on_a_terminal() -> None:
    """A rich display that writes to a stream that writes to the display would never come back."""
    master, slave = pty.openpty()
    shown = bytearray()

    def read() -> None:
        try:
            while block := os.read(master, 65536):
                shown.extend(block)
        except OSError:  # the other side is closed
            pass

    reader = threading.Thread(target=read)
    reader.start()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    try:
        command = [sys.executable, "-c", SCRIPT]
        subprocess.run(command, stdout=slave, stderr=slave, env=environment, check=True, timeout=60)
    finally:
        os.close(slave)
        reader.join()
        os.close(master)
    text = shown.decode()
    for part in ("a [title]", "step 4 of 4  loss 1.5", "0 s left", "line 3", "printed while the bar is there"):
        assert part in text


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"rate": "images"},
            ["title", "read: 400 of 1,000  20 images/s  30 s left", "read: 800 of 1,000  20 images/s  10 s left"],
        ),
        ({"if_slow": True}, ["title", "read: 400 of 1,000  30 s left", "read: 800 of 1,000  10 s left"]),
        ({"megabytes": True}, ["title", "read: 0 of 0 MB  30 s left", "read: 0 of 0 MB  10 s left"]),
        ({"lines": False}, ["title"]),
        ({"quiet": True}, []),
    ],
)
def test_lines_where_there_is_no_terminal(
    options: dict[str, Any], expected: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 1.0, 20.0, 21.0, 40.0])
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(clock))
    with Progress("read:", **options) as bar:
        bar.start(1000, "title")
        for count in (20, 380, 20, 380):
            bar.advance(count)
    assert capsys.readouterr().err.splitlines() == expected


def test_nothing_before_the_start(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("read:") as bar:
        bar.advance()
    assert capsys.readouterr().err == ""
