"""An exported file in the place of a network, so that it is evaluated as one.

model = ExportedModel.open(Path("m.onnx"))
model.net(images)                    # (N, 3, H, W) -> logits (N, K), torch tensors on the CPU
model.net(images, sizes)             # of a detector: RawDetections of torch tensors
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from resnest.files import WEIGHTS_NAME, sha256_of
from resnest.inference.model import held_back_by
from resnest.recipes.reading import read_recipe
from resnest.runtime.card import ModelCard
from resnest.runtime.detections import RawDetections
from resnest.runtime.engines.choosing import open_engine
from resnest.runtime.engines.exported import AnyExported, ExportedDetector


class ExportedNetwork(nn.Module):
    """An engine as a module without parameters."""

    def __init__(self, engine: AnyExported) -> None:
        super().__init__()
        self.engine = engine

    def forward(self, images: Tensor, sizes: Tensor | None = None) -> Any:
        if not isinstance(self.engine, ExportedDetector):
            return torch.from_numpy(self.engine(images.numpy()))
        assert sizes is not None
        found = self.engine(images.numpy(), sizes.numpy())
        return RawDetections(*(None if part is None else torch.from_numpy(part) for part in found))  # type: ignore


@dataclass(frozen=True)
class ExportedModel:
    """What `Model` is, of an exported file."""

    net: ExportedNetwork
    card: ModelCard
    held_back: tuple[float, int] | None  # share and seed of what the run held back, if that run is still there

    @classmethod
    def open(cls, path: Path, *, device: str = "auto", batch_size: int = 64) -> ExportedModel:
        """Raises ResnestError as `open_engine` does."""
        engine = open_engine(path, device=device, batch_size=batch_size)
        return cls(ExportedNetwork(engine).eval(), engine.card, _held_back(engine))


def _held_back(engine: AnyExported) -> tuple[float, int] | None:
    """As the run tells that has the same weights: where the file lies, or where it was exported from."""
    for run in (engine.path.parent, Path(str(engine.origin.get("source", "")))):
        weights, recipe = run / WEIGHTS_NAME, run / "recipe.yaml"
        if weights.is_file() and recipe.is_file() and sha256_of(weights) == engine.origin.get("weights_sha256"):
            return held_back_by(read_recipe(recipe))
    return None
