"""The contenders of benchmarks/gpu.py: a network of timm's and ours with its weights, eager, compiled and fused.

    case = Case(published("resnest50"), "inference", 128)
    for contender in contenders(case, "cuda"):
        run = contender.build(weights(case.network, device), images)     # run() gives logits

The weights are random, but no branch of the network is idle: norms at zero would hide what is wrong in a block.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpu_bench.floor import Floor, inference_floor, training_floor
from resnest.inference.graphs import Graphed
from resnest.inference.prepare import prepared
from resnest.kernels.autotune import tune
from resnest.kernels.fuse import fuse
from resnest.network import ResNeSt
from resnest.spec import PUBLISHED, Spec

What = Literal["inference", "training"]
Run = Callable[[], Tensor]
Compile = Callable[[nn.Module], Any]
LAYOUTS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}
SETTLE = 16  # images whose moments the running statistics take


@dataclass(frozen=True)
class Network:
    """A structure at its crop; without timm's name our plain network stands in timm's place."""

    name: str
    spec: Spec
    size: int
    timm: str = ""

    @property
    def base(self) -> str:
        return "timm" if self.timm else "plain"


@dataclass(frozen=True)
class Case:
    """One comparison."""

    network: Network
    what: What
    batch: int
    layouts: tuple[str, ...] = tuple(LAYOUTS)

    @property
    def floor(self) -> Floor:
        count = inference_floor if self.what == "inference" else training_floor
        return count(self.network.spec, batch=self.batch, size=self.network.size)


@dataclass(frozen=True)
class Contender:
    """A way to run a case's network."""

    name: str
    layout: str
    build: Callable[[Network, dict[str, Tensor], Tensor], Run]  # from weights and images, contiguous in float32

    @property
    def label(self) -> str:
        return f"{self.name}, {self.layout}"


def published(name: str) -> Network:
    """A published network without its dropout, whose logits would be random in training."""
    row = PUBLISHED[name]
    return Network(name, replace(row.spec, drop_rate=0.0), row.crop, row.timm)


def theirs(network: Network) -> nn.Module:
    if not network.timm:
        return ours(network)
    import timm

    net: nn.Module = timm.create_model(network.timm)
    return net


def ours(network: Network) -> ResNeSt:
    return ResNeSt(network.spec)


def weights(network: Network, device: torch.device) -> dict[str, Tensor]:
    """A state for both, on the CPU: every norm away from 0 and 1, and its statistics those of random images."""
    torch.manual_seed(0)
    net = theirs(network)
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.0)
        nn.init.normal_(norm.bias, std=0.1)
        norm.momentum = 1.0
    net.to(device).train()
    with torch.no_grad():
        net(torch.randn(SETTLE, 3, network.size, network.size, device=device))
    return {name: value.cpu() for name, value in net.state_dict().items()}


def contenders(case: Case, device: torch.device, compiled: Compile) -> list[Contender]:
    """All that run on this device; the base's eager ones, which tell how exact bfloat16 is, first."""
    base, found = case.network.base, []
    if case.what == "inference":
        for layout in case.layouts:
            found.append(Contender(f"{base} eager", layout, partial(_base_inference, layout, eager)))
            found.append(Contender(f"{base} compiled", layout, partial(_base_inference, layout, compiled)))
        ways: dict[str, tuple[bool, Compile]] = {
            "kernels": (True, eager),
            "kernels, graph": (True, partial(Graphed, measure=False)),
            "kernels, compiled": (True, compiled),
            "no kernels, compiled": (False, compiled),
        }
        if device.type != "cuda":
            del ways["kernels, graph"]
        for name, (kernels, wrap) in ways.items():
            found.append(Contender(f"resnest {name}", "channels_last", partial(_our_inference, kernels, wrap)))
        return sorted(found, key=lambda contender: contender.name != f"{base} eager")
    for layout in case.layouts:
        for owner, fused in ((base, False), ("resnest fused", True)):
            found.append(Contender(f"{owner} eager", layout, partial(_training, layout, eager, fused)))
            found.append(Contender(f"{owner} compiled", layout, partial(_training, layout, compiled, fused)))
    return sorted(found, key=lambda contender: contender.name != f"{base} eager")


def eager(net: nn.Module) -> nn.Module:
    return net


def reference(case: Case, state: dict[str, Tensor], images: Tensor) -> Tensor:
    """Logits of timm's network in float32, from images as contenders get them."""
    net = _loaded(theirs(case.network), state).to(images.device).train(case.what == "training")
    parts = [images] if case.what == "training" else images.split(SETTLE)  # the moments of a batch belong together
    with torch.no_grad(), _exact_products():
        return torch.cat([net(part.bfloat16().float()) for part in parts])


def relative_error(logits: Tensor, expected: Tensor) -> float:
    """Root mean square of the difference, by that of what is expected."""
    return float((logits.float() - expected).norm() / expected.norm())


def _base_inference(layout: str, wrap: Compile, network: Network, state: dict[str, Tensor], images: Tensor) -> Run:
    net = _loaded(theirs(network), state).eval().requires_grad_(False)
    return _inference(wrap, net.to(images.device, torch.bfloat16, memory_format=LAYOUTS[layout]), images, layout)


def _our_inference(kernels: bool, wrap: Compile, network: Network, state: dict[str, Tensor], images: Tensor) -> Run:
    net = _loaded(ours(network), state)
    fast = prepared(net, kernels=kernels).to(images.device, torch.bfloat16)
    return _inference(wrap, fast, images, "channels_last")


def _inference(wrap: Compile, net: nn.Module, images: Tensor, layout: str) -> Run:
    x = images.to(torch.bfloat16, memory_format=LAYOUTS[layout])
    tune(net, x)
    call = wrap(net)

    def run() -> Tensor:
        with torch.inference_mode():
            logits: Tensor = call(x)
        return logits

    return run


def _training(
    layout: str, wrap: Compile, fused: bool, network: Network, state: dict[str, Tensor], images: Tensor
) -> Run:
    net = _loaded(ours(network) if fused else theirs(network), state).train()
    net.to(images.device, memory_format=LAYOUTS[layout])
    x = images.bfloat16().float().contiguous(memory_format=LAYOUTS[layout])
    labels = torch.arange(len(x), device=x.device) % 1000
    with torch.autocast(x.device.type, torch.bfloat16):
        if fused:
            fuse(net)
            tune(net, x)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9)
    call = wrap(net)

    def run() -> Tensor:
        optimizer.zero_grad()
        with torch.autocast(x.device.type, torch.bfloat16):
            logits: Tensor = call(x)
            loss = F.cross_entropy(logits, labels)
        loss.backward()
        optimizer.step()
        return logits.detach()

    return run


def _loaded(net: nn.Module, state: dict[str, Tensor]) -> Any:
    net.load_state_dict(copy.copy(state), strict=True)
    return net


class _exact_products:
    """float32 products without TF32, for a while."""

    def __enter__(self) -> None:
        self.before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False

    def __exit__(self, *_: object) -> None:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = self.before
