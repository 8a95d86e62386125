"""Weights on disk: what does not fit is named in full, and no file runs code when loaded (P9)."""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file

import resnest
from resnest.checkpoints.loading import load_weights, read_weights
from resnest.checkpoints.reading import read_checkpoint, read_torch_file
from resnest.errors import ResnestError
from resnest.spec import Spec

TINY = Spec(depths=(1, 1, 1, 1), planes=(8, 8, 8, 8), stem_width=4)


def _net(num_classes: int = 10) -> torch.nn.Module:
    return resnest.create_model(TINY, num_classes=num_classes)


class _Hostile:
    """Touches a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.canary,)


@pytest.mark.parametrize(
    "wrap", [lambda state: state, lambda state: {"state_dict": state}, lambda state: {"model": state}]
)
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_usual_wrappers_are_taken_off(
    wrap: Callable[[dict[str, object]], dict[str, object]], prefix: str, tmp_path: Path
) -> None:
    net = _net()
    torch.save(wrap({prefix + name: tensor for name, tensor in net.state_dict().items()}), tmp_path / "net.pth")
    other = resnest.create_model(TINY, num_classes=10, pretrained=tmp_path / "net.pth")
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in net.state_dict().items())


def test_safetensors_file_and_directory(tmp_path: Path) -> None:
    net = _net()
    save_file(net.state_dict(), tmp_path / "model.safetensors")
    for place in (tmp_path, tmp_path / "model.safetensors"):
        assert torch.equal(read_weights(place)["fc.weight"], net.get_parameter("fc.weight"))


def test_fine_tuning_with_another_number_of_classes(tmp_path: Path) -> None:
    torch.save(_net(1000).state_dict(), tmp_path / "net.pth")
    net = resnest.create_model(TINY, num_classes=3, pretrained=tmp_path / "net.pth")
    assert net.get_parameter("fc.weight").shape == (3, 32)
    backbone = resnest.create_backbone(TINY, pretrained=tmp_path / "net.pth")
    assert torch.equal(backbone.conv1[0].weight, net.conv1[0].weight)  # type: ignore[index,union-attr]


def test_converted_files_may_lack_batch_counts() -> None:
    state = {name: tensor for name, tensor in _net().state_dict().items() if "num_batches" not in name}
    load_weights(_net(), state)


def _without(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    del state["layer1.0.conv2.fc1.weight"], state["bn1.bias"]
    return state


MISFITS: dict[str, tuple[Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], list[str]]] = {
    "missing": (_without, ["2 missing", "layer1.0.conv2.fc1.weight", "bn1.bias"]),
    "unexpected": (lambda state: {**state, "extra.weight": torch.zeros(1)}, ["1 unexpected: extra.weight"]),
    "classes": (
        lambda state: {**state, "fc.weight": torch.zeros(7, 32), "fc.bias": torch.zeros(7)},
        ["fc.weight (7, 32) instead of (10, 32)", "another number of classes"],
    ),
}


@pytest.mark.parametrize("case", MISFITS)
def test_what_does_not_fit_is_named(case: str) -> None:
    change, texts = MISFITS[case]
    net = _net()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(ResnestError) as caught:
        load_weights(net, change(_net().state_dict()), source="net.pth")
    assert all(text in str(caught.value) for text in texts), str(caught.value)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())  # nothing was changed


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    torch.save({"state_dict": _Hostile(canary)}, tmp_path / "zip.pth")
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(_Hostile(canary)))
    for name in ("zip.pth", "bare.pth"):
        with pytest.raises(ResnestError, match="would run code") as caught:
            read_weights(tmp_path / name)
        assert "\n" not in str(caught.value)
    assert not canary.exists()


DAMAGED = {
    "empty.pth": b"",
    "text.pth": b"<html>404</html>",
    "zip.pth": b"PK\x03\x04 cut short",
    "empty.safetensors": b"",
    "huge.safetensors": (2**40).to_bytes(8, "little") + b"{}",
    "text.safetensors": b"<!doctype html><html></html>",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(DAMAGED[name])
    with pytest.raises(ResnestError, match=name) as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)


def test_files_without_tensors(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "a.pth")
    torch.save([1, 2], tmp_path / "b.pth")
    for name, message in (
        ("a.pth", "holds no tensors"),
        ("b.pth", "holds a list"),
        ("c.pth", "there is no checkpoint"),
    ):
        with pytest.raises(ResnestError, match=message):
            read_weights(tmp_path / name)


def test_misspelt_arguments_are_refused() -> None:
    with pytest.raises(ResnestError, match="Did you mean 'radix'"):
        resnest.create_model("resnest14", radx=2)
    with pytest.raises(ResnestError, match="Did you mean 'resnest50'"):
        resnest.create_model("resnest500")


FORMATS: dict[str, Callable[[dict[str, torch.Tensor]], bytes]] = {
    "zip": lambda state: _torch_save(state),
    "before 1.6": lambda state: _torch_save(state, _use_new_zipfile_serialization=False),
    "pickle": lambda state: pickle.dumps({"model": {name: tensor.numpy() for name, tensor in state.items()}}, 2),
    "safetensors": lambda state: save(state),
}
WORDS_OF_OTHERS = r"persistent|ASCII|codec|index out|opcode|stack|memo|miniz|Errno|[Pp]ickl|Error|header: |Invalid arg"


def _torch_save(state: dict[str, torch.Tensor], **options: bool) -> bytes:
    torch.save(state, file := io.BytesIO(), **options)
    return file.getvalue()


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_cut_anywhere_is_said_to_be_cut(form: str, tmp_path: Path) -> None:
    """In words of ours: what pickle, torch and safetensors say of half a file does not help."""
    whole, path = FORMATS[form](dict(_net().state_dict())), tmp_path / "net.pth"
    for size in [10, 100, *range(1000, len(whole) - 1, len(whole) // 30), *(len(whole) - few for few in (100, 5, 1))]:
        path.write_bytes(whole[:size])
        readers = [read_checkpoint, read_torch_file] if form in ("zip", "before 1.6") else [read_checkpoint]
        for read in readers:
            with pytest.raises(ResnestError, match=r"cut short|damaged") as caught:
                read(path)
            assert "cut short" in str(caught.value) or size == 10, size
            assert not re.search(WORDS_OF_OTHERS, str(caught.value)), (size, str(caught.value))
