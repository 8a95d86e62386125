"""OpenVINO: an .xml with the graph and a .bin with the weights, in float32; any batch and size.

    run = load(Path("model.xml"))
    run(images)["logits"]

Converted from the ONNX file, so that both engines run one graph. The last operator of each module has its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from resnest.exporters import onnx as onnx_format
from resnest.exporters.capture import Arrays, Interface, Runner
from resnest.runtime.engines import openvino as engine
from resnest.runtime.engines.exported import open_loaded
from resnest.runtime.hardware import usable_cores

DATA_FREE = ("Parameter", "Constant", "Result")


def write(net: nn.Module, path: Path, strings: Mapping[str, str], takes: Interface) -> None:
    """Write a prepared network, `strings` as rt_info; the weights go into a .bin beside `path`."""
    import onnx
    import openvino

    with TemporaryDirectory(dir=path.parent) as folder:
        middle = Path(folder, "model.onnx")
        onnx_format.write(net, middle, {}, takes)
        model = engine.read(middle)  # openvino.convert_model sends usage data
        modules = onnx_format.module_values(onnx.load(middle, load_external_data=False))
    _name_steps(model, modules)
    for name, text in strings.items():
        model.set_rt_info(text, name)
    openvino.save_model(model, path, compress_to_fp16=False)  # the default halves the weights' precision


def load(path: Path) -> Runner:
    """The file in OpenVINO, on the CPU in float32, opened as `Predictor` does. Raises ResnestError: another card."""
    return open_loaded(engine.load(path, threads=usable_cores()), path).with_features()


def layers(path: Path, images: NDArray[np.float32]) -> Arrays:
    """The outputs of all operators by name, including the modules of the network."""
    model = engine.read(path)
    steps = [step for step in model.get_ordered_ops() if step.get_type_name() not in DATA_FREE]
    steps = [step for step in steps if step.get_output_size() == 1 and not step.get_friendly_name().isdigit()]
    model.add_outputs([step.output(0) for step in steps])
    request = engine.core().compile_model(model, "CPU", engine.settings(usable_cores())).create_infer_request()
    request.infer({onnx_format.INPUT: images})
    values = [request.get_output_tensor(index).data.copy() for index in range(len(model.outputs))]
    by_step = {
        output.get_node().input_value(0).get_node().get_friendly_name(): value
        for output, value in zip(model.outputs, values, strict=True)
    }
    return {step.get_friendly_name(): by_step[step.get_friendly_name()] for step in steps}


def _name_steps(model: Any, modules: Mapping[str, str]) -> None:
    """Name the last operator of each module after it; the innermost module, if several end there."""
    innermost: dict[str, str] = {}
    for module, value in modules.items():
        innermost.setdefault(value, module)
    for step in model.get_ordered_ops():
        for output in step.outputs():
            for value in output.get_names() & innermost.keys():
                step.set_friendly_name(innermost[value])
