"""Class-activation maps: which pixels of a network's maps a number comes from.

    with watched(net, ["layer4"]) as maps:
        logits = net(images)
        found = explain_value(logits[0, 3], maps, "grad-cam")              # (h, w) of layer4's map

`exact` (Zhou et al., arXiv 1512.04150): behind a mean pool, a linear classifier's logit is a sum over pixels. Its map
adds up to the logit, less the bias. `grad-cam` (Selvaraju et al., arXiv 1610.02391): channels weighted by their mean
gradient, negative values cut off. `hires-cam` (Draelos and Carin, arXiv 2011.08891): each value times its own gradient.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnest.errors import ResnestError, unknown

EXACT, GRAD_CAM, HIRES_CAM = METHODS = ("exact", "grad-cam", "hires-cam")
STAGES = ("layer1", "layer2", "layer3", "layer4")  # of a ResNeSt; strides 4, 8, 16, 32


class Linear(NamedTuple):
    """A logit behind a mean over all pixels of the last map: weight @ mean + bias."""

    weight: Tensor  # (C,)
    bias: float


@contextmanager
def watched(net: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Within, outputs of these modules are kept, (N, C, h, w), and gradients end there; parameters have none.

    Of several modules each map counts for what does not pass through a later one.
    """
    kept: dict[str, Tensor] = {}
    parameters = [parameter for parameter in net.parameters() if parameter.requires_grad]
    modules = dict(net.named_modules())
    hooks = []

    def keep(name: str) -> Any:
        def hook(_: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            kept[name] = output.detach().requires_grad_()
            return kept[name]

        return hook

    try:
        for parameter in parameters:
            parameter.requires_grad_(False)
        hooks = [modules[name].register_forward_hook(keep(name)) for name in names]
        with torch.enable_grad():
            yield kept
    finally:
        for handle in hooks:
            handle.remove()
        for parameter in parameters:
            parameter.requires_grad_(True)


def explain_value(value: Tensor, maps: Mapping[str, Tensor], method: str, linear: Linear | None = None) -> Tensor:
    """The map of a number, of one image: (h, w) of the finest layer.

    Maps of several layers are resized to the finest and added; each keeps its sum.

    Args:
        value: (), with a graph to the maps.
        maps: (1, C, h, w) each.
        linear: for `exact`.

    Raises:
        ResnestError: nothing of a layer's map goes past the next one.
    """
    if method == EXACT:
        [last] = maps.values()
        if linear is None:
            raise ResnestError("no linear head")
        return (linear.weight[:, None, None] * last[0].detach()).sum(0) / last[0, 0].numel()
    gradients = torch.autograd.grad(value, list(maps.values()), retain_graph=True, allow_unused=True)
    for name, gradient in zip(maps, gradients, strict=True):
        if gradient is None:
            layer = name.rpartition(".")[2]
            raise ResnestError(f"{layer} reaches the score through later layers alone: name it without those")
    pairs = zip(maps.values(), gradients, strict=True)
    return _joined([_weighted(own[0].detach(), gradient[0], method) for own, gradient in pairs])


def _weighted(values: Tensor, gradient: Tensor, method: str) -> Tensor:
    """(C, h, w), (C, h, w) -> (h, w)."""
    if method == GRAD_CAM:
        return (gradient.mean((1, 2))[:, None, None] * values).sum(0).relu()
    return (gradient * values).sum(0)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    finest = max(parts, key=lambda part: part.numel())
    total = torch.zeros_like(finest)
    for part in parts:
        if part.shape == finest.shape:
            total += part
        else:
            large = F.interpolate(part[None, None], finest.shape, mode="bilinear", align_corners=False)[0, 0]
            total += large * (part.numel() / finest.numel())
    return total


def check_method(method: str) -> str:
    """The method. Raises ResnestError for an unknown one."""
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    return method


def check_layers(layers: Sequence[str]) -> tuple[str, ...]:
    """The layers, the finest first. Raises ResnestError for an unknown one."""
    for layer in layers:
        if layer not in STAGES:
            raise unknown("layer", layer, STAGES)
    return tuple(stage for stage in STAGES if stage in layers)
