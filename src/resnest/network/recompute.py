"""Activation checkpointing (Chen et al., arXiv 1604.06174): less memory in training, a third more time.

recompute_activations(net)             # evaluation is unchanged
recompute_activations(net, False)      # as before
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import Context, copy_context
from functools import partial

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def recompute_activations(net: nn.Module, enable: bool = True) -> int:
    """Store only the inputs of blocks, and recompute their inside in the backward pass; or store everything again.

    For ResNeSt-200 and 269: a third more time for a fraction of the memory. The parts are the bottlenecks, and what
    else has `checkpointable = True`, such as the loss of a segmenter at full resolution.

    Returns:
        How many parts there are.
    """
    parts = [module for module in net.modules() if getattr(module, "checkpointable", False)]
    for part in parts:
        if getattr(part.forward, "func", None) is _recomputing:
            del part.forward
        if enable:
            part.forward = partial(_recomputing, part)
    return len(parts)


def _recomputing(part: nn.Module, x: Tensor, *more: Tensor) -> Tensor:
    forward = partial(type(part).forward, part)
    result: Tensor
    if part.training and x.requires_grad | any(p.requires_grad for p in part.parameters()):
        result = checkpoint(forward, x, *more, use_reentrant=False, context_fn=partial(_contexts, part))
    else:
        result = forward(x, *more)
    return result


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _second_pass(block, copy_context())


@contextmanager
def _second_pass(block: nn.Module, context: Context) -> Iterator[None]:
    """The recomputation normalises as the first pass did, and updates copies of the running statistics.

    On a GPU it runs in a thread of autograd, which has none of the first one's context variables.
    """
    tokens = [(variable, variable.set(value)) for variable, value in context.items()]
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]
    own = [dict(norm._buffers) for norm in norms]
    for norm in norms:
        for name, buffer in norm._buffers.items():
            norm._buffers[name] = None if buffer is None else buffer.clone()
    try:
        yield
    finally:
        for norm, buffers in zip(norms, own, strict=True):
            norm._buffers.update(buffers)
        for variable, token in tokens:
            variable.reset(token)
