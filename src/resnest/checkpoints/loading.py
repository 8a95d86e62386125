"""Putting weights into a network, with an account of what fitted.

report = load_weights(net, read_weights(path), replace_head=True)
print(report)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from resnest.errors import ResnestError

HEAD = ("fc.weight", "fc.bias")


@dataclass
class LoadReport:
    """Names by what became of them."""

    matched: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # in the network, not in the file
    unexpected: list[str] = field(default_factory=list)  # in the file, not in the network
    reshaped: list[str] = field(default_factory=list)  # in both, of different shapes; with the shapes
    new_head: bool = False  # the classifier starts untrained

    def __str__(self) -> str:
        head = ", the classifier starts anew" if self.new_head else ""
        return f"{len(self.matched)} tensors loaded{head}"


def load_weights(
    net: nn.Module, state: Mapping[str, Tensor], *, replace_head: bool = False, source: str = "the checkpoint"
) -> LoadReport:
    """Copy `state` into `net`; nothing is changed if anything does not fit.

    Args:
        replace_head: leave a classifier of another size, or a missing one, untrained instead of refusing.

    Raises:
        ResnestError: names every missing, unexpected and misshapen tensor.
    """
    wanted = net.state_dict()
    report = LoadReport()
    for name, tensor in wanted.items():
        if name not in state:
            # The count of batches matters to nobody, and converted files leave it out.
            (report.matched if name.endswith("num_batches_tracked") else report.missing).append(name)
        elif state[name].shape != tensor.shape:
            report.reshaped.append(f"{name} {tuple(state[name].shape)} instead of {tuple(tensor.shape)}")
        else:
            report.matched.append(name)
    report.unexpected = [name for name in state if name not in wanted]
    if replace_head:
        _forgive_head(report)
    if report.missing or report.unexpected or report.reshaped:
        raise ResnestError(_misfit(report, source))
    fitting = {name: state[name] if name in state else wanted[name] for name in report.matched}
    net.load_state_dict(fitting, strict=False)
    return report


def _forgive_head(report: LoadReport) -> None:
    before = len(report.missing) + len(report.reshaped)
    report.missing = [name for name in report.missing if name not in HEAD]
    report.reshaped = [entry for entry in report.reshaped if entry.split(" ", 1)[0] not in HEAD]
    report.new_head = before > len(report.missing) + len(report.reshaped)
    report.unexpected = [name for name in report.unexpected if name not in HEAD]


def _misfit(report: LoadReport, source: str) -> str:
    parts = [
        f"{len(names)} {kind}: {', '.join(names)}"
        for kind, names in (
            ("missing", report.missing),
            ("unexpected", report.unexpected),
            ("of another shape", report.reshaped),
        )
        if names
    ]
    heads_only = report.reshaped and all(entry.split(" ", 1)[0] in HEAD for entry in report.reshaped)
    advice = ""
    if heads_only and not report.missing and not report.unexpected:
        advice = "; it has another number of classes: ask for that number, or let the head be replaced"
    return f"{source} does not fit this network; {'; '.join(parts)}{advice}"
