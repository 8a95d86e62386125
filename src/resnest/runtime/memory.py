"""Memory that the process keeps for its next feature map, instead of giving it back to the system.

    keep_freed_memory()                      # once, at the start of a program that computes with torch on a CPU
    give_back_freed_memory()                 # now and then, where maps are of ever other sizes

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


def give_back_freed_memory() -> bool:
    """Whether something was given back. Blocks of many sizes leave gaps that none of the next ones fits into.

    Forty steps of a detector on images of fifteen sizes took 2.2 GB at first and 3.3 GB at the end, and 0.8 GB after
    this.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return False
    return bool(trim(0))
