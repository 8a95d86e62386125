"""The command line: every verb on real files, and one clear line with exit code 2 for every mistake."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from conftest import Outcome, pico, write_photos
from resnest.training.train import train

Cli = Callable[..., Outcome]


def _settings(*more: str) -> list[str]:
    return [part for setting in pico(*more) for part in ("--set", setting)]


@pytest.fixture(scope="module")
def trained(digit_images: list[tuple[str, Image.Image]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    photos = write_photos(folder / "photos", digit_images)
    train("imagenette", data=photos, out=folder / "run", settings=pico())
    return folder / "run"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A finished run, to do with as one likes."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def test_train_tells_how_it_goes(cli: Cli, photos: Path, tmp_path: Path) -> None:
    outcome = cli("train", "imagenette", "--data", photos, "--out", tmp_path / "run", *_settings())
    assert outcome.code == 0, outcome.err
    assert "report:" in outcome.out
    assert "epoch 2/2  top-1" in outcome.err


def test_evaluate(cli: Cli, run: Path, photos: Path) -> None:
    text = cli("evaluate", run, "--data", photos)
    assert text.code == 0
    assert "95 % interval" in text.out
    figures = json.loads(cli("evaluate", run, "--data", photos, "--json").out)
    assert 0 <= figures["top1"] <= 1
    assert f"{figures['top1']:.2%}" in text.out
    assert set(figures["per_class"]) == {"digit-0", "digit-1", "digit-2", "digit-3"}
    whole = json.loads(cli("evaluate", run, "--data", photos, "--json", "--split", "all").out)
    assert whole["images"] == len(list(photos.rglob("*.jpg")))


def test_predict_files_folders_and_globs(cli: Cli, run: Path, photos: Path) -> None:
    files = sorted(photos.rglob("*.jpg"))
    one = cli("predict", run, files[0])
    assert one.out.startswith(f"{files[0]}: digit-")
    folder = cli("predict", run, photos, "--top", "3", "--json")
    rows = [json.loads(line) for line in folder.out.splitlines()]
    assert [row["image"] for row in rows] == [str(path) for path in files]
    assert all(len(row["top"]) == 3 and 0 <= row["top"][0]["score"] <= 1 for row in rows)
    table = list(csv.DictReader(io.StringIO(cli("predict", run, f"{photos}/**/*.jpg", "--csv", "--top", "2").out)))
    assert len(table) == 2 * len(files)
    assert [row["rank"] for row in table[:2]] == ["1", "2"]


def test_predict_draws(cli: Cli, run: Path, photos: Path, tmp_path: Path) -> None:
    first, second = (photos / "digit-0", photos / "digit-1")
    (second / "same.jpg").write_bytes((sorted(second.iterdir())[0]).read_bytes())
    (first / "same.jpg").write_bytes((sorted(first.iterdir())[0]).read_bytes())
    outcome = cli("predict", run, first / "same.jpg", second / "same.jpg", "--top", "3", "--draw", tmp_path / "out")
    assert outcome.code == 0
    drawn = sorted((tmp_path / "out").rglob("*.jpg"))
    assert drawn == [tmp_path / "out" / folder / "same.jpg" for folder in ("digit-0", "digit-1")]
    with Image.open(drawn[0]) as picture:
        assert picture.width >= 320
        assert picture.height > picture.width * 32 / 40  # the panel below the picture


def test_a_bad_image_is_named_and_the_others_go_on(cli: Cli, run: Path, photos: Path) -> None:
    bad = photos / "digit-0" / "000-broken.jpg"
    bad.write_bytes(b"")
    outcome = cli("predict", run, photos / "digit-0")
    assert outcome.code == 2
    assert f"skipped: {bad}: empty file" in outcome.err
    assert len(outcome.out.splitlines()) == len(list((photos / "digit-0").iterdir())) - 1


def test_models_and_recipes(cli: Cli) -> None:
    text = cli("models").out
    rows = json.loads(cli("models", "--json").out)
    assert len(rows) == 15
    assert all(row["name"] in text for row in rows)
    assert next(row for row in rows if row["name"] == "resnest50")["parameters"] == 27_483_240
    assert "imagenette" in cli("recipes").out
    assert "epochs:" in cli("recipes", "show", "imagenette").out


def test_a_recipe_printed_can_be_trained_with(cli: Cli, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(cli("recipes", "show", "imagenette").out)
    arguments = ["train", tmp_path / "mine.yaml", "--data", photos, "--out", tmp_path / "run"]
    assert cli(*arguments, *_settings("train.epochs=1")).code == 0


def test_doctor(cli: Cli, photos: Path) -> None:
    assert "torch" in cli("doctor").out
    assert cli("doctor", "--data", photos).code == 0
    (photos / "digit-0" / "broken.jpg").write_bytes(b"")
    copied = sorted((photos / "digit-1").iterdir())[0]
    (photos / "digit-2" / "copy.jpg").write_bytes(copied.read_bytes())
    outcome = cli("doctor", "--data", photos)
    assert outcome.code == 2
    assert "broken.jpg: empty file" in outcome.out
    assert "is the same picture as" in outcome.out
    assert "2 problems" in outcome.out
    assert len(json.loads(cli("doctor", "--data", photos, "--json").out)["problems"]) == 2


def test_version_and_help(cli: Cli) -> None:
    assert cli("--version").out.startswith("1.")
    assert cli("--help").code == 0


def test_saving_replaces_nothing(cli: Cli, run: Path, tmp_path: Path) -> None:
    assert cli("models", "save", run, tmp_path / "saved").code == 0
    outcome = cli("models", "save", run, tmp_path / "saved")
    told = "saved has config.json and model.safetensors and README.md already: take another folder, or --overwrite"
    assert (outcome.code, told in outcome.err) == (2, True)
    assert cli("models", "save", run, tmp_path / "saved", "--overwrite").code == 0


def test_pushing_without_a_network(cli: Cli, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is told to log in where no one answers."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    outcome = cli("models", "push", run, "someone/something")
    assert outcome.code == 2
    assert "could not be uploaded: no connection to 127.0.0.1" in outcome.err
    assert "log in" not in outcome.err


MISTAKES: dict[str, tuple[list[str], str]] = {
    "no recipe named": (["recipes", "show"], "name a recipe; `resnest recipes` lists them"),
    "a recipe as action": (["recipes", "digits"], "`resnest recipes show digits` prints this recipe"),
    "no such data format": (
        ["doctor", "--data", "PHOTOS", "--format", "foo"],
        "Known: folder, inner-folders, zip, npz, csv, tar",
    ),
    "unknown recipe": (["train", "imagenett", "--data", "PHOTOS", "--out", "OUT"], "Did you mean 'imagenette'"),
    "unknown setting": (
        ["train", "imagenette", "--data", "PHOTOS", "--out", "OUT", "--set", "optim.lrr=1"],
        "Did you mean 'optim.lr'",
    ),
    "unknown network": (
        ["train", "imagenette", "--data", "PHOTOS", "--out", "OUT", "--set", "model.name=resnest55"],
        "Did you mean 'resnest50'",
    ),
    "no data": (["train", "imagenette", "--data", "OUT/nothing", "--out", "OUT"], "there is no data at"),
    "no data named": (["train", "imagenette", "--out", "OUT"], "--data missing"),
    "one sample per device": (
        ["train", "imagenette", "--data", "PHOTOS", "--out", "OUT", "--set", "train.batch_size=1"],
        "one value per sample",
    ),
    "no checkpoint to start from": (
        ["train", "imagenette", "--data", "PHOTOS", "--out", "OUT", "--set", "model.pretrained=gone.pth"],
        "there is no model at gone.pth",
    ),
    "resume what is no run": (["train", "--resume", "PHOTOS"], "is not a run that can be resumed"),
    "resume with another recipe": (["train", "digits", "--resume", "RUN"], "was started with other settings: "),
    "resume with other settings": (
        ["train", "--resume", "RUN", "--set", "train.epochs=9", "--set", "optim.lr=0.5"],
        "other settings: optim.lr is 0.004 there and 0.5 here; train.epochs is 2 there and 9 here. A run keeps its",
    ),
    "go on with no run": (["train", "imagenette", "--data", "PHOTOS", "--go-on"], "--go-on goes with --resume RUN"),
    "resume elsewhere": (["train", "--resume", "RUN", "--out", "OUT"], "leave out --out"),
    "a run already there": (["train", "imagenette", "--data", "PHOTOS", "--out", "RUN"], "already holds a run"),
    "no model": (["predict", "OUT/nothing", "PHOTOS"], "there is no model at"),
    "a published name": (["predict", "resnest50", "PHOTOS"], "the network is off"),
    "an unknown name": (["predict", "resnest5", "PHOTOS"], "Did you mean 'resnest50'"),
    "an image as model": (["predict", "PHOTO", "PHOTOS"], "damaged or no checkpoint"),
    "no images": (["predict", "RUN", "RUN/checkpoints"], "no images in"),
    "an empty glob": (["predict", "RUN", "PHOTOS/*.gif"], "no file matches"),
    "two outputs": (["predict", "RUN", "PHOTOS", "--json", "--csv"], "exclude each other"),
    "no gpu": (["predict", "RUN", "PHOTOS", "--device", "cuda"], "no usable GPU"),
    "no such device": (["predict", "RUN", "PHOTOS", "--device", "abacus"], "expected auto, cpu or cuda"),
    "other classes": (["evaluate", "RUN", "--data", "digits"], "10 classes that the model does not know"),
    "no such split": (["evaluate", "RUN", "--data", "PHOTOS", "--split", "middle"], "auto, val, test, train or all"),
    "unknown action": (["recipes", "shwo", "digits"], "Did you mean 'show'"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_get_one_line(
    case: str, cli: Cli, photos: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    arguments, message = MISTAKES[case]
    places = {"PHOTOS": photos, "OUT": tmp_path / "out", "PHOTO": next(photos.rglob("*.jpg"))}
    if any("RUN" in argument for argument in arguments):
        places["RUN"] = request.getfixturevalue("run")
    for word, place in places.items():
        arguments = [
            argument.replace(word, str(place)) if argument.split("/")[0] == word else argument for argument in arguments
        ]
    outcome = cli(*arguments)
    assert outcome.code == 2
    told = outcome.err.strip().splitlines()
    assert re.search(message, told[-1]), told
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "out").exists()


def test_debug_shows_the_traceback(cli: Cli, photos: Path) -> None:
    with pytest.raises(ValueError, match="imagenette"):
        cli("train", "imagenett", "--data", photos, "--out", "x", "--debug")


def test_a_run_without_a_name_gets_one(
    photos: Path, tmp_path: Path, cli: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [word for setting in pico("train.max_steps=1") for word in ("--set", setting)]
    for directory in ("imagenette", "imagenette-2"):
        assert f"report: runs/{directory}/report.html" in cli("train", "imagenette", "--data", photos, *words).out
