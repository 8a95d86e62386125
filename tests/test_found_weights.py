"""Weights found by what a file or a folder holds: under any name, in several files, beside other things."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from resnest.checkpoints.loading import load_pretrained
from resnest.checkpoints.reading import read_checkpoint
from resnest.errors import ResnestError
from resnest.files import WEIGHTS_NAME
from resnest.inference.model import Model
from resnest.runtime.preprocess import Preprocess
from resnest.tasks import load_object, task_info
from small import NETWORKS, SPEC, small

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
    "averaged by lightning": (
        {
            "state_dict": {f"model.{k}": v for k, v in STATE.items()},
            "current_model_state": {f"model.{k}": v + 1 for k, v in STATE.items()},
            "averaging_state": {"n_averaged": torch.tensor(5)},
        },
        "state_dict",
    ),
    "of transformers, for timm": ({f"timm_model.{k}": v for k, v in STATE.items()}, ""),
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


class Log:
    """As mmengine's HistoryBuffer, which is in the checkpoints of OpenMMLab 2: it keeps methods among its settings."""

    def __init__(self) -> None:
        self.values = numpy.zeros(3)
        self.statistics_methods = {"mean": Log.mean, "last": self.mean}

    def mean(self) -> float:
        return float(self.values.mean())


def wrapped(net: nn.Module) -> nn.Module:
    return nn.DataParallel(net)


def with_method(net: nn.Module) -> nn.Module:
    net.to_train = net.train  # type: ignore[assignment]
    return net


WHOLE: dict[str, Callable[[nn.Module], Any]] = {
    "beside a log with methods": lambda net: {"message_hub": {"train/loss": Log()}, "state_dict": net.state_dict()},
    "a network": lambda net: net,
    "a network below a name": lambda net: {"epoch": 3, "model": net, "ema": None, "optimizer": OPTIMIZER},
    "averaged too": lambda net: {"model": other_values(net), "ema": net},
    "for several GPUs": wrapped,
    "with one of its methods": with_method,
    "in a part of something": lambda net: nn.Sequential(nn.Identity(), nn.ModuleDict({"net": net})),
}


def other_values(net: nn.Module) -> nn.Module:
    other = copy.deepcopy(net)
    for parameter in other.parameters():
        parameter.data.add_(1)
    return other


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("case", WHOLE)
def test_networks_saved_whole_and_methods_beside_them(case: str, *, old: bool, tmp_path: Path) -> None:
    net = small("classification")
    net.load_state_dict(STATE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(WHOLE[case](net), tmp_path / "a.pt", _use_new_zipfile_serialization=not old)
    read = small("classification")
    with torch.no_grad():
        read.fc.bias.add_(1)
    load_pretrained(read, tmp_path / "a.pt", SPEC)
    assert all(torch.equal(tensor, STATE[name]) for name, tensor in read.state_dict().items())


def test_a_suffix_says_nothing(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "a.safetensors")
    save_file(STATE, tmp_path / "b.bin")
    for name in ("a.safetensors", "b.bin"):
        assert read_checkpoint(tmp_path / name).state.keys() == STATE.keys()


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:2264b5c2\nsize 29928734\n"


@pytest.mark.parametrize("name", ["model.safetensors", "a.pth"])
def test_a_pointer_is_no_file(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(POINTER)
    with pytest.raises(ResnestError, match=f"{name} is a Git LFS pointer, not the file itself: run `git lfs pull`"):
        read_checkpoint(tmp_path)


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
    "shards of any name": lambda folder: in_shards(folder, "diffusion_pytorch_model", "bin"),
    "shards in two formats": lambda folder: (in_shards(folder, "other"), in_shards(folder, "other", "bin")),
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


def no_list(folder: Path) -> None:
    (folder / "model.safetensors.index.json").unlink()


def test_a_part_beside_its_list(saved: Path) -> None:
    in_shards(saved)
    with pytest.raises(ResnestError, match=r"give their list, model.safetensors.index.json, beside it"):
        read_checkpoint(saved / "model-00002-of-00002.safetensors")


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
    "one part alone": (
        lambda folder: (in_shards(folder), [path.unlink() for path in folder.glob("*-00002-*")], no_list(folder)),
        "00001-of-00002.safetensors is one of 2 files of a model: give their list, model.safetensors.index.json, which",
    ),
    "the files of two processes": (
        lambda folder: [(folder / name).write_bytes(b"0") for name in (".metadata", "meta.pt", "__0_0.distcp")],
        r"has a file of each process \(torch.distributed.checkpoint\): make one of them with `python -m torch",
    ),
    "DeepSpeed's": (
        lambda folder: (
            (folder / "global_step5").mkdir(),
            (folder / "global_step5" / "mp_rank_00_model_states.pt").write_bytes(b"0"),
        ),
        r"has files of each process \(DeepSpeed\): make one of them with its script zero_to_fp32.py",
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


PREFIXED: dict[str, Callable[[str], str]] = {
    "Lightning": "model.{}".format,
    "DataParallel": "module.{}".format,
    "compiled": "_orig_mod.{}".format,
    "a compiled one of several processes": "module._orig_mod.{}".format,
    "Lightning and several processes": "model.module.{}".format,
    "an attribute of one's own": "trainer.detector.net.{}".format,
    "a compiled backbone": lambda name: name.replace("backbone.", "backbone._orig_mod."),
    "a sharded stage": lambda name: name.replace("layer1.", "layer1._fsdp_wrapped_module."),
    "recomputed blocks": lambda name: name.replace("layer2.0.", "layer2.0._checkpoint_wrapped_module."),
}


@pytest.mark.parametrize("task", ["detection", "segmentation", "panoptic"])
def test_whole_networks_are_found_behind_any_prefix(task: str, tmp_path: Path) -> None:
    """And not taken for a backbone with something else around it."""
    before, path = small(task).state_dict(), tmp_path / "model.pth"
    loss = {"criterion.weight": torch.ones(3)}
    for name, rename in PREFIXED.items():
        for extra in ({}, loss):
            torch.save({"state_dict": {rename(key): tensor for key, tensor in before.items()} | extra}, path)
            net = NETWORKS[task]()
            report = load_object(task_info(task).weights).load(net, path)
            assert (report.untrained, report.missing, report.unexpected) == ([], [], list(extra)), name
            assert all(torch.equal(tensor, before[key]) for key, tensor in net.state_dict().items()), name
    averaged = {f"ema_model.{key}": tensor for key, tensor in before.items()}
    torch.save({f"model.{key}": torch.zeros_like(tensor) for key, tensor in before.items()} | averaged, path)
    load_object(task_info(task).weights).load(net := small(task), path)
    assert all(torch.equal(tensor, before[key]) for key, tensor in net.state_dict().items())
    torch.save({f"{word}.{key}": tensor for key, tensor in before.items() for word in ("student", "teacher")}, path)
    with pytest.raises(ResnestError, match=r"not loaded: it holds 2 networks \(student\.\*, teacher\.\*"):
        load_object(task_info(task).weights).load(net, path)


@pytest.mark.parametrize("task", ["detection", "segmentation", "panoptic"])
def test_a_saved_model_whose_names_have_a_prefix(task: str, tmp_path: Path) -> None:
    info = task_info(task)
    model = Model.of(small(task), ["a", "b", "c"], info.card.preprocess_type()())
    model.save_pretrained(tmp_path)
    save_file({f"module.{key}": tensor for key, tensor in model.net.state_dict().items()}, tmp_path / WEIGHTS_NAME)
    opened = Model.from_pretrained(tmp_path).net.state_dict()
    assert all(torch.equal(tensor, opened[key]) for key, tensor in model.net.state_dict().items())


def test_one_network_twice(tmp_path: Path) -> None:
    torch.save({**STATE, **{f"_orig_mod.{key}": tensor for key, tensor in STATE.items()}}, tmp_path / "a.pth")
    with pytest.raises(ResnestError, match=r"holds conv1\.0\.weight twice, once as _orig_mod\.conv1\.0\.weight"):
        read_checkpoint(tmp_path / "a.pth")
