"""The box head: of which class a proposal is, and its box (Girshick, arXiv 1504.08083); 4conv1fc by default.

head = BoxHead(channels, spec, num_classes, weights, agnostic=False)
scores, deltas = head(cut)                         # (M, C, 7, 7) -> (M, K + 1), (M, K, 4)
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnest.detection import boxes as box_ops
from resnest.detection.proposals import distance
from resnest.detection.spec import DetectorSpec
from resnest.network.pyramid import ConvNorm

POOLED = 7  # pixels of a side


class BoxHead(nn.Module):
    """Convolutions, fully connected layers, then class scores with the background last, and box deltas."""

    def __init__(self, channels: int, spec: DetectorSpec, num_classes: int, weights: box_ops.Weights) -> None:
        super().__init__()
        self.spec, self.num_classes, self.weights = spec, num_classes, weights
        widths = [channels, *[spec.box_channels] * spec.box_convs]
        self.convs = nn.ModuleList(ConvNorm(before, after, 3, spec.norm) for before, after in pairwise(widths))
        features = [widths[-1] * POOLED**2, *[spec.box_features] * spec.box_fcs]
        self.fcs = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(features))
        self.boxes = 1 if spec.cascade else num_classes  # a cascade's boxes are those of any class
        self.score = nn.Linear(features[-1], num_classes + 1)
        self.deltas = nn.Linear(features[-1], 4 * self.boxes)
        self._initialise()

    def _initialise(self) -> None:
        """As detectron2: He for convolutions, Xavier for layers, small numbers for what predicts."""
        for conv in self.convs:
            assert isinstance(conv, ConvNorm)
            nn.init.kaiming_normal_(conv.conv.weight, mode="fan_out", nonlinearity="relu")
        for layer in self.fcs:
            assert isinstance(layer, nn.Linear)
            nn.init.kaiming_uniform_(layer.weight, a=1)
        nn.init.normal_(self.score.weight, std=0.01)
        nn.init.normal_(self.deltas.weight, std=0.001)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, cut: Tensor) -> tuple[Tensor, Tensor]:
        """(M, C, 7, 7) -> logits (M, K + 1), deltas (M, K, 4), or (M, 1, 4) of a cascade."""
        hidden = cut
        for conv in self.convs:
            hidden = F.relu(conv(hidden))
        hidden = hidden.flatten(1)
        for layer in self.fcs:
            hidden = F.relu(layer(hidden))
        return self.score(hidden).float(), self.deltas(hidden).unflatten(1, (-1, 4)).float()

    def decode(self, deltas: Tensor, proposals: Tensor) -> Tensor:
        """(M, B, 4), (M, 4) -> boxes (M, B, 4)."""
        return box_ops.decode(deltas, proposals[:, None], self.weights)

    def losses(
        self, logits: Tensor, deltas: Tensor, proposals: Tensor, labels: Tensor, truth: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy, mean over the proposals; distance of the boxes of objects, over all proposals.

        Args:
            labels: (M,), K for background.
            truth: (M, 4), anything for background.
        """
        objects = (labels < self.num_classes).nonzero()[:, 0]
        kinds = labels[objects] if self.boxes > 1 else torch.zeros_like(objects)
        aim = box_ops.encode(proposals[objects], truth[objects], self.weights)
        count = max(len(labels), 1)
        return (
            F.cross_entropy(logits, labels, reduction="sum") / count,
            distance(deltas[objects, kinds], aim, self.spec) / count,
        )
