"""Averaged weights: an exponential moving average of all that is learned and counted (Polyak and Juditsky, 1992).

average = Average(net, decay=0.9999)
average.update(net, step)
with average.in_place_of(net):
    evaluate(net)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """The average of a network's parameters and buffers; whole numbers are copied."""

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state = {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}

    @torch.no_grad()
    def update(self, net: nn.Module, step: int) -> None:
        """After step `step`; early steps count for more, as the first weights are random (TensorFlow's rule)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        now = net.state_dict()
        floating = [name for name, tensor in now.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([self.state[name] for name in floating], [now[name] for name in floating], 1 - decay)
        for name, tensor in now.items():
            if not tensor.is_floating_point():
                self.state[name].copy_(tensor)

    def load(self, state: dict[str, Tensor]) -> None:
        for name, tensor in self.state.items():
            tensor.copy_(state[name])

    @contextmanager
    def in_place_of(self, net: nn.Module) -> Iterator[None]:
        """Within it, `net` has the averaged weights."""
        own = {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}
        net.load_state_dict(self.state)
        try:
            yield
        finally:
            net.load_state_dict(own)
