"""Rows of class predictors: which row of a checkpoint belongs to which class of a network, by the classes' names.

state, note = match_rows(net.state_dict(), state, classes, rows=rows, raw=raw)
print(note)                  # classes by name: 2 of 3 from the file's 80, untrained: platelets

Two networks with the same number of classes have tensors of the same shapes, whatever the classes are and in whatever
order. Names are in the card of a run or a saved model, in OpenMMLab's checkpoints, and known of published weights.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from resnest.checkpoints.manifest import find_by_hash
from resnest.checkpoints.reading import RawCheckpoint
from resnest.errors import ResnestError, parameter
from resnest.files import CARD_NAME, digest_of
from resnest.tasks import DEFAULT_TASK, task_info

if TYPE_CHECKING:
    from resnest.runtime.card import ModelCard

PretrainedHead = Literal["by_name", "by_number", "untrained"]
# what the rows of each class predictor stand for: (tensors by name, classes) -> a class or something else, row by row
RowsOf = Callable[[Mapping[str, Tensor], Sequence[Hashable]], Mapping[str, Sequence[Hashable]]]
SHOWN = 5  # names of classes in a message
UNTRAINED = "what predicts classes starts untrained"


@dataclass(frozen=True)
class Classes:
    """The classes of a network to train, and which rows of a file they take."""

    names: tuple[str, ...]
    rows: PretrainedHead = "by_name"


def match_rows(
    wanted: Mapping[str, Tensor], state: Mapping[str, Tensor], classes: Classes, *, rows: RowsOf, raw: RawCheckpoint
) -> tuple[dict[str, Tensor], str]:
    """`state` with the class predictors of a network with these classes, and what was done, in a few words.

    Args:
        wanted: the network's tensors, with the initial values of untrained rows.
        raw: the file of `state`.

    Raises:
        ResnestError: rows by number, and the numbers of classes differ.
    """
    ours = rows(wanted, range(len(classes.names)))
    held = [name for name in ours if name in state and state[name].shape[1:] == wanted[name].shape[1:]]
    if not held:
        return dict(state), ""
    untrained = {**state, **{name: wanted[name] for name in held}}
    setting = f"model.pretrained_head={classes.rows}"
    if classes.rows == "untrained":
        return untrained, f"{UNTRAINED} ({setting})"
    if classes.rows == "by_number":
        other = next((name for name in held if state[name].shape != wanted[name].shape), None)
        if other:
            raise ResnestError(
                f"{raw.path} has another number of classes than the data ({other} has {len(state[other])} rows instead"
                f" of {len(wanted[other])}): {parameter('settings', {'model.pretrained_head': 'by_name'})}"
            )
        return dict(state), f"classes by number ({setting})"
    known = class_numbers(raw)
    if known is None:
        return untrained, (
            f"the file names no classes, so {UNTRAINED} (model.pretrained_head=by_number takes its rows in their order)"
        )
    count = max(known.values(), default=-1) + 1
    theirs = rows(state, range(count))
    if any(len(theirs.get(name, ())) != len(state[name]) for name in held):
        return untrained, f"the file's card names {count} classes, which its tensors do not have, so {UNTRAINED}"
    return _by_name(wanted, state, classes.names, known, rows, held)


def _by_name(
    wanted: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    names: Sequence[str],
    known: Mapping[str, int],
    rows: RowsOf,
    held: Sequence[str],
) -> tuple[dict[str, Tensor], str]:
    """Rows of classes that the file knows; the others keep their initial values."""
    count = max(known.values(), default=-1) + 1
    aims = rows(wanted, [known.get(name, (name,)) for name in names])  # (name,): equal to no class of the file
    theirs = rows(state, range(count))
    # a thing that is stuff in the file has no row in what predicts things
    lacking = [
        name
        for name in names
        if not any(known.get(name) in theirs[part] and known[name] in aims[part] for part in held)
    ]
    result = dict(state)
    for name in held:
        places = {what: row for row, what in enumerate(theirs[name])}
        pairs = [(row, places[what]) for row, what in enumerate(aims[name]) if what in places]
        tensor = wanted[name].clone()
        if len(lacking) < len(names):  # of no class, its background would be that of others
            targets, sources = torch.tensor(pairs).T
            tensor[targets] = state[name][sources].to(tensor)
        same = list(aims[name]) == list(theirs[name])
        result[name] = state[name] if same else tensor
    if len(lacking) == len(names):
        return result, f"{UNTRAINED}: the file's classes are others ({_listed(list(known))})"
    note = f"classes by name: {len(names) - len(lacking)} of {len(names)} from the file's {count}"
    return result, f"{note}, untrained: {_listed(lacking)}" if lacking else note


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


# --- The names of the classes in a file ---


def class_numbers(raw: RawCheckpoint) -> dict[str, int] | None:
    """The number of each class by its name, or by its key (ImageNet's synset); None if nothing says."""
    card = _card(raw)
    if card is not None:
        return {name: index for names in (card.class_keys, card.class_names) for index, name in enumerate(names)}
    names = _openmmlab(raw.content)
    return {name: index for index, name in enumerate(names)} if names else None


def _card(raw: RawCheckpoint) -> ModelCard | None:
    """The card in a run's checkpoint, beside a saved model's weights, or of published weights."""
    from resnest.runtime.card import ModelCard  # needs NumPy, and torch.hub has torch alone

    card, beside = raw.content.get("card"), raw.path.parent / CARD_NAME
    try:
        if isinstance(card, str):
            return ModelCard.from_json(card, where=str(raw.path))
        if beside.is_file():
            return ModelCard.read(raw.path.parent)
    except ResnestError:  # of other software, or of no use
        return None
    row = find_by_hash(*(raw.hashes or (digest_of(raw.path, "sha256"), digest_of(raw.path, "sha1"))))
    kind: Any = task_info(DEFAULT_TASK).card
    published: ModelCard | None = kind.of_imagenet(row.network, row.preprocess()) if row else None
    return published


def _openmmlab(content: Mapping[str, Any]) -> list[str]:
    """The classes in the `meta` of mmengine's and mmcv's checkpoints; empty if it has none."""
    meta = content.get("meta")
    if not isinstance(meta, Mapping):
        return []
    inner = meta.get("dataset_meta")
    for place in (inner, meta):
        for key in ("classes", "CLASSES"):
            names = place.get(key) if isinstance(place, Mapping) else None
            if isinstance(names, list | tuple) and names and all(isinstance(name, str) for name in names):
                return list(names)
    return []
