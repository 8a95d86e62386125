"""The kernels compiled for a GPU that is not here, by Triton's own compiler and assembler."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytest.importorskip("triton", reason="triton is not installed")


@pytest.fixture(scope="module")
def compiled() -> list[dict[str, str]]:
    """In a process of its own: the interpreter is on in this one."""
    told = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "kernel_code.py", "--smoke"],
        capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    ).stdout  # fmt: skip
    with Path(told.splitlines()[-1]).open() as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


KERNELS = {"moments", "joined", "pool", "first", "logits", "weigh", "sums", "gradient", "convolution"}


def test_every_kernel_compiles(compiled: list[dict[str, str]]) -> None:
    assert {row["kernel"] for row in compiled} == KERNELS


def test_nothing_is_spilled_and_loads_are_wide(compiled: list[dict[str, str]]) -> None:
    for row in compiled:
        assert int(row["spilled_bytes"]) == 0, row
        assert int(row["widest_load_bytes"]) == 16, row


def test_products_run_in_the_matrix_units(compiled: list[dict[str, str]]) -> None:
    by_kernel = {row["kernel"]: row["matrix_units"] for row in compiled}
    assert by_kernel["convolution"] == "wgmma"
    assert by_kernel["logits"] in ("mma", "wgmma")


def test_the_committed_table_is_of_these_kernels() -> None:
    with (ROOT / "results" / "kernel-code.csv").open() as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    assert {row["kernel"] for row in rows} == KERNELS
    assert {row["architecture"] for row in rows} >= {"80", "90"}
