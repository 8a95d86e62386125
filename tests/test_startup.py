"""Start-up: `resnest --help` under 0.4 s and `import resnest` under 0.1 s, since torch comes in where it is used."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

import resnest


def _best_of(count: int, command: list[str]) -> float:
    """Seconds of the quickest run: what the machine can do when nobody disturbs it."""
    times = []
    for _ in range(count):
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - started)
    return min(times)


def test_import_is_quick() -> None:
    bare = _best_of(5, [sys.executable, "-c", "pass"])
    assert _best_of(5, [sys.executable, "-c", "import resnest"]) - bare < 0.1


def test_help_is_quick() -> None:
    assert _best_of(7, [sys.executable, "-m", "resnest", "--help"]) < 0.4


@pytest.mark.parametrize(
    "arguments", [["--help"], ["models"], ["recipes"], ["recipes", "show", "digits"], ["train", "-h"]]
)
def test_torch_is_not_imported(arguments: list[str]) -> None:
    code = (
        f"import sys; sys.argv = ['resnest', *{arguments!r}]\n"
        "from resnest.cli.app import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_public_names_exist() -> None:
    assert {name for name in resnest.__all__ if not hasattr(resnest, name)} == set()
    with pytest.raises(AttributeError, match="create_modle"):
        _ = resnest.create_modle
