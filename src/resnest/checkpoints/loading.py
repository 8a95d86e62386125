"""Putting weights into a network, whatever layout they come in, with an account of what fitted.

report = load_file(net, Path("resnest50.pth"), replace_head=True)
print(report)                # official layout: 476 tensors matched
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from resnest.checkpoints.layouts import COUNTER, Translated, recognise, to_official
from resnest.checkpoints.reading import RawCheckpoint, read_checkpoint
from resnest.checkpoints.structure import looks_like
from resnest.errors import ResnestError

HEAD = ("fc.weight", "fc.bias")
WEIGHT_TYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
STEM = ("conv1.0.weight", "conv1.weight")  # the convolution that sees the image: deep stem, 7x7 or small


@dataclass
class LoadReport:
    """Names by what became of them."""

    matched: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # in the network, not in the file
    unexpected: list[str] = field(default_factory=list)  # in the file, not in the network
    reshaped: list[str] = field(default_factory=list)  # in both, of different shapes; with the shapes
    new_head: bool = False  # the classifier starts untrained
    untrained: list[str] = field(default_factory=list)  # parts of a detector that the file has nothing for
    layout: str = "official"
    wrapper: str = ""  # the entry of a training checkpoint that was used

    def __str__(self) -> str:
        parts = [f"{self.layout} layout: {len(self.matched)} tensors matched"]
        if self.wrapper:
            parts[0] = f"{self.wrapper}, {parts[0]}"
        if self.reshaped:
            parts.append(f"reshaped {'; '.join(self.reshaped)}")
        if self.new_head:
            parts.append("the classifier starts anew")
        if self.untrained:
            parts.append(f"untrained: {', '.join(self.untrained)}")
        if self.unexpected:
            parts.append(f"{len(self.unexpected)} of other parts left out ({self.unexpected[0]}, ...)")
        return ", ".join(parts)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a checkpoint file under official names. Raises ResnestError as `translate` does."""
    return translate(read_checkpoint(path)).state


def translate(raw: RawCheckpoint) -> Translated:
    """A checkpoint of any known layout under official names.

    Raises:
        ResnestError: not a ResNeSt; the message says what it looks like.
    """
    try:
        found = recognise(raw.state)
        if found is not None:
            translated = to_official(raw.state, *found)
            check_values(translated.state)
            return translated
    except ResnestError as error:
        raise ResnestError(f"{raw.path} was not loaded: {error}") from None
    raise ResnestError(f"{raw.path} is not a ResNeSt of any known layout: {looks_like(raw.state)}")


def check_values(state: Mapping[str, Tensor]) -> None:
    """Weights are real numbers, all of them finite; only batch counters are whole ones."""
    for name, tensor in state.items():
        if name.endswith(COUNTER):
            continue
        if tensor.dtype not in WEIGHT_TYPES:
            raise ResnestError(
                f"{name} is {str(tensor.dtype).removeprefix('torch.')}, weights are floating-point numbers"
            )
        if not torch.isfinite(tensor).all():
            raise ResnestError(
                f"{name} holds values that are not finite: its training went wrong, or the file is damaged"
            )


def load_file(net: nn.Module, path: Path, *, replace_head: bool = False) -> LoadReport:
    """Load a checkpoint file of any kind and layout into `net`; nothing is changed if it does not fit.

    Parts of other models around the network, such as detection heads, are reported as unexpected, not refused.

    Raises:
        ResnestError: unreadable, another architecture, or tensors that do not fit; they are named.
    """
    raw = read_checkpoint(path)
    translated = translate(raw)
    report = load_weights(net, translated.state, replace_head=replace_head, source=str(path))
    report.layout, report.wrapper = translated.layout, raw.wrapper
    report.unexpected += translated.aside
    return report


def load_weights(
    net: nn.Module, state: Mapping[str, Tensor], *, replace_head: bool = False, source: str = "the checkpoint"
) -> LoadReport:
    """Copy `state`, under official names, into `net`; nothing is changed if anything does not fit.

    A stem for another number of input channels is adapted: summed for one channel, repeated and scaled for others.

    Args:
        replace_head: leave a classifier of another size, or a missing one, untrained instead of refusing.

    Raises:
        ResnestError: names every missing, unexpected and misshapen tensor.
    """
    wanted = net.state_dict()
    state = dict(state)
    report = LoadReport(reshaped=_adapt_stem(state, wanted))
    misshapen = []
    for name, tensor in wanted.items():
        if name not in state:
            # The count of batches matters to nobody, and converted files leave it out.
            (report.matched if name.endswith(COUNTER) else report.missing).append(name)
        elif state[name].shape != tensor.shape and name in HEAD and replace_head:
            report.reshaped.append(f"{name} from {_size(state[name])} to {_size(tensor)}")
        elif state[name].shape != tensor.shape:
            misshapen.append(f"{name} {_size(state[name])} instead of {_size(tensor)}")
        else:
            report.matched.append(name)
    report.unexpected = [name for name in state if name not in wanted]
    if replace_head:
        lost = [name for name in report.missing if name in HEAD]
        report.new_head = bool(lost) or any(entry.split(" ", 1)[0] in HEAD for entry in report.reshaped)
        report.missing = [name for name in report.missing if name not in HEAD]
        report.unexpected = [name for name in report.unexpected if name not in HEAD]
    if report.missing or report.unexpected or misshapen:
        raise ResnestError(_misfit(report, misshapen, source))
    fitting = {name: state[name] if name in state else wanted[name] for name in report.matched}
    net.load_state_dict(fitting, strict=False)
    return report


def _adapt_stem(state: dict[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """The first convolution for another number of input channels, so that a grey or repeated image gives the same."""
    for name in STEM:
        if name not in state or name not in wanted or state[name].ndim != 4:
            continue
        ours, theirs = wanted[name].shape[1], state[name].shape[1]
        if ours != theirs and state[name].shape[0] == wanted[name].shape[0] and theirs == 3:
            weight = state[name].float()
            if ours == 1:
                weight = weight.sum(1, keepdim=True)
            else:
                weight = weight.repeat(1, -(-ours // 3), 1, 1)[:, :ours] * (3 / ours)
            before = _size(state[name])
            state[name] = weight.to(torch.promote_types(state[name].dtype, torch.float32))
            return [f"{name} from {before} to {_size(weight)}"]
    return []


def _size(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))


def _misfit(report: LoadReport, misshapen: list[str], source: str) -> str:
    groups = (("missing", report.missing), ("unexpected", report.unexpected), ("of another shape", misshapen))
    parts = [f"{len(names)} {kind}: {listed(names)}" for kind, names in groups if names]
    heads_only = misshapen and all(entry.split(" ", 1)[0] in HEAD for entry in misshapen)
    advice = ""
    if heads_only and not report.missing and not report.unexpected:
        advice = "; it has another number of classes: ask for that number, or let the head be replaced"
    return f"{source} does not fit this network; {'; '.join(parts)}{advice}"


def listed(names: list[str], most: int = 8) -> str:
    """Some of them, and how many more."""
    return ", ".join(names[:most]) + (f", and {len(names) - most} more" if len(names) > most else "")
