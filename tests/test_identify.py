"""Which network a file is: by its user's word, its metadata, its hash, its shapes; and what it looks like if none."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

import resnest
from conftest import Outcome
from resnest.checkpoints import manifest
from resnest.checkpoints.layouts import LAYOUTS, from_official
from resnest.checkpoints.loading import identify
from resnest.checkpoints.manifest import Weights
from resnest.checkpoints.reading import read_checkpoint
from resnest.checkpoints.structure import published_as, read_structure
from resnest.classification.card import ClassificationCard
from resnest.errors import ResnestError
from resnest.runtime.preprocess import Preprocess
from resnest.spec import BASELINES, PUBLISHED, Spec

TWINS = ["resnest50", "resnest50_fast_2s1x64d"]


@pytest.mark.parametrize("name", [*PUBLISHED, *BASELINES])
def test_shapes_tell_every_published_network_but_the_twins(name: str) -> None:
    with torch.device("meta"):
        state = resnest.create_model(name, num_classes=7, in_chans=4).state_dict()
    seen = read_structure(state)
    assert (seen.in_chans, seen.num_classes) == (4, 7)
    assert published_as(seen.spec) == (TWINS if name in TWINS else [name])


FREE = [
    Spec(depths=(1, 2, 1, 1), planes=(8, 16, 24, 32), stem_width=4),
    Spec(radix=4, cardinality=2, width=40),
    Spec(radix=1, cardinality=4, width=24, stem="conv7"),
    Spec(radix=2, width=20, stem="small", attention_norm="layer", planes=(32, 64, 128, 256)),
    Spec(radix=0, avd=False, cardinality=32, width=4),
]


@pytest.mark.parametrize("spec", FREE)
def test_shapes_give_free_structures_too(spec: Spec) -> None:
    with torch.device("meta"):
        state = resnest.create_model(spec).state_dict()
    seen = read_structure(state).spec
    with torch.device("meta"):
        again = resnest.create_model(seen).state_dict()
    assert {name: tensor.shape for name, tensor in again.items()} == {name: t.shape for name, t in state.items()}


@pytest.fixture(scope="module")
def saved_twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("twin") / "net.pth"
    torch.save(resnest.create_model("resnest50", zero_gamma=False).state_dict(), path)
    return path


@pytest.fixture
def twin(saved_twin: Path, tmp_path: Path) -> Path:
    """The same file, which no command changes in place."""
    (tmp_path / "net.pth").hardlink_to(saved_twin)
    return tmp_path / "net.pth"


def test_an_ambiguous_file_names_its_candidates(
    twin: Path, cli: Callable[..., Outcome], photos: Path, tmp_path: Path
) -> None:
    image = next(photos.rglob("*.jpg"))
    refused = cli("predict", twin, image)
    assert refused.code == 2
    assert "can be resnest50 or resnest50_fast_2s1x64d, which have the same tensors" in refused.err
    assert "name it with --model NAME" in refused.err
    first = cli("predict", twin, image, "--model", "resnest50", "--json")
    second = cli("predict", twin, image, "--model", "resnest50_fast_2s1x64d", "--json")
    assert first.code == second.code == 0
    assert json.loads(first.out)["top"][0]["score"] != json.loads(second.out)["top"][0]["score"]
    wrong = cli("predict", twin, image, "--model", "resnest101")
    assert "is not a resnest101: its tensors are those of resnest50 or resnest50_fast_2s1x64d" in wrong.err
    # where both are the same to a layout the question does not arise; where only one is, it does
    assert cli("convert", twin, "--to", "gluon", "--out", tmp_path / "net.params").code == 0
    asked = cli("convert", twin, "--to", "mmpretrain", "--out", tmp_path / "mm.pth")
    assert asked.code == 2
    assert "can be resnest50 or resnest50_fast_2s1x64d" in asked.err
    assert "avd_first" in asked.err
    assert cli("convert", twin, "--to", "mmpretrain", "--out", tmp_path / "mm.pth", "--model", "resnest50").code == 0


def test_metadata_tells_the_twins_apart(twin: Path, cli: Callable[..., Outcome], tmp_path: Path) -> None:
    out = tmp_path / "net.safetensors"
    cli("convert", twin, "--to", "timm", "--out", out, "--model", "resnest50_fast_2s1x64d")
    identity = identify(read_checkpoint(out))
    assert identity.name == "resnest50_fast_2s1x64d"
    assert identity.spec == PUBLISHED["resnest50_fast_2s1x64d"].spec


def test_a_published_hash_tells_the_twins_apart(twin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = hashlib.sha256(twin.read_bytes()).hexdigest()
    row = Weights(name="x", network=TWINS[1], layout="official", file="x", mirrors=(), sha256=digest[:8])
    monkeypatch.setattr(manifest, "MANIFEST", (row,))
    identity = identify(read_checkpoint(twin))
    assert (identity.name, identity.row) == (TWINS[1], row)
    assert identity.spec.avd_first


STRANGERS: dict[str, tuple[Callable[[], torch.nn.Module], str]] = {
    "ResNet": (lambda: torchvision.models.resnet50(), "a ResNet without deep stem and split attention"),
    "SE-ResNet": (lambda: timm.create_model("seresnet50"), "a squeeze-and-excitation ResNet"),
    "EfficientNet": (lambda: timm.create_model("efficientnet_b0"), "an EfficientNet"),
    "ViT": (lambda: timm.create_model("vit_tiny_patch16_224"), "a vision transformer"),
    "ConvNeXt": (lambda: timm.create_model("convnext_tiny"), "a ConvNeXt"),
    "Swin": (lambda: torchvision.models.swin_t(), "a Swin transformer"),
    "DenseNet": (lambda: torchvision.models.densenet121(), "a DenseNet"),
    "MobileNet": (lambda: torchvision.models.mobilenet_v2(), "a VGG, AlexNet or MobileNet"),
    "something": (lambda: torch.nn.Sequential(torch.nn.Linear(2, 2)), "its tensors are called 0.weight, 0.bias"),
}


@pytest.mark.parametrize("case", STRANGERS)
def test_another_architecture_is_told_by_its_looks(case: str, tmp_path: Path) -> None:
    make, message = STRANGERS[case]
    torch.save(make().state_dict(), tmp_path / "net.pth")
    for use in (
        lambda path: resnest.create_model("resnest50", pretrained=path),
        lambda path: resnest.Predictor(path),
    ):
        with pytest.raises(ResnestError, match=message) as caught:
            use(tmp_path / "net.pth")
        assert "is not a ResNeSt of any known layout" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_half_a_network_is_no_network(tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    state = resnest.create_model("resnest14").state_dict()
    cut = {name: tensor for name, tensor in state.items() if not name.startswith("layer4")}
    torch.save(cut, tmp_path / "stages.pth")
    lacking = {name: tensor for name, tensor in state.items() if name != "layer2.0.conv2.fc1.bias"}
    torch.save(lacking, tmp_path / "lacking.pth")
    strange = {**state, "layer2.0.conv2_offset.weight": torch.zeros(3)}
    torch.save(strange, tmp_path / "dcn.pth")
    for name, message in (
        ("stages.pth", "is not a complete ResNeSt"),
        ("lacking.pth", "it lacks layer2.0.conv2.fc1.bias"),
        ("dcn.pth", "has the unknown layer2.0.conv2_offset.weight"),
    ):
        outcome = cli("convert", tmp_path / name, "--to", "gluon", "--out", tmp_path / "out.params")
        assert outcome.code == 2
        assert message in outcome.err
        assert not (tmp_path / "out.params").exists()


def _tiny() -> dict[str, torch.Tensor]:
    spec = Spec(depths=(1, 1, 1, 1), planes=(8, 8, 8, 8), stem_width=4)
    return resnest.create_model(spec, num_classes=10).state_dict()


def _with(name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    return {**_tiny(), name: tensor}


SUSPECT: dict[str, tuple[Callable[[], dict[str, torch.Tensor]], str]] = {
    "two networks": (
        lambda: {f"{who}.{name}": tensor for who in ("student", "teacher") for name, tensor in _tiny().items()},
        r"holds 2 networks \(student\.\*, teacher\.\*\)",
    ),
    "names of two code bases": (
        lambda: {**from_official(_tiny(), LAYOUTS["mmdetection"]), "backbone.conv1.0.weight": torch.zeros(1)},
        "mixes the names of two code bases, official and timm and encoding and mmdetection",
    ),
    "a name twice": (
        lambda: {**from_official(_tiny(), LAYOUTS["detectron2"]), "backbone.bottom_up.bn1.weight": torch.ones(8)},
        r"holds bn1\.weight twice",
    ),
    "not a number": (lambda: _with("layer1.0.bn1.weight", torch.full((8,), float("nan"))), "not finite"),
    "integers": (
        lambda: {name: tensor.to(torch.int64) for name, tensor in _tiny().items()},
        "weights are floating",
    ),
    "complex numbers": (lambda: _with("fc.bias", torch.zeros(10, dtype=torch.complex64)), "fc.bias is complex64"),
    "an empty tensor": (lambda: _with("conv1.0.weight", torch.zeros(4, 2**40, 0, 3)), "conv1.0.weight is empty"),
    "a head without dimensions": (lambda: _with("fc.weight", torch.tensor(1.0)), "fc.weight has the shape"),
    "an impossible shape": (lambda: _with("layer1.0.conv3.weight", torch.zeros(3, 7, 1, 1)), "impossible shapes"),
}


@pytest.mark.parametrize("case", SUSPECT)
def test_mixed_up_checkpoints_do_not_load(case: str, tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    make, message = SUSPECT[case]
    save_file({name: tensor.contiguous() for name, tensor in make().items()}, tmp_path / "net.safetensors")
    outcome = cli("convert", tmp_path / "net.safetensors", "--to", "official", "--out", tmp_path / "out.pth")
    assert outcome.code == 2, outcome.out
    assert re.search(message, outcome.err), outcome.err
    assert outcome.err.count("\n") == 1


METADATA: dict[str, str] = {
    "a network of that name, of another structure": '{"name": "resnest269", "spec": {}}',
    "a structure that the tensors do not have": '{"name": "resnest", "spec": {"depths": [100000000, 1, 1, 1]}}',
    "a structure against the name": '{"name": "resnest50", "spec": {"avd_first": true}}',
    "text for a truth": '{"name": "resnest50", "spec": {"avd": "no"}}',
    "broken numbers": '{"name": "resnest50", "spec": {"width": 64.0}}',
    "no end of brackets": "[" * 100_000,
    "infinity": '{"name": "x", "spec": {"width": Infinity}}',
}


@pytest.mark.parametrize("case", METADATA)
def test_metadata_are_believed_as_far_as_the_tensors_agree(case: str, twin: Path, tmp_path: Path) -> None:
    save_file(read_checkpoint(twin).state, tmp_path / "net.safetensors", {"resnest": METADATA[case]})
    with pytest.raises(ResnestError, match="metadata"):
        identify(read_checkpoint(tmp_path / "net.safetensors"))


def test_a_card_of_another_network_is_refused_before_it_is_built(tmp_path: Path) -> None:
    card = ClassificationCard(
        architecture="resnest", spec=Spec(depths=(100_000, 1, 1, 1)), class_names=("a", "b"), preprocess=Preprocess()
    )
    (tmp_path / "config.json").write_text(card.to_json())
    save_file(_tiny(), tmp_path / "model.safetensors")
    with pytest.raises(ResnestError, match="describes another network"):
        resnest.Model.from_pretrained(tmp_path)


def test_a_zip_around_a_checkpoint_is_used_like_it(twin: Path, cli: Callable[..., Outcome], tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "net.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(twin, "folder/net.pth")
    done = cli("convert", tmp_path / "net.zip", "--to", "timm", "--out", tmp_path / "out.safetensors")
    assert done.code == 0, done.err
    assert torch.equal(
        read_checkpoint(tmp_path / "out.safetensors").state["fc.bias"], read_checkpoint(twin).state["fc.bias"]
    )


@pytest.mark.parametrize("name", ["", "a" * 300, "a/" * 3000])
def test_impossible_paths_get_one_line(name: str, cli: Callable[..., Outcome], photos: Path) -> None:
    outcome = cli("predict", name, photos)
    assert outcome.code == 2
    assert outcome.err.startswith("resnest: ")
    assert outcome.err.count("\n") == 1


def test_fine_tuned_weights_without_names(tmp_path: Path, cli: Callable[..., Outcome], photos: Path) -> None:
    torch.save(resnest.create_model("resnest14", num_classes=5).state_dict(), tmp_path / "net.pth")
    outcome = cli("predict", tmp_path / "net.pth", photos)
    assert outcome.code == 2
    assert "holds weights with 5 classes but does not name them" in outcome.err


def test_a_file_is_described(twin: Path, cli: Callable[..., Outcome], tmp_path: Path) -> None:
    text = cli("models", "show", twin).out
    assert "network      resnest50 or resnest50_fast_2s1x64d" in text
    assert "structure    depths [3, 4, 6, 3], 2s1x64d" in text
    cli("convert", twin, "--to", "d2", "--out", tmp_path / "d2.pth", "--model", "resnest50", "--drop-head")
    told = json.loads(cli("models", "show", tmp_path / "d2.pth", "--json").out)
    assert (told["layout"], told["wrapper"], told["classes"]) == ("detectron2", "model", None)
    assert set(told["fits_layouts"]) == set(LAYOUTS)
    assert told["sha256"] == hashlib.sha256((tmp_path / "d2.pth").read_bytes()).hexdigest()
    assert cli("models", "show", tmp_path).code == 2


CONVERT_MISTAKES = {
    "an unknown layout": (["--to", "tensorflow", "--out", "OUT/a.pth"], "'tensorflow' is not a known layout"),
    "a suffix of another layout": (["--to", "gluon", "--out", "OUT/a.pth"], "the gluon layout is written as .params"),
    "no such folder": (["--to", "timm", "--out", "OUT/none/a.pth"], "there is no folder"),
    "a file already there": (["--to", "timm", "--out", "OUT/net.pth"], "exists: choose another --out"),
}


@pytest.mark.parametrize("case", CONVERT_MISTAKES)
def test_mistakes_get_one_line(case: str, twin: Path, cli: Callable[..., Outcome], tmp_path: Path) -> None:
    arguments, message = CONVERT_MISTAKES[case]
    before = twin.read_bytes()
    outcome = cli("convert", twin, *[word.replace("OUT", str(tmp_path)) for word in arguments])
    assert outcome.code == 2
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert twin.read_bytes() == before


def test_what_was_done_is_said(twin: Path, cli: Callable[..., Outcome], tmp_path: Path) -> None:
    out = tmp_path / "net.pkl"
    outcome = cli("convert", twin, "--to", "detectron2", "--out", out, "--model", "resnest50", "--drop-head")
    assert outcome.out.startswith("resnest50, official to detectron2: ")
    assert "batch counters left out, which no computation uses; left out on request: fc.weight, fc.bias" in outcome.out
    again = cli("convert", out, "--to", "mmdetection", "--out", tmp_path / "mm.pth", "--model", "resnest50", "--json")
    told = json.loads(again.out)
    assert (told["source_layout"], told["layout"], told["counters"]) == ("detectron2", "mmdetection", 0)
    assert told["written"] == 474  # of a ResNeSt-50 without its classifier
