"""CUDA graphs: a network's launches recorded once for a shape of input, and sent as one from then on.

    fast = Graphed(prepared(net, kernels=True).to("cuda"))
    fast(images)                         # the second time for a shape: measures and records

With few images a GPU is done with a layer before the next one is launched; a graph has no such gaps. A shape that comes
once is not worth one. Each shape keeps its own memory; beyond `most` the one that was used least recently goes.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from resnest.kernels.autotune import tune

WARM_UP = 3  # runs before recording, in which Triton compiles and cuDNN chooses (torch.cuda.graph's documentation)


@dataclass(frozen=True)
class Recorded:
    """A graph with the memory that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    images: Tensor
    outputs: Tensor


class Graphed(nn.Module):
    """A network in evaluation that takes one tensor and gives one, without gradients, on a CUDA device.

    Args:
        net: whose parameters must not move or change from then on.
        most: shapes that are kept.
        measure: choose how convolutions are computed before recording (`resnest.kernels.autotune.tune`).
    """

    def __init__(self, net: nn.Module, *, most: int = 8, measure: bool = True) -> None:
        super().__init__()
        self.net, self.most, self.measure = net, most, measure
        self.recorded: OrderedDict[tuple[object, ...], Recorded] = OrderedDict()
        self.once: set[tuple[object, ...]] = set()  # shapes seen once

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        """What the network gives; a copy, which later calls leave alone."""
        key = images.shape, images.stride(), images.dtype, images.device
        if key not in self.recorded:
            if key not in self.once:
                self.once.add(key)
                return self._plain(images)
            self.recorded[key] = self._record(images)
            if len(self.recorded) > self.most:
                self.recorded.popitem(last=False)
        self.recorded.move_to_end(key)
        recorded = self.recorded[key]
        recorded.images.copy_(images)
        recorded.graph.replay()
        return recorded.outputs.clone()

    def _plain(self, images: Tensor) -> Tensor:
        outputs: Tensor = self.net(images)
        return outputs

    def _record(self, images: Tensor) -> Recorded:
        if self.measure:
            tune(self.net, images)
        own = images.clone()
        stream = torch.cuda.Stream()  # a side stream, as recording wants it
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                self.net(own)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = self.net(own)
        return Recorded(graph, own, outputs)
