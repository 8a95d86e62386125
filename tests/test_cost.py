"""Parameters and MACs by arithmetic equal those of the built network, for published and free structures."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from resnest.network import ResNeSt
from resnest.spec import BASELINES, PUBLISHED, Spec, macs, parameters

SPECS = {
    **{name: net.spec for name, net in PUBLISHED.items()},
    **BASELINES,
    "small stem": Spec(stem="small", planes=(16, 32, 64, 128)),
    "7x7 stem": Spec(stem="conv7", depths=(1, 2, 1, 1)),
    "4s2x40d, avd before": Spec(radix=4, cardinality=2, width=40, avd_first=True),
    "no avd": Spec(avd=False, depths=(1, 1, 1, 1)),
    "layer norm": Spec(attention_norm="layer", depths=(1, 1, 1, 1)),
}


@cache
def _network(spec: Spec) -> ResNeSt:
    with torch.device("meta"):
        return ResNeSt(spec, num_classes=10).eval()


def _count(spec: Spec, size: int) -> tuple[int, int]:
    net, total = _network(spec), 0

    def hook(module: torch.nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal total
        assert isinstance(module.weight, torch.Tensor)
        total += module.weight.numel() * output[0, 0].numel()

    counting = (torch.nn.Conv2d, torch.nn.Linear)
    hooks = [module.register_forward_hook(hook) for module in net.modules() if isinstance(module, counting)]
    net(torch.empty(1, 3, size, size, device="meta"))
    for one in hooks:
        one.remove()
    return sum(parameter.numel() for parameter in net.parameters()), total


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("size", [64, 97])
def test_equals_the_network(name: str, size: int) -> None:
    spec = SPECS[name]
    assert (parameters(spec, num_classes=10), macs(spec, size=size, num_classes=10)) == _count(spec, size)
