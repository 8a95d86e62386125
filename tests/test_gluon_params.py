"""MXNet's .params files: the real one, and files written byte by byte from the format's description."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import resnest
from conftest import shared_data
from resnest.checkpoints.convert import convert
from resnest.checkpoints.layouts import LAYOUTS, from_official
from resnest.checkpoints.reading import read_checkpoint, read_params, write_params
from resnest.errors import ResnestError

REAL = "mxnet-params/cifar_resnet20_v1-0000.params"


def _array(values: np.ndarray, magic: int | None = 0xF993FAC9, device: int = 2) -> bytes:
    """One array as MXNet writes it; `magic` None is the oldest form, whose dimensions stand where the magic would."""
    flags = {"float32": 0, "float64": 1, "float16": 2, "uint8": 3, "int32": 4, "int8": 5, "int64": 6}
    parts = []
    if magic is None:
        parts += [struct.pack("<I", values.ndim), struct.pack(f"<{values.ndim}I", *values.shape)]
    else:
        parts.append(struct.pack("<I", magic))
        if magic != 0xF993FAC8:
            parts.append(struct.pack("<i", 0))  # dense
        parts += [struct.pack("<i", values.ndim), struct.pack(f"<{values.ndim}q", *values.shape)]
    parts.append(struct.pack("<iii", device, 0, flags[str(values.dtype)]))  # 1: CPU, 2: GPU
    return b"".join([*parts, values.tobytes()])


def _file(arrays: dict[str, np.ndarray], magic: int | None = 0xF993FAC9, device: int = 2) -> bytes:
    head = struct.pack("<QQQ", 0x112, 0, len(arrays))
    names = b"".join(struct.pack("<Q", len(name)) + name.encode() for name in arrays)
    body = b"".join(_array(values, magic, device) for values in arrays.values())
    return head + body + struct.pack("<Q", len(arrays)) + names


@pytest.mark.data
def test_the_real_file() -> None:
    arrays = read_params(shared_data() / REAL)
    assert len(arrays) == 107
    assert sum(array.numel() for array in arrays.values()) * 4 < 1_105_597
    assert {array.dtype for array in arrays.values()} == {torch.float32}
    assert arrays["cifarresnetv10_conv0_weight"].shape == (16, 3, 3, 3)
    assert arrays["cifarresnetv10_dense0_weight"].shape == (10, 64)
    variances = [array for name, array in arrays.items() if name.endswith("running_var")]
    assert all((array > 0).all() for array in variances)  # what a misread file would not have
    means = [array for name, array in arrays.items() if name.endswith("gamma")]
    assert all(0.05 < array.mean() < 3 for array in means)


@pytest.mark.data
def test_a_gluon_network_of_another_kind_says_what_it_looks_like(tmp_path: Path) -> None:
    with pytest.raises(ResnestError, match="it looks like a Gluon ResNet for CIFAR"):
        convert(shared_data() / REAL, to="official", out=tmp_path / "out.pth")


@pytest.mark.parametrize("magic", [0xF993FAC9, 0xF993FACA, 0xF993FAC8, None])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "uint8", "int32", "int8", "int64"])
def test_every_version_and_type(magic: int | None, dtype: str, tmp_path: Path) -> None:
    arrays = {"a": np.arange(24).reshape(2, 3, 4).astype(dtype), "b.gamma": np.ones(5, dtype)}
    (tmp_path / "net.params").write_bytes(_file(arrays, magic))
    read = read_params(tmp_path / "net.params")
    for name, values in arrays.items():
        assert np.array_equal(read[name].numpy(), values)
        assert str(read[name].numpy().dtype) == dtype


def test_what_we_write_is_what_the_description_says(tmp_path: Path) -> None:
    arrays = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(1, np.int64)}
    write_params(tmp_path / "net.params", {name: torch.from_numpy(values) for name, values in arrays.items()})
    assert (tmp_path / "net.params").read_bytes() == _file(arrays, device=1)


def test_names_of_the_module_api(tmp_path: Path) -> None:
    arrays = {"arg:fc.weight": np.ones(2, np.float32), "aux:bn1.running_mean": np.ones(2, np.float32)}
    (tmp_path / "net.params").write_bytes(_file(arrays))
    assert set(read_params(tmp_path / "net.params")) == {"fc.weight", "bn1.running_mean"}


@pytest.mark.parametrize("name", ["resnest50", "resnest50_fast_1s4x24d"])
def test_a_resnest_written_byte_by_byte(name: str, tmp_path: Path) -> None:
    net = resnest.create_model(name, num_classes=7, zero_gamma=False).eval()
    theirs = from_official(net.state_dict(), LAYOUTS["gluon"])
    assert not [key for key in theirs if "num_batches" in key or ".bn0." in key]
    (tmp_path / "net.params").write_bytes(_file({key: tensor.numpy() for key, tensor in theirs.items()}))
    done = convert(tmp_path / "net.params", to="timm", out=tmp_path / "net.safetensors", network=name)
    assert done.source_layout == "gluon"
    raw = read_checkpoint(tmp_path / "net.safetensors")
    assert all(torch.equal(raw.state[key], tensor) for key, tensor in net.state_dict().items())
    again = resnest.create_model(name, num_classes=7, pretrained=tmp_path / "net.params").eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(again(images), net(images))


def _real_like() -> bytes:
    return _file({"a": np.ones((4, 4), np.float32), "b": np.ones(3, np.float32)})


DAMAGED: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "cut in an array": (lambda raw: raw[:60], "cut short"),
    "cut in the names": (lambda raw: raw[:-3], "cut short"),
    "a claimed terabyte": (lambda raw: raw.replace(struct.pack("<q", 3), struct.pack("<q", 2**38)), "cut short"),
    "more than anybody has": (lambda raw: raw.replace(struct.pack("<q", 3), struct.pack("<q", 2**50)), "of shape"),
    "bytes behind its end": (lambda raw: raw + b"xyz", "3 bytes too many"),
    "two of one name": (lambda raw: raw[:-1] + b"a", "two arrays with one name"),
    "a negative size": (lambda raw: raw.replace(struct.pack("<q", 3), struct.pack("<q", -3)), r"shape \(-3,\)"),
    "a billion arrays": (lambda raw: raw[:16] + struct.pack("<Q", 2**30) + raw[24:], "claims 1073741824 entries"),
    "sparse": (lambda raw: raw[:28] + struct.pack("<i", 1) + raw[32:], "sparse"),
    "an unknown type": (lambda raw: raw.replace(struct.pack("<iii", 2, 0, 0), struct.pack("<iii", 2, 0, 77)), "type"),
    "many dimensions": (lambda raw: raw[:32] + struct.pack("<I", 999) + raw[36:], "999 dimensions"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_files(case: str, tmp_path: Path) -> None:
    change, message = DAMAGED[case]
    (tmp_path / "net.params").write_bytes(change(_real_like()))
    with pytest.raises(ResnestError, match=message) as caught:
        read_checkpoint(tmp_path / "net.params")
    assert "\n" not in str(caught.value)
    assert "net.params" in str(caught.value)


def test_types_that_the_format_lacks(tmp_path: Path) -> None:
    state: dict[str, Tensor] = {"a": torch.ones(2, dtype=torch.bfloat16)}
    with pytest.raises(ResnestError, match="convert to float32 first"):
        write_params(tmp_path / "net.params", state)
