"""Weights found by what a file or a folder holds: under any name, in several files, beside other things."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from resnest.checkpoints.loading import load_pretrained
from resnest.checkpoints.reading import read_checkpoint
from resnest.errors import ResnestError
from resnest.inference.model import Model
from resnest.runtime.preprocess import Preprocess
from small import SPEC, small

STATE: dict[str, Tensor] = dict(small("classification").state_dict())
OTHER = {"conv.weight": torch.ones(2, 2), "conv.bias": torch.ones(2)}
OPTIMIZER = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}

# what was saved -> the entry that the weights come from
WRAPPED: dict[str, tuple[Any, str]] = {
    "plain": (STATE, ""),
    "model_state_dict": ({"model_state_dict": STATE, "epoch": 3}, "model_state_dict"),
    "model_state": ({"model_state": STATE, "optimizer_state": OPTIMIZER}, "model_state"),
    "params": ({"params": STATE}, "params"),
    "network": ({"network": STATE, "iter": 7}, "network"),
    "a network's name": ({"network": "resnest50", "params": STATE}, "params"),
    "net_g": ({"net_g": STATE, "optim_g": {"exp_avg": STATE}}, "net_g"),
    "averaged": ({"params": OTHER, "params_ema": STATE}, "params_ema"),
    "deep": ({"trainer": {"module": {"params": STATE}}, "step": 3}, "trainer"),
    "below a usual name": ({"model": {"params": STATE}, "optimizer": OPTIMIZER}, "model"),
    "a counter beside it": ({"step": torch.tensor(3), "params": STATE}, "params"),
    "of lightning": ({"state_dict": {f"model.{k}": v for k, v in STATE.items()}, "loops": {}}, "state_dict"),
    "of torch.compile": ({"model_state_dict": {f"_orig_mod.{k}": v for k, v in STATE.items()}}, "model_state_dict"),
}


@pytest.mark.parametrize("case", WRAPPED)
def test_an_entry_of_any_name(case: str, tmp_path: Path) -> None:
    content, wrapper = WRAPPED[case]
    torch.save(content, tmp_path / "a.pth")
    raw = read_checkpoint(tmp_path / "a.pth")
    assert raw.wrapper == wrapper
    net = small("classification")
    with torch.no_grad():
        net.fc.bias.add_(1)
    load_pretrained(net, tmp_path / "a.pth", SPEC)
    assert all(torch.equal(tensor, STATE[name]) for name, tensor in net.state_dict().items())


UNCLEAR: dict[str, tuple[Any, str]] = {
    "two networks": (
        {"net_g": STATE, "net_d": OTHER},
        r"holds 2 networks \(net_g, net_d\): save the intended one in a file",
    ),
    "student and teacher": ({"student": STATE, "teacher": STATE, "epoch": 1}, r"holds 2 networks \(student, teacher\)"),
    "two averaged": ({"net_ema": STATE, "net_swa": STATE}, r"holds 2 networks \(net_ema, net_swa\)"),
    "an optimizer alone": ({"optimizer": OPTIMIZER}, "holds no tensors"),
    "nothing": ({"epoch": 3}, "holds no tensors"),
}


@pytest.mark.parametrize("case", UNCLEAR)
def test_what_no_name_decides(case: str, tmp_path: Path) -> None:
    content, message = UNCLEAR[case]
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(ResnestError, match=message):
        read_checkpoint(tmp_path / "a.pth")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A saved model, whose weights a test stores in another way."""
    model = Model.of(small("classification"), ["a", "b", "c"], Preprocess(size=40))
    folder = model.save_pretrained(tmp_path / "saved")
    (folder / "model.safetensors").unlink()
    return folder


def in_shards(folder: Path, name: str = "model", suffix: str = "safetensors", **changes: str) -> None:
    names = list(STATE)
    parts = {f"{name}-00001-of-00002.{suffix}": names[:9], f"{name}-00002-of-00002.{suffix}": names[9:]}
    for file, held in parts.items():
        part = {key: STATE[key] for key in held}
        save_file(part, folder / file) if suffix == "safetensors" else torch.save(part, folder / file)
    places = {key: file for file, held in parts.items() for key in held} | changes
    (folder / f"{name}.{suffix}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


STORED: dict[str, Callable[[Path], object]] = {
    "pytorch_model.bin": lambda folder: torch.save(STATE, folder / "pytorch_model.bin"),
    "model.pth": lambda folder: torch.save({"params": STATE}, folder / "model.pth"),
    "any name": lambda folder: save_file(STATE, folder / "best.safetensors"),
    "shards": in_shards,
    "shards of pickles": lambda folder: in_shards(folder, "pytorch_model", "bin"),
    "beside training's files": lambda folder: (
        torch.save(STATE, folder / "pytorch_model.bin"),
        torch.save(OPTIMIZER, folder / "optimizer.pt"),
    ),
    "beside OpenVINO's": lambda folder: (
        torch.save(STATE, folder / "last.ckpt"),
        (folder / "model.bin").write_bytes(b"0"),
        (folder / "model.xml").write_bytes(b"0"),
    ),
}


@pytest.mark.parametrize("case", STORED)
def test_a_folder_with_a_card(case: str, saved: Path) -> None:
    STORED[case](saved)
    opened = Model.from_pretrained(saved)
    assert opened.card.class_names == ("a", "b", "c")
    assert torch.equal(opened.net.fc.weight, STATE["fc.weight"])


@pytest.mark.parametrize("case", STORED)
def test_a_folder_without_a_card(case: str, saved: Path) -> None:
    """To start from; which classes they are of, nothing says."""
    STORED[case](saved)
    (saved / "config.json").unlink()
    net = small("classification")
    with torch.no_grad():
        net.fc.bias.add_(1)
    load_pretrained(net, saved, SPEC)
    assert torch.equal(net.fc.bias, STATE["fc.bias"])


def test_the_list_itself(saved: Path) -> None:
    in_shards(saved)
    assert read_checkpoint(saved / "model.safetensors.index.json").state.keys() == STATE.keys()


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "none": (lambda folder: None, "there is no checkpoint at .*model.safetensors"),
    "several": (
        lambda folder: (torch.save(STATE, folder / "a.pth"), torch.save(STATE, folder / "b.pth")),
        r"holds 2 checkpoints \(a.pth, b.pth\): give the file instead of the folder",
    ),
    "a part is missing": (
        lambda folder: (in_shards(folder), (folder / "model-00002-of-00002.safetensors").unlink()),
        "lists model-00002-of-00002.safetensors, which is not beside it",
    ),
    "a part elsewhere": (
        lambda folder: in_shards(folder, **{"fc.bias": "../other.safetensors"}),
        "was refused: it names ../other.safetensors, which is not in its folder",
    ),
    "a tensor is missing": (
        lambda folder: in_shards(folder, **{"fc.bias": "model-00001-of-00002.safetensors"}),
        "model-00001-of-00002.safetensors lacks fc.bias, which model.safetensors.index.json says is in it",
    ),
    "no list": (
        lambda folder: (folder / "model.safetensors.index.json").write_text('{"weight_map": 3}'),
        "is no list of a model's files: it has no readable `weight_map`",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_folders_that_are_refused(case: str, saved: Path) -> None:
    store, message = REFUSED[case]
    store(saved)
    with pytest.raises(ResnestError, match=message):
        Model.from_pretrained(saved)
