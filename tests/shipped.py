"""A tiny run with its exported file, and files that other programs might write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import openvino
from onnx import TensorProto, helper
from PIL import Image

import resnest
from conftest import pico
from resnest.exporters.exporting import export
from resnest.runtime.engines.openvino import core


def make_run(folder: Path, digits: list[tuple[str, Image.Image]]) -> Path:
    """folder/photos, and folder/run: trained on them, exported as model.onnx."""
    for index, (label, image) in enumerate(digits):
        if label in "0123":
            target = folder / "photos" / f"digit-{label}" / f"{index:03d}.jpg"
            target.parent.mkdir(parents=True, exist_ok=True)
            image.resize((40, 32)).save(target, quality=92)
    settings = pico("train.epochs=1", "data.size=32", "data.eval_size=32")
    resnest.train("imagenette", data=folder / "photos", out=folder / "run", settings=settings)
    export(folder / "run", format="onnx")
    return folder / "run"


def as_openvino(onnx_file: Path, target: Path) -> Path:
    """The same graph and metadata in OpenVINO's form."""
    model = core().read_model(onnx_file)
    for entry in onnx.load(onnx_file).metadata_props:
        model.set_rt_info(entry.value, entry.key)
    openvino.save_model(model, target, compress_to_fp16=False)
    return target


def foreign(
    path: Path,
    *,
    images: tuple[Any, ...] = ("N", 3, "H", "W"),
    classes: int = 4,
    kind: int = TensorProto.FLOAT,
    inputs: int = 1,
    metadata: dict[str, str] | None = None,
) -> Path:
    """A network of another program: the mean of each channel, through a linear layer."""
    names = [f"input{index}" for index in range(inputs)]
    nodes = [
        helper.make_node("Cast", [names[0]], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("GlobalAveragePool", ["floats"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight"], ["output"]),
    ]
    channels = images[1]
    weight = helper.make_tensor(
        "weight", TensorProto.FLOAT, (channels, classes), [float(index % 7) for index in range(channels * classes)]
    )
    graph = helper.make_graph(
        nodes,
        "other",
        [helper.make_tensor_value_info(name, kind, images) for name in names],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, (images[0], classes))],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    helper.set_model_props(model, metadata or {})
    onnx.save(model, path)
    return path


def changed(onnx_file: Path, target: Path, **origin: object) -> Path:
    """A copy that tells something else of its origin."""
    model = onnx.load(onnx_file)
    for entry in model.metadata_props:
        if entry.key == "resnest_origin":
            entry.value = json.dumps({**json.loads(entry.value), **origin})
    onnx.save(model, target)
    return target
