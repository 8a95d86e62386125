"""ExecuTorch: a .pte for phones and small devices, by XNNPACK on their CPU; one image at a time, of one size.

    run = load(Path("model.pte"))
    run(images)["logits"]

Metadata are methods without arguments that return a string: `program.load_method("resnest").execute([])`.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from resnest.exporters.capture import Arrays, Interface, Runner, capture, named, quiet


def write(net: nn.Module, path: Path, strings: Mapping[str, str], takes: Interface) -> dict[str, object]:
    """Write a prepared network; returns the numbers of operators run by XNNPACK and by ExecuTorch's own kernels."""
    with quiet(), suppress_stderr():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.devtools.backend_debug import get_delegation_info
        from executorch.exir import to_edge_transform_and_lower

        program = capture(net, takes)
        lowered = to_edge_transform_and_lower(
            program, partitioner=[XnnpackPartitioner()], constant_methods=dict(strings)
        )
        delegation = get_delegation_info(lowered.exported_program().graph_module)
        path.write_bytes(lowered.to_executorch().buffer)
    return _delegated_operators(delegation.delegation_by_operator)


def _delegated_operators(operators: Mapping[str, Any]) -> dict[str, object]:
    """How many operators XNNPACK runs, and which it does not."""
    steps = {name: counts for name, counts in operators.items() if name != "getitem"}  # that one only hands over
    inside = sum(counts.delegated for counts in steps.values())
    outside = {name: counts.non_delegated for name, counts in steps.items() if counts.non_delegated}
    return {"xnnpack": inside, "steps": inside + sum(outside.values()), "not_in_xnnpack": outside}


def load(path: Path) -> Runner:
    """The file in ExecuTorch's runtime, on the CPU."""
    with quiet(), suppress_stderr():
        from executorch.runtime import Runtime

        method: Any = Runtime.get().load_program(path).load_method("forward")

    def run(images: NDArray[np.float32]) -> Arrays:
        rows = [[value.clone() for value in method.execute([torch.from_numpy(image[None])])] for image in images]
        return named([torch.cat(values) for values in zip(*rows, strict=True)])

    return run


@contextlib.contextmanager
def suppress_stderr() -> Iterator[None]:
    """Suppress C++ output to standard error, which bypasses Python; it is part of the message if there is an error."""
    with tempfile.TemporaryFile() as aside:
        stderr = os.dup(2)
        os.dup2(aside.fileno(), 2)
        try:
            yield
        except BaseException:
            aside.seek(0)
            os.write(stderr, aside.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
