"""The network that a model card describes: one place for every task.

net = network_of(card, state, source="runs/a/model.safetensors")
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from resnest.checkpoints.loading import load_weights
from resnest.errors import ResnestError
from resnest.files import CARD_NAME
from resnest.network.resnest import ResNeSt
from resnest.runtime.card import NOUNS, ModelCard

if TYPE_CHECKING:
    from resnest.detection.detector import Detector
    from resnest.segmentation.segmenter import Segmenter


def build_network(card: ModelCard) -> ResNeSt | Detector | Segmenter:
    """With random weights. What only some tasks need, such as torchvision, is imported for them alone."""
    classes = len(card.class_names)
    if card.segmenter is not None:
        from resnest.segmentation.segmenter import build_segmenter

        return build_segmenter(card.spec, card.segmenter, classes)
    if card.detector is None:
        return ResNeSt(card.spec, num_classes=classes, in_chans=card.in_chans)
    if card.panoptic is not None:
        from resnest.panoptic.panoptic import build_panoptic

        return build_panoptic(card.spec, card.detector, card.panoptic, classes, card.things)
    from resnest.detection.detector import build_detector

    return build_detector(card.spec, card.detector, classes)


def network_of(card: ModelCard, state: Mapping[str, Tensor], *, source: str) -> ResNeSt | Detector | Segmenter:
    """With the weights of a file, in eval mode; built only once the file's shapes are known to be those of the card.

    Raises:
        ResnestError: it holds another network.
    """
    with torch.device("meta"):
        wanted = build_network(card).state_dict()
    wrong = sorted(name for name in wanted.keys() | state.keys() if _shape(wanted, name) != _shape(state, name))
    if wrong:
        raise ResnestError(
            f"{source} holds {NOUNS[card.task].replace('a ', 'another ', 1)} than its {CARD_NAME} or recipe describes:"
            f" {wrong[0]} differs"
        )
    net = build_network(card)
    load_weights(net, state, source=source)
    return net.eval()


def _shape(state: Mapping[str, Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(state[name].shape) if name in state else None
