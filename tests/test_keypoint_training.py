"""Keypoints from training to drawings: on small squares, with every verb."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import resnest
from conftest import Outcome
from kits import run_python
from posed import NAMES, SIDE, write_coco, write_yolo
from resnest.data.order import seeded
from resnest.data.sources import open_dataset
from resnest.errors import ResnestError
from resnest.exporters.exporting import Exported
from resnest.inference.evaluation import evaluate_samples
from resnest.keypoints.coco import read_coco
from resnest.keypoints.evaluation import KeypointScorer
from resnest.keypoints.heatmaps import decode
from resnest.keypoints.recipes import PUBLISHED, RECIPES, row_name
from resnest.keypoints.result import Poses
from resnest.keypoints.task import KeypointTask
from resnest.keypoints.top_down import BoxSource
from resnest.keypoints.transforms import KeypointDataset
from resnest.recipes.reading import find_recipe, override
from resnest.runtime.engines.exported import Views
from runs import checkpoint, losses
from small import small

SETTINGS = [
    "model.spec={planes: [8, 16, 32, 64], stem_width: 4, attention_norm: layer}",
    "head.channels=32",
    "keypoints.width=64",
    "keypoints.height=64",
    "keypoints.rotate=0",
    "data.workers=0",
    "data.jitter=0",
    "train.epochs=40",
    "train.batch_size=12",
    "train.log_every=5",
    "optim.lr=0.01",
    "optim.warmup_steps=5",
    "optim.lr_batch=null",
]  # fmt: skip
QUICK = [*SETTINGS, "train.epochs=1"]


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco(tmp_path_factory.mktemp("keypoints") / "tiles")


@pytest.fixture(scope="module")
def run(tiles: Path) -> Path:
    """Learns its training pictures by heart."""
    out, same = tiles.with_name("run"), tiles / "annotations/keypoints_val.json"
    before = same.read_text()
    try:  # validation on what is learned
        same.write_text((tiles / "annotations/keypoints_train.json").read_text())
        resnest.train("keypoints_small", data=tiles, out=out, settings=SETTINGS)
    finally:
        same.write_text(before)
    return out


@pytest.fixture(scope="module")
def exported(run: Path, tiles: Path) -> Exported:
    pytest.importorskip("onnxruntime")
    return resnest.export(run, format="onnx", out=run.with_name("tiles.onnx"), images=tiles)


def test_it_learns_squares_by_heart(run: Path) -> None:
    card = resnest.ModelCard.read(run)
    assert card.figures["ap"] > 0.95
    assert (card.class_names, card.thing) == (tuple(NAMES), "tile")  # type: ignore[attr-defined]
    page = (run / "report.html").read_text()
    assert "Keypoints" in page
    assert "OKS AP75" in page
    assert (run / "data.html").is_file()


def test_a_run_goes_on_as_it_would_have(tiles: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    for out in (first, second):
        resnest.train("keypoints_small", data=tiles, out=out, settings=[*QUICK, "train.save_every=1"])
    newest = sorted((second / "checkpoints").glob("step-*.pt"))
    newest[-1].unlink()
    resnest.resume(second)
    assert losses(first) == losses(second)
    ours, theirs = checkpoint(first)["model"], checkpoint(second)["model"]
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_evaluation_with_and_without_a_mirror(run: Path, tiles: Path, exported: Exported) -> None:
    plain = resnest.evaluate(run, data=tiles)
    assert plain.figures["ap"] > 0.5  # pictures that it has not seen
    assert resnest.evaluate(exported.path, data=tiles).figures["ap"] == pytest.approx(plain.figures["ap"], abs=1e-3)
    mirrored = resnest.evaluate(run, data=tiles, views=Views(flip=True))
    assert mirrored.count == plain.count == 12
    assert mirrored.similarity == pytest.approx(plain.similarity, abs=0.05)  # type: ignore[attr-defined]
    assert mirrored.similarity.tolist() != plain.similarity.tolist()  # type: ignore[attr-defined]
    with pytest.raises(ResnestError, match="a keypoint model has no scales"):
        resnest.evaluate(run, data=tiles, views=Views((0.5,)))


def test_mirrored_views_are_looked_at_in_batches(run: Path, tiles: Path) -> None:
    """As one by one, but for the rounding of sums."""
    predictor = resnest.Predictor(run, engine="torch")
    samples = open_dataset(tiles, task="keypoints").val.aligned(predictor.card, "tiles")
    sizes: list[int] = []

    def engine(pixels: Any, inner: Any) -> Any:
        sizes.append(len(pixels))
        return predictor.engine(pixels, inner)

    how: dict[str, Any] = {"workers": 0, "views": Views(flip=True)}
    several, alone = (
        evaluate_samples(engine, samples, predictor.card, batch_size=size, **how)  # type: ignore[arg-type]
        for size in (5, 1)
    )
    assert sizes == [5, 5, 5, 5, 2, 2, *[1] * 24]
    assert several.figures == pytest.approx(alone.figures, abs=1e-6, nan_ok=True)
    assert several.similarity == pytest.approx(alone.similarity, abs=1e-5)  # type: ignore[attr-defined]


def test_two_processes_come_to_the_same(run: Path, tiles: Path) -> None:
    predictor = resnest.Predictor(run, engine="torch")
    samples = open_dataset(tiles, task="keypoints").val.aligned(predictor.card, "tiles")
    how: dict[str, Any] = {"batch_size": 5, "workers": 0}
    whole = evaluate_samples(predictor.engine, samples, predictor.card, **how)
    parts: list[Any] = []
    with pytest.raises(RuntimeError, match="kept"):
        evaluate_samples(predictor.engine, samples, predictor.card, rank=1, world_size=2, gather=_keep(parts), **how)
    both = evaluate_samples(
        predictor.engine, samples, predictor.card, rank=0, world_size=2, gather=lambda mine: [mine, *parts], **how
    )
    assert both.figures == pytest.approx(whole.figures, abs=0, nan_ok=True)
    assert isinstance(parts[0][0], KeypointScorer)


def _keep(parts: list[Any]) -> Callable[[Any], list[Any]]:
    def gather(mine: Any) -> list[Any]:
        parts.append(mine)
        raise RuntimeError("kept")

    return gather


# --- boxes, predictions, drawings ---


def boxes_of(tiles: Path, path: Path, *, results: bool = False) -> Path:
    """The annotated boxes of the validation pictures as detections, and a false one."""
    content = json.loads((tiles / "annotations/keypoints_val.json").read_text())
    found = [
        {
            "image_id": one["image_id"],
            "category_id": 3,
            "score": 0.9,
            "bbox": one["bbox"],
        }
        for one in content["annotations"]
    ]
    found.append({"image_id": 0, "category_id": 3, "score": 0.1, "bbox": [40, 40, 20, 20]})
    whole = {"images": content["images"], "categories": [{"id": 3, "name": "tile"}], "annotations": found}
    path.write_text(json.dumps(found if results else whole))
    return path


@pytest.mark.parametrize("results", [False, True])
def test_boxes_of_a_file(results: bool, run: Path, tiles: Path, tmp_path: Path) -> None:
    plain = resnest.evaluate(run, data=tiles)
    found = resnest.evaluate(run, data=tiles, boxes=boxes_of(tiles, tmp_path / "found.json", results=results))
    assert found.count == plain.count + 1
    assert found.figures["ar"] == pytest.approx(plain.figures["ar"], abs=0.05)
    assert found.lines()[-1] == "crops around boxes of a detector"


def test_predict_with_boxes(run: Path, tiles: Path, tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    boxes = boxes_of(tiles, tmp_path / "found.json")
    photos = sorted((tiles / "images/val").iterdir())[:3]
    told = cli("predict", run, *photos, "--boxes", boxes, "--json", "--threshold", 0.3, "--draw", tmp_path / "drawn")
    assert told.code == 0, told.err
    rows = [json.loads(line) for line in told.out.splitlines()]
    assert [len(row["objects"]) for row in rows] == [1, 2, 1]
    truth = json.loads((tiles / "annotations/keypoints_val.json").read_text())["annotations"][0]
    x, y, _ = rows[0]["objects"][0]["points"]["top_left"]
    assert (x, y) == pytest.approx((truth["keypoints"][0] + 0.5, truth["keypoints"][1] + 0.5), abs=3)
    with Image.open(tmp_path / "drawn/01.jpg") as drawn:
        assert drawn.width >= 640
    table = list(csv.DictReader(cli("predict", run, photos[1], "--boxes", boxes, "--csv").out.splitlines()))
    assert [row["label"] for row in table] == NAMES * 2


def test_poses_as_coco_json_are_data(run: Path, tiles: Path, tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    photos, out = sorted((tiles / "images/val").iterdir())[:2], tiles / "images/found.json"
    boxes = boxes_of(tiles, tmp_path / "found.json")
    told = cli("predict", run, *photos, "--boxes", boxes, "--coco", out, "--threshold", 0.3)
    assert "3 objects of 2 pictures" in told.err
    samples = read_coco(out)
    assert (len(samples), samples.layout.names, samples.layout.skeleton) == (3, tuple(NAMES), ((0, 2), (2, 1)))
    found = resnest.Predictor(run)(np.asarray(samples.decode(0)))
    assert isinstance(found, Poses)
    out.unlink()


def test_a_kit_gives_the_same_points(run: Path, tiles: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    crop = open_dataset(tiles, task="keypoints").val.decode(0)
    crop.save(tmp_path / "crop.png")
    resnest.export(run, kit=tmp_path / "kit", images=tiles)
    done = run_python(tmp_path / "kit/predict.py", tmp_path / "crop.png")
    assert done.returncode == 0, done.stderr
    ours = resnest.Predictor(run)(tmp_path / "crop.png").to_dict()["objects"][0]
    theirs = json.loads(done.stdout)
    assert {name: theirs["points"][name] for name in NAMES} == {
        name: pytest.approx(ours["points"][name], abs=0.02) for name in NAMES
    }


def test_predict_without_boxes_says_so(run: Path, tiles: Path, cli: Callable[..., Outcome]) -> None:
    told = cli("predict", run, tiles / "images/val/00.png")
    assert "each picture is looked at as the crop of one object" in told.err
    assert len(told.out.splitlines()) == 1


def test_boxes_of_a_detector(run: Path, tiles: Path, tmp_path: Path) -> None:
    preprocess = resnest.DetectionPreprocess(short=64, long=64)
    model = resnest.Model.of(small("detection"), ["tile", "sky", "sea"], preprocess)
    detector = model.save_pretrained(tmp_path / "detector")
    pose = resnest.Predictor(run, engine="torch")
    photos = [tiles / "images/val/00.png", tiles / "images/val/01.png"]
    for where, label in ((str(detector), 0), (f"{detector}@sea", 2)):
        predict = BoxSource.open(where, pose.card).predictor(pose)
        results = predict([*photos])
        found = resnest.Predictor(detector)([*photos])
        for poses, boxes in zip(results, found, strict=True):
            assert isinstance(poses, Poses)
            assert len(poses) <= int((boxes.labels == label).sum())  # type: ignore[attr-defined]
            assert poses.size == (SIDE, SIDE)
    assert predict(photos[0]).to_dict() == results[0].to_dict()
    for where, message in (
        (f"{detector}@grass", "the detector has no class 'grass'; it has tile, sky, sea"),
        (str(run), "is a keypoint model: expected a detector"),
        (str(tmp_path / "no.json"), "no.json cannot be read"),
    ):
        with pytest.raises(ResnestError, match=message):
            BoxSource.open(where, pose.card)


BAD_BOXES: dict[str, tuple[Any, str]] = {
    "no boxes": ({"images": []}, "is neither COCO json with boxes nor a list of COCO's results"),
    "two categories": (
        [{"image_id": 1, "category_id": k, "bbox": [0, 0, 1, 1], "score": 1} for k in (7, 8)],
        "has boxes of several categories",
    ),
    "a negative side": ([{"image_id": 1, "category_id": 3, "bbox": [0, 0, -1, 1], "score": 1}], "bbox .0, 0, -1, 1"),
}


@pytest.mark.parametrize(("content", "message"), BAD_BOXES.values(), ids=BAD_BOXES)
def test_boxes_that_are_refused(content: Any, message: str, run: Path, tmp_path: Path) -> None:
    (tmp_path / "found.json").write_text(json.dumps(content))
    with pytest.raises(ResnestError, match=message):
        BoxSource.open(tmp_path / "found.json", resnest.ModelCard.read(run))


def test_boxes_are_for_keypoints(tiles: Path, tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    saved = resnest.Model.of(small("classification"), ["a", "b", "c"], resnest.Preprocess(size=32))
    photo, folder = tiles / "images/val/00.png", saved.save_pretrained(tmp_path / "saved")
    told = cli("predict", folder, photo, "--boxes", "x.json")
    assert "--boxes is for keypoint models, and this model is a classifier" in told.err


def test_results_of_a_list_have_no_names(run: Path, tiles: Path, tmp_path: Path) -> None:
    source = BoxSource.open(boxes_of(tiles, tmp_path / "r.json", results=True), resnest.ModelCard.read(run))
    with pytest.raises(ResnestError, match="is a list of results, whose images have ids and no names"):
        source.of("00.png", Image.new("RGB", (8, 8)))


# --- export, weights, recipes ---


def test_an_exported_file_gives_the_same(run: Path, tiles: Path, exported: Exported) -> None:
    assert exported.parity.ok
    photo = tiles / "images/val/00.png"
    ours, theirs = resnest.Predictor(run, engine="torch")(photo), resnest.Predictor(exported.path)(photo)
    assert theirs.points == pytest.approx(ours.points, abs=0.05)  # type: ignore[attr-defined]


def test_a_classifier_begins_the_backbone(tmp_path: Path, tiles: Path) -> None:
    recipe = override(find_recipe("keypoints_small"), SETTINGS)
    task = KeypointTask(recipe, open_dataset(tiles, task="keypoints").train.for_training(recipe))
    spec = resnest.Spec(**{**find_spec_of(recipe), "attention_norm": "layer"})
    classifier = resnest.Model.of(resnest.create_model(spec, num_classes=2), ["a", "b"], resnest.Preprocess())
    path = classifier.save_pretrained(tmp_path / "classifier")
    task.recipe = override(recipe, [f"model.pretrained={path}"])
    net = task.build()
    report = task.load_pretrained(net)
    assert report is not None
    assert set(report.untrained) == {"deconvs", "heatmaps"}
    assert torch.equal(net.backbone.layer1[0].conv1.weight, classifier.net.layer1[0].conv1.weight)


def find_spec_of(recipe: Any) -> dict[str, Any]:
    spec, _ = recipe.model.resolve()
    return {name: getattr(spec, name) for name in ("depths", "planes", "stem_width", "avd_first", "radix")}


def test_crops_and_maps_move_together(tiles: Path) -> None:
    """The top left corner of a square is where its map has the peak, mirrored or turned."""
    recipe = override(find_recipe("keypoints_small"), ["data.jitter=0"])
    samples = open_dataset(tiles, task="keypoints").train.for_training(recipe)
    dataset = KeypointDataset(samples, recipe.data, recipe.keypoints, recipe.head, seed=0)  # type: ignore[attr-defined]
    mirrored = 0
    for number in range(24):
        with seeded(0, number):
            pixels, maps = dataset.augment(number % len(samples), 0)
        known = ~maps[:, 0, 0].isnan()
        places, _ = decode(maps.nan_to_num().numpy()[None], sigma=recipe.head.sigma)  # type: ignore[attr-defined]
        if not known[:2].all():
            continue
        left, right = places[0, :2]
        mirrored += left[0] > right[0]  # never: names are swapped
        inner = np.clip(np.rint(places[0, 2] + (left - places[0, 2]) * 0.5), 0, pixels.shape[1] - 1).astype(int)
        assert pixels[:, inner[1], inner[0]].max() > 120  # within the square
    assert mirrored == 0


def test_settings_of_points(tiles: Path, tmp_path: Path) -> None:
    train = open_dataset(tiles, task="keypoints").train
    recipe = override(find_recipe("keypoints_small"), ["keypoints.sigmas=[.1, .2, .3]", "keypoints.flip_pairs=[]"])
    layout = train.for_training(recipe).layout
    assert (layout.sigmas, layout.pairs) == ((0.1, 0.2, 0.3), ())
    named = override(find_recipe("keypoints_small"), ["keypoints.flip_pairs=[[top_right, middle]]"])
    assert train.for_training(named).layout.pairs == ((1, 2),)
    for setting, message in (
        ("keypoints.sigmas=[.1]", "keypoints.sigmas has 1 values for 3 points"),
        ("keypoints.flip_pairs=[[tip, middle]]", "'tip' is not a known point"),
        ("keypoints.flip_pairs=[[tip]]", "flip_pairs.0.1: field required"),
        ("keypoints.width=100", "must be a multiple of 32"),
        ("head.padding=0.5", "would cut the box off"),
        ("head.deconvs=2", "a quarter of the input's side"),
        ("head.decode=best", "head.decode: input should be 'dark' or 'quarter'"),
    ):
        with pytest.raises(ResnestError, match=message):
            train.for_training(override(find_recipe("keypoints_small"), [setting]))


def test_unknown_pairs_are_not_mirrored(tmp_path: Path) -> None:
    recipe = find_recipe("keypoints_small")
    samples = open_dataset(write_yolo(tmp_path / "yolo"), task="keypoints").train.for_training(recipe)
    assert samples.layout.pairs is None
    assert not KeypointDataset(samples, recipe.data, recipe.keypoints, recipe.head, seed=0).mirrors  # type: ignore[attr-defined]


@pytest.mark.parametrize("row", PUBLISHED)
def test_published_rows(row: tuple[str, int]) -> None:
    recipe = RECIPES[row_name(*row)]()
    assert recipe.expect is not None
    assert (recipe.expect.ap, recipe.expect.ar) == PUBLISHED[row]
    assert recipe.frame.height == row[1]
    assert recipe.frame.width * 4 == row[1] * 3
    assert "mmpose" in recipe.expect.note


def test_half_bodies() -> None:
    """Of persons with many points, sometimes; of other things never."""
    from resnest.keypoints.points import PERSON_SIGMAS, PointLayout

    recipe = RECIPES["simplebaseline_resnest50_coco"]()
    layout = PointLayout.of(tuple(PERSON_SIGMAS))
    dataset = KeypointDataset.__new__(KeypointDataset)
    dataset.settings, dataset.head = replace(recipe.keypoints, half_body=1.0), recipe.head
    dataset.samples = type("S", (), {"layout": layout})()  # type: ignore[assignment]
    points = np.stack([np.linspace(0, 30, 17), np.linspace(0, 100, 17)], axis=1)
    boxes = []
    for number in range(8):
        with seeded(0, number):
            boxes.append(dataset._half_body(points, np.ones(17, bool)))
    assert {round(float(box[3] - box[1])) for box in boxes if box is not None} == {75, 38}
    assert dataset._half_body(points, np.arange(17) < 8) is None
