"""Freed memory is kept: on glibc the second of two large blocks costs no page faults; elsewhere nothing happens."""

from __future__ import annotations

import subprocess
import sys

import pytest

from resnest.runtime.hardware import disable_malloc_trim

FAULTS = """
import resource, sys
import numpy as np
from resnest.runtime.hardware import disable_malloc_trim
if sys.argv[1] == "kept":
    assert disable_malloc_trim()
def fill():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.empty(64 << 20, np.uint8).fill(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
fill()
print(fill())
"""


GAPS = """
import os
import numpy as np
from resnest.runtime.hardware import malloc_trim, disable_malloc_trim
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 2**20
assert disable_malloc_trim()
blocks = [np.ones(2**20, np.uint8) for _ in range(200)]
del blocks[:-1]
before = resident()
malloc_trim()
print(before - resident())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
def test_a_second_block_is_there_already() -> None:
    if not disable_malloc_trim():
        pytest.skip("another C library")
    given, kept = (
        int(subprocess.run([sys.executable, "-c", FAULTS, how], check=True, capture_output=True, text=True).stdout)
        for how in ("given back", "kept")
    )
    assert kept < given / 4


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
def test_gaps_are_given_back() -> None:
    """Below a block that is still in use, where the system gets nothing back otherwise."""
    if not disable_malloc_trim():
        pytest.skip("another C library")
    done = subprocess.run([sys.executable, "-c", GAPS], check=True, capture_output=True, text=True)
    assert int(done.stdout) > 150
