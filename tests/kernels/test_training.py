"""A run that trains with the kernels gives the losses of one without."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from conftest import pico, write_photos
from resnest.kernels import fuse
from resnest.kernels.backend import using
from resnest.training.train import train
from runs import losses

pytest.importorskip("resnest.kernels.triton_backend", reason="triton is not installed")


@pytest.mark.skipif(torch.cuda.is_available(), reason="runs on a CPU, so that both runs have the same images")
def test_a_run(digit_images: list[tuple[str, Image.Image]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resnest.training.train.write_run_report", lambda *given: None)  # pictures 16 times as large
    photos = write_photos(tmp_path / "photos", digit_images, most=4)
    calls: list[int] = []
    operator = fuse.split_attention
    monkeypatch.setattr(fuse, "split_attention", lambda *given: (calls.append(1), operator(*given))[1])
    settings = pico(
        "optim.name=sgd",
        "optim.lr=0.05",
        "data.eval_size=16",
        "train.batch_size=4",
        "train.max_steps=2",
        "trainer.accelerator=cpu",
    )
    with using("torch"):
        train("imagenette", data=photos, out=tmp_path / "plain", settings=settings)
    train("imagenette", data=photos, out=tmp_path / "off", settings=[*settings, "train.kernels=false"])
    assert not calls
    train("imagenette", data=photos, out=tmp_path / "fused", settings=settings)
    assert calls
    assert losses(tmp_path / "off") == losses(tmp_path / "plain")
    assert losses(tmp_path / "fused") == pytest.approx(losses(tmp_path / "plain"), abs=1e-4)
