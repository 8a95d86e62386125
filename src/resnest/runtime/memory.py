"""Memory that the process keeps for its next feature map, instead of giving it back to the system.

    keep_freed_memory()                      # once, at the start of a program that computes with torch on a CPU

glibc takes every block of 32 MB and more fresh from the system and gives it back when it is freed (mallopt(3),
M_MMAP_THRESHOLD). The maps of an eager network are such blocks, and the system clears every page of them again: at
batch 16 that is a quarter of ResNeSt-50's time on a CPU (`eager-kept` in results/engines-cpu.csv). This is a setting of
the whole process, so that the command line makes it and the library does not.
"""

from __future__ import annotations

import ctypes

# malloc.h
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4
LARGEST = 2**31 - 1  # mallopt takes an int


def keep_freed_memory() -> bool:
    """Whether it could be arranged: with glibc, which has `mallopt`."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library; another system
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, LARGEST))
