"""CUDA graphs: a network's launches recorded once per input shape, then replayed as one.

    fast = Graphed(prepared(net, kernels=True).to("cuda"))
    fast(images)                         # the second time for a shape: measures and records

At small batches a GPU finishes a layer before the next is launched; a graph has no such gaps. A graph is recorded when
a shape occurs a second time. Each shape has its own memory; beyond `most` the least recently used one is freed. Threads
take turns and launch on one stream, the default one.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from resnest.kernels.autotune import tune

SEEN = 256  # shapes that are remembered for having come once
WARM_UP = 3  # runs before recording, in which Triton compiles and cuDNN chooses (torch.cuda.graph's documentation)


_turn = threading.Lock()  # of all networks: torch.cuda.graph records on one stream of the process


@dataclass(frozen=True)
class Recorded:
    """A CUDA graph with its input and output memory."""

    graph: torch.cuda.CUDAGraph
    images: Tensor
    outputs: Tensor


class Graphed(nn.Module):
    """Replays CUDA graphs of a network in evaluation with one input and one output, without gradients.

    Args:
        net: whose parameters must not move or change from then on.
        most: number of cached shapes.
        measure: choose how convolutions are computed before recording (`resnest.kernels.autotune.tune`).
    """

    def __init__(self, net: nn.Module, *, most: int = 8, measure: bool = True) -> None:
        super().__init__()
        self.net, self.most, self.measure = net, most, measure
        self.recorded: OrderedDict[tuple[object, ...], Recorded] = OrderedDict()
        self.once: OrderedDict[tuple[object, ...], None] = OrderedDict()  # shapes seen once, the latest last

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        """The network's output; a copy, which later calls do not overwrite."""
        key = images.shape, images.stride(), images.dtype, images.device
        with _turn:
            if key not in self.recorded and not self._comes_again(key):
                outputs: Tensor = self.net(images)
                return outputs
            recorded = self._recorded(key, images)
            recorded.images.copy_(images)
            recorded.graph.replay()
            return recorded.outputs.clone()

    def _comes_again(self, key: tuple[object, ...]) -> bool:
        """Whether a shape occurred before; records it."""
        again = key in self.once
        self.once[key] = None
        self.once.move_to_end(key)
        if len(self.once) > SEEN:
            self.once.popitem(last=False)
        return again

    def _recorded(self, key: tuple[object, ...], images: Tensor) -> Recorded:
        if key not in self.recorded:
            self.recorded[key] = self._record(images)
            if len(self.recorded) > self.most:
                self.recorded.popitem(last=False)
        self.recorded.move_to_end(key)
        return self.recorded[key]

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
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads may allocate meanwhile
            outputs = self.net(own)
        return Recorded(graph, own, outputs)
