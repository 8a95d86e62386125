"""Evaluation as published: each network's own crop and interpolation, ImageNet's names, V2 and ReaL labels."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform, resolve_data_config

import resnest
from conftest import FULL, Outcome, pico, shared_data, write_photos
from resnest.checkpoints.manifest import MANIFEST, find_weights
from resnest.classification.card import imagenet_names, imagenet_synsets
from resnest.classification.evaluation import RealLabels
from resnest.data.sources import open_split
from resnest.errors import ResnestError

HUB_ROWS = {row.name: row for row in MANIFEST if row.mirrors[0].hub}
SAMPLE = "imagenet-sample-320"


def _images() -> list[tuple[Path, int]]:
    with (shared_data() / SAMPLE / "labels.csv").open(newline="", encoding="utf-8") as file:
        return [(shared_data() / SAMPLE / row["file"], int(row["label"])) for row in csv.DictReader(file)]


@pytest.mark.data
@pytest.mark.parametrize("name", HUB_ROWS)
def test_pixels_are_those_of_timm(name: str) -> None:
    """Exactly, on every eighth of 400 photographs: the same resizing by the same library, the same rounding."""
    preprocess = HUB_ROWS[name].preprocess()
    with torch.device("meta"):  # of the network nothing but its settings counts
        settings = resolve_data_config({}, model=timm.create_model(name, pretrained=False))
    transform = create_transform(**settings, is_training=False)
    for path, _ in _images()[::8]:
        with Image.open(path) as image:
            theirs = transform(image.convert("RGB")).numpy()
            ours = preprocess(image.convert("RGB"))
        assert ours.shape == theirs.shape
        # the pixels are equal; normalising differs in the last bits of float32
        assert np.abs(ours - theirs).max() < 1e-5


def _randomised(name: str) -> torch.nn.Module:
    """timm's network with random weights that spread its answers over the classes."""
    torch.manual_seed(3)
    net = timm.create_model(name).eval()
    for key, tensor in net.state_dict().items():
        if key.endswith("bn3.weight"):
            tensor.uniform_(0.2, 0.5)
        elif key == "fc.weight":
            tensor.normal_(0, 1)
    return net


@pytest.mark.data
@pytest.mark.parametrize("name", ["resnest14d.gluon_in1k", "resnest50d_1s4x24d.in1k"])
def test_the_command_gives_what_timm_gives(
    name: str, cli: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One bilinear and one bicubic network on photographs: the same top-1 and top-5, logits equal to 1e-5."""
    net = _randomised(name.split(".")[0])
    row = find_weights(name)
    weights = tmp_path / "home" / "weights"
    weights.mkdir(parents=True)
    save_file(net.state_dict(), weights / row.file)
    monkeypatch.setenv("RESNEST_HOME", str(tmp_path / "home"))
    transform = create_transform(**resolve_data_config({}, model=net), is_training=False)
    chosen = _images()[:: 4 if FULL else 40]
    with torch.inference_mode():
        logits = torch.cat([net(transform(_rgb(path))[None]) for path, _ in chosen])
    # a label that is often near the top: these weights know nothing, and a figure of zero would show nothing
    labels = [int(row.argsort(descending=True)[index % 7]) for index, row in enumerate(logits)]
    (tmp_path / "sample.csv").write_text(
        "path,label\n" + "".join(f"{path},{label}\n" for (path, _), label in zip(chosen, labels, strict=True))
    )
    outcome = cli("evaluate", name, "--data", tmp_path / "sample.csv", "--json")
    assert outcome.code == 0, outcome.err
    told = json.loads(outcome.out)
    ranks = logits.argsort(descending=True, stable=True)
    hits = ranks == torch.tensor(labels)[:, None]
    assert told["images"] == len(chosen) == (100 if FULL else 10)
    assert told["top1"] == int(hits[:, 0].sum()) / len(chosen) == (0.15 if FULL else 0.2)
    assert told["top5"] == int(hits[:, :5].sum()) / len(chosen) == (0.72 if FULL else 0.8)
    assert told["top1_interval"][0] < told["top1"] < told["top1_interval"][1]
    assert told["top5_interval"][0] < told["top5"] < told["top5_interval"][1]
    predictor = resnest.Predictor(name)
    ours = torch.from_numpy(
        predictor.engine(np.stack([predictor.card.preprocess(_rgb(path)) for path, _ in chosen[:16]]))["logits"]
    )
    assert (ours - logits[: len(ours)]).abs().max() <= 1e-5 * logits.abs().max()


def _rgb(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


@pytest.mark.data
def test_the_sample_as_it_lies(cli: Callable[..., Outcome], tmp_path: Path) -> None:
    """The folder has labels.csv with class indices; a checkpoint file says by its tensors that it is resnest14."""
    torch.save(_randomised("resnest14d").state_dict(), tmp_path / "net.pth")
    data, count = (shared_data() / SAMPLE, 400) if FULL else (_every_tenth(tmp_path / SAMPLE), 40)
    outcome = cli("evaluate", tmp_path / "net.pth", "--data", data, "--json")
    assert outcome.code == 0, outcome.err
    told = json.loads(outcome.out)
    assert told["images"] == count
    assert set(told["per_class"]) == set(imagenet_names())
    assert sum(share is not None for share in told["per_class"].values()) == count


def _every_tenth(folder: Path) -> Path:
    """The sample's own files, and of its list and of its images every tenth."""
    sample = shared_data() / SAMPLE
    (folder / "images").mkdir(parents=True)
    head, *rows = (sample / "labels.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "labels.csv").write_text("".join([head, *rows[::10]]), encoding="utf-8")
    for path, _ in _images()[::10]:
        shutil.copy(path, folder / path.relative_to(sample))
    for path in sample.iterdir():
        if path.is_file() and path.name != "labels.csv":
            shutil.copy(path, folder)
    return folder


@pytest.mark.data
def test_names_are_those_of_imagenet() -> None:
    rows = json.loads((shared_data() / SAMPLE / "imagenet_classes.json").read_text())
    assert [row["synset"] for row in rows] == list(imagenet_synsets())
    for row, name in zip(rows, imagenet_names(), strict=True):
        assert name.split(" (")[0] in row["name"]


def test_a_thousand_different_names() -> None:
    assert len(set(imagenet_names())) == len(set(imagenet_synsets())) == 1000
    assert list(imagenet_synsets()) == sorted(imagenet_synsets())


PUBLISHED_TRANSFORMS = {
    # as published, by hand: crop, short side before it (None: crop first), interpolation
    "resnest50.official": (224, None, "bicubic"),
    "resnest101.official": (256, None, "bicubic"),
    "resnest200.official": (320, None, "bicubic"),
    "resnest269.official": (416, None, "bicubic"),
    "resnest50.gluon": (224, 256, "bilinear"),
    "resnest101.gluon": (256, 293, "bilinear"),
    "resnest269.gluon": (416, None, "bicubic"),
    "resnest101e.in1k": (256, 292, "bilinear"),
    "resnest200e.in1k": (320, 352, "bicubic"),
    "resnest269e.in1k": (416, 448, "bicubic"),
}


@pytest.mark.parametrize("name", PUBLISHED_TRANSFORMS)
def test_each_row_has_its_own_preprocessing(name: str) -> None:
    crop, resize, interpolation = PUBLISHED_TRANSFORMS[name]
    row = find_weights(name)
    assert (row.crop, row.resize, row.interpolation) == (crop, resize, interpolation)
    square = Image.new("RGB", (500, 400), (10, 20, 30))
    pixels = row.preprocess().pixels(square)
    assert pixels.size == (crop, crop)
    assert pixels.getpixel((5, 5)) == (10, 20, 30)
    assert (row.preprocess().mean, row.preprocess().std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


# --- ways to lay ImageNet out, on a few pictures of digits ---


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    torch.save(resnest.create_model("resnest14").state_dict(), tmp_path / "net.pth")
    return tmp_path / "net.pth"


@pytest.fixture
def few_photos(tmp_path: Path, digit_images: list[tuple[str, Image.Image]]) -> Path:
    return write_photos(tmp_path / "few", digit_images, most=2)


def _laid_out(photos: Path, target: Path, names: list[str]) -> Path:
    """The four classes of `photos` under other names."""
    for folder, name in zip(sorted(photos.iterdir()), names, strict=True):
        shutil.copytree(folder, target / name)
    return target


LAYOUTS: dict[str, tuple[str, list[str]]] = {
    "synsets in val": ("val", ["n01440764", "n01443537", "n02012849", "n03126707"]),
    "synsets": (".", ["n01440764", "n01443537", "n02012849", "n03126707"]),
    "ImageNet-V2's numbers": (".", ["0", "1", "134", "517"]),
    "names": (".", ["tench", "goldfish", "crane (bird)", "crane (machine)"]),
}


@pytest.mark.parametrize("case", LAYOUTS)
def test_ways_to_name_the_classes(
    case: str, few_photos: Path, weights: Path, cli: Callable[..., Outcome], tmp_path: Path
) -> None:
    below, names = LAYOUTS[case]
    _laid_out(few_photos, tmp_path / "imagenet" / below, names)
    outcome = cli("evaluate", weights, "--data", tmp_path / "imagenet", "--json")
    assert outcome.code == 0, outcome.err
    told = json.loads(outcome.out)
    counted = {name for name, share in told["per_class"].items() if share is not None}
    assert counted == {"tench", "goldfish", "crane (bird)", "crane (machine)"}
    assert told["images"] == len(list(few_photos.rglob("*.jpg")))  # all of them: these weights were not trained here


def test_the_training_part_is_not_even_looked_at(photos: Path, weights: Path, tmp_path: Path) -> None:
    _laid_out(photos, tmp_path / "imagenet" / "val", LAYOUTS["synsets"][1])
    (tmp_path / "imagenet" / "train" / "n01440764").mkdir(parents=True)  # empty: reading it would be an error
    assert len(open_split(tmp_path / "imagenet").samples) == len(list(photos.rglob("*.jpg")))
    with pytest.raises(ResnestError, match="no images in"):
        open_split(tmp_path / "imagenet", "train")


def test_real_labels(photos: Path, weights: Path, cli: Callable[..., Outcome], tmp_path: Path) -> None:
    """Several right answers an image, none for some: top-1 counts any of them, and leaves the others out."""
    files = sorted(photos.rglob("*.jpg"))[:6]
    folder = tmp_path / "val" / "n01440764"
    folder.mkdir(parents=True)
    for number, file in enumerate(files, start=1):
        shutil.copy(file, folder / f"ILSVRC2012_val_{number:08d}.JPEG")
    net = resnest.create_model("resnest14", pretrained=weights).eval()
    preprocess = find_weights("resnest14").preprocess()
    with torch.inference_mode():
        inputs = torch.from_numpy(np.stack([preprocess(_rgb(file)) for file in files]))
        ranks = net(inputs).argsort(descending=True).tolist()
    answers = [
        [ranks[0][0]],  # right
        [ranks[1][500], ranks[1][0]],  # right by one of two
        [],  # nothing is right: not counted
        [ranks[3][3], ranks[3][700]],  # among the first five
        [ranks[4][9]],  # wrong
        [ranks[5][4]],  # the fifth
    ]
    (tmp_path / "real.json").write_text(json.dumps(answers))
    outcome = cli("evaluate", weights, "--data", tmp_path / "val", "--labels", tmp_path / "real.json", "--json")
    assert outcome.code == 0, outcome.err
    told = json.loads(outcome.out)
    assert (told["images"], told["top1"], told["top5"]) == (5, 2 / 5, 4 / 5)
    assert "5 with labels" in outcome.err
    assert "loss" not in told
    assert cli("evaluate", weights, "--data", tmp_path / "val", "--labels", tmp_path / "real.json").code == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[[1], 2]", "entry 2 is 2, not a list of indices below 1000"),
        ("[[1000]]", "entry 1"),
        ("{}]", "is not ImageNet-ReaL's real.json"),
    ],
)
def test_other_files_are_not_real_labels(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text(content)
    with pytest.raises(ResnestError, match=message):
        RealLabels.read(tmp_path / "real.json", 1000)


def test_names_without_numbers_have_no_real_labels() -> None:
    with pytest.raises(ResnestError, match=r"tench\.jpg has no number of an ImageNet validation image"):
        RealLabels([[1]]).of("tench.jpg")
    with pytest.raises(ResnestError, match="is image 2, and there are labels for 1"):
        RealLabels([[1]]).of("ILSVRC2012_val_00000002.JPEG")


def test_a_run_is_evaluated_on_what_its_training_held_back(
    photos: Path, cli: Callable[..., Outcome], tmp_path: Path
) -> None:
    """With the share and seed of its recipe, not with the defaults."""

    settings = [
        word for setting in pico("data.val_share=0.5", "train.seed=3", "train.epochs=1") for word in ("--set", setting)
    ]
    assert cli("train", "imagenette", "--data", photos, "--out", tmp_path / "run", *settings).code == 0
    told = json.loads(cli("evaluate", tmp_path / "run", "--data", photos, "--json").out)
    card = json.loads((tmp_path / "run" / "config.json").read_text())["resnest"]
    assert told["top1"] == card["figures"]["top1"]
    assert told["loss"] == pytest.approx(card["figures"]["loss"], rel=1e-6)
    total = len(list(photos.rglob("*.jpg")))
    assert told["images"] == pytest.approx(total / 2, abs=3)
    everything = json.loads(cli("evaluate", tmp_path / "run", "--data", photos, "--split", "all", "--json").out)
    assert everything["images"] == total
    checkpoint = next((tmp_path / "run" / "checkpoints").glob("*.pt"))
    by_file = json.loads(cli("evaluate", checkpoint, "--data", photos, "--json").out)
    assert by_file["images"] == told["images"]
