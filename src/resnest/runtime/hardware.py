"""Hardware of this machine: cores available to this process, instruction sets, and settings of malloc.

usable_cores()            # 2
instruction_sets()        # ("avx2", "avx512", "vnni", "bf16")
disable_malloc_trim()     # once, at the start of a program that computes with torch on a CPU
malloc_trim()             # now and then, where feature maps change in size
"""

from __future__ import annotations

import ctypes
import math
import os
import platform
from pathlib import Path

_CPUS = Path("/sys/devices/system/cpu")
_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # "max 100000", or microseconds of CPU time in each period (cgroup v2)
_INFO = Path("/proc/cpuinfo")
# malloc.h; mallopt takes an int
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _LARGEST = -1, -4, 2**31 - 1
# What a set is called here, and the flags of Linux that mean it: wide vectors, 8-bit products, 16-bit floats, tiles.
_FLAGS = {
    "avx2": {"avx2"},
    "avx512": {"avx512f"},
    "vnni": {"avx512_vnni", "avx_vnni"},
    "bf16": {"avx512_bf16", "bf16"},
    "amx": {"amx_int8", "amx_bf16"},
    "neon": {"asimd"},
    "dotprod": {"asimddp"},
    "i8mm": {"i8mm"},
}


def usable_cores() -> int:
    """Threads worth starting: $OMP_NUM_THREADS, or the physical cores that this process may use.

    Two hyper-threads of a core share its arithmetic, so they count once; a container's CPU quota counts, too.
    """
    setting = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if setting.isdigit() and int(setting) > 0:
        return int(setting)
    if hasattr(os, "sched_getaffinity"):
        cores = len({_siblings(cpu) for cpu in os.sched_getaffinity(0)})
    else:
        cores = os.cpu_count() or 1
    return max(1, min(cores, _quota()))


def instruction_sets() -> tuple[str, ...]:
    """Instruction sets relevant to engines, from Linux; empty if unknown."""
    try:
        lines = _INFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return ()
    flags: set[str] = set()
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):  # x86 and ARM
            flags |= set(value.split())
    return tuple(name for name, meaning in _FLAGS.items() if flags & meaning)


def processor() -> str:
    """The processor's model name, or the architecture if Linux does not give it."""
    try:
        lines = _INFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.machine()


def disable_malloc_trim() -> bool:
    """Retain freed memory for the next feature map, instead of returning it to the system; False without glibc.

    glibc takes every block of 32 MB and more fresh from the system and gives it back when it is freed (mallopt(3),
    M_MMAP_THRESHOLD). The maps of an eager network are such blocks, and the system clears every page of them again:
    at batch 16 that is a quarter of ResNeSt-50's time on a CPU (`eager-kept` in results/engines-cpu.csv). This is a
    setting of the process, so the command line makes it and the library does not.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library; another system
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _LARGEST))


def malloc_trim() -> bool:
    """Return freed memory to the system; whether there was some.

    Blocks of many sizes leave gaps that none of the next ones fits into: forty steps of a detector on images of fifteen
    sizes took 2.2 GB at first and 3.3 GB at the end, and 0.8 GB after this.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return False
    return bool(trim(0))


def _siblings(cpu: int) -> str:
    """The logical processors of one core, as the same text for each."""
    try:
        return (_CPUS / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text(encoding="ascii").strip()
    except OSError:
        return str(cpu)


def _quota() -> int:
    try:
        quota, period = _QUOTA.read_text(encoding="ascii").split()
        return math.ceil(int(quota) / int(period))
    except (OSError, ValueError):  # no such limit
        return 1 << 16
