"""ONNX: for onnxruntime, OpenVINO, TensorRT, browsers and more; any batch and size, one file.

    write(network, Path("model.onnx"), {"resnest": card.to_json()})
    run = load(Path("model.onnx"))
    run(images)["logits"]                       # by onnxruntime, on the CPU

The exporter is torch's own, on top of `torch.export` (https://pytorch.org/docs/stable/onnx_export.html).
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from resnest.errors import ResnestError
from resnest.exporters.capture import Arrays, Interface, Runner, capture, quiet
from resnest.runtime.engines import onnxruntime as engine
from resnest.runtime.engines.exported import open_loaded
from resnest.runtime.hardware import usable_cores

OPSET = 20  # onnxruntime >= 1.17, OpenVINO >= 2024.0, TensorRT >= 10
IR_VERSION = 9  # that of opset 20: onnxruntime 1.17 refuses 10, which the exporter writes, and reads all that is in it
MOST_BYTES = 2**31 - 1  # a protobuf message is no larger; beyond that weights would go into a second file
INPUT = "images"
SCOPES = "pkg.torch.onnx.name_scopes"  # of a node: the modules around it, outermost first, and its own name
AXES = {0: "N", 2: "H", 3: "W"}


def write(net: nn.Module, path: Path, strings: Mapping[str, str], takes: Interface) -> None:
    """Write a prepared network; `strings` go into the file's metadata."""
    weight = sum(tensor.numel() * tensor.element_size() for tensor in net.state_dict().values())
    if weight > MOST_BYTES:
        raise ResnestError(f"the network has {weight / 2**30:.1f} GiB of weights, and an ONNX file holds 2 at most")
    program = capture(net, takes)
    with quiet(), torch.no_grad():
        exported = torch.onnx.export(
            program,
            dynamo=True,
            input_names=[INPUT],
            output_names=list(takes.outputs),
            opset_version=OPSET,
            verbose=False,
        )
        assert exported is not None
        _tidy(exported.model)
        exported.model.ir_version = IR_VERSION
        exported.model.metadata_props.update(strings)
        exported.save(path, external_data=False)


def _tidy(model: Any) -> None:
    """Readable names for dynamic axes; of the exporter's notes, only the module of each node."""
    graph = model.graph
    sides = graph.inputs[0].shape
    names = {str(sides[axis]): name for axis, name in AXES.items() if not isinstance(sides[axis], int)}
    for value in (*graph.inputs, *graph.outputs):
        value.metadata_props.clear()
        for axis, dim in enumerate(value.shape):
            if str(dim) in names:
                value.shape[axis] = names[str(dim)]
    for node in graph:
        scopes = node.metadata_props.get(SCOPES)
        node.metadata_props.clear()  # stack traces with paths of this machine among it
        if scopes:
            node.metadata_props[SCOPES] = scopes
        for output in node.outputs:
            output.metadata_props.clear()
            if output not in graph.outputs:
                output.shape = None  # refers to the axes' old names; engines infer it


def load(path: Path) -> Runner:
    """The file in onnxruntime, on the CPU, opened as `Predictor` does. Raises ResnestError: another card."""
    return open_loaded(engine.load(path, threads=usable_cores()), path).with_features()


def layers(path: Path, images: NDArray[np.float32]) -> Arrays:
    """The outputs of all modules of the network inside the file, by name, in the order of computation."""
    import onnx

    model = onnx.load(path)
    values = module_values(model)
    present = {output.name for output in model.graph.output}
    for value in dict.fromkeys(values.values()):
        if value not in present:
            model.graph.output.append(onnx.ValueInfoProto(name=value))
    session = engine.open_session(model.SerializeToString(), threads=usable_cores())
    wanted = list(dict.fromkeys(values.values()))
    outputs = dict(zip(wanted, session.run(wanted, {INPUT: images}), strict=True))
    return {module: outputs[value] for module, value in values.items()}


def module_values(model: Any) -> dict[str, str]:
    """The output of each module's last node; modules in the order in which they finish."""
    last: dict[str, str] = {}
    for node in model.graph.node:
        noted = {entry.key: entry.value for entry in node.metadata_props}.get(SCOPES, "[]")
        for module in reversed(ast.literal_eval(noted)[:-1]):
            last.pop(module, None)
            if module:
                last[module] = node.output[0]
    return last
