"""Pictures of any channels and values through every task: training, evaluation, export, prediction, the server."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from conftest import Outcome, pico, shared_data
from multispectral import CLASSES, HIGH, LOW, scene, write_classes, write_masks, write_scene
from painted import TINY_RUN as TINY_DETECTION
from painted import paint
from painted_segments import TINY_PANOPTIC, paint_segments
from resnest.data.settings import DataSettings
from resnest.data.sources import open_dataset
from resnest.data.statistics import measure
from resnest.errors import ResnestError
from resnest.exporters.exporting import export
from resnest.inference.evaluation import evaluate
from resnest.inference.model import Model
from resnest.inference.predicting import Predictor
from resnest.recipes import find_recipe, override
from resnest.runtime.bands import Bands
from resnest.runtime.card import ModelCard
from resnest.runtime.decode import BadImage
from resnest.tasks import open_task
from resnest.training.folds import train_folds
from resnest.training.pictures import settle_pictures
from resnest.training.train import resume, train
from runs import lines
from servers import server

Cli = Callable[..., Outcome]

SEGMENT = (
    "model.spec={planes: [8, 8, 8, 8], stem_width: 4}", "model.pretrained=null", "segmenter.channels=32",
    "segmentation.base=64", "segmentation.crop=48", "segmentation.backbone_norm=batch", "train.epochs=8",
    "train.batch_size=4", "train.log_every=1", "train.save_every=4", "data.workers=0", "optim.warmup_steps=2",
    "optim.lr=0.05",
)  # fmt: skip


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_masks(tmp_path_factory.mktemp("scenes") / "data")


@pytest.fixture(scope="module")
def run(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A segmenter of four bands of 16 bits."""
    out = tmp_path_factory.mktemp("run") / "a"
    torch.manual_seed(0)
    train("segment_small", data=scenes, out=out, settings=[*SEGMENT, "data.in_chans=4", "data.jitter=0.1"])
    return out


def test_what_only_the_lower_byte_tells_is_learned(scenes: Path, run: Path) -> None:
    """Soil and water have the same upper 8 bits in every band."""
    assert LOW >> 8 == HIGH >> 8
    assert evaluate(run, scenes).figures["miou"] > 0.6  # one class everywhere has 0.4


def test_the_network_sees_values_beyond_eight_bits(run: Path) -> None:
    """Two pictures that are one in their upper bytes become two inputs, by as much as the card says."""
    card = ModelCard.read(run)
    pixels = np.full((64, 64, 4), LOW, np.uint16)
    other = pixels.copy()
    other[..., 3] = HIGH
    assert (pixels >> 8 == other >> 8).all()
    prepare = Predictor(run, device="cpu").prepare
    apart = prepare(other, "b").pixels - prepare(pixels, "a").pixels  # (4, 64, 64)
    assert not apart[:3].any()
    np.testing.assert_allclose(apart[3], (HIGH - LOW) / 65535 / card.preprocess.std[3], rtol=1e-3)


def test_what_a_run_keeps_of_its_pictures(run: Path, scenes: Path, tmp_path: Path) -> None:
    card, recipe = ModelCard.read(run), yaml.safe_load((run / "recipe.yaml").read_text())["data"]
    assert (card.in_chans, card.preprocess.value_range) == (4, 65535)
    assert card.bands == Bands(4, 65535)
    assert list(card.preprocess.mean) == recipe["mean"]
    assert (recipe["in_chans"], recipe["value_range"], len(recipe["std"])) == (4, 65535, 4)
    assert "4 channels, values up to 65535" in card.describe_input()
    assert ModelCard.from_json(card.to_json(), where="card") == card
    net = Model.from_pretrained(run).net
    assert next(net.backbone.parameters()).shape[1] == 4
    assert "data:image/jpeg" in (run / "data.html").read_text()


def test_training_says_what_it_reads(scenes: Path, tmp_path: Path, cli: Cli) -> None:
    settings = [*SEGMENT, "data.in_chans=4", "data.jitter=0.1", "train.max_steps=1"]
    words = [word for setting in settings for word in ("--set", setting)]
    said = cli("train", "segment_small", "--data", scenes, "--out", tmp_path / "a", *words)
    assert said.code == 0, said.err
    text = said.out + said.err
    assert "pictures: 4 channels of uint16, values from 4608 to 4863 in 10 of 10 training pictures" in text
    assert "65535 counts as 1.0 (data.value_range)" in text
    assert "16-bit values go up to 4863 only: data.value_range=8191 is for 13 bits" in text
    assert "data.mean=[0.07" in text
    assert "the saturation of data.jitter=0.1 left out" in text


def test_a_stopped_run_goes_on_with_its_own_numbers(scenes: Path, tmp_path: Path) -> None:
    settings = [*SEGMENT, "data.in_chans=4", "train.epochs=2"]
    train("segment_small", data=scenes, out=tmp_path / "a", settings=[*settings, "train.max_steps=3"])
    recipe = override(find_recipe("segment_small"), settings)
    assert recipe.data.mean == ()
    resume(tmp_path / "a", recipe=recipe, settings=["train.max_steps=null"])
    assert [line["step"] for line in lines(tmp_path / "a", "train")] == [1, 2, 3, 4]
    with pytest.raises(ResnestError, match=r"data.value_range is 65535.0 there and 8191.0 here"):
        resume(tmp_path / "a", settings=["data.value_range=8191"])


def test_export_gives_the_same(run: Path, scenes: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    written = export(run, out=tmp_path / "model.onnx", format="onnx")
    assert written.parity.ok
    own, theirs = evaluate(run, scenes).figures, evaluate(written.path, scenes).figures
    assert theirs["miou"] == pytest.approx(own["miou"], abs=0.002)
    for refused in ({"kit": tmp_path / "kit"}, {"bake_preprocessing": "nhwc", "out": tmp_path / "b.onnx"}):
        with pytest.raises(ResnestError, match=r"4 channels, values up to 65535"):
            export(run, **refused)  # type: ignore[arg-type]


def test_predict_reads_bands_and_draws_them(run: Path, scenes: Path, tmp_path: Path, cli: Cli) -> None:
    pictures = tmp_path / "pictures"
    for name, channels in (("a.tif", 4), ("b.npy", 4), ("three.tif", 3)):
        write_scene(pictures / name, scene(1, channels)[0])
    Image.new("RGB", (64, 64)).save(pictures / "photo.png")
    files = sorted(pictures.iterdir())
    told = cli("predict", run, *files, "--json", "--draw", tmp_path / "drawn", "--bands", "4,3,1", "--device", "cpu")
    assert told.code == 2
    assert "three.tif: has 3 bands, and in_chans=4 are expected" in told.err
    assert "photo.png: has 3 bands (RGB), and in_chans=4 are expected" in told.err
    results = [json.loads(line) for line in told.out.splitlines()]
    assert [Path(result["image"]).name for result in results] == ["a.tif", "b.npy"]
    assert results[0]["segments"] == results[1]["segments"]
    assert {path.name for path in (tmp_path / "drawn").glob("*.jpg")} == {"a.jpg", "b.jpg"}
    folder = cli("predict", run, scenes / "images", "--device", "cpu")
    assert folder.code == 0, folder.err
    assert len(folder.out.splitlines()) == 12
    wrong = cli("predict", run, files[0], "--draw", tmp_path / "other", "--bands", "9", "--device", "cpu")
    assert "bands 9: expected one or three of the picture's, which are 1 to 4" in wrong.err


def test_the_server_takes_the_same_files(run: Path, scenes: Path, tmp_path: Path) -> None:
    picture = scenes / "images" / "00.tif"
    with server(tmp_path, run, "--device", "cpu") as running:
        whole = running.post("/predict", content=picture.read_bytes(), headers={"content-type": "image/tiff"})
        assert whole.status_code == 200, whole.text
        ours = Predictor(run, device="cpu")(picture).to_dict()
        assert [one["label"] for one in whole.json()["segments"]] == [one["label"] for one in ours["segments"]]
        drawn = running.post("/predict?draw=1", content=picture.read_bytes())
        assert drawn.status_code == 200
        photo = _png(np.zeros((8, 8, 3), np.uint8))
        refused: httpx.Response = running.post("/predict", content=photo)
        assert refused.status_code == 422
        assert "in_chans=4" in refused.text


def _png(pixels: Any) -> bytes:
    import io

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_batch_jobs_take_them_too(run: Path, scenes: Path, tmp_path: Path, cli: Cli) -> None:
    out = tmp_path / "results.jsonl"
    told = cli("predict", run, scenes / "images", "--out", out, "--device", "cpu")
    assert told.code == 0, told.err
    assert len(out.read_text().splitlines()) == 12


def test_the_doctor_tells_channels_and_ranges(scenes: Path, tmp_path: Path, cli: Cli) -> None:
    told = cli("doctor", "--data", scenes, "--stats", "--html", tmp_path / "data.html")
    assert told.code == 0, told.out
    assert "training pictures: 4 channels of uint16, values from 4608 to 4863 (data.in_chans=4)" in told.out
    assert "--set 'data.in_chans=4' --set 'data.mean=[0.07" in told.out
    data = write_classes(tmp_path / "data", channels=2, dtype="int16")
    refused = cli("doctor", "--data", data)
    assert refused.code == 2
    assert "int16 values, here 4608 to 486" in refused.out
    given = cli("doctor", "--data", data, "--in-chans", "2", "--value-range", "8191", "--json")
    assert given.code == 0, given.out
    values = json.loads(given.out)["values"]
    assert (values["in_chans"], values["types"]["int16"]["min"] >= 4608) == (2, True)


def test_the_benchmark_on_photographs_with_a_computed_band(tmp_path: Path, cli: Cli) -> None:
    """CamVid as four bands of 16 bits, from the doctor to prediction: the network is given the values of the files."""
    if not (camvid := shared_data() / "camvid").is_dir():
        pytest.skip("needs the shared data set camvid")
    script = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "multispectral.py"))

    def command(*words: str | Path) -> str:
        told = cli(*words)
        assert told.code == 0, told.err
        return told.out

    data = script["write_data"](camvid, tmp_path / "data", script["SMOKE_PICTURES"], script["SMOKE_SIDE"])
    settings = [*script["ALWAYS"], *script["SMOKE"], "train.max_steps=2"]
    told = script["through_the_chain"](data, tmp_path / "run", settings, command)
    assert (told["bands"], told["predicted"]) == (4, script["SMOKE_PICTURES"]["val"])
    assert float(told["miou_onnx"]) == pytest.approx(float(told["miou"]), abs=1e-3)
    arrived = script["arriving"](tmp_path / "run", script["pictures_of"](data))
    assert arrived["values"] == 2 * 4 * script["SMOKE_SIDE"] ** 2
    assert float(arrived["above_255"]) > 0.9
    assert float(arrived["exact"]) == 1
    assert float(arrived["exact_of_8_bits"]) < 0.9  # the computed band needs more


# --- Classification: grey, with alpha, NumPy's, floats ---

KINDS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "grey PNG": ({"channels": 1, "dtype": "uint8", "suffix": ".png"}, ["data.in_chans=1", "data.shift=0.1"]),
    "grey PNG as RGB": ({"channels": 1, "dtype": "uint8", "suffix": ".png"}, []),
    "16-bit grey PNG": ({"channels": 1, "dtype": "uint16", "suffix": ".png"}, ["data.in_chans=1"]),
    "RGBA": ({"channels": 4, "dtype": "uint8", "suffix": ".png"}, ["data.in_chans=4", "data.erase=0.5"]),
    "RGB of 16 bits": ({"channels": 3, "suffix": ".tif"}, ["data.mean=[]", "data.std=[]"]),
    "NumPy's": ({"channels": 5, "suffix": ".npy"}, ["data.in_chans=5", "data.jitter=0.2", "train.mixup=0.2"]),
    "floats": ({"channels": 6, "dtype": "float32", "suffix": ".tif"}, ["data.in_chans=6", "data.augment=trivial"]),
    "a range": ({"channels": 2, "suffix": ".tif"}, ["data.in_chans=2", "data.value_range=8191", "data.erase=0.5"]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_classifiers(kind: str, tmp_path: Path) -> None:
    how, settings = KINDS[kind]
    data = write_classes(tmp_path / "data", **how)
    out = tmp_path / "a"
    result = train("imagenette", data=data, out=out, settings=pico("data.flip=true", *settings))
    card = ModelCard.read(out)
    assert card.in_chans == Model.from_pretrained(out).net.conv1.in_channels
    assert evaluate(out, data).figures == pytest.approx(result.figures)
    picture = next((data / "water").iterdir())
    assert Predictor(out, device="cpu")(picture).label in CLASSES


def test_a_photograph_for_a_model_of_grey(tmp_path: Path) -> None:
    """Colours become grey, which training says; values of 16 bits need a model of them."""
    data = write_classes(tmp_path / "data", channels=3, dtype="uint8", suffix=".png")
    splits = open_dataset(data, bands=Bands(1))
    meter = measure(splits.train)
    assert list(meter.notes()) == ["12 pictures in colours read as grey (data.in_chans=1)"]
    colours = np.asarray(Image.open(data / CLASSES[0] / "00.png").convert("L"))
    index = list(splits.train.keys).index(f"{CLASSES[0]}/00.png")
    np.testing.assert_array_equal(np.asarray(splits.train.decode(index))[..., 0], colours)


# --- Detection and panoptic networks ---


def _with_bands(root: Path, folder: Path, texts: Path) -> None:
    """Pictures become TIFF of four bands of 16 bits."""
    for path in sorted(folder.rglob("*.png")):
        pixels = np.asarray(Image.open(path).convert("RGB")).astype(np.uint16) * 40
        write_scene(path.with_suffix(".tif"), np.concatenate([pixels, pixels.max(2, keepdims=True)], axis=2))
        path.unlink()
    for file in texts.glob("*.json"):
        content = json.loads(file.read_text())
        for image in content["images"]:
            image["file_name"] = image["file_name"].replace(".png", ".tif")
        file.write_text(json.dumps(content))


def test_detectors(tmp_path: Path) -> None:
    root = paint(tmp_path / "data", 3)
    _with_bands(root, root / "images", root / "annotations")
    settings = [*TINY_DETECTION, "train.max_steps=2", "data.in_chans=4", "data.jitter=0.1"]
    result = train("instances_small", data=root, out=tmp_path / "a", settings=settings)
    assert ModelCard.read(tmp_path / "a").bands == Bands(4, 65535)
    assert evaluate(tmp_path / "a", root).figures == pytest.approx(result.figures, nan_ok=True)
    found = Predictor(tmp_path / "a", device="cpu")(next((root / "images").rglob("*.tif")))
    assert found.draw(next((root / "images").rglob("*.tif"))).mode == "RGB"


def test_panoptic_networks(tmp_path: Path) -> None:
    root = paint_segments(tmp_path / "data", 3)
    for part in ("train", "val"):
        _with_bands(root, root / part, root / "annotations")
    settings = [*TINY_DETECTION, *TINY_PANOPTIC, "train.max_steps=2", "data.in_chans=4"]
    result = train("panoptic_small", data=root, out=tmp_path / "a", settings=settings)
    assert ModelCard.read(tmp_path / "a").bands == Bands(4, 65535)
    assert evaluate(tmp_path / "a", root).figures == pytest.approx(result.figures, nan_ok=True)


# --- Settings, and data that differ ---

WRONG_SETTINGS = {
    "mean of another length": (
        ["data.in_chans=4", "data.mean=[0.5]", "data.std=[0.2]"],
        r"data.mean=\[0.5\] with da",
    ),
    "std of another length": (["data.std=[0.5, 0.5]"], r"data.std=\[0.5, 0.5\] with data.in_chans=3: give a number a"),
    "mean alone": (
        ["data.in_chans=1", "data.mean=[0.5]"],
        r"data.mean is given and data.std is not: give both",
    ),
    "no channel": (["data.in_chans=0"], r"data.in_chans=0 must lie in"),
    "too many": (["data.in_chans=2000"], r"data.in_chans=2000 must lie in"),
    "no range": (["data.value_range=0"], r"data.value_range=0.0 must be"),
    "std of 0": (["data.in_chans=1", "data.mean=[0.5]", "data.std=[0]"], r"data.std=\[0.0\] must be"),
}


@pytest.mark.parametrize("case", WRONG_SETTINGS)
def test_settings_that_do_not_fit(case: str) -> None:
    settings, message = WRONG_SETTINGS[case]
    with pytest.raises(ResnestError, match=message):
        override(find_recipe("imagenette"), settings)


def test_settings_of_photographs_are_as_before() -> None:
    assert DataSettings().mean == (0.485, 0.456, 0.406)
    assert DataSettings().bands.plain
    assert DataSettings(in_chans=4).mean == ()
    own = DataSettings(in_chans=1, mean=(0.5,), std=(0.2,))
    assert (own.preprocess.mean, own.preprocess.std) == ((0.5,), (0.2,))


def test_channels_that_differ_are_refused_or_counted(tmp_path: Path) -> None:
    data = write_classes(tmp_path / "few", 40, channels=4)
    write_scene(data / CLASSES[0] / "00.tif", scene(0, 3)[0])
    settings = pico("data.in_chans=4", "train.max_steps=20", "train.epochs=1")
    train("imagenette", data=data, out=tmp_path / "a", settings=settings)
    said = json.dumps([*lines(tmp_path / "a"), (tmp_path / "a" / "bad_images.jsonl").read_text()])
    assert "has 3 bands, and in_chans=4 are expected" in said
    with pytest.raises(ResnestError, match=r"none of \d+ training pictures can be used: .*has 4 bands, and in_chans=3"):
        train("imagenette", data=write_classes(tmp_path / "four", 4), out=tmp_path / "b", settings=pico())


def test_a_byte_picture_among_others_is_named(tmp_path: Path) -> None:
    """The run keeps the range of 16 bits, in which bytes would be black."""
    data = write_masks(tmp_path / "data", 40)
    splits = open_dataset(data, bands=Bands(4))
    write_scene(data / "images" / splits.train.keys[1], scene(1, dtype="uint8")[0])
    recipe = override(find_recipe("segment_small"), [*SEGMENT, "data.in_chans=4"])
    plain = settle_pictures(recipe, splits)[0]
    assert plain.data.value_range is None  # both are among those looked at: each counts by its own type
    chosen, read, _ = settle_pictures(override(recipe, ["data.value_range=65535"]), splits)
    assert chosen.data.bands == read.train.bands == read.val.bands == Bands(4, 65535)
    with pytest.raises(BadImage, match=r"has 8-bit values, and data.value_range=65535 is for larger ones"):
        read.train.decode(1)


def test_folds_are_left_or_gone_on_with(tmp_path: Path) -> None:
    data = write_classes(tmp_path / "data")
    recipe = override(find_recipe("imagenette"), pico("data.in_chans=4", "train.epochs=1"))
    for _ in range(2):  # the second time both are finished
        result = train_folds(recipe, data=data, out=tmp_path / "cv", folds=2)
    assert len(result.folds) == 2


def test_a_stem_of_rgb_is_adapted(tmp_path: Path) -> None:
    colours = write_classes(tmp_path / "rgb data", channels=3, dtype="uint8", suffix=".png")
    train("imagenette", data=colours, out=tmp_path / "rgb", settings=pico("train.epochs=1"))
    settings = pico("data.in_chans=4", "train.epochs=1", f"model.pretrained={tmp_path / 'rgb'}")
    train("imagenette", data=write_classes(tmp_path / "data"), out=tmp_path / "adapted", settings=settings)
    assert ModelCard.read(tmp_path / "adapted").in_chans == 4


def test_a_mask_of_another_size(tmp_path: Path) -> None:
    data = write_masks(tmp_path, 4)
    write_scene(data / "images" / "00.tif", scene(0)[0][:32])
    samples = open_dataset(data, bands=Bands(4)).unsplit
    assert samples is not None
    with pytest.raises(BadImage, match=r"00.tif: has 64 x 32 pixels, but is annotated as 64 x 64"):
        samples.decode(0)


def test_a_batch_of_bytes_and_others(tmp_path: Path) -> None:
    """Each counts to its own full value: one network sees both alike."""
    data = write_classes(tmp_path, 6, channels=2)
    for path in (data / CLASSES[0]).iterdir():
        write_scene(path, (np.full((64, 64, 2), 0x80, np.uint8)))
    recipe = override(find_recipe("imagenette"), pico("data.in_chans=2", "data.mean=[0,0]", "data.std=[1,1]"))
    samples = open_dataset(data, bands=recipe.data.bands).train
    task = open_task(recipe, samples)
    dataset = task.dataset(samples)
    batch = dataset.collate([dataset[(0, index, 0)] for index in range(len(samples))])
    assert batch.images.dtype == torch.float32
    for image, label in zip(batch.images, batch.labels, strict=True):
        expected = 128 / 255 if label == 0 else 0x1280 / 65535
        assert float(image.mean()) == pytest.approx(expected, rel=0.05)
