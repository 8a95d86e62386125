"""The parts of a network from input to output, and keeping the first of them as they are.

parts(net)              # stem, layer1, layer2, layer3, layer4, head
freeze(net, 2)          # stem and layer1
hold_statistics(net)    # of every batch-norm
"""

from __future__ import annotations

from torch import nn

from resnest.errors import ResnestError
from resnest.network.norm import FrozenStatsBatchNorm2d
from resnest.network.regularize import DropBlock2d, DropPath
from resnest.network.resnest import ResNeSt


def parts(net: nn.Module) -> list[nn.ModuleList]:
    """Six parts that hold every parameter once; the last one of a network on a backbone is all but the backbone."""
    if isinstance(backbone := getattr(net, "backbone", None), nn.Module):
        head = nn.ModuleList(child for name, child in net.named_children() if name != "backbone")
        return [*parts(backbone)[:-1], head]
    assert isinstance(net, ResNeSt)
    groups: list[list[nn.Module]] = [
        [net.conv1, net.bn1],
        [net.layer1],
        [net.layer2],
        [net.layer3],
        [net.layer4],
        [net.fc],
    ]
    return [nn.ModuleList(group) for group in groups]


def freeze(net: nn.Module, count: int) -> None:
    """Let the first `count` parts act as in evaluation and not learn, whatever `net.train()` says.

    Batch-norms become ones that keep their statistics, with the same names in the state.
    """
    everything = parts(net)
    if not 0 <= count < len(everything):
        raise ResnestError(f"{count} parts cannot be frozen: 0 to {len(everything) - 1}, the head always learns")
    if count:
        assert isinstance(net, ResNeSt)
        net.bn1 = _still(net.bn1)  # type: ignore[assignment]
    for part in parts(net)[:count]:
        part.requires_grad_(False)
        for module in list(part.modules()):
            for name, child in module.named_children():
                setattr(module, name, _still(child))


def hold_statistics(net: nn.Module) -> None:
    """Every batch-norm keeps its running statistics from now on; its scale and shift still learn.

    For fine-tuning with few images a step, whose own statistics would be noise.
    """
    for module in list(net.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, _still(child))


def _still(module: nn.Module) -> nn.Module:
    """The module as it is in evaluation, for what is not the same in training."""
    if isinstance(module, DropBlock2d | DropPath):
        return nn.Identity()
    if not isinstance(module, nn.BatchNorm2d):
        return module
    still = FrozenStatsBatchNorm2d(module.num_features, module.eps)
    still.weight, still.bias = module.weight, module.bias
    for name, buffer in module.named_buffers():
        setattr(still, name, buffer)
    return still
