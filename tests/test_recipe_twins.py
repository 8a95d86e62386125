"""Tiny twins of the modern and of the fine-tuning recipe: everything that they switch on, on a narrow network."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import pico
from resnest.checkpoints.loading import read_weights
from resnest.training.train import train
from runs import checkpoint, losses


def _falls(losses: list[float]) -> bool:
    third = len(losses) // 3
    return float(np.mean(losses[-third:])) < 0.93 * float(np.mean(losses[:third]))


@pytest.mark.parametrize(
    "settings",
    [
        ["optim.lr=0.02"],
        ["optim.name=sgd", "optim.lr=0.1", "train.loss=cross_entropy", "train.mixup=0", "train.cutmix=0"],
        ["optim.lr=0.02", "data.erase=0.25", "train.mixup=0", "train.cutmix=0"],
    ],
    ids=["as it is", "sgd", "erasing"],
)
def test_the_modern_recipe(settings: list[str], photos: Path, tmp_path: Path) -> None:
    train(
        "modern_resnest50",
        data=photos,
        out=tmp_path / "run",
        settings=pico("optim.lr_batch=null", "train.epochs=10", *settings),
    )
    told = losses(tmp_path / "run")
    assert all(math.isfinite(loss) for loss in told)
    assert _falls(told), told


def test_the_fine_tuning_recipe(photos: Path, tmp_path: Path) -> None:
    """Stem and layer1 stay bit for bit; what comes after them moves, the more the nearer to the classifier."""
    spec = ["model.spec={planes: [8, 16, 32, 64], stem: small, stem_width: 4, attention_norm: frozen}"]
    train("imagenette", data=photos, out=tmp_path / "first", settings=pico("train.epochs=3"))
    (photos / "digit-3").rename(tmp_path / "away")
    settings = [f"model.pretrained={tmp_path / 'first'}", "model.freeze=2", "train.label_smoothing=0", *spec]
    settings = [*pico(*settings), "train.epochs=6"]
    train("finetune", data=photos, out=tmp_path / "tuned", settings=settings)
    told = losses(tmp_path / "tuned")
    assert all(math.isfinite(loss) for loss in told)
    assert _falls(told), told
    before = read_weights(tmp_path / "first")
    after = checkpoint(tmp_path / "tuned")["model"]
    still = [name for name in after if name.startswith(("conv1.", "bn1.", "layer1."))]
    assert still
    assert [name for name in still if not torch.equal(before[name], after[name])] == []
    name = "layer{}.0.conv3.weight"
    moved = [float((after[name.format(k)] - before[name.format(k)]).norm()) for k in (2, 3, 4)]
    assert moved[0] > 0
    assert moved[0] < moved[2]
