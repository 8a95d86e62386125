"""Masks in runs against pycocotools, and masks pasted into their boxes against torch's grid_sample."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pycocotools import mask as oracle
from torch.nn.functional import grid_sample

from resnest.detection.result import paste, resample
from resnest.errors import ResnestError
from resnest.runtime import rle


def _masks() -> list[NDArray[np.bool_]]:
    rng = np.random.default_rng(0)
    shapes = [(1, 1), (1, 9), (9, 1), (2, 2), (33, 31), (480, 640)]
    masks = [rng.random(shape) < share for shape in shapes for share in (0, 0.02, 0.5, 0.98, 1)]
    disc = np.hypot(*np.mgrid[-400:400, -500:500]) < 300
    full = np.zeros((7, 9), bool)
    full[:, 3:6] = True  # whole columns: one run goes over their ends
    return [*masks, disc, full]


@pytest.mark.parametrize("mask", _masks(), ids=lambda mask: f"{mask.shape} {mask.mean():.2f}")
def test_runs_are_those_of_pycocotools(mask: NDArray[np.bool_]) -> None:
    theirs = oracle.encode(np.asfortranarray(mask.astype(np.uint8)))
    text = theirs["counts"].decode()
    ours = rle.encode(mask)
    assert ours == {"size": list(mask.shape), "counts": text}
    assert np.array_equal(rle.decode(ours), mask)
    assert rle.pack(rle.unpack(text)) == text
    assert rle.area(ours) == oracle.area(theirs)
    assert rle.box(ours) == tuple(oracle.toBbox(theirs))
    long: rle.RLE = {"size": list(mask.shape), "counts": rle.unpack(text).tolist()}
    assert np.array_equal(rle.decode(long), mask)
    assert oracle.frPyObjects(long, *mask.shape)["counts"].decode() == text


def test_a_part_of_a_mask_lies_where_it_is_said_to() -> None:
    rng = np.random.default_rng(1)
    for top, left, height, width in [(0, 0, 4, 5), (3, 2, 6, 4), (0, 7, 12, 3), (5, 0, 0, 3), (11, 9, 1, 1)]:
        part = rng.random((height, width)) < 0.6
        whole = np.zeros((12, 10), bool)
        whole[top : top + height, left : left + width] = part
        assert rle.encode(part, left=left, top=top, size=(12, 10)) == rle.encode(whole)


WRONG: dict[str, rle.RLE] = {
    "cut off": {"size": [4, 4], "counts": "P"},
    "another alphabet": {"size": [4, 4], "counts": "!!"},
    "no ASCII": {"size": [4, 4], "counts": "\N{SNOWMAN}"},
    "endless": {"size": [4, 4], "counts": "o" * 40 + "0"},
    "too few pixels": {"size": [4, 4], "counts": [3, 2]},
    "less than none": {"size": [4, 4], "counts": [20, -4]},
    "empty": {"size": [4, 4], "counts": ""},
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_what_is_no_mask(wrong: rle.RLE) -> None:
    with pytest.raises(ResnestError, match="mask"):
        rle.decode(wrong)


BOXES = [(10.3, 5.7, 60.2, 44.1), (-4.2, -7.0, 30.5, 20.9), (50.0, 30.0, 99.5, 71.0), (12.1, 8.4, 12.9, 9.1)]


@pytest.mark.parametrize("box", BOXES)
def test_pasting_is_grid_sampling(box: tuple[float, float, float, float]) -> None:
    width, height = 80, 60
    probabilities = np.random.default_rng(2).random((28, 28)).astype(np.float32)
    x1, y1, x2, y2 = box
    x = ((torch.arange(width, dtype=torch.float64) + 0.5 - x1) / (x2 - x1) * 2 - 1).expand(height, width)
    y = ((torch.arange(height, dtype=torch.float64) + 0.5 - y1) / (y2 - y1) * 2 - 1)[:, None].expand(height, width)
    sampled = grid_sample(
        torch.from_numpy(probabilities).double()[None, None], torch.stack([x, y], -1)[None], align_corners=False
    )[0, 0].numpy()
    assert np.abs(resample(probabilities, box, (0, 0, width, height)) - sampled).max() < 1e-5
    found = rle.decode(paste(probabilities, box, width=width, height=height))
    assert ((found == (sampled >= 0.5)) | (np.abs(sampled - 0.5) < 1e-5)).all()
    assert found.any() or box == BOXES[-1]


def test_a_box_without_area_has_an_empty_mask() -> None:
    ones = np.ones((28, 28), np.float32)
    for box in [(5, 5, 5, 9), (9, 9, 5, 5), (90, 5, 99, 9), (-9, -9, -2, -2)]:
        assert rle.area(paste(ones, box, width=80, height=60)) == 0
    assert rle.box(paste(ones, (-5, 3, 500, 9), width=80, height=60)) == (0, 3, 80, 6)


@pytest.mark.parametrize("kind", ["blocks", "noise", "all", "none"])
def test_painting_is_decoding(kind: str) -> None:
    random = np.random.default_rng(0)
    mask = {
        "blocks": np.kron(random.random((2, 5)) > 0.5, np.ones((300, 40))) > 0,
        "noise": random.random((600, 200)) > 0.5,
        "all": np.ones((600, 200), bool),
        "none": np.zeros((600, 200), bool),
    }[kind]
    canvas = np.zeros((200, 600), np.uint8)
    rle.paint(canvas, rle.encode(mask), 7)
    assert (canvas == 7 * mask.T).all()
