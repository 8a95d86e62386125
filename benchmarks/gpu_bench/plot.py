"""The picture of benchmarks/gpu.py: images a second of every network, timm's at its best, ours, and the floor.

draw(Path("docs/gpu.svg"), measured_cases, device)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gpu_bench.measure import Device, Measured
from resnest.bench.plot import COLOURS, INK, constant_names, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BARS = ("timm eager", "timm compiled", "resnest", "floor")
SHADES = dict(zip(BARS, ("#d1d5db", "#9ca3af", COLOURS["ResNeSt"], COLOURS["EfficientNet"]), strict=True))


def speeds(measured: Measured, device: Device) -> dict[str, float]:
    """Images a second, of each kind's fastest."""
    case = measured.case
    base, seconds = case.network.base, {}
    for bar, prefix in zip(BARS, (f"{base} eager", f"{base} compiled", "resnest"), strict=False):
        if any(result.contender.name.startswith(prefix) for result in measured.results):
            seconds[bar] = measured.best(prefix).median
    seconds["floor"] = case.floor.seconds(device.bandwidth, device.rate)
    return {bar: case.batch / value for bar, value in seconds.items()}


def draw(path: Path, done: list[Measured], device: Device) -> None:
    """Write the picture, a panel for each kind of case.

    Raises:
        ResnestError: a suffix that matplotlib does not know, a folder that cannot be written.
    """
    from matplotlib.figure import Figure

    kinds = list(dict.fromkeys(_kind(measured) for measured in done))
    with constant_names():
        canvas = Figure(figsize=(4.2 * len(kinds), 3.6), layout="constrained")
        panels = canvas.subplots(1, len(kinds), squeeze=False)[0]
        for axes, kind in zip(panels, kinds, strict=True):
            _panel(axes, kind, [measured for measured in done if _kind(measured) == kind], device)
        panels[0].legend(fontsize=8, frameon=False, labelcolor=INK)
        save(canvas, path)


def _kind(measured: Measured) -> str:
    case = measured.case
    return f"{case.what}, batch 1" if case.batch == 1 else case.what


def _panel(axes: Axes, kind: str, own: list[Measured], device: Device) -> None:
    width = 0.8 / len(BARS)
    for place, bar in enumerate(BARS):
        values = [speeds(measured, device).get(bar, 0.0) for measured in own]
        at = [index + (place - (len(BARS) - 1) / 2) * width for index in range(len(own))]
        axes.bar(at, values, width, color=SHADES[bar], label=bar)
    axes.set_yscale("log")
    labels = [f"{one.case.network.name}\n@{one.case.network.size}, {one.case.batch}" for one in own]
    axes.set_xticks(range(len(own)), labels, fontsize=7)
    axes.set_title(f"{kind}, bfloat16", color=INK, fontsize=9, loc="left")
    axes.set_ylabel("images a second, logarithmic", color=INK, fontsize=8)
    axes.tick_params(colors=INK, which="both", labelsize=7)
    axes.grid(alpha=0.25, axis="y")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
