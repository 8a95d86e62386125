"""Pictures of hundreds of objects: what is kept of masks, and how much is compared at once."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.ops import box_iou

from resnest.detection import rpn
from resnest.detection.data import Objects
from resnest.detection.heads import mask_targets
from resnest.detection.object_masks import ObjectMasks, Part
from resnest.detection.rpn import BACKGROUND, FOREGROUND, IGNORED, match
from resnest.detection.transforms import Geometry, transform_objects
from resnest.runtime.rle import encode

HEIGHT, WIDTH = 120, 160


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that comes out of an operation."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, tuple | list) else [out]:
            if isinstance(one, Tensor):
                self.elements = max(self.elements, one.numel())
        return out


def crowded(count: int) -> tuple[Objects, np.ndarray[Any, Any]]:
    """Small blobs anywhere, and their whole masks."""
    rng = np.random.default_rng(count)
    masks = np.zeros((count, HEIGHT, WIDTH), bool)
    for mask in masks:
        top, left = rng.integers(0, HEIGHT - 9), rng.integers(0, WIDTH - 9)
        mask[top : top + 9, left : left + 9] = rng.random((9, 9)) < 0.7
    boxes = ObjectMasks.of(torch.from_numpy(masks)).boxes.numpy()
    nothing, areas = np.zeros(count, bool), masks.sum((1, 2)).astype(float)
    outlines = [encode(mask) for mask in masks]
    return Objects(
        1, WIDTH, HEIGHT, boxes, np.zeros(count, np.int64), nothing, areas, outlines, np.arange(count)
    ), masks


@pytest.mark.parametrize(("mirror", "upside_down", "turns"), [*product((False, True), (False, True), range(4))])
def test_masks_are_kept_as_windows_and_drawn_as_before(mirror: bool, upside_down: bool, turns: int) -> None:
    """Cut, resized, turned: each mask is the one that is drawn whole, and only windows are kept."""
    objects, masks = crowded(30)
    geometry = Geometry(
        left=12, top=5, right=150, bottom=110, width=201, height=97,
        mirror=mirror, flip_vertical=upside_down, turns=turns,
    )  # fmt: skip
    target = transform_objects(objects, geometry, masks=True)
    assert target.masks is not None
    whole = np.zeros((len(masks), *geometry.size), bool)
    for place, mask in zip(whole, masks, strict=True):
        geometry.unflipped_view(place)[:] = mask[geometry.rows[:, None], geometry.columns]
    seen = whole[whole.any((1, 2))]
    np.testing.assert_array_equal(target.masks.drawn(), seen)
    np.testing.assert_array_equal(torch.stack([*target.masks.one_by_one()]), seen)
    np.testing.assert_array_equal(target.masks.drawn(3, 7), seen[3:7])
    assert len(seen) > 20
    assert target.masks.pixels.numel() <= len(seen) * 18 * 18  # 9 pixels become 14 and 9


def test_an_empty_mask_has_no_window() -> None:
    assert Part(np.zeros((4, 5), bool), 3, 2).trimmed().pixels.size == 0
    none = ObjectMasks.of(torch.zeros(0, 4, 5, dtype=torch.bool))
    assert none.drawn().shape == (0, 4, 5)
    assert none.boxes.shape == (0, 4)


@pytest.mark.parametrize("preset", ["detectron2", "torchvision"])
def test_only_a_few_whole_masks_are_drawn_at_once(preset: Any) -> None:
    objects, _ = crowded(60)
    as_it_is = Geometry(left=0, top=0, right=WIDTH, bottom=HEIGHT, width=WIDTH, height=HEIGHT)
    target = transform_objects(objects, as_it_is, masks=True)
    assert target.masks is not None
    matched = torch.tensor([59, 0, 17, 17, 8, 7])
    with Largest() as largest:
        mask_targets(target.masks, target.boxes[matched], matched, preset)
    assert largest.elements <= 8 * HEIGHT * WIDTH


def plainly(boxes: Tensor, truth: Tensor, background: float, foreground: float, low: bool) -> tuple[Tensor, Tensor]:
    """All at once."""
    overlaps = box_iou(truth, boxes)
    most, matched = overlaps.max(0)
    kind = torch.full((len(boxes),), BACKGROUND)
    kind[most >= background], kind[most >= foreground] = IGNORED, FOREGROUND
    if low:
        kind[((overlaps == overlaps.max(1, keepdim=True).values) & (overlaps > 0)).any(0)] = FOREGROUND
    return matched, kind


@pytest.mark.parametrize("low_quality", [True, False])
@pytest.mark.parametrize("pairs", [1, 900, 10**9])
def test_matching_in_parts_is_matching_at_once(monkeypatch: pytest.MonkeyPatch, pairs: int, low_quality: bool) -> None:
    """With equal overlaps among them: coordinates are whole and few."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.randint(0, 12, (400, 2), generator=generator)
    boxes = torch.cat([corners, corners + torch.randint(1, 6, (400, 2), generator=generator)], 1).float()
    truth, boxes = torch.cat([boxes[:40], boxes[:10]]), boxes[30:]
    expected = plainly(boxes, truth, 0.3, 0.7, low_quality)
    monkeypatch.setattr(rpn, "PAIRS", pairs)
    with Largest() as largest:
        got = match(boxes, truth, background=0.3, foreground=0.7, low_quality=low_quality)
    for one, other in zip(got, expected, strict=True):
        assert torch.equal(one, other)
    assert largest.elements <= max(2 * pairs, 4 * len(boxes))
    assert {BACKGROUND, IGNORED, FOREGROUND} == set(got[1].tolist())
