"""torch.export: the network as a graph of torch's own operators, in one .pt2 file; any batch and size.

    run = load(Path("model.pt2"))
    run(images)["logits"]

Reading a .pt2 can run code that is in it (torch unpickles parts of it): load only files that you made. That is why
`resnest predict` does not take one.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from resnest.exporters.capture import Interface, capture, quiet
from resnest.exporters.layers import Arrays, Runner

OUTPUTS = "resnest_outputs"  # of the archive's extra files: names of what the network gives, as JSON


def write(net: nn.Module, path: Path, strings: Mapping[str, str], takes: Interface) -> None:
    """Write a prepared network; `strings` become extra files in the archive."""
    program = capture(net, takes)
    content = io.BytesIO()  # written straight to a disk that is full, torch ends the process
    with quiet():
        torch.export.save(program, content, extra_files={**strings, OUTPUTS: json.dumps(takes.outputs)})
    path.write_bytes(content.getbuffer())


def load(path: Path) -> Runner:
    """The file in torch, on the CPU."""
    extra = {OUTPUTS: ""}
    module = _module(path, extra)
    names = json.loads(extra[OUTPUTS] or "[]")

    def run(images: NDArray[np.float32]) -> Arrays:
        with torch.no_grad():
            outputs = module(torch.from_numpy(images))
        if isinstance(outputs, Tensor):
            return {"logits": outputs.numpy()}
        return {name: value.numpy() for name, value in zip(names, outputs, strict=True)}

    return run


def layers(path: Path, images: NDArray[np.float32]) -> Arrays:
    """The outputs of all modules of the network inside the file, by name."""
    recorder = _Recorder(_module(path))
    with torch.no_grad():
        recorder.run(torch.from_numpy(images))
    return {name: tensor.numpy() for name, tensor in recorder.seen.items()}


def _module(path: Path, extra: dict[str, str] | None = None) -> torch.fx.GraphModule:
    """The network; the archive's extra files replace the values of `extra`."""
    with quiet():
        module = torch.export.load(path, extra_files=extra).module()
    assert isinstance(module, torch.fx.GraphModule)
    return module


class _Recorder(torch.fx.Interpreter):
    """Runs a graph by node, and stores the output of every module's last node."""

    def __init__(self, module: torch.fx.GraphModule) -> None:
        super().__init__(module)
        self.seen: dict[str, Tensor] = {}

    def run_node(self, n: torch.fx.Node) -> Any:
        result = super().run_node(n)
        stack = n.meta.get("nn_module_stack") or {}
        for name in (str(path) for path, _ in reversed(stack.values())):
            self.seen.pop(name, None)
            if name and isinstance(result, Tensor):
                self.seen[name] = result.clone()  # later steps may write over it
        return result
