"""The torch engines: they run a network, prepared for inference, on a device.

engine = TorchEngine(net, "auto")
engine(images)                       # (N, 3, H, W) numpy float32 -> logits (N, K)
engine = TorchSegmenter(net, "auto")
engine(images)                       # logits (N, K, H, W)
engine = TorchDetector(net, "auto")
engine(images, sizes)                # with (N, 2) heights and widths without padding -> RawDetections
engine = TorchPanoptic(net, "auto")  # the same of a panoptic detector -> RawPanoptic
engine = engine_of(model, "auto")    # the one for its task
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from resnest.errors import ResnestError
from resnest.inference.graphs import Graphed
from resnest.inference.onednn import can_pack, packed
from resnest.inference.prepare import prepared, prepared_segmenter, prepared_whole
from resnest.kernels.backend import chosen
from resnest.network.resnest import ResNeSt
from resnest.runtime.detections import RawDetections, RawPanoptic

if TYPE_CHECKING:
    from resnest.detection.detector import Detected, Detector
    from resnest.inference.model import Model
    from resnest.panoptic.panoptic import DetectedPanoptic, PanopticFPN
    from resnest.runtime.engines.kinds import AnyEngine


class TorchEngine:
    """Runs a network that gives logits on a device; the network itself stays as it is."""

    prepare: Callable[..., Any] = staticmethod(prepared)
    most_graphed = 16  # images: with more, a GPU has enough to do between two launches

    def __init__(self, net: ResNeSt, device: str = "auto") -> None:
        self.device = choose_device(device)
        kernels = has_kernels(self.device)
        self.net = self.prepare(net, kernels=kernels).to(self.device)
        graphs = self.device.type == "cuda" and self.most_graphed > 0
        self.graphed = Graphed(self.net) if graphs else None
        if self.device.type == "cpu" and not kernels and can_pack():
            self.net = packed(self.net)
        self.name = _told(self.device)

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        small = self.graphed if len(images) <= self.most_graphed else None
        return run_on(self.device, small or self.net, images)


class TorchSegmenter(TorchEngine):
    """Runs a segmenter, in the same way: (N, 3, H, W) -> logits (N, K, H, W)."""

    prepare = staticmethod(prepared_segmenter)
    most_graphed = 0  # pictures of many sizes, and each size would keep its own memory


class TorchDetector:
    """Runs a detector on a device; the detector itself stays as it is."""

    def __init__(self, net: Detector, device: str = "auto") -> None:
        self.device = choose_device(device)
        self.net = prepared_whole(net, kernels=has_kernels(self.device)).to(self.device)
        self.name = _told(self.device)

    def __call__(self, images: NDArray[np.float32], sizes: NDArray[np.int64]) -> RawDetections:
        return to_numpy(self.run(images, sizes))

    def run(self, images: NDArray[np.float32], sizes: NDArray[np.int64]) -> Any:
        """What the detector itself gives."""
        inputs = torch.from_numpy(images).to(self.device).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            return self.net(inputs, torch.from_numpy(sizes).to(self.device))


class TorchPanoptic:
    """Runs a panoptic detector on a device; the detector itself stays as it is."""

    def __init__(self, net: PanopticFPN, device: str = "auto") -> None:
        self.inner = TorchDetector(net, device)
        self.name = self.inner.name

    def __call__(self, images: NDArray[np.float32], sizes: NDArray[np.int64]) -> RawPanoptic:
        return panoptic_to_numpy(self.inner.run(images, sizes))


def run_on(device: torch.device, net: nn.Module, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """The logits that a network on a device gives for images, (N, 3, H, W)."""
    inputs = torch.from_numpy(images).to(device).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        logits: NDArray[np.float32] = net(inputs).float().cpu().numpy()
    return logits


def engine_of(model: Model, device: str = "auto") -> AnyEngine:
    """The engine for a model's task."""
    engines: dict[str, Callable[[Any, str], AnyEngine]] = {
        "classification": TorchEngine,
        "detection": TorchDetector,
        "segmentation": TorchSegmenter,
        "panoptic": TorchPanoptic,
    }
    return engines[model.card.task](model.net, device)


def to_numpy(found: Detected) -> RawDetections:
    """The same on the CPU."""
    masks = None if found.masks is None else found.masks.float().cpu().numpy()
    return RawDetections(
        found.boxes.float().cpu().numpy(), found.scores.float().cpu().numpy(), found.labels.cpu().numpy(), masks
    )


def panoptic_to_numpy(found: DetectedPanoptic) -> RawPanoptic:
    """The same of a panoptic detector."""
    return RawPanoptic(to_numpy(found.objects), found.semantic.float().cpu().numpy())


def has_kernels(device: torch.device) -> bool:
    """Whether the fused operators run there."""
    return chosen(device) == "triton"


def _told(device: torch.device) -> str:
    if device.type == "cuda":
        return f"torch on {device}, {torch.cuda.get_device_name(device)}"
    threads = torch.get_num_threads()
    return f"torch, {threads} thread{'s' if threads > 1 else ''}"


def choose_device(name: str) -> torch.device:
    """ "auto" takes a GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ResnestError("--device cuda: no usable GPU here (`resnest doctor` says what torch sees); use cpu")
    try:
        return torch.device(name)
    except RuntimeError:
        raise ResnestError(f"--device {name}: expected auto, cpu or cuda") from None
