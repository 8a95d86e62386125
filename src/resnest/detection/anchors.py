"""Anchors: the boxes that the proposal network starts from, one size a level and several shapes (arXiv 1506.01497).

anchors = level_anchors(spec, 0, size=(200, 272), strides=(4, 4), like=p2)       # (200 * 272 * 3, 4)
"""

from __future__ import annotations

import torch
from torch import Tensor

from resnest.detection.spec import DetectorSpec


def level_anchors(
    spec: DetectorSpec, level: int, *, size: tuple[int, int], strides: tuple[int, int], like: Tensor
) -> Tensor:
    """Anchors of one level in the order of its map: (height * width * A, 4) pixels, the shapes of a place together.

    Their centres lie at the upper left corner of each place's square; torchvision rounds the shapes, detectron2 not.
    """
    shapes = cell_anchors(spec, level).to(like.device)
    y, x = (
        torch.arange(count, device=like.device, dtype=torch.float32) * stride
        for count, stride in zip(size, strides, strict=True)
    )
    shift_y, shift_x = torch.meshgrid(y, x, indexing="ij")
    shifts = torch.stack([shift_x, shift_y, shift_x, shift_y], dim=-1)  # (H, W, 4)
    return (shifts[:, :, None] + shapes).reshape(-1, 4)


def cell_anchors(spec: DetectorSpec, level: int) -> Tensor:
    """The shapes of one place around 0, (A, 4): all of the level's area."""
    ratios = torch.tensor(spec.anchor_ratios).sqrt()
    size = spec.anchor_sizes[level]
    height, width = size * ratios, size / ratios
    shapes = torch.stack([-width, -height, width, height], dim=1) / 2
    return shapes.round() if spec.preset == "torchvision" else shapes
