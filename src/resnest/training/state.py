"""The training state, unsharded and by plain names, whatever wraps or shards it: for checkpoints and evaluation.

state = State(fabric, net, optimizer, ema)
content = state.content()            # the same on every process
state.load(content)
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from resnest.tasks import Task

# --- EMA of the weights: exponential moving average of parameters and buffers (Polyak and Juditsky, 1992) ---


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
    def swapped_into(self, net: nn.Module) -> Iterator[None]:
        """Within the block, `net` has the averaged weights."""
        own = {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}
        net.load_state_dict(self.state)
        try:
            yield
        finally:
            net.load_state_dict(own)


FULL = StateDictOptions(full_state_dict=True)


class State:
    """Network, optimisers, EMA and, for float16, the loss scale."""

    def __init__(self, fabric: Fabric, net: Any, *rest: Any) -> None:
        *optimizers, ema = rest
        self.net = net
        self.optimizers: list[torch.optim.Optimizer] = optimizers
        self.ema: EMA | None = ema
        self.scaler = getattr(fabric.strategy.precision, "scaler", None)

    @property
    def module(self) -> nn.Module:
        """The network itself, inside the wrappers of Fabric and DDP."""
        module: nn.Module = self.net.module
        return module

    @property
    def is_sharded(self) -> bool:
        return isinstance(self.module, FSDPModule)

    def buffers(self) -> list[Tensor]:
        """Norm statistics, which differ between processes unless they are synchronised."""
        own = list(self.module.buffers())
        if self.ema is None:
            return own
        names = [name for name, _ in self.module.named_buffers()]
        return own + [self.ema.state[name] for name in names]

    def network(self) -> dict[str, Tensor]:
        """Every tensor of the network. Collective: all processes must call it."""
        return _full_tensors(self.module.state_dict())

    def unsharded(self, task: Task) -> nn.Module:
        """A network that one process can run alone: this one, or an unsharded copy."""
        if not self.is_sharded:
            return self.module
        net = task.build().to(next(self.module.parameters()).device)
        net.load_state_dict(self.network())
        return net

    @contextlib.contextmanager
    def with_ema(self) -> Iterator[None]:
        """Within the block, the network has the EMA weights, if there are any."""
        with self.ema.swapped_into(self.module) if self.ema else contextlib.nullcontext():
            yield

    def content(self) -> dict[str, Any]:
        """Content of a checkpoint. Collective."""
        optimizers = [
            get_optimizer_state_dict(self.module, optimizer, options=FULL)
            if self.is_sharded
            else optimizer.state_dict()
            for optimizer in self.optimizers
        ]
        return {
            "model": self.network(),
            "optimizers": optimizers,
            "average": _full_tensors(self.ema.state) if self.ema else None,
            "scaler": self.scaler.state_dict() if self.scaler else None,
        }

    def load(self, content: dict[str, Any]) -> None:
        """Load the result of `content` into a network of the same recipe. Collective."""
        if self.ema is not None:
            self._load_network(content["average"])
            self.ema.load(self.module.state_dict())
        self._load_network(content["model"])
        for optimizer, state in zip(self.optimizers, content["optimizers"], strict=True):
            if self.is_sharded:
                set_optimizer_state_dict(self.module, optimizer, state, options=FULL)
            else:
                optimizer.load_state_dict(state)
        if self.scaler is not None and content.get("scaler"):
            self.scaler.load_state_dict(content["scaler"])

    def _load_network(self, state: dict[str, Tensor]) -> None:
        if self.is_sharded:
            set_model_state_dict(self.module, dict[str, Any](state), options=FULL)
        else:
            self.module.load_state_dict(state)


def _full_tensors(state: dict[str, Any]) -> dict[str, Tensor]:
    return {name: tensor.full_tensor() if isinstance(tensor, DTensor) else tensor for name, tensor in state.items()}
