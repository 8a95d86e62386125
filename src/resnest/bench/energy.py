"""Energy of a turn, where the machine counts it: RAPL of Intel and AMD processors under Linux, NVML of NVIDIA GPUs.

    meter = find_meter("cpu")          # None: not reported by this machine
    before = meter.joules(); ...; meter.joules() - before

RAPL counts whole processor packages, other work on them included, and is often readable by root alone
(Linux Documentation/power/powercap/powercap.rst).
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

POWERCAP = Path("/sys/class/powercap")


@dataclass
class Rapl:
    """The counters of all packages, which start anew at a maximum of their own."""

    packages: list[Path]
    _last: dict[Path, int] = field(default_factory=dict)
    _whole: dict[Path, int] = field(default_factory=dict)  # microjoules that the counter lost by starting anew

    def joules(self) -> float:
        return sum(self._read(package) for package in self.packages) / 1e6

    def _read(self, package: Path) -> int:
        now = int((package / "energy_uj").read_text())
        if now < self._last.get(package, 0):
            span = int((package / "max_energy_range_uj").read_text())
            self._whole[package] = self._whole.get(package, 0) + span
        self._last[package] = now
        return now + self._whole.get(package, 0)


@dataclass
class Nvml:
    """The first GPU's own counter, since its driver was loaded."""

    nvml: Any  # the module pynvml
    handle: Any

    def joules(self) -> float:
        return float(self.nvml.nvmlDeviceGetTotalEnergyConsumption(self.handle)) / 1e3


def find_meter(device: str, folder: Path = POWERCAP) -> Rapl | Nvml | None:
    """What counts energy here; None where nothing does, or it may not be read."""
    if device == "cuda":
        try:
            nvml = importlib.import_module("pynvml")  # nvidia-ml-py; torch's own readings need it too
            nvml.nvmlInit()
            meter = Nvml(nvml, nvml.nvmlDeviceGetHandleByIndex(0))
            meter.joules()
        except Exception:  # not installed, no driver, or a GPU without the counter: NVML has an error class for each
            return None
        return meter
    packages = sorted(path for path in folder.glob("*-rapl:*") if path.name.count(":") == 1)
    rapl = Rapl(packages)
    try:
        rapl.joules()
    except (OSError, ValueError):
        return None
    return rapl if packages else None
