"""Gradient checkpointing: the same loss, gradients and statistics, from less memory."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from resnest.network import ResNeSt
from resnest.network.recompute import recompute_activations
from resnest.spec import Spec

NARROW = {"depths": (2, 2, 2, 2), "planes": (8, 8, 16, 16), "stem_width": 4}


def _step(net: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor], int]:
    """Output, gradients, and the bytes that autograd keeps between forward and backward."""
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(1)  # of drawn masks
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = net(x)
        held = sum(kept.values())
        out.square().sum().backward()
    return out.detach(), {name: p.grad for name, p in net.named_parameters() if p.grad is not None}, held


@pytest.mark.parametrize("extra", [{}, {"radix": 0, "avd": False}, {"drop_path_rate": 0.3, "drop_block_rate": 0.1}])
def test_nothing_but_memory_changes(extra: dict[str, Any]) -> None:
    torch.manual_seed(0)
    plain = ResNeSt(Spec(**NARROW, **extra), num_classes=3, zero_gamma=False).double()
    saving = copy.deepcopy(plain)
    assert recompute_activations(saving) == 8
    x = torch.randn(4, 3, 64, 64, dtype=torch.float64)
    expected, found = _step(plain, x), _step(saving, x)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-12, atol=1e-12)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-9, atol=1e-12)
    for name, buffer in plain.named_buffers():  # moved once, though the forward pass ran twice
        torch.testing.assert_close(dict(saving.named_buffers())[name], buffer, rtol=1e-12, atol=1e-12)
    assert found[2] < 0.5 * expected[2]


def test_evaluation_is_untouched() -> None:
    net = ResNeSt(Spec(**NARROW), num_classes=3).eval()  # type: ignore[arg-type]
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = net(x)
        recompute_activations(net)
        assert torch.equal(net(x), expected)
