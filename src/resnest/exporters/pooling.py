"""Max-pooling in int8 files: moved before the ReLU, where onnxruntime leaves it in float.

    pool_before_relu(model.graph)

The stem is float and the stages after it int8, so the output of the max-pool is quantized. onnxruntime moves the
quantization before the pool, whose integer kernel is slow: ResNeSt-50 in int8 took 1.12 times as long, at batch 1 and
at 16 (CPU time, AVX-512 with VNNI, one thread; OpenVINO is the same either way). It does not move it past a ReLU.
Max-pooling and ReLU commute bit for bit.
"""

from __future__ import annotations

import copy
from typing import Any


def pool_before_relu(graph: Any) -> bool:
    """Swap every ReLU of an ONNX graph with a max-pool that alone reads it; whether there was one."""
    maker = {value: node for node in graph.node for value in node.output}
    readers = [value for node in graph.node for value in node.input]
    found = False
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
        found = True
    return found
