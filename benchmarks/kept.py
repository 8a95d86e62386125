"""What training keeps for the backward pass, and how often the split attention goes over memory: counted, not timed.

    python benchmarks/kept.py            # writes results/kept.csv and results/passes.csv, prints both
    python benchmarks/kept.py --smoke    # a tiny network, into a temporary folder

Kept: storages that autograd saves in a forward pass under bfloat16 autocast, each once, parameters left out. Tensors
have shapes and no values (FakeTensorMode), so any machine counts them; the figure is the difference of two batches, for
an image, which leaves out what does not grow with the batch. Eager: torch.compile chooses for itself what it keeps.

Passes: bytes that go into and come out of every operator of the tail, all that follows the 3x3 convolution, forward and
backward, in units of one pass over the convolution's output y. An operator may read its input twice, as batch-norm
does, and is counted once: true figures of timm's and the plain one are higher. Those of the fused operator are what its
kernels do (resnest.kernels.block), each read counted.
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"  # so that the operator takes tensors of a CPU; before triton is imported

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from gpu_bench.cases import Network, ours, published, theirs
from resnest.bench.table import environment, head
from resnest.kernels.backend import using
from resnest.kernels.fuse import fuse
from resnest.network.split_attention import SplitAttention
from resnest.spec import Spec

TINY = Network("tiny", Spec(depths=(1, 1, 1, 1), planes=(8, 16, 32, 64), stem_width=8), size=64)
MODELS = ("resnest50", "resnest101")
BATCHES = 8, 16
TAIL = 8, 128, 56  # images, R*C channels, side: the first stage of ResNeSt-50 at 224 pixels
ALLOCATIONS = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")
# of the fused operator, in passes over y of radix 2, of which V is half: y three times, V; y and dV twice, dy
FUSED_FORWARD, FUSED_BACKWARD = 3 + 1 / 2, 2 * (1 + 1 / 2) + 1


def fused(network: Network) -> nn.Module:
    net = ours(network)
    fuse(net)
    return net


def kept_bytes(build: Callable[[Network], nn.Module], network: Network, batch: int) -> int:
    """That live from forward to backward."""
    storages: dict[int, Any] = {}  # held, so that no other takes its place

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage._cdata] = storage
        return tensor

    with FakeTensorMode(), using("triton"):
        net = build(network).train()
        x = torch.empty(batch, 3, network.size, network.size).contiguous(memory_format=torch.channels_last)
        with (
            torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
            torch.autocast("cpu", torch.bfloat16),
        ):
            logits = net(x)
        assert logits.requires_grad
        own = {parameter.untyped_storage()._cdata for parameter in net.parameters()}
        return sum(storage.nbytes() for key, storage in storages.items() if key not in own)


def kept_per_image(build: Callable[[Network], nn.Module], network: Network) -> float:
    """MiB."""
    few, many = (kept_bytes(build, network, batch) for batch in BATCHES)
    return (many - few) / (BATCHES[1] - BATCHES[0]) / 2**20


class Counting(TorchDispatchMode):
    """Bytes that go into and come out of every operator that is neither a view nor an allocation."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        is_view = any(value.alias_info and not value.alias_info.is_write for value in func._schema.returns)
        if not is_view and func._schema.name.removeprefix("aten::") not in ALLOCATIONS:
            tensors = torch.utils._pytree.tree_leaves((args, kwargs, out))
            self.bytes += sum(moved(tensor) for tensor in tensors if isinstance(tensor, Tensor))
        return out


def moved(tensor: Tensor) -> int:
    """Bytes of a tensor; of one that was expanded, those that there are."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


def tail_passes(tail: nn.Module, shape: tuple[int, int, int]) -> tuple[float, float]:
    """Passes over y, forward and backward, of a block whose convolution is left out."""
    images, channels, side = shape
    tail.conv = nn.Identity()
    y = torch.randn(images, channels, side, side).contiguous(memory_format=torch.channels_last).requires_grad_()
    with Counting() as forward:
        v = tail.train()(y)
    gradient = torch.randn_like(v)
    with Counting() as backward:
        v.backward(gradient)
    return forward.bytes / moved(y), backward.bytes / moved(y)


def kept_rows(networks: list[Network]) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = []
    for network in networks:
        builds = {f"{network.base} eager": theirs, "resnest plain": ours, "resnest fused": fused}
        sizes = {name: kept_per_image(build, network) for name, build in builds.items()}
        base = sizes[f"{network.base} eager"]
        found += [(network.name, network.size, name, f"{mib:.1f}", f"{mib / base:.3f}") for name, mib in sizes.items()]
    return found


def passes_rows(shape: tuple[int, int, int]) -> list[tuple[object, ...]]:
    from timm.layers.split_attn import SplitAttn

    channels = shape[1] // 2
    counted = {
        "timm eager": tail_passes(SplitAttn(channels, radix=2, norm_layer=nn.BatchNorm2d), shape),
        "resnest plain": tail_passes(SplitAttention(channels, radix=2), shape),
        "resnest fused": (FUSED_FORWARD, FUSED_BACKWARD),
    }
    base = sum(counted["timm eager"])
    return [
        (name, f"{there:.2f}", f"{back:.2f}", f"{there + back:.2f}", f"{(there + back) / base:.3f}")
        for name, (there, back) in counted.items()
    ]


def write(path: Path, columns: tuple[str, ...], rows: list[tuple[object, ...]], notes: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        file.write(head(environment(packages=("torch", "timm", "triton"), notes=notes)))
        table = csv.writer(file, lineterminator="\n")
        table.writerows([columns, *rows])
    for row in (columns, ["---"] * len(columns), *rows):
        print(f"| {' | '.join(map(str, row))} |")
    print(path, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/kept.csv"))
    parser.add_argument("--passes", type=Path, default=Path("results/passes.csv"))
    parser.add_argument("--smoke", action="store_true", default=os.environ.get("SMOKE") == "1")
    options = parser.parse_args()
    networks, shape = [published(name) for name in MODELS], TAIL
    if options.smoke:
        networks, shape = [TINY], (2, 16, 8)
        folder = Path(tempfile.mkdtemp(prefix="resnest-smoke-"))
        options.out, options.passes = folder / options.out.name, folder / options.passes.name
    columns = "model", "size", "contender", "mib_per_image", "of_base"
    note = "counted, not measured: MiB that autograd keeps for an image, bfloat16 autocast, eager, channels_last"
    write(options.out, columns, kept_rows(networks), [note])
    images, channels, side = shape
    notes = [
        f"counted, not measured: passes over y, {images} x {channels} x {side} x {side}, float32, channels_last",
        "resnest fused: as its kernels are documented, every read; of the others an operator's input counts once",
    ]
    write(options.passes, ("contender", "forward", "backward", "both", "of_timm"), passes_rows(shape), notes)


if __name__ == "__main__":
    main()
