"""Golden training: a short run of every task logs what it logged when golden/training.jsonl was recorded, to the bit.

Guards losses, learning rates, gradient norms and figures against a change that must not alter the numbers. The runs
stand in golden_runs.py. Bits are compared where torch, numpy, the instructions and the processor are those of the
recording; elsewhere sums are added up in another order, and TOLERANCE is compared with: a few times what SSE4.1 or two
threads differ by.

    RESNEST_RECORD=1 python -m pytest tests/test_golden_training.py      # rewrites golden/training.jsonl

Record anew only if the numbers are meant to change, or for a new torch or numpy, at a commit that passes with the old
one. It is never rewritten to make a test pass.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import golden_runs
from golden_runs import PINNED, RUNS

GOLDEN = Path(__file__).parent / "golden" / "training.jsonl"
TOLERANCE = {"loss": 1e-3, "gradient_norm": 2e-2}  # relative
FIGURE = 1e-2  # absolute, of the evaluation's


def _rows(path: Path) -> tuple[dict[str, str], dict[str, list[dict[str, Any]]]]:
    """The machine, and the lines of each run."""
    first, *rows = map(json.loads, path.read_text(encoding="ascii").splitlines())
    return first["machine"], {name: [row for row in rows if row["run"] == name] for name in RUNS}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the runs log today, all of them in one process."""
    out = tmp_path_factory.mktemp("golden") / "training.jsonl"
    env = {**os.environ, **PINNED, "RESNEST_HOME": str(out.parent / "home"), "RESNEST_OFFLINE": "1"}
    subprocess.run([sys.executable, golden_runs.__file__, out], env=env, check=True, timeout=300)
    if os.environ.get("RESNEST_RECORD"):
        GOLDEN.write_bytes(out.read_bytes())
    return out


def _close(row: dict[str, Any], golden: dict[str, Any]) -> bool:
    if row.keys() != golden.keys():
        return False
    for key, value in golden.items():
        if isinstance(value, float) and key not in ("lr", "epoch"):
            absolute = 0 if key in TOLERANCE else FIGURE
            value = pytest.approx(value, rel=TOLERANCE.get(key, FIGURE), abs=absolute)
        if row[key] != value:
            return False
    return True


@pytest.mark.parametrize("name", RUNS)
def test_a_run_logs_the_golden_lines(name: str, measured: Path) -> None:
    (machine, rows), (golden_machine, golden) = _rows(measured), _rows(GOLDEN)
    assert golden_machine["threads"] == machine["threads"] == "1"
    exact = golden_machine.items() <= machine.items()
    assert len(rows[name]) == len(golden[name]) > 4
    for row, expected in zip(rows[name], golden[name], strict=True):
        recorded = {key: row.get(key) for key in expected}  # a figure that evaluations have got since is not
        assert recorded == expected if exact else _close(recorded, expected)
