"""Which implementation runs, and what is said where one cannot."""

from __future__ import annotations

import importlib.util
import threading
from contextvars import ContextVar

import pytest
import torch

from resnest.errors import ResnestError
from resnest.kernels import backend
from resnest.kernels.backend import chosen, using, why_not
from resnest.network import ResNeSt
from resnest.network.recompute import recompute_activations
from resnest.spec import Spec

CPU = torch.device("cpu")


def test_a_cpu_takes_torch_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with using("auto"):
        assert chosen(CPU) == "torch"
        with using("triton"):
            assert chosen(CPU) == "triton"
            with using("torch"):
                assert chosen(CPU) == "torch"
        assert chosen(CPU) == "torch"


def test_a_trace_takes_the_choice_for_a_constant() -> None:
    marks = vars(torch.compiler.assume_constant_result(lambda: None))
    assert marks.items() <= vars(chosen).items()
    assert marks


def test_without_its_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with (
        using("triton"),
        pytest.raises(ResnestError, match=r"cannot run on cpu: .*TRITON_INTERPRET=1.*'auto' or 'torch'"),
    ):
        chosen(CPU)


@pytest.mark.parametrize(("capability", "takes"), [((7, 5), "torch"), ((8, 0), "triton"), ((9, 0), "triton")])
def test_a_gpu(capability: tuple[int, int], takes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_capability", lambda device: capability)
    monkeypatch.setattr(torch.version, "hip", None)
    with using("auto"):
        assert chosen(torch.device("cuda:0")) == takes
    if takes == "torch":
        with using("triton"), pytest.raises(ResnestError, match=r"compute capability 7.5, and they need 8.0"):
            chosen(torch.device("cuda:0"))


def test_other_devices_and_no_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    assert why_not(torch.device("mps")) == "they are for NVIDIA GPUs"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert why_not(torch.device("cuda:0")) == "triton is not installed (pip install triton)"
    with using("auto"):
        assert chosen(torch.device("cuda:0")) == "torch"


def test_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_set", ContextVar("_set", default=None))  # no `using` around it
    try:
        monkeypatch.setenv("RESNEST_KERNELS", "torch")
        assert backend.choice() == "torch"
        monkeypatch.setenv("RESNEST_KERNELS", "")
        assert backend.choice() == "auto"
        monkeypatch.setenv("RESNEST_KERNELS", "tritn")
        says = r"'tritn' is not a known choice of RESNEST_KERNELS\. Did you mean 'triton'"
        with pytest.raises(ResnestError, match=says):
            backend.choice()
        with pytest.raises(ResnestError, match=r"Known: auto, triton, torch"), using("cuda"):
            pass
    finally:
        monkeypatch.undo()


def test_a_choice_is_its_threads_own() -> None:
    others: list[str] = []
    with using("torch"):
        thread = threading.Thread(target=lambda: others.append(backend.choice()))
        thread.start()
        thread.join()
        with using("auto"):
            assert backend.choice() == "auto"
        assert backend.choice() == "torch"
    assert others == ["auto"]


@pytest.mark.parametrize("recomputing", [False, True])
def test_a_backward_pass_in_another_thread_takes_the_same(recomputing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where autograd has threads of its own."""
    from resnest.kernels import fuse, operators

    taken: list[tuple[int, str]] = []

    implemented = operators.implementation

    def implementation(device: torch.device) -> object:
        taken.append((threading.get_ident(), chosen(device)))
        return implemented(device)

    monkeypatch.setattr(operators, "implementation", implementation)
    net = ResNeSt(Spec(depths=(1, 1, 1, 1), planes=(8, 8, 8, 8), stem_width=4, stem="small"), num_classes=2)
    fuse.fuse(net)
    if recomputing:
        recompute_activations(net)
    with using("triton"):
        loss = net(torch.randn(2, 3, 8, 8)).square().sum()
    thread = threading.Thread(target=loss.backward)
    thread.start()
    thread.join()
    assert all(parameter.grad is not None for parameter in net.parameters())
    assert {name for _, name in taken} == {"triton"}
    assert len({number for number, _ in taken}) == 2
