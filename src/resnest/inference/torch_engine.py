"""The torch engine: runs a network of any task on a device, prepared for inference or unchanged.

engine = open_torch_engine(Model.from_pretrained("runs/a"), "auto")
engine(images, sizes)                # (N, 3, H, W) float32, (N, 2) heights and widths -> outputs by name
engine = TorchEngine(net, "cpu", task=task_type("detection"), prepare=False)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache, partial
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from resnest.errors import ResnestError, parameter
from resnest.inference.graphs import Graphed
from resnest.inference.prepare import FusedConv
from resnest.kernels.backend import chosen
from resnest.network.split_attention import SplitAttention
from resnest.runtime.engines.exported import Arrays
from resnest.tasks import DEFAULT_TASK, Task, task_type

# --- CPU convolutions with weights prepacked for oneDNN, fused with ReLU and the shortcut's sum ---
# torch's eager convolution reorders the weights to oneDNN's own layout in every call, and writes its output before ReLU
# and the sum read it again. The two operators here are those of torch.compile's CPU code with frozen weights
# (torch/_inductor/fx_passes/mkldnn_fusion.py); they are part of torch but not of its public API, so `can_pack` tests
# them. Used only by `TorchEngine` and its subclasses.

Network = TypeVar("Network", bound=nn.Module)


class PackedConv(nn.Module):
    """A `FusedConv` with packed weights: (N, I, H, W) channels_last -> (N, O, H', W') channels_last.

    oneDNN packs for a shape of input, and for one image differently from several: with the layout of the other kind,
    batch 1 takes 2.6 times as long. So there are two layouts, each packed when it is first needed.
    """

    def __init__(self, conv: FusedConv) -> None:
        super().__init__()
        self.geometry = (list(map(int, conv.padding)), list(conv.stride), list(conv.dilation), conv.groups)
        self.relu = "relu" if conv.relu else "none"
        self.weight, self.bias = conv.weight, conv.bias
        self.layouts: dict[bool, Tensor] = {}  # for one image, for several

    def forward(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        weight = self.layouts.get(len(x) == 1)
        if weight is None:
            pack = torch.ops.mkldnn._reorder_convolution_weight
            weight = self.layouts[len(x) == 1] = pack(self.weight, *self.geometry, list(x.shape))
        convolve = torch.ops.mkldnn._convolution_pointwise
        if plus is None:
            return convolve(x, weight, self.bias, *self.geometry, self.relu, [], "")  # type: ignore[no-any-return]
        relu = "relu" if self.relu == "relu" else None
        return convolve.binary(  # type: ignore[no-any-return]
            x, plus, weight, self.bias, *self.geometry, "add", 1.0, relu, [], ""
        )


def packed(net: Network) -> Network:
    """Pack the convolutions of a prepared network, in place.

    Those of the attention stay: their maps are one pixel large.
    """
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, FusedConv) and name not in ("fc1", "fc2"):
                setattr(parent, name, PackedConv(child))
    return net


@cache
def can_pack() -> bool:
    """Whether this torch has oneDNN and the operators, with the expected results."""
    if not torch.backends.mkldnn.is_available():
        return False
    conv = nn.Conv2d(4, 4, 3, padding=1, groups=2, device="meta")
    weight = torch.linspace(-1, 1, 72).view(4, 2, 3, 3)
    fused = FusedConv.like(conv, weight, torch.linspace(-1, 1, 4), relu=True)
    x = torch.linspace(-1, 1, 200).view(2, 4, 5, 5).contiguous(memory_format=torch.channels_last)
    try:
        with torch.inference_mode():
            tried = PackedConv(fused)
            pairs = [(tried(x), fused(x)), (tried(x, x), fused(x, x))]
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
    return all(torch.allclose(got, expected, atol=1e-5) for got, expected in pairs)


# --- Batch norms of a network that is not prepared ---


@contextmanager
def scaling_norms(net: nn.Module) -> Iterator[None]:
    """Within, the batch norms of evaluation are a multiplication and an addition of each value.

    torch's own rounds otherwise. So the figures of an evaluation are to the bit those of every version before
    (tests/test_golden_training.py), which had such norms; the one inside the attention always was torch's.
    """
    inner = {block.bn1 for block in net.modules() if isinstance(block, SplitAttention)}
    norms = [norm for norm in net.modules() if type(norm) is nn.BatchNorm2d and norm not in inner and not norm.training]
    if net._compiled_call_impl is not None:  # for which they would be other modules in every call
        norms = []
    for norm in norms:
        norm.forward = partial(_scaled, norm)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


def _scaled(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """The norm of `x`, (N, C, H, W); of shorter types torch's own, as they would round scale and shift."""
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None or not norm.affine or x.dtype not in (torch.float32, torch.float64):
        return nn.BatchNorm2d.forward(norm, x)
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    shift = norm.bias - mean * scale
    return torch.addcmul(shift[:, None, None], x, scale[:, None, None])


class TorchEngine:
    """Runs a network on a device; the network itself is not changed.

    Args:
        net: of the task, in evaluation mode.
        task: by default classification.
        prepare: run a copy that computes less, exact up to rounding; else the network itself, moved to the device.
    """

    def __init__(
        self,
        net: nn.Module,
        device: str | torch.device = "auto",
        *,
        task: type[Task] | None = None,
        prepare: bool = True,
    ) -> None:
        task = task or task_type(DEFAULT_TASK)
        self.device = choose_device(device)
        self.takes_sizes = task.takes_sizes
        self.prepared = prepare
        self.max_graphed = task.graphed_images if prepare and self.device.type == "cuda" else 0
        self.name = _describe(self.device)
        if not prepare:
            self.net: Any = net.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            self.graphed = None
            return
        kernels = has_kernels(self.device)
        self.net = task.prepared(net, memory_format=torch.channels_last, kernels=kernels).to(self.device)
        self.graphed = Graphed(self.net) if self.max_graphed else None
        if self.device.type == "cpu" and not kernels and not self.takes_sizes and can_pack():
            self.net = packed(self.net)

    def __call__(self, images: NDArray[np.float32], sizes: NDArray[np.int64] | None = None) -> Arrays:
        """Outputs by name. `sizes` are heights and widths without padding, (N, 2); None: no padding."""
        inputs = torch.from_numpy(images).to(self.device).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), nullcontext() if self.prepared else scaling_norms(self.net):
            if self.takes_sizes:
                if sizes is None:
                    sizes = np.array([images.shape[2:]] * len(images))
                outputs = self.net(inputs, torch.from_numpy(np.ascontiguousarray(sizes)).to(self.device))
            else:
                small = self.graphed if len(images) <= self.max_graphed else None
                outputs = (small or self.net)(inputs)
            return to_arrays(outputs)


def to_arrays(outputs: Any) -> dict[str, NDArray[Any]]:
    """A network's outputs on the CPU, by name: logits (one tensor), or the fields of a named tuple."""
    if isinstance(outputs, Tensor):
        return {"logits": outputs.float().cpu().numpy()}
    return {
        name: (value.float() if value.is_floating_point() else value).cpu().numpy() for name, value in _fields(outputs)
    }


def _fields(outputs: Any) -> Iterator[tuple[str, Tensor]]:
    """Fields of a named tuple, nested ones too, without those that are None."""
    for name, value in outputs._asdict().items():
        if isinstance(value, Tensor):
            yield name, value
        elif value is not None:
            yield from _fields(value)


def open_torch_engine(model: Any, device: str | torch.device = "auto") -> TorchEngine:
    """The network of a `Model`, prepared."""
    return TorchEngine(model.net, device, task=task_type(model.card.task))


def has_kernels(device: torch.device) -> bool:
    """Whether the fused operators run on a device."""
    return chosen(device) == "triton"


def _describe(device: torch.device) -> str:
    if device.type == "cuda":
        return f"torch on {device}, {torch.cuda.get_device_name(device)}"
    threads = torch.get_num_threads()
    return f"torch, {threads} thread{'s' if threads > 1 else ''}"


def choose_device(name: str | torch.device) -> torch.device:
    """ "auto" selects a GPU if there is one."""
    if isinstance(name, torch.device):
        return name
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    option = parameter("device", name)
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ResnestError(f"{option}: no usable GPU here (`resnest doctor` says what torch sees); use cpu")
    try:
        return torch.device(name)
    except RuntimeError:
        raise ResnestError(f"{option}: expected auto, cpu or cuda") from None
