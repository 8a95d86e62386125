"""Several labels an image, from the CSV file to the report: real scans side by side, a real run."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import Outcome, pico
from resnest import Predictor, evaluate
from resnest.classification.task import Mix, MultiLabelTask
from resnest.classification.transforms import ClassificationDataset
from resnest.data.checks import check_dataset
from resnest.data.loading import normalise, training_batches
from resnest.data.samples import LabelledSamples
from resnest.data.settings import DataSettings
from resnest.data.sources import open_dataset
from resnest.data.splitting import holdout
from resnest.data.stores import BytesStore
from resnest.errors import ResnestError
from resnest.inference.evaluation import Evaluation, evaluate_network
from resnest.recipes import find_recipe, override
from resnest.runtime.card import ModelCard
from resnest.tasks import open_task
from resnest.training.train import train
from runs import lines

NAMES = ("nil", "one", "two")
Cli = Callable[..., Outcome]


def _write(path: Path, rows: list[list[str]], header: str = "path,labels") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header.split(","), *rows])
    return path


@pytest.fixture
def pairs(tmp_path: Path, digit_images: list[tuple[str, Image.Image]]) -> Path:
    """Two scans side by side, 60 pictures: the labels say which of the digits 0 to 2 are among them."""
    (tmp_path / "pairs").mkdir()
    rows = []
    for number in range(60):
        both = [digit_images[index] for index in (number, (7 * number + 3) % 100)]
        picture = Image.new("RGB", (32, 16))
        for side, (_, scan) in enumerate(both):
            picture.paste(scan.resize((16, 16)), (16 * side, 0))
        picture.save(tmp_path / "pairs" / f"{number:02d}.png")
        labels = sorted({NAMES[int(digit)] for digit, _ in both if digit in "012"})
        rows.append([f"{number:02d}.png", "|".join(labels)])
    return _write(tmp_path / "pairs" / "labels.csv", rows).parent


def test_labels_are_read_as_they_stand(pairs: Path) -> None:
    whole = open_dataset(pairs).unsplit
    assert whole is not None
    assert (whole.multi_label, whole.labels.dtype, whole.class_names) == (True, np.dtype(bool), NAMES)
    lines = (pairs / "labels.csv").read_text().splitlines()[1:]
    told = dict(line.split(",") for line in lines)
    assert {key: "|".join(whole.names_of(index)) for index, key in enumerate(whole.keys)} == told
    assert whole.counts().tolist() == [sum(name in labels for labels in told.values()) for name in NAMES]
    assert {len(labels.split("|")) if labels else 0 for labels in told.values()} == {0, 1, 2}


@pytest.mark.parametrize(
    ("header", "labels", "several"),
    [
        ("path,label", ["a", "b", "a", "b"], False),
        ("path,label", ["a", "b|a", "a", ""], True),
        ("path,labels", ["a", "b", "a", "b"], True),
        ("file,labels", ["a", " a | b ", "b", ""], True),
        ("path,labels", ["a", "", "a", "a"], True),  # one class: it is there or not
    ],
)
def test_what_is_multi_label(header: str, labels: list[str], several: bool, pairs: Path) -> None:
    rows = [[f"{number:02d}.png", label] for number, label in enumerate(labels)]
    samples = open_dataset(_write(pairs / "other.csv", rows, header), val_fraction=0.3).train
    assert samples.multi_label is several
    assert samples.class_names == tuple(sorted({name.strip() for label in labels for name in label.split("|")} - {""}))


FOUR = [["00.png", "a|b"], ["01.png", "a"], ["02.png", "b"], ["03.png", ""]]
BAD: dict[str, tuple[str, list[list[str]], str]] = {
    "a label twice": (
        "path,labels",
        [*FOUR, ["04.png", "a|b|a"]],
        r"bad.csv, line 6: the label 'a' is listed twice",
    ),
    "an empty label": ("path,labels", [*FOUR, ["04.png", "a||b"]], r"bad.csv, line 6: an empty label in 'a\|\|b'"),
    "no path": ("path,labels", [*FOUR, ["", "a"]], r"bad.csv, line 6: path or label is empty"),
    "no label where one is needed": (
        "path,label",
        [["00.png", "a"], ["01.png", ""]],
        r"line 3: path or label is empty",
    ),
    "no label at all": ("path,labels", [["00.png", ""], ["01.png", ""]], r"bad.csv has no label in any line"),
    "no line": ("path,labels", [], r"bad.csv has no line below its first one"),
    "no column": ("path,class", FOUR, r"needs the columns path and label \(or labels\)"),
    "a class only in validation": (
        "path,labels,split",
        [*([*row, "train"] for row in FOUR), ["04.png", "a|c", "val"]],
        r"validation has classes that training has not: c \(as in 04.png\)",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_one_clear_line(case: str, pairs: Path) -> None:
    header, rows, message = BAD[case]
    with pytest.raises(ResnestError, match=message) as caught:
        open_dataset(_write(pairs / "bad.csv", rows, header))
    assert "\n" not in str(caught.value)


def test_an_empty_file_is_no_list(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").touch()
    with pytest.raises(ResnestError, match="it has: none"):
        open_dataset(tmp_path / "empty.csv")


def test_parts_agree_on_what_a_label_is(pairs: Path, tmp_path: Path) -> None:
    """A validation list whose images have one label each belongs to several as well; the reverse is a mistake."""
    several, single = [["../pairs/00.png", "a|b"], ["../pairs/01.png", "c"]], [["../pairs/02.png", "b"]]
    (tmp_path / "lists").mkdir()
    _write(tmp_path / "lists" / "train.csv", several, "path,label")
    _write(tmp_path / "lists" / "val.csv", single, "path,label")
    assert open_dataset(tmp_path / "lists").val.labels.tolist() == [[False, True, False]]
    _write(tmp_path / "lists" / "train.csv", [*single, ["../pairs/01.png", "a"]], "path,label")
    _write(tmp_path / "lists" / "val.csv", several[:1], "path,labels")
    with pytest.raises(ResnestError, match="validation images have several labels and training images one"):
        open_dataset(tmp_path / "lists")


def _samples(labels: np.ndarray) -> LabelledSamples:
    keys = [f"{number:04d}" for number in range(len(labels))]
    store = BytesStore(np.zeros(0, np.uint8), np.zeros(1, np.int64))
    return LabelledSamples(store, keys, tuple("abcdef"[: labels.shape[1]]), labels)


def test_a_split_keeps_the_rarest_labels_in_proportion() -> None:
    labels = np.random.default_rng(0).random((1000, 4)) < [0.6, 0.3, 0.1, 0.02]
    samples = _samples(labels)
    train_part, val = holdout(samples, 0.2, seed=0)
    rare = samples.counts()[3]
    assert val.counts()[3] == round(rare * 0.2)
    assert np.abs(val.counts() / samples.counts() - 0.2).max() < 0.05
    assert len(train_part) + len(val) == 1000
    groups = samples.groups()
    assert set(groups[labels[:, 3]]) == {3}
    assert set(groups[~labels.any(1)]) == {4}


@pytest.mark.parametrize("seed", range(20))
def test_a_split_never_holds_back_all_of_a_class(seed: int) -> None:
    labels = np.random.default_rng(seed).random((12, 6)) < 0.25
    labels[np.arange(6), np.arange(6)] = True
    train_part, _ = holdout(_samples(labels), 0.6, seed=seed)
    assert (train_part.counts() > 0).all()


def test_batches_and_balance(pairs: Path) -> None:
    samples = open_dataset(pairs).train
    drawn = {}
    for balance in (0.0, 1.0):
        settings = DataSettings(size=16, workers=0, balance=balance)
        dataset = ClassificationDataset(samples, settings, seed=0, epochs=1)
        batches = list(training_batches(dataset, settings, batch_size=8, seed=0, epoch=0))
        assert all(batch.labels.dtype == torch.float32 for batch in batches)
        assert all(np.array_equal(batch.labels.numpy(), samples.labels[batch.indices]) for batch in batches)
        groups = samples.groups()[torch.cat([batch.indices for batch in batches])]
        drawn[balance] = np.bincount(groups, minlength=4)
    assert np.ptp(drawn[0.0]) > 10
    assert np.ptp(drawn[1.0]) <= 1


def _task(*settings: str) -> MultiLabelTask:
    samples = _samples(np.eye(3, dtype=bool))
    task = open_task(override(find_recipe("imagenette"), pico(*settings)), samples)
    assert isinstance(task, MultiLabelTask)
    return task


def test_the_loss_is_written_out() -> None:
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, 3, 16, 16), generator=rng, dtype=torch.uint8)
    labels = torch.tensor([[1, 1, 0], [0, 0, 0], [0, 1, 0], [1, 0, 1]], dtype=torch.float32)
    task = _task("train.label_smoothing=0.2")
    net = task.build().eval().requires_grad_(False)
    inputs = normalise(images, task.recipe.data.mean, task.recipe.data.std)
    for share in (1.0, 0.7):
        scores = torch.sigmoid(net(share * inputs + (1 - share) * inputs.flip(0)))
        targets = (share * labels + (1 - share) * labels.flip(0)) * 0.8 + 0.1
        expected = -(targets * scores.log() + (1 - targets) * (1 - scores).log()).mean()
        assert float(task.loss(net, images, labels, mix=Mix(share))) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("data", ["pairs", "photos"])
def test_processes_that_share_an_evaluation_agree(data: str, request: pytest.FixtureRequest) -> None:
    samples = open_dataset(request.getfixturevalue(data)).train
    task = open_task(override(find_recipe("imagenette"), pico()), samples)
    net, card, found = task.build(), task.card({}), []

    def run(rank: int, world_size: int) -> Evaluation:
        def gather(mine: Any) -> list[Any]:
            found.append(mine)
            return found

        ways = {"rank": rank, "world_size": world_size, "gather": gather, "batch_size": 1, "workers": 0}
        return evaluate_network(net, samples, card, device=torch.device("cpu"), **ways)

    run(1, 2)  # what the other process found
    shared, alone = run(0, 2), run(0, 1)
    assert shared.figures == alone.figures
    assert shared.indices.tolist() == list(range(len(samples)))
    assert np.array_equal(shared.labels, alone.labels)
    assert np.array_equal(shared.scores, alone.scores)
    assert shared.worst(5).tolist() == alone.worst(5).tolist()


def test_doctor(pairs: Path) -> None:
    text = check_dataset(pairs).to_text()
    assert "3 classes, several an image" in text
    assert "several labels an image: 0.6 on average, 2 at most, none for" in text


def test_from_the_list_to_the_report(pairs: Path, tmp_path: Path, cli: Cli) -> None:
    run = tmp_path / "run"
    settings = [word for setting in pico("train.mixup=0.2", "data.repeats=2") for word in ("--set", setting)]
    told = cli("train", "imagenette", "--data", pairs, "--out", run, *settings)
    assert told.code == 0, told.err
    assert told.out.startswith("best mAP ")
    assert "  mAP " in told.err

    figures = json.loads(cli("evaluate", run, "--data", pairs, "--json").out)
    assert figures["map"] == max(line["map"] for line in lines(run, "eval"))
    assert {"map", "f1_micro", "f1_macro", "loss"} <= figures.keys()
    assert figures["map"] == pytest.approx(np.mean(list(figures["per_class"].values())))
    assert cli("evaluate", run, "--data", pairs).out.startswith("mAP ")

    page = (run / "report.html").read_text(encoding="utf-8")
    for text in ("Multi-label classification", "Mean average precision", "Average precision</th>", "Worst mistakes"):
        assert text in page

    card = json.loads((run / "config.json").read_text())
    assert card["resnest"]["multi_label"] is True
    newest = max((run / "checkpoints").glob("*.pt"))
    assert Predictor(newest).card.multi_label


def test_prediction(pairs: Path, tmp_path: Path, cli: Cli) -> None:
    run, picture = tmp_path / "run", pairs / "00.png"
    train("imagenette", data=pairs, out=run, settings=pico("train.epochs=1"))
    result = Predictor(run)(picture)
    scores = dict(result.top(3))
    shown = [(label, score) for label, score in result.top(3) if score >= 0.5]
    assert (result.ranking(), result.labels) == (shown, tuple(label for label, _ in shown))
    told = json.loads(cli("predict", run, picture, "--json").out)
    assert {row["label"]: row["score"] for row in told["top"]} == pytest.approx(scores)
    assert told["labels"] == list(result.labels)
    line = cli("predict", run, picture).out.strip()
    assert line == f"{picture}: " + ("  ".join(f"{label} {score:.1%}" for label, score in shown) or "-")
    assert cli("predict", run, picture, "--top", "3").out.count("%") == 3
    assert cli("predict", run, picture, "--csv").out.count("00.png") == max(1, len(shown))
    assert cli("predict", run, picture, "--draw", tmp_path / "drawn").code == 0
    with Image.open(tmp_path / "drawn" / "00.jpg") as drawn:
        assert drawn.size[0] == 320


def test_models_and_data_of_different_kinds(pairs: Path, photos: Path, tmp_path: Path) -> None:
    single, several = tmp_path / "single", tmp_path / "several"
    train("imagenette", data=photos, out=single, settings=pico("train.epochs=1"))
    train("imagenette", data=pairs, out=several, settings=pico("train.epochs=1"))
    names = [["00.png", "digit-0|digit-1"], ["01.png", "digit-2"]]
    with pytest.raises(ResnestError, match="has several labels an image, and the model gives one"):
        evaluate(single, _write(pairs / "digits.csv", names), split="all")
    alone = _write(pairs / "alone.csv", [["00.png", "nil"], ["01.png", "two"]], "path,label")
    assert evaluate(several, alone, split="all").labels.tolist() == [[True, False, False], [False, False, True]]


def test_cards_from_before_and_cards_that_are_wrong(pairs: Path, tmp_path: Path) -> None:
    train("imagenette", data=pairs, out=tmp_path / "run", settings=pico("train.epochs=1"))
    path = tmp_path / "run" / "config.json"
    content = json.loads(path.read_text())
    del content["resnest"]["multi_label"]
    path.write_text(json.dumps(content))
    assert not ModelCard.read(tmp_path / "run").multi_label
    content["resnest"]["multi_label"] = "yes"
    path.write_text(json.dumps(content))
    with pytest.raises(ResnestError, match="multi_label is 'yes', not true or false"):
        ModelCard.read(tmp_path / "run")
