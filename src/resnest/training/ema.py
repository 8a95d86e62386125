"""EMA of the weights: exponential moving average of parameters and buffers (Polyak and Juditsky, 1992).

ema = EMA(net, decay=0.9999)
ema.update(net, step)
with ema.in_place_of(net):
    evaluate(net)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


class EMA:
    """The moving average of a network's parameters and buffers; integers are copied."""

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state = {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}

    @torch.no_grad()
    def update(self, net: nn.Module, step: int) -> None:
        """Update after step `step`; the decay grows at first, as initial weights are random (TensorFlow's rule)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        pairs = [(self.state[name], tensor) for name, tensor in net.state_dict().items()]
        floating = [pair for pair in pairs if pair[1].is_floating_point()]
        for sharded in (False, True):  # shards and unsharded tensors cannot be mixed in one call
            chosen = [pair for pair in floating if isinstance(pair[1], DTensor) == sharded]
            if chosen:
                torch._foreach_lerp_([average for average, _ in chosen], [now for _, now in chosen], 1 - decay)
        for average, tensor in pairs:
            if not tensor.is_floating_point():
                average.copy_(tensor)

    def load(self, state: dict[str, Tensor]) -> None:
        for name, tensor in self.state.items():
            tensor.copy_(state[name])

    @contextmanager
    def in_place_of(self, net: nn.Module) -> Iterator[None]:
        """Within the block, `net` has the averaged weights."""
        own = {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}
        net.load_state_dict(self.state)
        try:
            yield
        finally:
            net.load_state_dict(own)
