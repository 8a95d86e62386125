"""The initial weights that the published networks had; those of the official PyTorch code are in resnest.py.

initialise_as_gluon(net)
"""

from __future__ import annotations

from torch import nn


def initialise_as_gluon(net: nn.Module) -> None:
    """He normal, fan-in, in convolutions and linear layers, all biases 0 (Gluon train.py: Xavier, "in", magnitude 2).

    Norms stay as they are. The official PyTorch code takes fan-out and leaves classifier and biases to torch.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()  # of one group
            nn.init.normal_(module.weight, std=(2 / fan_in) ** 0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
