"""Capture of a network as a `torch.export` graph, from which every format is made.

    program = capture(prepared(net), Interface(3))                 # any batch and any size
    with quiet(): ...                                              # exporters print much

`torch.export` traces a network and records the module that each operator belongs to.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

EXAMPLE_BATCH = 2  # of one, torch.export would take the batch for a constant (pytorch issue 148886)
EXAMPLE_SIZE = 64


@dataclass(frozen=True)
class Interface:
    """Inputs and outputs of a file."""

    in_chans: int
    batch: int | None = None  # images at a time; None: any number
    size: tuple[int, int] | None = None  # height and width, pixels; None: any
    outputs: tuple[str, ...] = ("logits",)


def capture(net: nn.Module, takes: Interface) -> ExportedProgram:
    """The graph of a network in eval mode, on the CPU."""
    high, wide = takes.size or (EXAMPLE_SIZE, EXAMPLE_SIZE)
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
