"""Normalisation inside an ONNX file, which then takes 8-bit pixels; compared with the network like any file.

    parity = bake(model, form, path, strings, pictures, "nhwc")          # the file at `path` is replaced

The input is `pixels`, uint8, (N, H, W, 3) or (N, 3, H, W). Where the task pads after normalising, as detectors do, no
8-bit pixel stands for the padding: then the file pads as well, and takes any picture up to its size.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnest.errors import ParityFailure, ResnestError, parameter, unknown
from resnest.exporters import gate
from resnest.exporters.calibration import Pictures
from resnest.exporters.capture import Arrays
from resnest.exporters.formats import Format
from resnest.exporters.onnx import INPUT
from resnest.exporters.writing import NOTHING, compare
from resnest.inference.model import Model
from resnest.runtime.engines import onnxruntime as engine
from resnest.runtime.engines.exported import CARD_KEY, INPUT_KEY, ORIGIN_KEY, ExportedEngine, open_loaded
from resnest.runtime.hardware import usable_cores
from resnest.runtime.preprocess import Step, normalise

LAYOUTS = ("nhwc", "nchw")
PIXELS = "pixels"  # the input's name
LEFT = 4 / 5  # of each side of noise is no padding


def check_baking(layout: str, form: Format, int8: bool) -> None:
    """Raises ResnestError for an unknown layout, and for files that cannot be made so."""
    option = parameter("bake_preprocessing", layout)
    if layout not in LAYOUTS:
        raise unknown("layout", layout, LAYOUTS)
    if form.name != "onnx":
        raise ResnestError(f"{option} is for the formats onnx and triton, not {form.name}")
    if int8:
        raise ResnestError(f"{option} is for files of floats: leave out {parameter('int8')}")


def describe_input(layout: str) -> dict[str, str]:
    """The entry of a card and an origin."""
    return {"name": PIXELS, "dtype": "uint8", "layout": layout}


def bake(
    model: Model,
    form: Format,
    path: Path,
    strings: Mapping[str, str],
    pictures: Pictures,
    layout: str,
    *,
    on_step: Callable[[str], None] = lambda step: None,
) -> tuple[gate.Parity, dict[str, str]]:
    """Put the normalisation into the file, and compare it with the network again.

    Returns:
        The comparison, and the file's metadata.

    Raises:
        ParityFailure: it computes something else.
    """
    on_step("comparing it again, with the normalisation inside")
    card = model.card
    said = {
        key: json.dumps({**json.loads(strings[key]), INPUT_KEY: describe_input(layout)})
        for key in (CARD_KEY, ORIGIN_KEY)
    }
    write_baked(path, card.preprocess.steps(), layout, said)
    runs = open_loaded(engine.load(path, threads=usable_cores()), path)
    pads = pads_after(card.preprocess.steps()) is not None

    def noise(rng: np.random.Generator, shape: gate.Shape) -> NDArray[np.float32]:
        n, _, high, wide = shape
        pixels = rng.integers(0, 256, (n, high, wide, 3), np.uint8)
        images = normalise(pixels, card.preprocess.mean, card.preprocess.std)
        if pads:
            images[:, :, int(high * LEFT) :], images[..., int(wide * LEFT) :] = 0, 0
        return images

    parity = compare(model, form, lambda images: _run(runs, images, pads), pictures, noise)
    if not parity.ok:
        raise ParityFailure(
            f"{form.name}: with its preprocessing, the file computes something else: {parity}. {NOTHING}"
        )
    return parity, said


def _run(runs: ExportedEngine, images: NDArray[np.float32], pads: bool) -> Arrays:
    """The file, on the pixels that images were made from; without the zeros that it adds itself."""
    if not pads:
        return runs(images)
    there = images[0].any(0)  # (H, W); a normalised pixel is not 0 in all channels
    size = [int(np.flatnonzero(there.any(axis)).max(initial=0)) + 1 for axis in (1, 0)]
    return runs(images, np.array([size]))


def pads_after(steps: list[Step]) -> Step | None:
    """The padding that comes after normalising, if any."""
    names = [step["do"] for step in steps]
    return steps[names.index("pad")] if "pad" in names[names.index("normalise") :] else None


def outside(steps: list[Step]) -> list[Step]:
    """The steps that are left for the caller of a baked file."""
    inner = [step for step in steps if step["do"] == "normalise"] + [pads_after(steps)]
    return [step for step in steps if step not in inner]


def write_baked(path: Path, steps: list[Step], layout: str, strings: Mapping[str, str]) -> None:
    """Cast, (transpose,) multiply, subtract (and pad) before the network's input, as `normalise` does in float32."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(path)
    graph = model.graph
    [images] = graph.input
    n, _, high, wide = (dim.dim_param or dim.dim_value for dim in images.type.tensor_type.shape.dim)
    [normal], pad = [step for step in steps if step["do"] == "normalise"], pads_after(steps)
    shape = [n, "H", "W", 3] if pad else [n, high, wide, 3]
    if layout == "nchw":
        shape = [shape[0], 3, *shape[1:3]]
    values: dict[str, Any] = {key: np.array(normal[key], np.float32).reshape(1, 3, 1, 1) for key in ("scale", "shift")}
    nodes = [helper.make_node("Cast", [PIXELS], ["baked_float"], to=TensorProto.FLOAT)]
    last = "baked_float"
    if layout == "nhwc":
        nodes.append(helper.make_node("Transpose", [last], ["baked_planes"], perm=[0, 3, 1, 2]))
        last = "baked_planes"
    nodes.append(helper.make_node("Mul", [last, "baked_scale"], ["baked_scaled"]))
    nodes.append(helper.make_node("Sub", ["baked_scaled", "baked_shift"], ["baked_normal" if pad else INPUT]))
    if pad:
        values |= {"size": np.array([1, 3, pad["height"], pad["width"]]), "zeros": np.zeros(4, np.int64)}
        nodes += [
            helper.make_node("Shape", ["baked_normal"], ["baked_shape"]),
            helper.make_node("Sub", ["baked_size", "baked_shape"], ["baked_missing"]),
            helper.make_node("Max", ["baked_missing", "baked_zeros"], ["baked_added"]),  # less would cut it
            helper.make_node("Concat", ["baked_zeros", "baked_added"], ["baked_pads"], axis=0),
            helper.make_node("Pad", ["baked_normal", "baked_pads"], ["baked_padded"]),
            helper.make_node("Reshape", ["baked_padded", "baked_size"], [INPUT]),  # an error for larger pictures
        ]
    graph.initializer.extend(numpy_helper.from_array(value, f"baked_{key}") for key, value in values.items())
    images.CopyFrom(helper.make_tensor_value_info(PIXELS, TensorProto.UINT8, shape))
    kept = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *kept])
    helper.set_model_props(model, {**{entry.key: entry.value for entry in model.metadata_props}, **strings})
    onnx.checker.check_model(model)
    onnx.save(model, path)
