"""Running a model with torch: `Predictor` for any model reference.

predict = Predictor("runs/a")                # or "resnest50", a checkpoint file, a hub id
predict("rose.jpg").top(3)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from resnest.errors import ResnestError
from resnest.inference.model import Model
from resnest.network.resnest import ResNeSt
from resnest.runtime.predictor import ImagePredictor


class Predictor(ImagePredictor):
    """`ImagePredictor` for any model reference, run by torch.

    >>> Predictor("no/such/run")
    Traceback (most recent call last):
    resnest.errors.ResnestError: there is no model at no/such/run: expected a run directory or a checkpoint file
    """

    def __init__(
        self, reference: str | Path, *, network: str | None = None, device: str = "auto", batch_size: int = 16
    ) -> None:
        model = Model.from_pretrained(reference, network=network)
        super().__init__(TorchEngine(model.net, device), model.card, batch_size=batch_size)


class TorchEngine:
    """Runs a network on a device: (N, 3, H, W) -> logits (N, K), numpy float32."""

    def __init__(self, net: ResNeSt, device: str = "auto") -> None:
        self.device = choose_device(device)
        self.net = net.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

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
