"""The Python names at the top of the package do for any task what the commands do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import resnest
from resnest.checkpoints.manifest import find_weights
from resnest.classification.card import imagenet_names
from resnest.errors import ResnestError
from resnest.inference.torch_engine import to_arrays
from resnest.kernels.fuse import fuse
from resnest.network.recompute import recompute_activations
from resnest.network.tools import freeze, synchronise_norms
from resnest.runtime.card import ModelCard
from resnest.runtime.preprocess import Preprocess
from resnest.runtime.results import Show
from resnest.tasks import TASKS, task_of_network, task_type
from small import SPEC, small

SIDE = 64  # pixels


def outputs(net: nn.Module) -> dict[str, Any]:
    torch.manual_seed(1)
    images = torch.randn(2, 3, SIDE, SIDE).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        return to_arrays(net(images))


def test_names_are_typed_as_they_are_found() -> None:
    """What a type checker sees is what runs."""
    typed = {}
    source = sys.modules["resnest"].__file__
    assert source is not None
    with open(source, encoding="utf-8") as file:
        block = file.read().partition("if TYPE_CHECKING:\n")[2].partition("\n\n")[0]
    for line in block.splitlines():
        _, module, _, *names = line.replace(",", "").split()
        typed.update(dict.fromkeys(names, module))
    assert typed == resnest._HOME
    assert sorted(typed) == resnest.__all__


def test_names_that_need_no_torch() -> None:
    names = (
        "BadImage Classification Detections LabelMap ModelCard MultiLabel PanopticMap Poses Recipe Result Show"
        " find_recipe"
    )
    code = (
        f"import sys, resnest\nfor name in {names.split()}: getattr(resnest, name)\nassert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("task", TASKS)
def test_the_task_of_a_network(task: str) -> None:
    assert task_of_network(small(task)) is task_type(task)


@pytest.mark.parametrize("task", TASKS)
def test_prepare(task: str) -> None:
    net = small(task)
    fast = resnest.prepare(net)
    assert type(fast) is type(net)
    assert fast is not net
    expected, got = outputs(net), outputs(fast)
    assert expected.keys() == got.keys()
    for name, values in expected.items():
        assert got[name] == pytest.approx(values, rel=1e-3, abs=1e-4), name


def test_a_network_of_no_task() -> None:
    with pytest.raises(ResnestError, match=r"a Linear is a network of no task: expected one of ResNeSt, Detector"):
        resnest.prepare(nn.Linear(1, 1))


PREPROCESS: dict[str, Any] = {
    "classification": resnest.Preprocess(size=SIDE),
    "detection": resnest.DetectionPreprocess(short=SIDE, long=SIDE),
    "segmentation": resnest.SegmentationPreprocess(long=SIDE),
    "panoptic": resnest.DetectionPreprocess(short=SIDE, long=SIDE),
    "keypoints": resnest.KeypointPreprocess(width=SIDE, height=SIDE),
}
NAMES = ["rose", "tulip", "sky"]
PICTURE = np.random.default_rng(0).integers(0, 256, (50, SIDE, 3), np.uint8)


@pytest.mark.parametrize("task", TASKS)
def test_a_network_of_ones_own_is_a_model(task: str, tmp_path: Path) -> None:
    """Saved and opened again it gives the same, to the last bit."""
    net = small(task).train()
    model = resnest.Model.of(net, NAMES, PREPROCESS[task])
    assert net.training
    assert model.card.task == task
    assert list(model.card.class_names) == NAMES
    saved = resnest.Model.from_pretrained(model.save_pretrained(tmp_path / "saved"))
    assert saved.card == model.card
    expected, got = outputs(net.eval()), outputs(saved.net)
    assert all(np.array_equal(values, got[name]) for name, values in expected.items())
    one, other = model.predictor()(PICTURE), resnest.Predictor(tmp_path / "saved")(PICTURE)
    assert one.to_dict() == other.to_dict()


def test_it_is_exported(tmp_path: Path) -> None:
    model = resnest.Model.of(small("classification"), NAMES, PREPROCESS["classification"])
    exported = resnest.export(model, format="torch", out=tmp_path / "m.pt2")
    assert exported.parity.ok


def test_fields_of_its_card() -> None:
    fields = {"category_ids": (7, 8, 9), "figures": {"box_ap": 0.5}}
    card = resnest.Model.of(small("detection"), NAMES, PREPROCESS["detection"], **fields).card
    assert (card.category_ids, card.figures) == ((7, 8, 9), {"box_ap": 0.5})
    net = resnest.create_model("resnest14", num_classes=2, in_chans=1)
    grey = resnest.Preprocess(mean=(0.5,), std=(0.2,))
    card = resnest.Model.of(net, ["a", "b"], grey, multi_label=True).card
    assert (card.architecture, card.in_chans, card.multi_label) == ("resnest14", 1, True)
    before = card.to_json().replace("0.5\n", "0.4,\n0.5,\n0.6\n").replace("0.2\n", "0.1,\n0.2,\n0.3\n")
    read = ModelCard.from_json(before, where="a card of an earlier version").preprocess
    assert (read.mean, read.std) == (pytest.approx((0.5,)), pytest.approx((0.2,)))
    with pytest.raises(resnest.ResnestError, match=r"mean=\[0.485, .* of a model card must be 1 number, one a channel"):
        resnest.Model.of(net, ["a", "b"], resnest.Preprocess())


def test_what_training_does_to_a_network_does_not_matter() -> None:
    """Norms over processes or with fixed statistics, activations computed twice, fused operators, a new head."""
    net = small("classification")
    synchronise_norms(net)
    recompute_activations(net)
    freeze(net, 2)
    fuse(net)
    net.fc = nn.Linear(net.num_features, 2)
    model = resnest.Model.of(net, NAMES[:2], PREPROCESS["classification"])
    assert torch.equal(model.net(torch.ones(1, 3, SIDE, SIDE)), net.eval()(torch.ones(1, 3, SIDE, SIDE)))


def _reset_pool(net: Any, pool: str) -> Any:
    net.reset_classifier(net.num_classes, pool)
    return net


def _with(net: Any, **modules: Any) -> Any:
    for name, module in modules.items():
        setattr(net, name, module)
    return net


def _not_finite(net: Any) -> Any:
    nn.init.constant_(net.fc.bias, torch.nan)
    return net


SIZE = PREPROCESS["classification"]
REFUSED: dict[str, tuple[Callable[[], Any], dict[str, Any], str]] = {
    "too few names": (lambda: small("panoptic"), {"class_names": NAMES[:2]}, "2 names, and .* 3 classes"),
    "a name": (lambda: small("classification"), {"class_names": "rose"}, "class_names must be a list of names"),
    "numbers": (lambda: small("classification"), {"class_names": [1, 2, 3]}, "class_names must be a list of names"),
    "one name twice": (lambda: small("classification"), {"class_names": ["a", "b", "a"]}, "class_names has 'a' twice"),
    "no preprocessing": (lambda: small("detection"), {"preprocess": None}, "is missing: a detector takes the"),
    "another's": (lambda: small("detection"), {"preprocess": SIZE}, "a Preprocess: a detector takes the Det"),
    "unknown field": (lambda: small("classification"), {"multilabel": True}, "Did you mean 'multi_label'"),
    "wrapped": (lambda: nn.Sequential(small("classification")), {}, "a Sequential is a network of no task"),
    "another head": (lambda: _with(small("classification"), fc=nn.Sequential()), {}, "`fc` of the network is a Sequen"),
    "another layer": (lambda: _with(small("classification"), layer4=nn.Identity()), {}, "layer4.* differs"),
    "another pool": (lambda: _reset_pool(small("classification"), "max"), {}, r"a GlobalMaxPool2d\(\) differs"),
    "a pool of one's own": (
        lambda: _with(small("classification"), avgpool=nn.AdaptiveMaxPool2d(1)),
        {},
        r"a AdaptiveMaxPool2d\(.* differs",
    ),
    "strides": (lambda: resnest.create_model(SPEC, num_classes=3, output_stride=8), {}, r"a AvgPool2d\(.* differs"),
    "pools": (
        lambda: _with(small("segmentation"), backbone=resnest.create_backbone(SPEC, output_stride=8, dilation="timm")),
        {"preprocess": PREPROCESS["segmentation"]},
        r"a Conv2d\(.* differs",
    ),
    "another backbone": (
        lambda: _with(small("segmentation"), backbone=nn.Identity()), {}, "the backbone is a Identity: expected one of"
    ),
    "not a number": (lambda: _not_finite(small("classification")), {}, "fc.bias holds values that are not finite"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_model(case: str) -> None:
    make, changed, message = REFUSED[case]
    net = make()
    kind = type(net).__name__
    preprocess = PREPROCESS["segmentation" if kind == "Segmenter" else "classification"]
    with pytest.raises(ResnestError, match=message):
        resnest.Model.of(net, **{"class_names": NAMES, "preprocess": preprocess, **changed})


@pytest.mark.parametrize("create", [resnest.create_model, resnest.create_backbone])
@pytest.mark.parametrize(
    ("name", "pretrained", "row"),
    [
        ("resnest14", True, "resnest14d.gluon_in1k"),
        ("resnest14.gluon", True, "resnest14.gluon"),
        ("resnest14", "resnest14.gluon", "resnest14.gluon"),
        ("resnest14", False, None),
        ("resnest14", "file", None),
    ],
)
def test_published_weights_bring_their_preprocessing(
    create: Callable[..., Any], name: str, pretrained: bool | str, row: str | None, tmp_path: Path, monkeypatch: Any
) -> None:
    path = tmp_path / "w.pth"
    torch.save(resnest.create_model("resnest14").state_dict(), path)
    monkeypatch.setattr("resnest.checkpoints.loading.locate_for", lambda name, reference: path)
    net = create(name, pretrained=path if pretrained == "file" else pretrained)
    assert net.preprocess == (find_weights(row).preprocess() if row else None)
    if row and create is resnest.create_model:
        assert resnest.Model.of(net, imagenet_names()).card.preprocess == net.preprocess


WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "a size in words": (lambda: resnest.export("resnest14", size="abc"), '`size="abc"`: expected pixels'),  # type: ignore[arg-type]
    "three sides": (lambda: resnest.export("resnest14", size=(1, 2, 3)), "`size=(1, 2, 3)`: expected pixels"),  # type: ignore[arg-type]
    "int8 without pictures": (lambda: resnest.export("resnest14", int8=True), "`int8=True`: expected an Int8"),  # type: ignore[arg-type]
    "classes below 0": (lambda: resnest.create_model("resnest14", num_classes=-1), "num_classes=-1 must be an integer"),
    "half a class": (lambda: resnest.create_model("resnest14", num_classes=1.5), "num_classes=1.5 must be an integer"),  # type: ignore[arg-type]
    "no channels": (lambda: resnest.create_model("resnest14", in_chans=0), "in_chans=0 must be an integer, 1 or more"),
    "no pixels": (lambda: Preprocess(size=0), "size=0 must lie in 1 to"),
    "no crop": (lambda: Preprocess(crop=0.0), "crop=0.0 must lie in (0, 1]"),
    "an interpolation": (lambda: Preprocess(interpolation="cubic"), "'cubic' is not a known interpolation"),  # type: ignore[arg-type]
    "no labels": (lambda: Show(top=0), "top=0 must be 1 or more"),
    "a threshold in percent": (lambda: Show(threshold=50), "threshold=50 must lie in [0, 1]"),
    "no run": (lambda: resnest.resume("nothere"), "there is no run at nothere"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_a_parameter_cannot_be(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    call, said = WRONG[case]
    with pytest.raises(ResnestError) as refused:
        call()
    assert str(refused.value).startswith(said)
    assert list(tmp_path.iterdir()) == []
