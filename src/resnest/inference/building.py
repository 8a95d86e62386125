"""The network that a model card describes, of any task.

net = build_from_card(card, state, source="runs/a/model.safetensors")
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from resnest.checkpoints.loading import load_weights
from resnest.errors import ResnestError
from resnest.files import CARD_NAME
from resnest.runtime.card import ModelCard
from resnest.tasks import task_type


def build_from_card(card: ModelCard, state: Mapping[str, Tensor], *, source: str) -> Any:
    """With the weights of a file, in eval mode; built only once the file's shapes are known to be those of the card.

    Raises:
        ResnestError: it holds another network.
    """
    task = task_type(card.task)
    with torch.device("meta"):
        wanted = task.build_network(card).state_dict()
    wrong = sorted(name for name in wanted.keys() | state.keys() if _shape(wanted, name) != _shape(state, name))
    if wrong:
        raise ResnestError(
            f"{source} holds {card.info.noun.replace('a ', 'another ', 1)} than its {CARD_NAME} or recipe describes:"
            f" {wrong[0]} differs"
        )
    net = task.build_network(card)
    load_weights(net, state, source=source)
    return net.eval()


def _shape(state: Mapping[str, Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(state[name].shape) if name in state else None
