"""The network as a graph, from which every format is made, and the outputs of its layers.

    program = capture(prepared(net), Interface(3))                 # any batch and any size
    with quiet(): ...                                              # exporters print much

`torch.export` traces a network and records the module that each operator belongs to.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from resnest.network.resnest import Bottleneck, ResNeSt
from resnest.network.split_attention import SplitAttention

EXAMPLE_BATCH = 2  # of one, torch.export would take the batch for a constant (pytorch issue 148886)
EXAMPLE_SIZE = 64


@dataclass(frozen=True)
class Interface:
    """Inputs and outputs of a file."""

    in_chans: int
    batch: int | None = None  # images at a time; None: any number
    size: tuple[int, int] | None = None  # height and width, pixels; None: any
    outputs: tuple[str, ...] = ("logits",)
    example_size: int = EXAMPLE_SIZE  # of a side, where any goes: large enough that no map has one pixel


def capture(net: nn.Module, takes: Interface) -> ExportedProgram:
    """The graph of a network in eval mode, on the CPU."""
    high, wide = takes.size or (takes.example_size, takes.example_size)
    example = torch.zeros(takes.batch or EXAMPLE_BATCH, takes.in_chans, high, wide)
    free = {0: takes.batch is None, 2: takes.size is None, 3: takes.size is None}
    shapes = {axis: Dim.DYNAMIC for axis, is_free in free.items() if is_free}
    with quiet(), torch.no_grad():
        program = torch.export.export(net, (example,), dynamic_shapes=(shapes,))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine, which nobody else needs
    return program


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress warnings and log messages below errors, from inside exporters."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


# --- Comparison by layer: the outputs of a network's modules by name, and the first that differs ---

Arrays = Mapping[str, NDArray[Any]]  # by the name of an output or of a module
Runner = Callable[[NDArray[np.float32]], Arrays]  # images (N, C, H, W) -> named outputs


def difference(expected: NDArray[Any], got: NDArray[Any]) -> float:
    """The largest difference, relative to the largest expected value; infinite if it is undefined."""
    if expected.shape != got.shape or not np.isfinite(got).all():
        return float("inf")
    largest = float(np.abs(expected).max(initial=0))
    return float(np.abs(expected - got).max(initial=0)) / (largest or 1.0)


def module_outputs(net: nn.Module, images: NDArray[np.float32]) -> Arrays:
    """The outputs of all modules by name, in the order in which they finish."""
    with recording(net) as seen, torch.inference_mode():
        net(torch.from_numpy(images))
    return {name: tensor.numpy() for name, tensor in seen.items()}


@contextmanager
def recording(net: nn.Module) -> Iterator[dict[str, Tensor]]:
    """A dictionary that collects the output of every module when the network runs."""
    seen: dict[str, Tensor] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                seen[name] = output.clone()  # the next step may write over it

        return hook

    handles = [module.register_forward_hook(note(name)) for name, module in net.named_modules() if name]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def first_difference(expected: Arrays, got: Arrays, tolerance: float) -> tuple[str, float] | None:
    """The first name whose arrays differ by more than `tolerance`, and by how much.

    Names and shapes that only one of them has are passed over: an exporter drops what computes nothing.
    """
    for name, values in expected.items():
        if name in got and got[name].shape == values.shape:
            apart = difference(values, got[name])
            if apart > tolerance:
                return name, apart
    return None


class BlockOutputs(nn.Module):
    """A network that also returns the outputs of its blocks, for formats whose files cannot be inspected."""

    def __init__(self, net: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.net = net
        self.names = names

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        with recording(self.net) as seen:
            logits: Tensor = self.net(images)
        return (logits, *(seen[name] for name in self.names))


def named(outputs: Tensor | Sequence[Tensor]) -> Arrays:
    """`logits`, and those of a `BlockOutputs` network by number."""
    several = [outputs] if isinstance(outputs, Tensor) else outputs
    return {str(index) if index else "logits": tensor.numpy() for index, tensor in enumerate(several)}


def blocks(net: nn.Module) -> list[str]:
    """The modules whose output preparing preserves, the classifier or head last: smaller ones lose their norms."""
    names = [name for name, module in net.named_modules() if isinstance(module, Bottleneck | SplitAttention)]
    return [*names, "fc" if isinstance(net, ResNeSt) else "head"]
