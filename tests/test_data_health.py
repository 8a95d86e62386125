"""Data health: copies, flaws, label errors, disagreement with a model; the page, its list, and `train --exclude`."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

import resnest
from conftest import Outcome, pico, shared_data
from resnest.data.checks import check_dataset
from resnest.data.exclusion import read_exclusion
from resnest.detection.evaluation import DetectionErrors, DetectionEvaluation
from resnest.detection.matches import Matches
from resnest.errors import ResnestError
from resnest.health.confident import confident_joint, find_label_errors
from resnest.health.copies import Copies
from resnest.health.findings import COLUMNS, groups_of
from resnest.health.quality import Looks
from resnest.health.survey import Survey
from resnest.training.folds import train_folds
from resnest.training.train import train

Cli = Callable[..., Outcome]


def _scene(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """Coarse shapes with some texture."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    fine = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).resize(size, Image.Resampling.BILINEAR)
    return Image.blend(coarse, fine, 0.3)


def _jpeg(image: Image.Image, quality: int = 30) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


COPIED: dict[str, Callable[[Image.Image], Image.Image]] = {
    "the same": lambda image: image,
    "smaller": lambda image: image.resize((96, 72), Image.Resampling.LANCZOS),
    "larger": lambda image: image.resize((400, 300)),
    "compressed": _jpeg,
    "cropped on one side": lambda image: image.crop((8, 0, 160, 114)),
    "cropped on all sides": lambda image: image.crop((6, 4, 154, 116)),
    "cropped, smaller, compressed": lambda image: _jpeg(image.crop((0, 6, 152, 120)).resize((110, 80)), 50),
}


@pytest.mark.parametrize("change", COPIED.values(), ids=COPIED)
def test_copies_are_found(change: Callable[[Image.Image], Image.Image]) -> None:
    copies = Copies()
    for seed in range(20):
        copies.add(seed, _scene(seed))
    copies.add(20, change(_scene(7)))
    assert [(copy.first, copy.second) for copy in copies.pairs()] == [(7, 20)]


@pytest.mark.parametrize(
    "other", [_scene(100), Image.new("RGB", (160, 120)), _scene(7).transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
)
def test_others_are_no_copies(other: Image.Image) -> None:
    copies = Copies()
    copies.add(0, _scene(7))
    copies.add(1, other)
    assert not copies.pairs()


@pytest.mark.data
def test_photographs_and_their_copies() -> None:
    """Of real pictures: every planted copy, and nothing else."""
    samples = resnest.open_dataset(shared_data() / "imagenette128").val
    copies, planted = Copies(), set()
    for number in range(150):
        copies.add(number, samples.decode(number))
    for number in range(0, 150, 10):
        image = samples.decode(number)
        cropped = image.crop((6, 0, 128, 122)) if number % 20 else _jpeg(image.resize((80, 80)))
        copies.add(150 + number, cropped)
        planted.add((number, 150 + number))
    assert {(copy.first, copy.second) for copy in copies.pairs()} == planted


def test_groups_are_joined() -> None:
    assert groups_of([(3, 4), (0, 2), (2, 4)], 6) == [0, 1, 0, 0, 0, 5]


FLAWED: dict[str, Callable[[Image.Image], Image.Image]] = {
    "blank": lambda image: Image.new("RGB", image.size, (90, 140, 60)),
    "dark": lambda image: image.point(lambda value: value // 10),
    "bright": lambda image: image.point(lambda value: 231 + value // 11),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(8)),
}


@pytest.mark.parametrize("kind", FLAWED)
def test_flaws(kind: str) -> None:
    looks = Looks()
    for seed in range(20):
        sharp = _scene(seed)
        grain = np.random.default_rng(seed).integers(-25, 25, (120, 160, 1))
        sharp = Image.fromarray(np.clip(np.asarray(sharp) + grain, 0, 255).astype(np.uint8))
        looks.add(seed, FLAWED[kind](sharp) if seed == 13 else sharp)
    assert [(flaw.number, flaw.kind) for flaw in looks.findings()] == [(13, kind)]


def test_label_errors_by_hand() -> None:
    """A case that can be counted: thresholds 0.7 and 0.65, picture 3 is labelled 0 and counts for 1."""
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6]])
    labels = np.array([0, 0, 0, 0, 1, 1])
    found = find_label_errors(scores, labels)
    assert (found.indices.tolist(), found.guesses.tolist()) == ([3], [1])
    assert found.margins.tolist() == pytest.approx([-0.6])
    assert found.joint.tolist() == [[3.0, 1.0], [0.0, 2.0]]
    assert found.estimated == 1


def test_the_confident_joint_keeps_the_counts_of_labels() -> None:
    joint = confident_joint(np.array([0, 0, 1, -1, -1]), np.array([0, 1, 1, 1, 2]), 3)
    assert joint.tolist() == [[1, 0, 0], [1.5, 1.5, 0], [0, 0, 1]]


def test_flipped_labels_come_first() -> None:
    """Of 5 % planted, with predictions that are right nine times of ten."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 5, 2000)
    labels = truth.copy()
    flipped = rng.permutation(2000)[:100]
    labels[flipped] = (truth[flipped] + rng.integers(1, 5, 100)) % 5
    logits = rng.standard_normal((2000, 5)) + 4 * np.eye(5)[truth]
    scores = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    found = find_label_errors(scores, labels)
    assert np.isin(found.indices[:100], flipped).mean() >= 0.9
    assert 70 <= found.estimated <= 150


def test_agreement_of_detections() -> None:
    """F1 of each picture: 2 of 3 found and one false; all; nothing there and nothing found; nothing of one found."""
    counts = [(3, 1, 1), (2, 0, 0), (0, 0, 0), (0, 0, 1)]  # shown, false, missed
    evaluation = DetectionEvaluation(
        figures={},
        class_names=("cell",),
        indices=np.arange(4),
        class_ap={},
        curves={},
        objects=np.array([5]),
        matches=Matches(lambda: None, 100),
        shown=[range(shown) for shown, _, _ in counts],  # type: ignore[misc]
        mistakes=[DetectionErrors(missed=np.arange(m), false=np.arange(f)) for _, f, m in counts],
    )
    assert evaluation.qualities.tolist() == pytest.approx([2 / 3, 1, np.nan, 0], nan_ok=True)


@pytest.fixture
def flawed(tmp_path: Path) -> Path:
    """Two classes in two parts, with a copy in both, a copy in one, and a blank picture."""
    for number in range(40):
        part, label = ("val" if number % 5 == 3 else "train"), ("cat", "dog")[number % 2]
        path = tmp_path / "flawed" / part / label / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        (Image.new("RGB", (160, 120)) if number == 5 else _scene(number)).save(path)
    for part, source in (("val", 4), ("train", 6)):
        label = ("cat", "dog")[source % 2]
        _jpeg(_scene(source).crop((5, 3, 156, 117))).save(tmp_path / "flawed" / part / label / f"again{source}.png")
    return tmp_path / "flawed"


def _rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_the_page_and_its_list(flawed: Path, tmp_path: Path, cli: Cli) -> None:
    done = cli("doctor", "--data", flawed, "--html", tmp_path / "page.html")
    assert done.code == 0, done.err
    rows = _rows(tmp_path / "page.csv")
    assert {(row["finding"], row["part"], row["image"], row["other"]) for row in rows} == {
        ("leak", "val", "cat/again4.png", "cat/04.png"),
        ("copy", "train", "cat/again6.png", "cat/06.png"),
        ("blank", "train", "dog/05.png", ""),
    }
    assert {row["decision"] for row in rows} == {""}
    assert "look: copies in both parts: 1 picture" in done.out
    page = (tmp_path / "page.html").read_text()
    assert page.count('class="item"') == 3
    assert page.count("<script") == page.count("script-src 'sha256-") == 1


def test_decisions_are_not_replaced(flawed: Path, tmp_path: Path, cli: Cli) -> None:
    words = ("doctor", "--data", flawed, "--html", tmp_path / "page.html")
    assert cli(*words).code == 0
    assert cli(*words).code == 0  # nothing is decided yet
    listed = (tmp_path / "page.csv").read_text()
    (tmp_path / "page.csv").write_text(listed.replace(",\n", ",keep\n"))
    assert "has decisions in it" in cli(*words).err
    (tmp_path / "page.csv").write_text("price\n3\n")
    assert "is another file" in cli(*words).err


def test_names_in_a_page_run_nothing(flawed: Path, tmp_path: Path, cli: Cli) -> None:
    """A file's name is text, whatever is in it, also within the data of the script."""
    shutil.copy(flawed / "train" / "cat" / "00.png", flawed / "train" / "cat" / '"><script>alert(1)<.png')
    assert cli("doctor", "--data", flawed, "--html", tmp_path / "page.html").code == 0
    page = (tmp_path / "page.html").read_text()
    assert page.count("<script") == 1
    assert "&lt;script" in page or "u003cscript" in page


def test_label_errors_by_a_probe(photos: Path, saved_model: Path, tmp_path: Path, cli: Cli) -> None:
    """A digit in another class's folder is the first suspect."""
    moved = sorted((photos / "digit-0").iterdir())[0]
    moved.rename(photos / "digit-1" / "moved.jpg")
    done = cli("doctor", "--data", photos, "--model", saved_model, "--json")
    content = json.loads(done.out)["review"]
    suspects = [row for row in content["findings"] if row["finding"] == "label"]
    assert any((row["image"], row["suggestion"]) == ("digit-1/moved.jpg", "digit-0") for row in suspects[:3])
    assert "by the" not in done.err
    assert "(probe)" in " ".join(content["notes"])


@pytest.fixture
def runs(photos: Path, tmp_path: Path) -> Path:
    train_folds("imagenette", data=photos, out=tmp_path / "cv", folds=2, settings=pico("train.epochs=1"))
    return tmp_path / "cv"


def test_predictions_of_folds_are_out_of_sample(runs: Path, photos: Path) -> None:
    """Each picture is judged by the run that held it out, and by no other."""
    from resnest.health import by_model

    splits = resnest.open_dataset(photos)
    places, scores = by_model._by_folds(splits, [runs / "fold-0", runs / "fold-1"], "cpu")
    assert len(places) == len(set(places)) == len(splits.train) + len(splits.val)
    for number in (0, 1):
        fold = resnest.open_dataset(photos, fold=f"{number}/2")
        predict = resnest.Predictor(runs / f"fold-{number}", engine="torch")
        for index in range(3):
            key = fold.val.keys[index]
            [place] = [one for one in places if getattr(splits, one.part).keys[one.index] == key]
            mine = predict(fold.val.decode(index))
            assert np.allclose(scores[places.index(place)], mine.scores, atol=1e-4)  # type: ignore[attr-defined]


def test_what_a_model_has_seen(runs: Path, photos: Path, tmp_path: Path, cli: Cli) -> None:
    train("imagenette", data=photos, out=tmp_path / "run", settings=pico("train.epochs=1"))
    words = ("doctor", "--data", photos, "--model", tmp_path / "run")
    assert "was trained on these training pictures" in cli(*words).out
    assert "repeat their labels" in cli(*words, "--out-of-sample", "predictions").err
    assert "holds no folds" in cli(*words, "--out-of-sample", "folds").err
    assert "(folds)" in cli("doctor", "--data", photos, "--model", runs).out


def test_masks_that_disagree(saved_segmenter: Path) -> None:
    """A network with random weights agrees with few masks."""
    survey = Survey()
    report = check_dataset(saved_segmenter.with_name("streets"), on_picture=survey.add)
    assert report.splits is not None
    review = survey.review(report.splits, model=saved_segmenter, device="cpu")
    found = review.of("disagree")
    assert found
    assert [one.score for one in found] == sorted(one.score for one in found)
    assert all(0 <= one.score < 0.5 for one in found)


# --- `train --exclude` ---


def _list(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


LISTS: dict[str, tuple[str, str, set[str]]] = {
    "names": ("l.txt", "dog/01.png\n\ncat/00.png\n", {"dog/01.png", "cat/00.png"}),
    "a table without decisions": ("l.csv", "image\ndog/01.png\n", {"dog/01.png"}),
    "decisions": ("l.csv", "image,decision\ndog/01.png,exclude\ncat/00.png,keep\ncat/02.png,\n", {"dog/01.png"}),
    "a name in both parts": ("l.csv", "part,image,decision\ntrain,dog/01.png,exclude\n", {"dog/01.png"}),
}


@pytest.mark.parametrize(("name", "text", "gone"), LISTS.values(), ids=LISTS)
def test_lists(name: str, text: str, gone: set[str], flawed: Path, tmp_path: Path) -> None:
    shutil.copy(flawed / "val" / "dog" / "03.png", flawed / "val" / "dog" / "01.png")
    splits = resnest.open_dataset(flawed)
    left = read_exclusion(_list(tmp_path / name, text)).apply(splits)
    assert set(splits.train.keys) - set(left.train.keys) == gone
    in_val = {"dog/01.png"} if "train," not in text else set()
    assert set(splits.val.keys) - set(left.val.keys) == in_val
    assert f"{len(gone)} training and {len(in_val)} validation images" in left.describe()


BAD_LISTS = {
    "an unknown name": ("image\ncat/none.png\n", "1 picture that"),
    "of the other part": ("part,image\nval,cat/00.png\n", "1 picture that"),
    "an unknown decision": ("image,decision\ncat/00.png,drop\n", "line 2: the decision 'drop'"),
    "an unknown part": ("image,part\ncat/00.png,trian\n", "line 2: the part 'trian'"),
    "no names": ("file,decision\ncat/00.png,exclude\n", "no column image"),
    "nothing to leave out": ("image,decision\ncat/00.png,keep\n", "leaves out no picture"),
    "an empty one": ("image\n", "no line below"),
}


@pytest.mark.parametrize(("text", "said"), BAD_LISTS.values(), ids=BAD_LISTS)
def test_bad_lists(text: str, said: str, flawed: Path, tmp_path: Path, cli: Cli) -> None:
    listed = _list(tmp_path / "l.csv", text)
    done = cli("train", "imagenette", "--data", flawed, "--out", tmp_path / "run", "--exclude", listed)
    assert (done.code, len(done.err.strip().splitlines())) == (2, 1)
    assert said in done.err
    assert not (tmp_path / "run").exists()


def test_training_leaves_them_out(photos: Path, tmp_path: Path, cli: Cli) -> None:
    """Of both parts; the split of the others stays, and a resumed run has the same list."""
    splits = resnest.open_dataset(photos)
    gone = [splits.train.keys[0], splits.train.keys[5], splits.val.keys[1]]
    listed = _list(tmp_path / "l.txt", "\n".join(gone))
    settings = [word for setting in pico("train.epochs=1") for word in ("--set", setting)]
    words = ("train", "imagenette", "--data", photos, "--out", tmp_path / "run", "--exclude", listed, *settings)
    done = cli(*words)
    assert done.code == 0, done.err
    account: dict[str, Any] = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (account["train_images"], account["val_images"]) == (len(splits.train) - 2, len(splits.val) - 1)
    assert "left out by l.txt: 2 training and 1 validation images" in done.err
    assert cli("train", "--resume", tmp_path / "run").code == 0
    listed.write_text(gone[0])
    assert "is not the data that" in cli("train", "--resume", tmp_path / "run").err


BAD = {
    "nothing to look at": (["--model", "{model}"], "need --data"),
    "a way without a model": (["--data", "{photos}", "--out-of-sample", "probe"], "is for --model"),
    "an unknown way": (["--data", "{photos}", "--model", "{model}", "--out-of-sample", "guess"], "expected auto"),
    "labels that the model does not know": (
        ["--data", "{photos}", "--model", "{model}", "--out-of-sample", "predictions"],
        "the model does not know",
    ),
    "no such model": (["--data", "{photos}", "--model", "none"], "none"),
    "fewer pictures than folds": (["--data", "{few}", "--model", "{model}"], "too few to look for label errors"),
}


@pytest.mark.parametrize(("words", "said"), BAD.values(), ids=BAD)
def test_bad_input(words: list[str], said: str, photos: Path, saved_model: Path, tmp_path: Path, cli: Cli) -> None:
    for label in ("a", "b"):
        (tmp_path / "few" / label).mkdir(parents=True)
        for number in range(2):
            _scene(number + 10 * (label == "b")).save(tmp_path / "few" / label / f"{number}.png")
    named = {"{photos}": photos, "{model}": saved_model, "{few}": tmp_path / "few"}
    done = cli("doctor", *[named.get(word, word) for word in words])
    assert done.code == 2
    assert said in done.err.strip().splitlines()[-1]


def test_an_empty_list_is_refused_from_python(flawed: Path, tmp_path: Path) -> None:
    with pytest.raises(ResnestError, match="cannot be read"):
        train("imagenette", data=flawed, out=tmp_path / "run", settings={"data.exclude": str(tmp_path / "none.csv")})


def test_columns_of_the_page_are_those_of_the_list() -> None:
    """The page's script writes what the list has."""
    script = (Path(resnest.__file__).parent / "report" / "review.js").read_text()
    assert f"const columns = {json.dumps(list(COLUMNS[:-1]))};" in script
