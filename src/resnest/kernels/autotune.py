"""Autotuning: the algorithm of every radix-grouped 3x3 convolution, chosen by measurement.

    tune(net, images)                    # after fuse(net) or prepared(net, kernels=True), on a GPU

| algorithm | is |
|---|---|
| grouped | one grouped convolution of cuDNN's |
| dense | a dense one for each group, and their outputs side by side |
| triton | `forward.split_convolution`, with the attention's sums in its epilogue; in evaluation |

Which is fastest depends on shape, layout, type and cuDNN. Until it is measured, and where results must be the same from
run to run (`torch.use_deterministic_algorithms`), it is the first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ConvAlgorithm = Literal["grouped", "dense", "triton"]
Run = Callable[[], object]
Timer = Callable[[Run], float]


class Tunable(Protocol):
    """A block that can compute its convolution by several algorithms."""

    algorithm: ConvAlgorithm

    def runs(self, x: Tensor) -> dict[ConvAlgorithm, Run]:
        """The convolution by each algorithm, for an input like x; empty if there is no choice."""


def convolve(x: Tensor, conv: nn.Conv2d, algorithm: ConvAlgorithm) -> Tensor:
    """The convolution without its own bias, grouped or dense: (N, C, H, W) -> (N, R*C, H', W')."""
    stride, padding, dilation = conv.stride, conv.padding, conv.dilation
    if algorithm != "dense":
        return F.conv2d(x, conv.weight, None, stride, padding, dilation, conv.groups)
    inputs, weights = x.chunk(conv.groups, 1), conv.weight.chunk(conv.groups)
    outputs = [F.conv2d(group, w, None, stride, padding, dilation) for group, w in zip(inputs, weights, strict=True)]
    return torch.cat(outputs, 1)


def tune(net: nn.Module, images: Tensor, *, timer: Timer | None = None) -> dict[str, ConvAlgorithm]:
    """Set every block's fastest algorithm for inputs of this shape, by one run of the network, then of each block.

    Args:
        net: after `fuse` (in training: forward and backward are measured) or prepared with kernels.
        images: a batch as it will come, on the GPU.
        timer: seconds of a call; by default the median by CUDA events, and on a CPU nothing is measured.

    Returns:
        The algorithm of every block that has a choice, by the block's name.
    """
    if timer is None:
        if images.device.type != "cuda":
            return {}
        timer = _on_gpu
    if torch.are_deterministic_algorithms_enabled():
        return {}
    chosen: dict[str, ConvAlgorithm] = {}
    known: dict[tuple[object, ...], ConvAlgorithm] = {}  # blocks of one shape take one measurement
    for name, block, x in _inputs(net, images):
        runs = block.runs(x)
        if len(runs) > 1:
            key = type(block), x.shape, x.stride(), x.dtype, tuple(runs), str(block)
            if key not in known:
                seconds = {algorithm: timer(run) for algorithm, run in runs.items()}
                known[key] = min(seconds, key=lambda algorithm: seconds[algorithm])
            block.algorithm = chosen[name] = known[key]
    return chosen


def _inputs(net: nn.Module, images: Tensor) -> list[tuple[str, Tunable, Tensor]]:
    """Every tunable block with its input."""
    blocks: list[tuple[str, Tunable, Tensor]] = []

    def watch(name: str, block: nn.Module) -> torch.utils.hooks.RemovableHandle:
        seen = lambda block, inputs: blocks.append((name, cast(Tunable, block), inputs[0].detach().clone()))  # noqa: E731
        return block.register_forward_pre_hook(seen)

    handles = [watch(name, block) for name, block in net.named_modules() if hasattr(block, "runs")]
    if not handles:
        return []
    buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}
    try:
        with torch.no_grad():
            net(images)
    finally:
        for handle in handles:
            handle.remove()
        with torch.no_grad():  # a look must not move running statistics
            for name, buffer in net.named_buffers():
                buffer.copy_(buffers[name])
    return blocks


def _on_gpu(run: Run) -> float:
    """Median seconds per call."""
    from triton.testing import do_bench

    return float(do_bench(run, warmup=20, rep=60, return_mode="median")) / 1000
