"""What a network must move and compute on any device: a bound for measured times, layer by layer.

    floor = inference_floor(Spec(), batch=128, size=224)         # bytes, operations
    floor.seconds(3.35e12, 989e12)                               # the larger of both terms

Counted are values that go through device memory, under these assumptions:

- A layer is a kernel: its input comes from memory and its output goes there. Caches hold nothing between kernels.
- A convolution reads its input and its weights once and writes its output once.
- Norms, ReLU and the shortcut's sum cost nothing in inference: the epilogue of a convolution has them. It does read the
  shortcut, once.
- A pool costs nothing in inference: what writes its input writes its output alone. Where the map before it is needed as
  well, on the shortcut, the convolution after it reads that map.
- Split attention waits for a mean over all pixels: U is written, read once more, and V is written.

A training step:

- The batch's statistics are a pass of their own: each convolution's output is read once more. What comes next reads it,
  and normalises as it loads.
- So the sum with the shortcut has to wait: both are read and the sum is written. So has the max pool, and every other
  pool is taken as the convolution after it loads; the one after split attention is in that.
- Backward, a norm reads its input and its output's gradient. A convolution reads its input, its weights, and its
  output's gradient twice, for two products; it writes the gradients of input and weights. The images have none.
- Split attention reads its input and the gradient of V twice, and writes its input's gradient; its norm is in that.
- The gradient that comes through the shortcut is read once.
- SGD reads weights, gradients and momenta and writes weights and momenta, in float32.

Operations are 2 x MACs (spec.py), in a training step three times that, less the gradient of the images.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from resnest.spec import Spec, macs, parameters

if TYPE_CHECKING:
    from torch import Tensor, nn

SGD_BYTES = 5 * 4  # for a parameter: three reads and two writes in float32


@dataclass(frozen=True)
class Floor:
    """Bytes through device memory, and operations (2 x MACs)."""

    bytes: int
    operations: int

    def seconds(self, bandwidth: float, rate: float) -> float:
        """The least time at so many bytes and operations a second, which go on at the same time."""
        return max(self.bytes / bandwidth, self.operations / rate)


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer for one image, in values."""

    name: str
    reads: int
    weights: int
    writes: int
    macs: int

    @property
    def is_normed(self) -> bool:
        """By a norm over a whole map: not those of the attention and the classifier."""
        return self.name.rpartition(".")[2] not in ("fc", "fc1", "fc2")


@dataclass(frozen=True)
class Block:
    """What a bottleneck moves besides its convolutions, for one image, in values."""

    splits: int  # U; 0: there is no split attention
    weighed: int  # V, after the pool
    sums: int  # the block's output


@dataclass(frozen=True)
class Traffic:
    """The parts of a network, and what its pools save or cost."""

    layers: list[Layer]
    blocks: list[Block]
    unpooled: int  # what the shortcuts' pools take away
    deferred: int  # what others in blocks do, where it is not V that is pooled
    max_pool: tuple[int, int]  # values before and after it


def inference_floor(spec: Spec, *, batch: int, size: int, value_bytes: int = 2) -> Floor:
    """For the logits of a batch."""
    traffic = traffic_of(spec, size)
    values = _forward(traffic) - traffic.deferred - (traffic.max_pool[0] - traffic.max_pool[1])
    values += sum(block.splits + block.weighed + block.sums for block in traffic.blocks)
    moved = values * batch + sum(layer.weights for layer in traffic.layers)
    return Floor(moved * value_bytes, 2 * macs(spec, size=size) * batch)


def training_floor(spec: Spec, *, batch: int, size: int, value_bytes: int = 2) -> Floor:
    """For a step: forward, backward, SGD with momentum."""
    traffic = traffic_of(spec, size)
    values = _forward(traffic) + sum(layer.writes for layer in traffic.layers if layer.is_normed)
    values += sum(traffic.max_pool) + traffic.deferred
    values += sum(2 * block.splits + block.weighed + 3 * block.sums for block in traffic.blocks)
    values += _backward(traffic)
    weights = 3 * sum(layer.weights for layer in traffic.layers)  # forward, backward, their gradient
    moved = (values * batch + weights) * value_bytes + SGD_BYTES * parameters(spec)
    products = 3 * macs(spec, size=size) - traffic.layers[0].macs
    return Floor(moved, 2 * products * batch)


def _forward(traffic: Traffic) -> int:
    return sum(layer.reads + layer.writes for layer in traffic.layers) + traffic.unpooled


def _backward(traffic: Traffic) -> int:
    values = sum(2 * layer.reads + 2 * layer.writes for layer in traffic.layers) - traffic.layers[0].reads
    values += sum(2 * layer.writes for layer in traffic.layers if layer.is_normed)
    values += sum(traffic.max_pool) + traffic.unpooled + traffic.deferred
    attention = (block.splits + 2 * block.weighed for block in traffic.blocks)  # beyond the norm's two reads
    return values + sum(attention) + sum(block.sums for block in traffic.blocks)


@cache
def traffic_of(spec: Spec, size: int) -> Traffic:
    """From one image through a network without weights."""
    import torch

    from resnest.network import Bottleneck, ResNeSt

    with torch.device("meta"):
        net = ResNeSt(replace(spec, drop_rate=0.0), zero_gamma=False).eval()
    found: list[tuple[str, nn.Module, int, int]] = []  # name, layer, values in and out

    def watch(name: str) -> Any:
        return lambda module, given, out: found.append((name, module, given[0].numel(), out.numel()))

    for name, module in net.named_modules():
        module.register_forward_hook(watch(name))
    with torch.no_grad():
        net(torch.empty(1, 3, size, size, device="meta"))
    sizes = {name: (before, after) for name, _, before, after in found}
    pools = {name: sizes[name] for name, module, *_ in found if "Pool" in type(module).__name__}
    blocks = [name for name, module, *_ in found if isinstance(module, Bottleneck)]
    shrinks = {name: before - after for name, (before, after) in pools.items() if name != "maxpool"}
    shortcut = sum(values for name, values in shrinks.items() if ".downsample." in name)
    within = sum(values for name, values in shrinks.items() if name.endswith("pool_after") and spec.radix)
    return Traffic(
        layers=list(_layers(found)),
        blocks=[_block(sizes, name, bool(spec.radix)) for name in blocks],
        unpooled=shortcut,
        deferred=sum(shrinks.values()) - shortcut - within,
        max_pool=pools.get("maxpool", (0, 0)),
    )


def _layers(found: list[tuple[str, nn.Module, int, int]]) -> Iterator[Layer]:
    """In the order in which they run."""
    for name, module, before, after in found:
        weight: Tensor | None = getattr(module, "weight", None)
        if weight is not None and weight.dim() > 1:  # not a norm's
            pixels = after // weight.shape[0]
            yield Layer(name, before, weight.numel(), after, weight.numel() * pixels)


def _block(sizes: dict[str, tuple[int, int]], name: str, has_attention: bool) -> Block:
    sums = sizes[name][1]
    if not has_attention:
        return Block(0, 0, sums)
    return Block(sizes[f"{name}.conv2.conv"][1], sizes[f"{name}.conv3"][0], sums)
