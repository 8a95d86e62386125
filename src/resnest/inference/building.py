"""Building the network of a model card, for any task, and the card of a network.

net = build_from_card(card, state, source="runs/a/model.safetensors")
card = card_of(net, ["rose", "tulip"], Preprocess(size=224))
net = rebuilt(net, card)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.pooling import _AvgPoolNd, _MaxPoolNd

from resnest.checkpoints.loading import check_values, load_weights
from resnest.errors import ResnestError, unknown
from resnest.files import CARD_NAME
from resnest.runtime.card import ModelCard
from resnest.runtime.preprocess import ImageTransform
from resnest.spec import name_of
from resnest.tasks import task_of_network, task_type


def build_from_card(card: ModelCard, state: Mapping[str, Tensor], *, source: str) -> Any:
    """Build the network of a card with the weights of a file, in eval mode, after checking the shapes in the file.

    Raises:
        ResnestError: it holds another network.
    """
    task = task_type(card.task)
    if wrong := _differing(_without_weights(card), state):
        raise ResnestError(
            f"{source} holds {card.info.noun.replace('a ', 'another ', 1)} than its {CARD_NAME} or recipe describes:"
            f" {wrong[0]} differs"
        )
    net = task.build_network(card)
    load_weights(net, state, source=source)
    return net.eval()


def _without_weights(card: ModelCard) -> nn.Module:
    """The network of a card, whose tensors have only shapes (meta device)."""
    with torch.device("meta"):
        return task_type(card.task).build_network(card)


def _differing(net: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """Names of tensors that only one of the two has, or that differ in shape."""
    wanted = net.state_dict()
    return sorted(name for name in wanted.keys() | state.keys() if _shape(wanted, name) != _shape(state, name))


def _shape(state: Mapping[str, Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(state[name].shape) if name in state else None


def card_of(
    net: nn.Module, class_names: Sequence[str], preprocess: ImageTransform | None = None, **fields: Any
) -> ModelCard:
    """The card of a network that was built here and trained elsewhere.

    Args:
        class_names: in the order of the network's outputs.
        preprocess: what it was trained with; by default what the network itself has, `net.preprocess`.
        fields: of the task's card, such as `category_ids` or `multi_label`.

    Raises:
        ResnestError: a network of no task, another number of classes than it has, an unknown field.
    """
    task = task_of_network(net)
    kind = task.info.card
    known = [field.name for field in dataclasses.fields(kind)]
    for name in fields:
        if name not in known:
            raise unknown(f"field of {kind.__name__}", name, known)
    names = _checked_names(class_names, task.num_classes(net))
    given = preprocess or getattr(net, "preprocess", None)
    if not isinstance(given, kind.preprocess_type()):
        what = "is missing" if given is None else f"is a {type(given).__name__}"
        raise ResnestError(
            f"preprocess {what}: {task.info.noun} takes the {kind.preprocess_type().__name__} that it was trained with"
        )
    own = task.card_fields(net)
    content = {"architecture": name_of(own["spec"]), "class_names": names, "preprocess": given, **own, **fields}
    return kind(**content)


def _checked_names(class_names: Sequence[str], count: int) -> tuple[str, ...]:
    names = () if isinstance(class_names, str) else tuple(class_names)
    if not all(isinstance(name, str) for name in names) or isinstance(class_names, str):
        raise ResnestError("class_names must be a list of names, in the order of the network's outputs")
    if len(names) != count:
        raise ResnestError(f"class_names has {len(names)} names, and the network has {count} classes")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ResnestError(f"class_names has {twice!r} twice")
    return names


def rebuilt(net: nn.Module, card: ModelCard) -> Any:
    """A new network by the card, with the weights of `net`, on the CPU in eval mode.

    Raises:
        ResnestError: `net` is another network than its card says, or has weights that are not finite.
    """
    described, state = _without_weights(card), net.state_dict()
    wrong = _differing(described, state)
    if not wrong:
        wrong = [
            f"a {mine}" for mine, theirs in zip(_windows(net), _windows(described), strict=False) if mine != theirs
        ]
    if wrong:
        raise ResnestError(
            f"the network is not what its structure (`spec`) and the card say: {wrong[0]} differs. A saved model is"
            " built anew from them: no other layers, strides or dilation than `create_model` and its like give"
        )
    check_values(state)
    copy = task_type(card.task).build_network(card)
    copy.load_state_dict({name: tensor.detach().cpu() for name, tensor in state.items()})
    return copy.eval()


def _windows(net: nn.Module) -> list[str]:
    """Strides, padding and dilation of convolutions and pools in order, which no tensor shows."""
    return [str(module) for module in net.modules() if isinstance(module, nn.Conv2d | _AvgPoolNd | _MaxPoolNd)]
