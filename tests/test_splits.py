"""What training holds out: whole groups, stratified folds; the same in every order of files, and for evaluate."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import Outcome, pico, shared_data
from resnest.data.grouping import find_groups
from resnest.data.samples import LabelledSamples
from resnest.data.settings import DataSettings
from resnest.data.sources import open_dataset, open_split
from resnest.data.splitting import Holdout, split
from resnest.data.stores import BytesStore
from resnest.data.stratified import NEVER, Units, balanced, in_blocks
from resnest.errors import ResnestError
from resnest.inference.evaluation import evaluate
from resnest.training.train import train

STORE = BytesStore(np.zeros(0, np.uint8), np.zeros(1, np.int64))


def _samples(labels: Any, keys: Sequence[str] | None = None) -> LabelledSamples:
    labels = np.asarray(labels)
    count = labels.shape[1] if labels.ndim == 2 else labels.max() + 1
    return LabelledSamples(
        STORE, keys or [f"{k:04}.jpg" for k in range(len(labels))], tuple("abcdefgh"[:count]), labels
    )


def _folds(samples: LabelledSamples, folds: int, group: str | None = None, seed: int = 0) -> list[list[str]]:
    rules = [Holdout(seed=seed, group=group, fold=f"{k}/{folds}") for k in range(folds)]
    return [list(split(samples, rule, None, "here")[1].keys) for rule in rules]


def _write(root: Path, names: Sequence[str]) -> Path:
    """A picture of its own for each name."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(number)
        Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).save(path)
    return root


PATIENTS = [f"{c}/p{p}{c[0]}/{i}.png" for c in ("cat", "dog") for p in range(5) for i in range(2 + p % 2)]


# --- which images: the field's own splitter beside ours ---


@pytest.mark.parametrize(
    ("groups", "classes", "folds"), [(12, 2, 5), (30, 3, 5), (100, 5, 4), (400, 10, 10), (30, 20, 3)]
)
def test_groups_are_as_even_as_sklearns(groups: int, classes: int, folds: int) -> None:
    """Distance of the classes' shares from equal ones: at most a fifth above StratifiedGroupKFold's, mostly less."""
    model_selection = pytest.importorskip("sklearn.model_selection")
    ours, theirs = [], []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        sizes = rng.geometric(0.1, groups)
        owners = np.repeat(np.arange(groups), sizes)
        mixes = rng.dirichlet(np.full(classes, 0.5), groups)
        labels = np.concatenate([rng.choice(classes, size, p=mix) for size, mix in zip(sizes, mixes, strict=True)])
        ranks = rng.permutation(groups).astype(np.uint64)
        units = Units.of(owners, np.arange(len(owners)), labels)
        mine = balanced(units, [1 / folds] * folds, ranks, held_out=range(folds))[owners]
        other = np.zeros(len(owners), np.int64)
        for fold, (_, val) in enumerate(model_selection.StratifiedGroupKFold(folds).split(labels, labels, owners)):
            other[val] = fold
        ours.append(_unevenness(labels, mine, folds))
        theirs.append(_unevenness(labels, other, folds))
    assert np.mean(ours) <= 1.2 * np.mean(theirs)


def _unevenness(labels: np.ndarray, folds: np.ndarray, count: int) -> float:
    table = np.array([np.bincount(labels[folds == fold], minlength=labels.max() + 1) for fold in range(count)])
    return float((table / np.maximum(table.sum(0), 1)).std(0).mean())


def test_folds_of_images_are_stratified_disjoint_and_complete() -> None:
    labels = np.repeat([0, 1, 2], [53, 17, 5])
    samples = _samples(labels)
    folds = _folds(samples, 5)
    assert sorted(key for fold in folds for key in fold) == samples.keys
    for label, most in ((0, 11), (1, 4), (2, 1)):
        counts = [sum(labels[int(key[:4])] == label for key in fold) for fold in folds]
        assert max(counts) == most
        assert max(counts) - min(counts) <= 1
    assert max(map(len, folds)) - min(map(len, folds)) <= 1


def test_the_order_of_files_does_not_count_and_the_seed_does() -> None:
    samples = _samples(np.arange(60) % 3)
    shuffled = samples.subset(np.random.default_rng(1).permutation(60))
    for group in (None, "(.{3})"):
        assert list(map(sorted, _folds(samples, 4, group))) == list(map(sorted, _folds(shuffled, 4, group)))
        assert _folds(samples, 4, group) != _folds(samples, 4, group, seed=1)


def test_a_new_image_hardly_changes_the_folds() -> None:
    before, after = _folds(_samples(np.zeros(200, int)), 5), _folds(_samples(np.zeros(201, int)), 5)
    moved = sum(len(set(one) - set(other)) for one, other in zip(before, after, strict=True))
    assert moved <= 5


@pytest.mark.parametrize("folds", [2, 5])
def test_several_labels_an_image(folds: int) -> None:
    """Iterative stratification: every label in every fold, as evenly as its images allow."""
    rng = np.random.default_rng(0)
    labels = rng.random((300, 5)) < np.array([0.5, 0.3, 0.1, 0.05, 0.04])
    samples = _samples(labels)
    counts = np.array([labels[[int(key[:4]) for key in fold]].sum(0) for fold in _folds(samples, folds)])
    assert (counts.max(0) - counts.min(0) <= 2).all()
    assert counts.sum(0).tolist() == labels.sum(0).tolist()


def test_what_alone_has_a_class_is_never_held_out() -> None:
    samples = _samples([0] * 10 + [1] * 10 + [2])
    assert in_blocks(samples.labels, np.arange(21, dtype=np.uint64), 2)[20] == NEVER
    _, _, notes = split(samples, Holdout(fold="0/2"), None, "here")
    assert "1 image is never held out, as no other has one of its classes, such as 0020.jpg" in "; ".join(notes)
    grouped = _samples([0, 0, 1, 0, 1, 0, 1, 2], [f"{name}/{k}" for k, name in enumerate("aabbccdd")])
    for fold in range(3):
        train_part, val, _ = split(grouped, Holdout(group="folder:1", fold=f"{fold}/3"), None, "here")
        assert not any(key.startswith("d/") for key in val.keys)
        assert (train_part.counts() > 0).all()


@pytest.mark.parametrize("seed", range(5))
def test_a_share_of_groups(seed: int) -> None:
    """About a fifth, no group in both parts, every class in both where two groups have it."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, 400)
    samples = _samples(labels, [f"p{k // 8:02}/{k}" for k in range(400)])
    train_part, val, notes = split(samples, Holdout(seed=seed, group="folder:1"), None, "here")
    assert not {key[:3] for key in train_part.keys} & {key[:3] for key in val.keys}
    assert 60 <= len(val) <= 100
    assert (val.counts() > 0).all()
    assert "groups by folder 1 above a picture, p00 of p00/0: 40 to train on and 10 held out" in notes[0]


# --- what belongs together ---

GROUPS = {
    "parent": ("folder:1", "rose/p12/1.jpg", "p12"),
    "grandparent": ("folder:2", "rose/p12/1.jpg", "rose"),
    "expression": (r"p(\d+)_", "rose/p12_3.jpg", "12"),
    "with an uncounted group": (r"(?:scan|img)-(\w+)-", "img-ab-1.png", "ab"),
}


@pytest.mark.parametrize(("setting", "key", "name"), GROUPS.values(), ids=GROUPS)
def test_groups(setting: str, key: str, name: str) -> None:
    found = find_groups(setting, [key], None, "here")
    assert found.names == [name]
    assert f"{name} of {key}" in found.told


SETTINGS = {
    "fold of none": ("data.fold", "5/5", "folds count from 0, the last one is 4/5"),
    "no fold": ("data.fold", "first", "expected a fold and their number, such as 0/5"),
    "one fold": ("data.fold", "0/1", "expected a fold and their number"),
    "folder 0": ("data.group", "folder:0", "folders count from 1"),
    "no expression": ("data.group", "p(", "is no regular expression"),
    "two groups": ("data.group", "(a)(b)", "has 2 groups in parentheses: expected one"),
    "empty": ("data.group", "  ", "data.group is empty: expected folder:N"),
}


@pytest.mark.parametrize(("name", "value", "message"), SETTINGS.values(), ids=SETTINGS)
def test_wrong_settings(name: str, value: str, message: str) -> None:
    with pytest.raises(ResnestError, match=f"{name}.*") as error:
        DataSettings(**{name.removeprefix("data."): value})
    assert message in str(error.value)


DATA = {
    "no match": (
        r"(p\d)c",
        None,
        r"15? of the 24 images of .* have no group by .* in the names, such as dog/p0d/0.png",
    ),
    "no such folder": ("folder:3", None, "24 of the 24 images .* have no group by folder 3 above a picture, such as"),
    "one group": (r"(p)\d", None, "all 24 images of .* are of one group, p: nothing would be left to validate on"),
    "more folds than groups": ("folder:1", "0/11", "has 10 groups by data.group=folder:1, too few for 11 folds"),
    "more folds than images": (None, "0/25", "has 24 images, too few for 25 folds"),
    "no column": ("patient", None, "has no column 'patient'; expected folder:N, a regular expression"),
    "a class in one group": ("folder:2", "0/2", "0 groups can be held out, and it takes 2"),
}


@pytest.mark.parametrize(("group", "fold", "message"), DATA.values(), ids=DATA)
def test_data_that_cannot_be_split(group: str | None, fold: str | None, message: str, tmp_path: Path) -> None:
    with pytest.raises(ResnestError, match=message.replace("15? of", r"\d+ of")):
        open_dataset(_write(tmp_path / "photos", PATIENTS), group=group, fold=fold)


def test_groups_of_one_image_have_no_effect(tmp_path: Path) -> None:
    data = open_dataset(_write(tmp_path / "photos", PATIENTS), group="(.*)")
    assert "each of the 24 groups has one image, so that data.group=(.*) has no effect" in data.describe()


def _csv(folder: Path, rows: Sequence[str], head: str = "path,label,Patient") -> Path:
    path = folder / "photos.csv"
    path.write_text("\n".join([head, *rows]) + "\n")
    return path


def test_a_column_of_a_csv_list(tmp_path: Path) -> None:
    names = [f"{k}.png" for k in range(24)]
    _write(tmp_path, names)
    path = _csv(tmp_path, [f"{name},{'ab'[k // 2 % 2]},p{k // 4}" for k, name in enumerate(names)])
    data = open_dataset(path, group="patient")
    patients = [{int(key[:-4]) // 4 for key in part.keys} for part in (data.train, data.val)]
    assert not patients[0] & patients[1]
    assert "groups by the column patient, p0 of 0.png: 5 to train on and 1 held out" in data.describe()
    assert open_split(path, "val", holdout=Holdout(group="patient")).samples.keys == data.val.keys
    with pytest.raises(ResnestError, match=r"no column 'scan' \(path, label, patient\)"):
        open_dataset(path, group="scan")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["0.png,a,p0", "1.png,b,"], "1 of the 2 images of .* no group by the column patient, such as 1.png"),
        (["0.png,a,p0", "0.png,a,p1", "1.png,b,p1"], "line 3: 0.png has 'p1' in the column patient, and 'p0' above"),
    ],
)
def test_a_column_that_says_too_little(rows: Sequence[str], message: str, tmp_path: Path) -> None:
    _write(tmp_path, ["0.png", "1.png"])
    with pytest.raises(ResnestError, match=message):
        open_dataset(_csv(tmp_path, rows), group="patient")


# --- data with parts of its own ---


@pytest.fixture
def parted(tmp_path: Path) -> Path:
    return _write(tmp_path / "set", [*(f"train/{name}" for name in PATIENTS), "val/cat/p0c/9.png", "val/dog/p9/9.png"])


def test_groups_in_both_parts_are_said(parted: Path) -> None:
    data = open_dataset(parted, group="folder:1")
    assert (len(data.train), len(data.val)) == (24, 2)
    assert "1 group is in both, such as p0c, with 1 of 2 validation images" in data.describe()
    (parted / "val" / "cat" / "p0c").rename(parted / "val" / "cat" / "p8")
    assert "have no group in common" in open_dataset(parted, group="folder:1").describe()


def test_folds_of_a_training_part(parted: Path) -> None:
    """The validation part stays out of it, for a last test."""
    data = open_dataset(parted, group="folder:1", fold="1/5")
    assert len(data.train) + len(data.val) == 24
    assert "fold 1/5; of the training part; the validation part is left for a last test" in data.describe()
    rule = Holdout(group="folder:1", fold="1/5")
    assert open_split(parted, holdout=rule).samples.keys == data.val.keys
    assert open_split(parted, "train", holdout=rule).samples.keys == data.train.keys
    assert len(open_split(parted, "val", holdout=rule).samples) == 2


# --- a run keeps its split ---


def test_evaluate_and_resume_see_the_split_of_training(tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    data = _write(tmp_path / "photos", PATIENTS)
    out = tmp_path / "run"
    train("imagenette", data=data, out=out, settings=pico("data.group=folder:1", "data.fold=2/4", "train.epochs=1"))
    seen: list[Any] = []
    evaluate(out, data, on_open=lambda samples, where: seen.append(samples.keys))
    assert seen[0] == open_dataset(data, group="folder:1", fold="2/4").val.keys
    account = json.loads((out / "run.json").read_text())
    assert (account["val_images"], account["held_out_of"]) == (len(seen[0]), 24)
    assert cli("train", "--resume", out).code == 0
    assert "data.fold is '2/4' there and '1/4' here" in cli("train", "--resume", out, "--set", "data.fold=1/4").err


@pytest.mark.data
@pytest.mark.parametrize(("name", "task"), [("bccd", "detection"), ("camvid", "segmentation"), ("nuclei", "detection")])
def test_folds_of_real_data(name: str, task: str) -> None:
    """Classes are spread over the folds by the objects, or by the masks, which are read for it."""
    parts = [open_dataset(shared_data() / name, task=task, fold=f"{k}/4").val for k in range(4)]
    counts = np.array([np.bincount(part.marks()[1], minlength=len(part.class_names)) for part in parts])
    assert (counts.max(0) - counts.min(0) <= np.maximum(2, 0.05 * counts.sum(0))).all(), counts
    assert max(map(len, parts)) - min(map(len, parts)) <= 2
