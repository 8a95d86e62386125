"""RoIAlign from the level of the pyramid that suits each box's size (arXiv 1703.06870, section 3; 1612.03144, eq. 1).

cut = cut_out(levels, boxes, size=7, preset="detectron2")      # boxes (N, P, 4) -> (N * P, C, 7, 7)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import roi_align

from resnest.detection.spec import Preset
from resnest.network.pyramid import STRIDES

CUT_FROM = 4  # levels, P2 to P5
CANONICAL_SIZE, CANONICAL_LEVEL = 224, 4  # a box of ImageNet's size goes to P4


def cut_out(levels: Sequence[Tensor], boxes: Tensor, *, size: int, preset: Preset) -> Tensor:
    """Features of every box, (N * P, C, size, size).

    Each level cuts out all boxes, those of other levels shrunk to a pixel, and adds its own to the result: shapes do
    not depend on the boxes, so that it can be exported, and a small box costs next to nothing. A box without size gives
    zeros (OpenVINO's RoIAlign would give NaN). Features shorter than float32, autocast's, are read as float32 for the
    boxes' sake: bfloat16 has steps of 4 pixels at 1000.
    """
    count, per_image = boxes.shape[:2]
    images = torch.arange(count, device=boxes.device, dtype=boxes.dtype).repeat_interleave(per_image)  # (N*P,)
    flat = boxes.reshape(-1, 4)
    level = box_levels(flat, preset).where((flat[:, 2:] > flat[:, :2]).all(1), -1)
    pixel = flat.new_tensor([0.0, 0.0, 1.0, 1.0])
    aligned = preset == "detectron2"  # half-pixel centres, and as many samples as a bin has pixels; theirs 2 x 2
    total: Tensor | None = None
    for index, (features, stride) in enumerate(zip(levels, STRIDES[:CUT_FROM], strict=False)):
        mine = (level == index)[:, None]
        rois = torch.cat([images[:, None], flat.where(mine, pixel)], dim=1)  # (N*P, 5)
        wide = features.to(torch.promote_types(features.dtype, rois.dtype))
        cut = roi_align(
            wide, rois.to(wide.dtype), size, 1 / stride, sampling_ratio=0 if aligned else 2, aligned=aligned
        ) * mine[:, :, None, None].to(wide.dtype)
        total = cut if total is None else total + cut
    assert total is not None
    return total.to(levels[0].dtype)


def box_levels(boxes: Tensor, preset: Preset) -> Tensor:
    """(M, 4) -> (M,): 0 for P2 to 3 for P5."""
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0)
    size = sides.prod(1).sqrt() / CANONICAL_SIZE
    if preset == "detectron2":
        exact = CANONICAL_LEVEL + torch.log2(size + 1e-8)
    else:
        exact = CANONICAL_LEVEL + torch.log2(size) + 1e-6
    return exact.floor().clamp(2, 5).to(torch.int64) - 2
