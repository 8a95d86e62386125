"""The Python names at the top of the package do for any task what the commands do."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

import resnest
from resnest.errors import ResnestError
from resnest.inference.torch_engine import to_arrays
from resnest.tasks import TASKS, task_of_network, task_type
from small import small

SIDE = 64  # pixels


def outputs(net: nn.Module) -> dict[str, Any]:
    torch.manual_seed(1)
    images = torch.randn(2, 3, SIDE, SIDE).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        return to_arrays(net(images))


def test_names_are_typed_as_they_are_found() -> None:
    """What a type checker sees is what runs."""
    typed = {}
    source = sys.modules["resnest"].__file__
    assert source is not None
    with open(source, encoding="utf-8") as file:
        block = file.read().partition("if TYPE_CHECKING:\n")[2].partition("\n\n")[0]
    for line in block.splitlines():
        _, module, _, *names = line.replace(",", "").split()
        typed.update(dict.fromkeys(names, module))
    assert typed == resnest._HOME
    assert sorted(typed) == resnest.__all__


def test_names_that_need_no_torch() -> None:
    names = (
        "BadImage Classification Detections LabelMap ModelCard MultiLabel PanopticMap Recipe Result Show find_recipe"
    )
    code = (
        f"import sys, resnest\nfor name in {names.split()}: getattr(resnest, name)\nassert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("task", TASKS)
def test_the_task_of_a_network(task: str) -> None:
    assert task_of_network(small(task)) is task_type(task)


@pytest.mark.parametrize("task", TASKS)
def test_prepare(task: str) -> None:
    net = small(task)
    fast = resnest.prepare(net)
    assert type(fast) is type(net)
    assert fast is not net
    expected, got = outputs(net), outputs(fast)
    assert expected.keys() == got.keys()
    for name, values in expected.items():
        assert got[name] == pytest.approx(values, rel=1e-3, abs=1e-4), name


def test_a_network_of_no_task() -> None:
    with pytest.raises(ResnestError, match=r"a Linear is a network of no task: expected one of ResNeSt, Detector"):
        resnest.prepare(nn.Linear(1, 1))
