"""`resnest embed` and `evaluate --knn`: features of every engine, files of them, neighbours, figures, bad input."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import resnest
from conftest import Outcome
from resnest.inference.embedding import mean_within, open_embedder
from resnest.inference.model import Model
from resnest.inference.probing import LinearProbe, neighbour_scores, out_of_sample
from resnest.runtime.embedding import nearest, unit_rows

Cli = Callable[..., Outcome]


def _clouds(count: int, classes: int = 3, width: int = 16, noise: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """Rows of length 1 around a direction for each class, and their classes."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % classes
    rows = np.eye(classes, width)[labels] + noise * rng.standard_normal((count, width)) / np.sqrt(width)
    return unit_rows(rows), labels


def test_features_are_what_the_linear_head_gets(saved_model: Path, photos: Path) -> None:
    """The network's own logits follow from them."""
    model = Model.from_pretrained(saved_model)
    paths = sorted(photos.rglob("*.jpg"))[:5]
    rows = resnest.embed(model, paths, normalise=False)
    pixels = np.stack([model.card.preprocess(Image.open(path).convert("RGB")) for path in paths])
    with torch.inference_mode():
        expected = model.net(torch.from_numpy(pixels))
        logits = model.net.fc(torch.from_numpy(rows))
    assert torch.allclose(logits, expected, atol=1e-4)
    assert np.allclose(np.linalg.norm(resnest.embed(model, paths), axis=1), 1, atol=1e-6)
    assert resnest.embed(model, paths[0]).shape == rows[0].shape


def test_padding_does_not_count() -> None:
    """Cells count by the part of them that the picture covers."""
    maps = torch.zeros(1, 2, 2, 4)
    maps[0, 0, :, :2], maps[0, 1, :, 2] = 1.0, 1.0
    assert torch.allclose(mean_within(maps, torch.tensor([[1.0, 0.5]])), torch.tensor([[1.0, 0.0]]))
    assert torch.allclose(mean_within(maps, torch.tensor([[1.0, 0.625]])), torch.tensor([[0.8, 0.2]]))
    assert torch.allclose(mean_within(maps, torch.tensor([[1.0, 1.0]])), maps.mean((2, 3)))


def test_a_network_of_another_task_gives_its_backbones(saved_segmenter: Path) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8))
    rows = resnest.embed(saved_segmenter, [picture, picture.resize((70, 50))])
    assert rows.shape == (2, Model.from_pretrained(saved_segmenter).net.backbone.channels[-1])
    assert np.allclose(rows[0], rows[1], atol=1e-6)


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_exported_files_give_the_same(suffix: str, saved_model: Path, photos: Path, tmp_path: Path) -> None:
    file = tmp_path / f"with{suffix}"
    resnest.export(saved_model, out=file, features=True)
    paths = sorted(photos.rglob("*.jpg"))[:3]
    assert np.abs(resnest.embed(file, paths) - resnest.embed(saved_model, paths)).max() < 1e-5
    assert [one.label for one in resnest.Predictor(file)(paths)] == [
        one.label for one in resnest.Predictor(saved_model, engine="torch")(paths)
    ]


def test_nearest_are_exact() -> None:
    rows, _ = _clouds(50)
    numbers, cosines = nearest(rows, rows, 4, same=True)
    products = rows @ rows.T
    np.fill_diagonal(products, -2)
    assert (numbers == np.argsort(-products, axis=1)[:, :4]).all()
    assert np.allclose(cosines, -np.sort(-products, axis=1)[:, :4])
    assert nearest(rows[:2], rows[:2], 9, same=True)[0].tolist() == [[1], [0]]
    assert nearest(rows[:1], rows[:1], 9, same=True)[0].shape == (1, 0)


def test_classes_are_read_off_features() -> None:
    rows, labels = _clouds(240)
    bank, asked = slice(0, 180), slice(180, 240)
    votes = neighbour_scores(rows[asked], rows[bank], labels[bank], 3, neighbours=500)  # more than there are
    assert np.allclose(votes.sum(1), 1)
    assert (votes.argmax(1) == labels[asked]).all()
    probe = LinearProbe.fit(rows[bank], labels[bank], 3)
    assert (probe(rows[asked]).argmax(1) == labels[asked]).all()


def test_out_of_sample_scores_know_nothing_of_their_own_labels() -> None:
    """Of noise they are chance; and a group, such as a picture and its copy, is in one fold."""
    rng = np.random.default_rng(1)
    rows, labels = rng.standard_normal((300, 200)).astype(np.float32), rng.integers(0, 3, 300)
    assert (LinearProbe.fit(rows, labels, 3, decay=1e-3)(rows).argmax(1) == labels).mean() > 0.95
    alone = out_of_sample(rows, labels, 3)
    assert (alone.argmax(1) == labels).mean() < 0.45
    twice, both = np.concatenate([rows, rows]), np.concatenate([labels, labels])
    groups = np.tile(np.arange(300), 2)
    assert (out_of_sample(twice, both, 3, groups=groups).argmax(1) == both).mean() < 0.45
    assert (out_of_sample(twice, both, 3).argmax(1) == both).mean() > 0.6


@pytest.mark.parametrize("suffix", [".npy", ".csv", ".parquet"])
def test_files_of_features(suffix: str, saved_model: Path, photos: Path, tmp_path: Path, cli: Cli) -> None:
    out = tmp_path / f"x{suffix}"
    assert cli("embed", saved_model, photos, "--out", out, "--batch-size", "4").code == 0
    paths = sorted(map(str, photos.rglob("*.jpg")))
    if suffix == ".npy":
        rows, names = np.load(out), json.loads(out.with_suffix(".json").read_text())["images"]
    elif suffix == ".csv":
        lines = list(csv.reader(out.read_text().splitlines()))[1:]
        rows, names = np.array([line[1:] for line in lines], np.float32), [line[0] for line in lines]
    else:
        table = pytest.importorskip("pyarrow.parquet").read_table(out)
        rows, names = np.array(table["features"].to_pylist(), np.float32), table["image"].to_pylist()
    assert names == paths
    assert np.abs(rows - open_embedder(saved_model)(paths)).max() < 1e-6
    assert "exists" in cli("embed", saved_model, photos, "--out", out).err
    assert cli("embed", saved_model, photos, "--out", out, "--overwrite").code == 0


def test_neighbours_by_name(saved_model: Path, photos: Path, cli: Cli) -> None:
    """A copy of a picture is its nearest neighbour."""
    first = sorted(photos.rglob("*.jpg"))[0]
    copy = photos / "copy.jpg"
    copy.write_bytes(first.read_bytes())
    lines = cli("embed", saved_model, photos, "--nearest", "3", "--json").out.splitlines()
    found = {row["image"]: row["nearest"] for row in map(json.loads, lines)}
    assert found[str(first)][0] == {"image": str(copy), "cosine": 1.0}
    assert all(len(near) == 3 for near in found.values())


def test_unusable_pictures_are_named_and_the_others_written(
    saved_model: Path, photos: Path, tmp_path: Path, cli: Cli
) -> None:
    (photos / "broken.jpg").write_bytes(b"no picture")
    outcome = cli("embed", saved_model, photos, "--out", tmp_path / "x.npy")
    assert outcome.code == 2
    assert "broken.jpg" in outcome.err
    assert len(np.load(tmp_path / "x.npy")) == len(list(photos.rglob("*.jpg"))) - 1


BAD = {
    "another kind of file": (["embed", "{model}", "{photos}", "--out", "x.txt"], ".parquet, .npy, .csv"),
    "no folder": (["embed", "{model}", "{photos}", "--out", "none/x.npy"], "there is no folder none"),
    "nothing asked for": (["embed", "{model}", "{photos}"], "--out FILE"),
    "one picture": (["embed", "{model}", "{one}", "--nearest", "2"], "give two or more"),
    "only unusable ones": (["embed", "{model}", "{broken}", "--out", "x.csv"], "no picture could be used"),
    "a file without features": (["embed", "{onnx}", "{photos}", "--nearest", "2"], "--features"),
    "an option of predictions": (["evaluate", "{model}", "--data", "{photos}", "--knn", "--flip"], "leave out --flip"),
    "neighbours alone": (["evaluate", "{model}", "--data", "{photos}", "--neighbours", "3"], "is for --knn"),
    "the training part": (["evaluate", "{model}", "--data", "{photos}", "--knn", "--split", "train"], "val or test"),
    "features of a segmenter's file": (["export", "{segmenter}", "--features"], "is for classifiers"),
    "features and int8": (["export", "{model}", "--features", "--kit", "k"], "leave out --kit"),
}


@pytest.mark.parametrize(("words", "said"), BAD.values(), ids=BAD)
def test_bad_input(
    words: list[str],
    said: str,
    photos: Path,
    cli: Cli,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    places: dict[str, Callable[[], Path]] = {
        "model": lambda: request.getfixturevalue("saved_model"),
        "segmenter": lambda: request.getfixturevalue("saved_segmenter"),
        "onnx": lambda: request.getfixturevalue("real_exports")["onnx"],
        "photos": lambda: photos,
        "one": lambda: next(photos.rglob("*.jpg")),
        "broken": lambda: tmp_path / "broken.jpg",
    }
    named = {f"{{{key}}}": make for key, make in places.items()}
    outcome = cli(*[named[word]() if word in named else word for word in words])
    assert (outcome.code, len(outcome.err.strip().splitlines()[-1:])) == (2, 1)
    assert said in outcome.err
    assert not list(tmp_path.glob("x.*"))


@pytest.mark.parametrize("method", ["knn", "probe"])
def test_evaluation_by_features(method: str, saved_model: Path, photos: Path, cli: Cli) -> None:
    """Of data whose classes the model does not know, and by hand the same."""
    model = saved_model
    outcome = cli("evaluate", model, "--data", photos, f"--{method}", "--json")
    assert outcome.code == 0, outcome.err
    content = json.loads(outcome.out)
    data = resnest.open_dataset(photos)
    embedder = open_embedder(model)
    bank, asked = (embedder([part.decode(i) for i in range(len(part))]) for part in (data.train, data.val))
    classes = len(data.train.class_names)
    scores = (
        neighbour_scores(asked, bank, data.train.labels, classes)
        if method == "knn"
        else LinearProbe.fit(bank, data.train.labels, classes)(asked)
    )
    assert content["images"] == len(data.val)
    assert content["top1"] == pytest.approx((scores.argmax(1) == data.val.labels).mean())
