"""Code written for the published package runs unchanged: constructors, arguments, torch.hub with torch alone."""

from __future__ import annotations

import inspect
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import resnest
import resnest.torch
from resnest.errors import ResnestError
from resnest.spec import PUBLISHED

ROOT = Path(__file__).parents[1]
CONSTRUCTORS = [name for name in PUBLISHED if name not in ("resnest14", "resnest26")]  # the published package's eleven


def test_there_are_eleven_and_hubconf_has_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert sorted(resnest.torch.__all__) == sorted(CONSTRUCTORS)
    assert len(CONSTRUCTORS) == 11
    namespace = runpy.run_path(str(ROOT / "hubconf.py"))
    assert all(namespace[name] is getattr(resnest.torch, name) for name in CONSTRUCTORS)


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_constructors(name: str) -> None:
    construct = getattr(resnest.torch, name)
    assert list(inspect.signature(construct).parameters) == ["pretrained", "root", "kwargs"]
    assert construct.__name__ == name
    with torch.device("meta"):
        state = construct(pretrained=False, num_classes=10, final_drop=0.2, last_gamma=True).state_dict()
        ours = resnest.create_model(name, num_classes=10).state_dict()
    assert {key: value.shape for key, value in state.items()} == {key: value.shape for key, value in ours.items()}


def test_arguments_do_what_they_say() -> None:
    plain = resnest.torch.resnest50()
    assert (plain.layer1[0].bn3.weight == 1).all()  # the published default; `last_gamma` does nothing there
    net = resnest.torch.resnest50(last_gamma=True, final_drop=0.3, dropblock_prob=0.1, norm_layer=nn.SyncBatchNorm)
    assert (net.layer1[0].bn3.weight == 0).all()
    assert net.drop.p == 0.3
    assert net.layer3[0].drop1.rate == 0.1
    assert isinstance(net.bn1, nn.SyncBatchNorm)
    images = torch.randn(1, 3, 64, 64)
    for arguments, side in (({"dilated": True}, 8), ({"dilation": 4}, 8), ({"dilation": 2}, 4), ({}, 2)):
        assert resnest.torch.resnest50(**arguments).eval().forward_features(images).shape[-1] == side


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rectified_conv": True}, "rectified convolution is not part of any published weights"),
        ({"dilation": 3}, "dilation=3 is not one of 1, 2, 4"),
        ({"norm_layer": nn.InstanceNorm2d}, "expected torch.nn.BatchNorm2d or torch.nn.SyncBatchNorm"),
    ],
)
def test_what_has_no_meaning_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ResnestError, match=message):
        resnest.torch.resnest50(**arguments)


def test_misspelt_arguments_are_refused() -> None:
    with pytest.raises(TypeError, match="num_class"):
        resnest.torch.resnest50(num_class=10)


# Everything that our installation brings besides torch and what torch itself needs is hidden from this process.
TORCH_ALONE = """
import importlib.abc, sys
HIDDEN = {"numpy", "PIL", "safetensors", "huggingface_hub", "lightning_fabric", "pydantic", "typer", "rich", "yaml",
          "matplotlib", "torchvision", "sklearn", "timm", "httpx", "httpx2", "requests", "tqdm", "scipy"}
class Hide(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in HIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hide())
sys.path = [entry for entry in sys.path if not entry.endswith("/src")]
for name in [name for name in sys.modules if name.split(".")[0] in HIDDEN | {"resnest"}]:
    del sys.modules[name]
import warnings
warnings.filterwarnings("ignore", message="Failed to initialize NumPy")
import torch
"""

USE_HUB = """
net = torch.hub.load(DIR, "resnest50", source="local", num_classes=7).eval()
with torch.inference_mode():
    assert net(torch.randn(1, 3, 64, 64)).shape == (1, 7)
loaded = torch.hub.load(DIR, "resnest50_fast_1s4x24d", source="local", pretrained=True, root=WEIGHTS)
saved = torch.load(FILE, weights_only=True)
assert all(torch.equal(tensor, saved[name]) for name, tensor in loaded.state_dict().items())
assert not {name.split(".")[0] for name in sys.modules} & HIDDEN
print("done")
"""


def test_torch_hub_with_torch_alone(tmp_path: Path) -> None:
    """Weights lie in `root` as a user would have put them there; their pin stands in for the published hash."""
    net = resnest.create_model("resnest50_fast_1s4x24d", zero_gamma=False)
    path = tmp_path / "resnest50_fast_1s4x24d-d4a4f76f.pth"
    torch.save(net.state_dict(), path)
    digest = resnest.files.sha256_of(path)
    (tmp_path / "SHA256SUMS").write_text(f"{digest}  {path.name}\n")
    names = f"DIR, WEIGHTS, FILE = {str(ROOT)!r}, {str(tmp_path)!r}, {str(path)!r}\n"
    command = [sys.executable, "-W", "error", "-c", TORCH_ALONE + names + USE_HUB]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.stdout == "done\n", done.stderr
