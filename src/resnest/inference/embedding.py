"""Embeddings of any model reference: `embed`, and the features of a data set's samples.

    rows = embed("runs/a", ["rose.jpg", "tulip.jpg"])     # (2, D) float32, of length 1
    embedder = open_embedder("runs/a")                    # of a network of any task, or an exported file
    found = embed_samples(embedder, samples)              # found.rows (M, D), found.indices (M,), found.bad

Features are what a classifier's linear head gets: the mean of the last stage's map. Networks of other tasks give those
of their backbone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from resnest.data.loading import evaluation_batches
from resnest.data.samples import Samples
from resnest.errors import ResnestError
from resnest.inference.model import Model
from resnest.inference.prepare import prepared
from resnest.inference.torch_engine import can_pack, choose_device, has_kernels, packed
from resnest.network.resnest import ResNeSt, Trunk
from resnest.runtime.embedding import Embedder, Features, features_of_file
from resnest.runtime.engines.choosing import is_exported, open_engine
from resnest.runtime.engines.exported import FEATURES, Arrays


def embed(
    model: str | Path | Model,
    images: Any,
    *,
    normalise: bool = True,
    device: str = "auto",
    batch_size: int = 16,
    network: str | None = None,
) -> Features:
    """Pooled features of pictures, (N, D) float32, or (D,) of one picture.

    Args:
        model: any reference, or an opened model; an exported file that was exported with its features.
        images: one picture or a list of them, each whatever a `Predictor` takes.
        normalise: rows of length 1, so that their products are cosines.
        network: name of the network in a checkpoint file that does not identify it.

    Raises:
        ResnestError: no such model, one whose backbone is no ResNeSt, a file without features, no pictures.
        BadImage: a ResnestError with the defect of a picture.
    """
    embedder = open_embedder(model, normalise=normalise, device=device, batch_size=batch_size, network=network)
    rows: Features = embedder(images)
    return rows


def open_embedder(
    model: str | Path | Model,
    *,
    normalise: bool = True,
    device: str = "auto",
    batch_size: int = 16,
    network: str | None = None,
) -> Embedder:
    """The embedder of a model; arguments and errors as for `embed`."""
    how: dict[str, Any] = {"batch_size": batch_size, "normalise": normalise}
    if not isinstance(model, Model) and is_exported(model):
        exported = open_engine(Path(model), device=device, batch_size=batch_size)
        return Embedder(features_of_file(exported), exported.card, **how)
    opened = model if isinstance(model, Model) else Model.from_pretrained(model, network=network)
    return Embedder(TrunkEngine(opened, device), opened.card, **how)


class Pooled(nn.Module):
    """A trunk and the mean of its last map over each picture."""

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, images: Tensor, sizes: Tensor) -> Tensor:
        """(N, C, H, W), heights and widths without padding (N, 2) -> (N, D)."""
        last = self.trunk.forward_features(images)
        if isinstance(self.trunk, ResNeSt):
            return self.trunk.forward_head(last, pre_logits=True)
        return mean_within(last, sizes / torch.tensor(images.shape[2:], device=sizes.device))


def mean_within(maps: Tensor, shares: Tensor) -> Tensor:
    """The mean over the cells that a picture covers, at the top left: (N, D, h, w), shares of height and width (N, 2).

    A cell counts by the part of it that is covered; where there is no padding, this is the mean over all.
    """
    high, wide = (
        (share[:, None] * side - torch.arange(side, device=maps.device)).clamp(0, 1)
        for share, side in zip(shares.to(maps.dtype).unbind(1), maps.shape[2:], strict=True)
    )
    weights = high[:, :, None] * wide[:, None, :]  # (N, h, w)
    return torch.einsum("ndhw,nhw->nd", maps, weights) / weights.sum((1, 2))[:, None]


class TrunkEngine:
    """The trunk of a network of any task, prepared for inference on a device. Raises ResnestError: it is no ResNeSt."""

    def __init__(self, model: Model, device: str | torch.device = "auto") -> None:
        self.device = choose_device(device)
        trunk = model.net if isinstance(model.net, Trunk) else getattr(model.net, "backbone", None)
        if not isinstance(trunk, Trunk):
            raise ResnestError(f"{model.source}: features are those of a ResNeSt, and its backbone is another network")
        kernels = has_kernels(self.device)
        fast = prepared(trunk, memory_format=torch.channels_last, kernels=kernels).to(self.device)
        if self.device.type == "cpu" and not kernels and can_pack():
            fast = packed(fast)
        self.net, self.name = Pooled(fast).eval(), f"torch on {self.device}"

    def __call__(self, images: NDArray[np.float32], sizes: NDArray[np.int64]) -> Arrays:
        inputs = torch.from_numpy(images).to(self.device).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            rows = self.net(inputs, torch.from_numpy(np.ascontiguousarray(sizes)).to(self.device))
        return {FEATURES: rows.float().cpu().numpy()}


@dataclass(frozen=True)
class Embedded:
    """Features of a data set's samples."""

    rows: Features  # (M, D) of length 1
    indices: NDArray[np.int64]  # (M,) into the samples, ascending
    bad: list[tuple[str, str]]  # pictures that cannot be used: key, reason


def embed_samples(
    embedder: Embedder,
    samples: Samples,
    *,
    batch_size: int = 64,
    workers: int | None = None,
    on_batch: Callable[[int], None] = lambda seen: None,
) -> Embedded:
    """Features of every usable sample, read as the data set says. Raises ResnestError: none is usable."""
    rows: list[Features] = []
    indices: list[int] = []
    bad: list[tuple[str, str]] = []
    for batch in evaluation_batches(samples, embedder.card.preprocess, batch_size=batch_size, workers=workers):
        bad += batch.bad
        if batch.indices:
            rows.append(embedder.features(batch.prepared(samples)))
            indices += batch.indices
        on_batch(len(batch.indices) + len(batch.bad))
    if not rows:
        raise ResnestError(f"no image could be used{f'; {bad[0][0]}: {bad[0][1]}' if bad else ''}")
    order = np.argsort(indices)
    return Embedded(np.concatenate(rows)[order], np.array(indices, np.int64)[order], bad)
