"""Quantization of an ONNX file: convolutions in int8, sensitive layers in float.

    quantize(Path("float.onnx"), Path("int8.onnx"), batches)

Post-training static quantization by onnxruntime (https://onnxruntime.ai/docs/performance/model-optimizations/): weights
symmetric per output channel, activations asymmetric per tensor, with the ranges that the calibration images span. The
file keeps float operators between pairs of QuantizeLinear and DequantizeLinear, which onnxruntime and OpenVINO fuse.

The stem stays in float (its input is the picture, three channels with the largest range), as do the attention's two
layers (one pixel costs nothing, and their sigmoid amplifies small differences), and the weighted sum of the splits.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnest.exporters.capture import quiet
from resnest.exporters.onnx import INPUT
from resnest.runtime.engines.onnxruntime import package

# --- Max-pooling in int8 files: moved before the ReLU, where onnxruntime leaves it in float ---
# The stem is float and the stages after it int8, so the output of the max-pool is quantized. onnxruntime moves the
# quantization before the pool, whose integer kernel is slow: ResNeSt-50 in int8 took 1.12 times as long, at batch 1 and
# at 16 (CPU time, AVX-512 with VNNI, one thread; OpenVINO is the same either way). It does not move it past a ReLU.
# Max-pooling and ReLU commute bit for bit.


def pool_before_relu(graph: Any) -> bool:
    """Swap every ReLU of an ONNX graph with a max-pool that alone reads it; whether there was one."""
    maker = {value: node for node in graph.node for value in node.output}
    readers = [value for node in graph.node for value in node.input]
    swapped = False
    for pool in [node for node in graph.node if node.op_type == "MaxPool" and len(node.output) == 1]:
        relu = maker.get(pool.input[0])
        if relu is None or relu.op_type != "Relu" or readers.count(pool.input[0]) > 1:
            continue
        before, between, after = relu.input[0], pool.input[0], pool.output[0]
        first, second = copy.deepcopy(pool), copy.deepcopy(relu)
        first.input[0], first.output[0] = before, between
        second.input[0], second.output[0] = between, after
        relu.CopyFrom(first)  # in its place, so that the graph stays in the order of computing
        pool.CopyFrom(second)
        swapped = True
    return swapped


PRODUCTS = ("Conv", "Gemm")  # what has weights
STEM, ATTENTION = "conv1.", (".fc1.", ".fc2.")  # of names of weights: the network's own names
MAPS = (*PRODUCTS, "Relu", "MaxPool")  # a sum of two such maps is the one with the shortcut


@dataclass(frozen=True)
class Choices:
    """What is quantized, and how. The defaults are those of exports; docs/int8.md has the effect of each."""

    stem: bool = False
    attention: bool = False  # its two layers
    sums: bool = True  # with the shortcut
    pool_first: bool = True  # the stem's max-pool before its ReLU
    per_channel: bool = True
    percentile: bool = False  # ranges without the outermost 0.1 % of values, in place of all of them
    narrow: bool = False
    """Weights of 7 bits, for processors that add two products of 8 bits in 16 (AVX2 and AVX-512 without VNNI): there
    u8 x s8 saturates."""


@dataclass(frozen=True)
class Quantized:
    """Numbers of layers by type."""

    int8: int
    float32: int


def quantize(
    source: Path, target: Path, batches: Iterable[NDArray[np.float32]], choices: Choices | None = None
) -> Quantized:
    """Write `source`, an exported float network, with int8 weights and activations.

    Args:
        batches: of calibration images (N, C, H, W), preprocessed.
    """
    import onnx

    package()  # before its parts
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = iter(batches)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            batch = next(self.batches, None)
            return None if batch is None else {INPUT: batch}

    choices = choices or Choices()
    model = onnx.load(source)
    if choices.pool_first:
        pool_before_relu(model.graph)
    with quiet():  # without onnxruntime's advice to simplify the graph first, which the exporter has done
        quantize_static(
            model,
            target,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=choices.per_channel,
            reduce_range=choices.narrow,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
            nodes_to_quantize=list(chosen(model, choices)),
            calibrate_method=CalibrationMethod.Percentile if choices.percentile else CalibrationMethod.MinMax,
            extra_options={"CalibPercentile": 99.9} if choices.percentile else {},
        )
    products = [node for node in model.graph.node if node.op_type in PRODUCTS]
    suited = sum(_suits(node, choices) for node in products)
    return Quantized(int8=suited, float32=len(products) - suited)


def chosen(model: Any, choices: Choices) -> Iterator[str]:
    """The names of the nodes to quantize."""
    maker = {value: node.op_type for node in model.graph.node for value in node.output}
    for node in model.graph.node:
        adds_shortcut = node.op_type == "Add" and all(maker.get(value) in MAPS for value in node.input)
        has_weights = node.op_type in PRODUCTS
        if (adds_shortcut and choices.sums) or node.op_type == "Relu" or (has_weights and _suits(node, choices)):
            yield node.name


def _suits(node: Any, choices: Choices) -> bool:
    weight = node.input[1]
    in_stem, in_attention = weight.startswith(STEM), any(part in weight for part in ATTENTION)
    return (choices.stem or not in_stem) and (choices.attention or not in_attention)
