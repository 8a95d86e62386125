"""Weights of models with a backbone and heads, and the rules that rename their tensors.

report = WEIGHTS.load(net, "a.pth")        # WEIGHTS: Parts, of a task's weights.py
report = load_into_backbone(net, read_checkpoint(path))

keys = KeyMap([("fpn.output.{i}.conv.{leaf}", "backbone.fpn_output{i+2}.{leaf}")])
keys.to_ours("backbone.fpn_output2.bias")           # "fpn.output.0.conv.bias"
keys.to_theirs("fpn.output.0.conv.bias")
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from resnest.checkpoints.class_rows import Classes, RowsOf, match_rows
from resnest.checkpoints.fetch import locate_for
from resnest.checkpoints.layouts import COUNTER, Layout, Translated, choose_network
from resnest.checkpoints.loading import LoadReport, adapt_stem, check_values, listed, load_weights, translate
from resnest.checkpoints.reading import RawCheckpoint, read_checkpoint
from resnest.errors import ResnestError
from resnest.tasks import TASKS, load_object, task_info

Rules = list[tuple[str, str]]  # (ours, theirs); {i} is a number, {i+2} that number plus 2, {leaf} a tensor of a module
MOST_PREFIXES = 4  # words before all names of a network: those of wrappers, one in the other
FIELD = re.compile(r"\{(\w+)(?:\+(\d+))?\}")  # of a rule


class Part(NamedTuple):
    """A part of a network that a file may lack; it then starts untrained."""

    title: str
    names: re.Pattern[str]  # of its tensors
    in_backbone: bool = False  # a network must have it where the file has it; other parts may be left out


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The parts of a task's networks, under our names and those of other code."""

    what: str  # the network, for an error
    layouts: Mapping[str, Layout]  # that can hold a whole one
    recognise: Callable[[Iterable[str]], str | None]  # names of tensors -> key of `layouts`; None: no such network
    to_ours: Callable[[Mapping[str, Tensor], str], Translated]
    from_ours: Callable[[Mapping[str, Tensor], str], dict[str, Tensor]]
    rows: RowsOf  # of what has rows for each class: with other classes it stays untrained
    optional: tuple[Part, ...] = ()
    # a network, a complete state under our names, the file -> why it is another network, in words; None: by its tensors
    misfit: Callable[[nn.Module, Translated, RawCheckpoint], str | None] | None = None

    def load(
        self,
        net: nn.Module,
        reference: str | Path,
        *,
        network: str | None = None,
        classes: Classes | None = None,
    ) -> LoadReport:
        """Load a model reference into a network; the network is unchanged if it does not fit.

        Weights of the same kind of network are loaded into all parts. If their number of classes differs, the class
        predictors stay untrained, and so does an optional part that the file lacks. Of any other file, a classifier's
        or a backbone's, only the backbone is loaded.

        Args:
            net: has a submodule `backbone`.
            reference: a file, a directory, a name of published weights, a hub id.
            network: the name of the backbone's network; weights of another published one are refused.
            classes: of the network; its class predictors then take those rows that the file has for them.

        Raises:
            ResnestError: it cannot be had or read, has another backbone, or tensors that do not fit; they are named.
        """
        raw = read_checkpoint(locate_for(network, reference))
        whole = self.read(raw)
        if whole is None:
            report = load_into_backbone(net, raw, self.optional)
        else:
            state, note = whole.state, ""
            if self.misfit and (problem := self.misfit(net, whole, raw)):
                raise ResnestError(f"{raw.path} does not fit this {self.what}: {problem}")
            if classes:
                state, note = match_rows(net.state_dict(), state, classes, rows=self.rows, raw=raw)
            report = load_multipart(net, state, self, source=str(raw.path))
            report.layout, report.unexpected, report.classes = whole.layout, report.unexpected + whole.aside, note
        report.wrapper = raw.wrapper
        return report

    def read(self, raw: RawCheckpoint) -> Translated | None:
        """A complete network under our names, whatever prefix all of its names have; None: the file has none.

        Raises:
            ResnestError: several; another backbone, parts of another structure, or invalid values.
        """
        found = self.find(raw)
        if found is None:
            return None
        layout, prefix = found
        try:
            own = {name: tensor for name, tensor in raw.state.items() if name.startswith(prefix)}
            whole = self.to_ours({name.removeprefix(prefix): tensor for name, tensor in own.items()}, layout)
            check_values(whole.state)
        except ResnestError as error:
            raise ResnestError(f"{raw.path} was not loaded: {error}") from None
        whole.aside = [prefix + name for name in whole.aside] + [name for name in raw.state if name not in own]
        return whole

    def find(self, raw: RawCheckpoint) -> tuple[str, str] | None:
        """The layout of a complete network, and what stands before each of its names, such as "module.".

        Raises:
            ResnestError: several networks, and nothing to choose by.
        """
        below: dict[str, list[str]] = {}  # the names under each prefix
        for name in raw.state:
            words = name.split(".")
            for depth in range(min(len(words), MOST_PREFIXES + 1)):
                prefix = "".join(f"{word}." for word in words[:depth])
                below.setdefault(prefix, []).append(name.removeprefix(prefix))
        found = {prefix: layout for prefix, inner in below.items() if (layout := self.recognise(inner))}
        try:
            network = choose_network(found)
        except ResnestError as error:
            raise ResnestError(f"{raw.path} was not loaded: {error}") from None
        return None if network is None else (found[network], network)


def all_parts() -> list[Parts]:
    """The `Parts` of every task that has some."""
    return [load_object(where) for where in dict.fromkeys(task_info(task).weights for task in TASKS) if where]


def load_multipart(net: nn.Module, state: Mapping[str, Tensor], parts: Parts, *, source: str) -> LoadReport:
    """Copy `state`, under our names, into `net`; `net` is unchanged if it does not fit.

    A stem for RGB is adapted to other channels, as of a classifier.

    Args:
        source: the file, for an error.

    Raises:
        ResnestError: names every missing, unexpected and misshapen tensor.
    """
    wanted = net.state_dict()
    report, state = LoadReport(), dict(state)
    stem = adapt_stem(state, wanted, "backbone.")
    misshapen: list[str] = []
    by_class = parts.rows(wanted, ())
    for name, tensor in wanted.items():
        if name not in state:
            (report.matched if name.endswith(COUNTER) else report.missing).append(name)
        elif state[name].shape == tensor.shape:
            report.matched.append(name)
        else:
            other_classes = name in by_class and state[name].shape[1:] == tensor.shape[1:]
            sizes = f"{name} from {tuple(state[name].shape)} to {tuple(tensor.shape)}"
            (report.reshaped if other_classes else misshapen).append(sizes)
    report.unexpected = [name for name in state if name not in wanted]
    _excuse(report, state, parts.optional)
    report.reshaped += stem
    _refuse_misfits(report, misshapen, parts.optional, f"{source} does not fit this {parts.what}")
    net.load_state_dict({name: state[name] for name in report.matched if name in state}, strict=False)
    return report


def load_into_backbone(net: nn.Module, raw: RawCheckpoint, optional: Sequence[Part] = ()) -> LoadReport:
    """Load a classifier, or another model's backbone, into `net.backbone`; the other parts stay untrained.

    Args:
        optional: those in the backbone keep their values where the file has none of them.

    Raises:
        ResnestError: it is no ResNeSt, or another one.
    """
    translated, backbone = translate(raw), net.get_submodule("backbone")
    lacking = {name: tensor for name, tensor in backbone.state_dict().items() if name not in translated.state}
    own = {part.title: [n for n in lacking if part.names.search(n)] for part in optional if part.in_backbone}
    initial = {name: lacking[name] for names in own.values() for name in names}
    report = load_weights(backbone, {**initial, **translated.state}, replace_head=True, source=str(raw.path))
    report.matched = [f"backbone.{name}" for name in report.matched if name not in initial]
    report.layout, report.unexpected = translated.layout, report.unexpected + translated.aside
    report.untrained = [title for title, names in own.items() if names]
    report.untrained += [name for name, part in net.named_children() if name != "backbone" and part.state_dict()]
    report.new_head = False  # a backbone has none
    return report


def _excuse(report: LoadReport, state: Mapping[str, Tensor], optional: Sequence[Part]) -> None:
    """Move names that a file may lack from `missing` to `untrained`."""
    if report.reshaped:
        report.untrained.append("what predicts classes, since there are others")
    for part in optional:
        lacking = [name for name in report.missing if part.names.search(name)]
        if lacking and not any(part.names.search(name) for name in state):
            report.untrained.append(part.title)
            report.missing = [name for name in report.missing if name not in lacking]


def _refuse_misfits(report: LoadReport, misshapen: list[str], optional: Sequence[Part], refusal: str) -> None:
    left = [part.names for part in optional if not part.in_backbone]
    strange = [name for name in report.unexpected if not any(names.search(name) for names in left)]
    groups = (("missing", report.missing), ("unexpected", strange), ("of another shape", misshapen))
    parts = [f"{len(names)} {kind}: {listed(names, 6)}" for kind, names in groups if names]
    if parts:
        raise ResnestError(f"{refusal}; {'; '.join(parts)}")


@dataclass(frozen=True)
class KeyMap:
    """Renaming rules; the first that matches is used."""

    rules: Rules

    def to_ours(self, name: str) -> str | None:
        return next((renamed for ours, theirs in self.rules if (renamed := _rewrite(name, theirs, ours))), None)

    def to_theirs(self, name: str) -> str | None:
        return next((renamed for ours, theirs in self.rules if (renamed := _rewrite(name, ours, theirs))), None)


def conv_norm(ours: str, conv: str, norm: str) -> Rules:
    """Rules for our `ConvNorm` and the two modules it replaces."""
    return [(f"{ours}.conv.{{leaf}}", f"{conv}.{{leaf}}"), (f"{ours}.norm.{{leaf}}", f"{norm}.{{leaf}}")]


def _rewrite(name: str, source: str, target: str) -> str | None:
    """`name` in the form of `target` if it matches `source`; None otherwise.

    >>> _rewrite("fpn.output.0.conv.bias", "fpn.output.{i}.conv.{leaf}", "backbone.fpn_output{i+2}.{leaf}")
    'backbone.fpn_output2.bias'
    """
    pattern, shifts = _pattern(source)
    match = pattern.fullmatch(name)
    if match is None:
        return None

    def fill(field: re.Match[str]) -> str:
        value = match[field[1]]
        return str(int(value) - shifts[field[1]] + int(field[2] or 0)) if value.isdigit() else value

    return FIELD.sub(fill, target)


@cache
def _pattern(form: str) -> tuple[re.Pattern[str], dict[str, int]]:
    """The regular expression of a form, and the offsets of its numbers."""
    kinds, shifts, pattern, end = {"any": ".+", "leaf": "[a-z_]+"}, {}, "", 0
    for field in FIELD.finditer(form):
        pattern += re.escape(form[end : field.start()]) + f"(?P<{field[1]}>{kinds.get(field[1], '[0-9]+')})"
        shifts[field[1]], end = int(field[2] or 0), field.end()
    return re.compile(pattern + re.escape(form[end:])), shifts
