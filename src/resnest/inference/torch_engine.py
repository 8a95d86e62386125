"""The torch engine: runs a network, prepared for inference, on a device.

engine = TorchEngine(net, "auto")
engine(images)                       # (N, 3, H, W) numpy float32 -> logits (N, K)
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from resnest.errors import ResnestError
from resnest.inference.onednn import can_pack, packed
from resnest.inference.prepare import prepared
from resnest.network.resnest import ResNeSt


class TorchEngine:
    """Runs a network on a device; the network itself stays as it is."""

    def __init__(self, net: ResNeSt, device: str = "auto") -> None:
        self.device = choose_device(device)
        self.net = prepared(net).to(self.device)
        if self.device.type == "cpu" and can_pack():
            self.net = packed(self.net)
        threads = torch.get_num_threads()
        self.name = f"torch, {threads} thread{'s' if threads > 1 else ''}"
        if self.device.type == "cuda":
            self.name = f"torch on {self.device}, {torch.cuda.get_device_name(self.device)}"

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        inputs = torch.from_numpy(images).to(self.device).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            logits: NDArray[np.float32] = self.net(inputs).float().cpu().numpy()
        return logits


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
