"""Binary and multi-label masks: data in three ways, training, evaluation, prediction, files, and what is refused."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import resnest
from conftest import Outcome
from exports import save_segmenter
from eyes import HEIGHT, WIDTH, Write, by_class, lesion, save, stack, vessel, write
from resnest.data.checks import check_dataset
from resnest.data.sources import Splits, open_dataset
from resnest.errors import ResnestError
from resnest.inference.evaluation import evaluate
from resnest.runtime.decode import BadImage
from resnest.runtime.engines.exported import Prepared, Views
from resnest.runtime.regions import Decoded
from resnest.runtime.rle import decode
from resnest.runtime.tiles import Tiles
from resnest.runtime.tiling import predict_in_tiles
from resnest.segmentation.activation import SIGMOID
from resnest.segmentation.card import MULTI_LABEL, SegmentationCard
from resnest.segmentation.evaluation import MaskEvaluation
from resnest.segmentation.export import same_masks
from resnest.segmentation.mask_planes import planes_size, stored_planes
from resnest.segmentation.mask_stack import MaskStack, class_folders
from resnest.segmentation.mask_stacks import MaskStackSamples
from resnest.segmentation.predict import mask_stack, predict
from resnest.segmentation.result import PixelClasses
from servers import server

WAYS: dict[str, tuple[Write, str]] = {  # how masks are written, and the list of classes
    "folders of classes": (by_class, ""),
    "folders, listed in another order": (by_class, "vessel\nlesion\n"),
    "folders of 0 and 1": (lambda folder, number: by_class(folder, number, yes=1), ""),
    "folders with endings": (lambda folder, number: by_class(folder, number, ending="yes"), ""),
    "folders of TIFF": (lambda folder, number: by_class(folder, number, suffix=".tif"), ""),
    "planes first": (lambda folder, number: save(folder / f"{number}.npy", stack(number)), "lesion\nvessel\n"),
    "planes last": (
        lambda folder, number: save(folder / f"{number}.npy", np.moveaxis(stack(number), 0, -1)),
        "lesion\nvessel\n",
    ),
    "planes of truth values": (
        lambda folder, number: save(folder / f"{number}.npy", stack(number).astype(bool)),
        "lesion\nvessel\n",
    ),
    "planes of floats": (
        lambda folder, number: save(folder / f"{number}.npy", stack(number).astype(np.float32)),
        "lesion\nvessel\n",
    ),
    "pages of TIFF": (
        lambda folder, number: save(folder / f"{number}.tif", stack(number) * np.uint8(255)),
        "lesion\nvessel\n",
    ),
    "pages, of background too": (
        lambda folder, number: save(
            folder / f"{number}.tif", np.concatenate([1 - stack(number).max(0, keepdims=True), stack(number)])
        ),
        "background\nlesion\nvessel\n",
    ),
    "no page of background": (
        lambda folder, number: save(folder / f"{number}.tif", stack(number)),
        "background\nlesion\nvessel\n",
    ),
}


def opened(root: Path) -> Splits:
    return open_dataset(root, task="segmentation", reading=MULTI_LABEL)


@pytest.mark.parametrize(("suffix", "shape"), [(".png", (1,)), (".tif", (1,)), (".tif", (3,)), (".npy", (3,))])
def test_sizes_are_read_from_headers(suffix: str, shape: tuple[int], tmp_path: Path) -> None:
    """Also of files whose pixels are damaged, which reading tells."""
    path = tmp_path / f"x{suffix}"
    masks = np.random.default_rng(0).integers(0, 2, (*shape, 30, 50), np.uint8)
    if suffix == ".tif":
        tifffile = pytest.importorskip("tifffile")
        tifffile.imwrite(path, masks, photometric="minisblack", compression="zlib")
    else:
        save(path, masks if suffix == ".npy" else masks[0])
    content = path.read_bytes()
    assert planes_size(content, *shape, "x") == stored_planes(content, *shape, "x")[0].values.shape[::-1] == (50, 30)
    if suffix != ".npy":  # whose length tells
        middle = len(content) // 2
        damaged = content[: middle - 40] + bytes(80) + content[middle + 40 :]
        assert planes_size(damaged, *shape, "x") == (50, 30)
        with pytest.raises(BadImage, match="damaged"):
            stored_planes(damaged, *shape, "x")


@pytest.mark.parametrize("way", WAYS)
def test_every_way_gives_the_same_masks(way: str, tmp_path: Path) -> None:
    writes, classes = WAYS[way]
    splits = opened(write(tmp_path, writes, classes))
    for samples in (splits.train, splits.val):
        assert isinstance(samples, MaskStackSamples)
        assert sorted(samples.class_names) == ["lesion", "vessel"]
        places = [samples.class_names.index(name) for name in ("lesion", "vessel")]
        for index, key in enumerate(samples.keys):
            image, mask = samples.pair(index)
            number = int(Path(key).stem)
            assert image.size == samples.size(index) == (WIDTH, HEIGHT)
            assert np.array_equal(mask[places], stack(number))
    images, classes_of = splits.train.marks()
    assert [name for image, name in zip(images, classes_of, strict=True) if image == 3] == [
        splits.train.class_names.index("vessel")
    ]


# --- One mask a picture ---


def binary(yes: int, *, no: int = 0, ignored: bool = False) -> Write:
    def write_one(folder: Path, number: int) -> None:
        mask = np.where(lesion(number) == 1, yes, no).astype(np.uint8)
        if ignored:
            mask[-2:] = 255
        save(folder / f"{number}.png", mask)

    return write_one


# values of yes, of the whole mask: way, list, class, value of the last rows, what is said
BINARY: dict[str, tuple[Write, str, str, int, str]] = {
    "0 and 1": (binary(1), "", "foreground", 0, "no list of classes: one class, 'foreground'"),
    "0 and 255": (binary(255), "", "foreground", 0, "255 beside 0 alone is 'foreground'"),
    "0, 1 and ignored": (binary(1, ignored=True), "", "foreground", 255, "no list of classes"),
    "background listed": (binary(255), "background\ncell\n", "cell", 0, "'background' is no class of its own"),
    "Background in capitals": (binary(1), "Background\ncell\n", "cell", 0, "'Background' is no class of its own"),
    "one name": (binary(1), "cell\n", "cell", 0, "0 in the masks is no class, and 'cell', the list's first, is 1"),
    "one name, 255": (binary(255), "cell\n", "cell", 0, "0 in the masks is no class"),
    "a value": (binary(7), "7 cell\n", "cell", 0, "0 in the masks, which the list lacks, is no class"),
}


@pytest.mark.parametrize("case", BINARY)
def test_binary_masks(case: str, tmp_path: Path) -> None:
    way, classes, name, last, said = BINARY[case]
    splits = opened(write(tmp_path, way, classes))
    assert splits.train.class_names == (name,)
    mask = splits.train.mask(0)
    expected = lesion(0)[None].copy()
    expected[:, -2:] = last
    assert np.array_equal(mask, expected)
    assert said in splits.describe()


def test_label_maps_are_masks_of_each_class(tmp_path: Path) -> None:
    def labels(folder: Path, number: int) -> None:
        save(folder / f"{number}.png", np.where(vessel(number) == 1, 2, lesion(number)).astype(np.uint8))

    root = write(tmp_path, labels, "lesion\nvessel\n")
    samples = opened(root).train
    assert samples.class_names == ("lesion", "vessel")
    assert np.array_equal(samples.mask(0), np.stack([lesion() * (1 - vessel()), vessel()]))
    assert "0 in the masks is no class, and 'lesion', the list's first, is 1" in " ".join(samples.left_out)


def test_as_before_without_the_setting(tmp_path: Path) -> None:
    """The same folder is read with one class a pixel unless a recipe says otherwise."""
    root = write(tmp_path, binary(255), "background\ncell\n")
    samples = open_dataset(root, task="segmentation").train
    assert samples.class_names == ("background", "cell")
    assert np.array_equal(samples.mask(0), lesion())


# --- What is refused, or said ---


def odd(name: str, values: NDArray[Any], way: Write = by_class) -> Write:
    """One mask is another one."""

    def write_one(folder: Path, number: int) -> None:
        way(folder, number)
        if number == 1:
            save(folder / name, values)

    return write_one


FULL = np.ones((HEIGHT, WIDTH), np.uint8)
WRONG_ROWS: dict[str, tuple[Write, str, str]] = {  # a picture that cannot be used: way, list, reason
    "other values": (odd("lesion/1.png", FULL * 7), "", r"lesion/1.png: has the value 7, .* a mask of one class has 0"),
    "0 and 1 beside 255": (odd("lesion/1.png", lesion()), "", r"lesion/1.png: has the value 1, .*has 255"),
    "another size": (
        odd("vessel/1.png", FULL[:-4] * 255),
        "",
        r"vessel/1.png: has 40 x 26 pixels, and lesion/1.png has 40",
    ),
    "too few planes": (
        odd("1.npy", stack(1)[:1], WAYS["planes first"][0]),
        "lesion\nvessel\n",
        r"1.npy: has the shape \(1, 30, 40\), and there are 2 classes: expected \(H, W, 2\) or \(2, H, W\)",
    ),
    "too many pages": (
        odd("1.tif", np.zeros((3, HEIGHT, WIDTH), np.uint8), WAYS["pages of TIFF"][0]),
        "lesion\nvessel\n",
        "1.tif: has 3 pages, and there are 2 classes",
    ),
    "either way round": (
        odd("1.npy", np.zeros((2, HEIGHT, 2), np.uint8), WAYS["planes first"][0]),
        "lesion\nvessel\n",
        r"1.npy: has the shape \(2, 30, 2\), which may be \(H, W, 2\) or \(2, H, W\): save it as TIFF of 2 pages",
    ),
    "probabilities": (
        odd("1.npy", stack(1) * np.float32(0.7), WAYS["planes of floats"][0]),
        "lesion\nvessel\n",
        "1.npy: has the value 0.7: a mask of one class has 0 and 1",
    ),
}


@pytest.mark.parametrize("case", WRONG_ROWS)
def test_a_wrong_mask_makes_its_picture_unusable(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resnest.segmentation.survey.SAMPLE", 1)  # the first of each part
    way, classes, reason = WRONG_ROWS[case]
    samples = opened(write(tmp_path, way, classes)).train
    with pytest.raises(BadImage, match=reason) as caught:
        samples.pair(1)
    assert caught.value.name == "1.png"
    report = check_dataset(tmp_path, task="segmentation", reading=MULTI_LABEL)
    assert [line for line in report.problems if "1.png" in line and re.search(reason, line)]


def test_a_picture_without_any_mask(tmp_path: Path) -> None:
    """It may not be annotated; one class that is missing is absent."""
    root = write(tmp_path, by_class)
    (root / "masks" / "train" / "vessel" / "3.png").unlink()  # which shows no lesion
    samples = opened(root).train
    assert "pictures without a file of a class do not show it: lesion 1" in " ".join(samples.left_out)
    with pytest.raises(BadImage, match="its mask of any class: is missing, and so are those of the other classes"):
        samples.mask(3)
    (root / "masks" / "train" / "vessel" / "0.png").unlink()
    assert not opened(root).train.mask(0)[1].any()


def and_flat(folder: Path, number: int) -> None:
    by_class(folder, number)
    save(folder / f"{number}.png", lesion(number))


def third(folder: Path, number: int) -> None:
    by_class(folder, number)
    save(folder / "nerve" / f"{number}.png", lesion(number))


def mixed(folder: Path, number: int) -> None:
    by_class(folder, number, yes=1 if number % 2 else 255)


def nothing(folder: Path, number: int) -> None:
    save(folder / "lesion" / f"{number}.png", np.zeros((HEIGHT, WIDTH), np.uint8))


def small(folder: Path, number: int) -> None:
    save(folder / "lesion" / f"{number}.png", lesion(number)[:-4])


REFUSED: dict[str, tuple[Write, str, str]] = {
    "masks beside folders": (and_flat, "", "and others in folders of classes such as lesion: leave one of them"),
    "a folder that no list names": (third, "lesion\nvessel\n", "has the folder 'nerve', and the list of classes has"),
    "1 and 255 for yes": (mixed, "", "both of which may be yes: write all masks in one way"),
    "nothing anywhere": (nothing, "", "no training mask has a pixel of lesion"),
    "other sizes": (small, "", "masks are of another size than their pictures"),
    "stacks without a list": (WAYS["planes first"][0], "", "has stacks of masks and no list of their classes"),
    "many values without a list": (
        binary(9),
        "",
        "has the value 9: binary masks, of 0 and 1 or of 0 and 255, need none",
    ),
    "background alone": (binary(1), "0 background\n", "the only class is 'background', which is no class of its own"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, tmp_path: Path) -> None:
    way, classes, message = REFUSED[case]
    root = write(tmp_path, way, classes)
    with pytest.raises(ResnestError, match=re.escape(message)):
        opened(root)


def test_parts_below_the_classes_are_refused(tmp_path: Path) -> None:
    """As one set of pictures they would be split by chance."""
    root = write(tmp_path / "data", by_class)
    for part in ("train", "val"):
        for path in (root / "masks" / part).rglob("*.png"):
            to = root / "masks" / path.parent.name / part / path.name
            to.parent.mkdir(parents=True, exist_ok=True)
            path.rename(to)
        for name in ("lesion", "vessel"):
            (root / "masks" / part / name).rmdir()
        (root / "masks" / part).rmdir()
    with pytest.raises(ResnestError, match=r"below its classes, as lesion/train: put them above, .*masks/train/lesion"):
        opened(root)


def test_other_recipes_are_told_of_the_setting(tmp_path: Path) -> None:
    root = write(tmp_path, by_class)
    with pytest.raises(ResnestError, match=r"There is masks data, which is read with segmenter\.multi_label=true"):
        open_dataset(root, task="segmentation")


def test_classes_of_a_model(tmp_path: Path) -> None:
    """By name; a class without masks is absent, which is said, and one that the model lacks is an error."""
    samples = opened(write(tmp_path, by_class)).val
    card = _card(tmp_path / "model", ("vessel", "nerve", "lesion", "drusen"))
    aligned = samples.aligned(card, "data")
    assert np.array_equal(aligned.mask(0)[[2, 0]], samples.mask(0))
    assert not aligned.mask(0)[[1, 3]].any()
    assert "no masks of nerve, drusen: taken as absent from all pictures" in aligned.left_out
    with pytest.raises(ResnestError, match="that the model does not know: lesion"):
        samples.aligned(replace(card, class_names=("vessel", "a", "b", "c")), "data")
    unnamed = opened(write(tmp_path / "unnamed", binary(255))).val
    one = replace(card, class_names=("cell",), category_ids=(0,))
    assert unnamed.aligned(one, "data").class_names == ("cell",)


def _card(folder: Path, names: tuple[str, ...] = ("a", "b", "c", "d")) -> SegmentationCard:
    card = resnest.Model.from_pretrained(save_segmenter(folder, names, multi_label=True)).card
    assert isinstance(card, SegmentationCard)
    return card


def test_the_doctor_and_its_page(cli: Callable[..., Outcome], tmp_path: Path) -> None:
    root = write(tmp_path / "data", by_class)
    save(root / "masks" / "train" / "lesion" / "7.png", lesion(3))
    save(root / "masks" / "train" / "vessel" / "7.png", lesion(3))
    page = tmp_path / "page.html"
    for options in (["--recipe", "unet_binary"], ["--task", "segmentation", "--set", "segmenter.multi_label=true"]):
        outcome = cli("doctor", "--data", root, *options, "--html", page)
        assert outcome.code == 0, outcome.err
    assert "note: 1 training picture shows no class: 7.png" in outcome.out
    assert re.search(r"note: training pixels in the masks of each class: lesion 1\d\.\d%, vessel 2\d\.\d%", outcome.out)
    assert "pictures have masks that overlap" in outcome.out
    assert "lesion 17%" in page.read_text() or "vessel" in page.read_text()
    outcome = cli("doctor", "--data", root, "--set", "segmenter.multi_label=true")
    assert (outcome.code, "--set is for a recipe" in outcome.err) == (2, True)


# --- Results ---

CLASSES = PixelClasses(("lesion", "vessel", "left/right"), (3, 5, 8))


def result() -> MaskStack:
    masks = np.stack([lesion(), vessel(), np.zeros_like(lesion())]).astype(bool)
    return MaskStack("photos/a.jpg", CLASSES, masks, np.array([0.75, 0.5, 0], np.float32))


def test_result() -> None:
    found = result()
    assert found.text() == "photos/a.jpg: vessel 30 %, lesion 17 %"
    assert found.class_fractions() == {"vessel": 0.3, "lesion": pytest.approx(200 / 1200)}
    assert found.rows()[1] == {
        "image": "photos/a.jpg", "label": "lesion", "category_id": 3, "pixels": 200, "share": 0.166667, "score": 0.75,
    }  # fmt: skip
    told = found.to_dict()
    assert (told["width"], told["height"]) == (WIDTH, HEIGHT)
    assert np.array_equal(decode(told["segments"][1]["segmentation"]), lesion() == 1)
    assert np.array_equal(found.mask("vessel"), vessel() == 1)
    with pytest.raises(ResnestError, match="lesion"):
        found.mask("lesio")
    assert replace(found, masks=found.masks & False).text() == "photos/a.jpg: -"
    assert found.reduced((20, 15)).masks.shape == (3, 15, 20)
    assert class_folders(["a/b", "a_b", "A_B", " . "]) == ["a_b", "a_b-2", "A_B-3", "_"]


def test_drawings_show_what_overlaps() -> None:
    """Each class alone has its colour's tone, both together a third one; outlines are in full colour."""
    grey = Image.new("RGB", (WIDTH, HEIGHT), (128, 128, 128))
    drawn = np.asarray(result().paint(grey, WIDTH)).astype(int)
    only_lesion, only_vessel, both, none = drawn[9, 10], drawn[20, 25], drawn[9, 21], drawn[25, 5]
    assert none.tolist() == [128, 128, 128]
    assert len({tuple(tone) for tone in (only_lesion, only_vessel, both, none)}) == 4
    assert drawn[4, 10].tolist() == [230, 159, 0]  # the lesion's upper edge
    assert result().draw(grey).width == WIDTH * 16


def test_thresholds() -> None:
    logits = np.array([[[-2.0, 0.0, 2.0]], [[0.5, -0.5, 9.0]]], np.float32)
    how: dict[str, Any] = {"inner": (1, 3), "size": (3, 1), "classes": PixelClasses(("a", "b"), (0, 1)), "name": "x"}
    assert mask_stack(logits, threshold=0.5, **how).masks.tolist() == [[[False, True, True]], [[True, False, True]]]
    assert mask_stack(logits, threshold=0.1, **how).masks.all()
    strict = mask_stack(logits, threshold=0.99, **how)
    assert strict.masks.tolist() == [[[False] * 3], [[False, False, True]]]
    assert strict.scores.tolist() == pytest.approx([0, 1 / (1 + np.exp(-9))])


def test_sigmoid_and_back() -> None:
    logits = np.array([-200, -8, -0.25, 0, 0.25, 8], np.float32)
    likely = SIGMOID.probabilities(logits)
    assert likely == pytest.approx(1 / (1 + np.exp(-logits.astype(np.float64))), abs=1e-7)
    assert SIGMOID.logits(likely.copy())[1:] == pytest.approx(logits[1:], abs=1e-2)
    assert np.isfinite(SIGMOID.logits(np.array([0, 1], np.float32))).all()


def test_the_gate_compares_masks() -> None:
    """Another side of the threshold is another mask, unless by rounding; of one class too."""
    ours = {"logits": np.array([[[[2.0, -2.0]]], [[[1e-6, -2.0]]], [[[0.5, -2.0]]]], np.float32)}
    theirs = {"logits": np.array([[[[2.0, -2.0]]], [[[-1e-6, -2.0]]], [[[-0.5, -2.0]]]], np.float32)}
    assert same_masks(0.0, ours, theirs).tolist() == [True, True, False]
    assert same_masks(1.0, ours, theirs).tolist() == [True, True, True]


# --- Training, evaluation, prediction, export ---

SMALL = [
    "model.name=resnest14",
    "model.spec={planes: [8, 16, 32, 64], stem_width: 4, attention_norm: layer}",
    "segmenter.decoder_channels=[16, 16, 8, 8, 8]",
    "segmentation.base=40",
    "segmentation.crop=32",
    "segmentation.backbone_norm=batch",
    "data.workers=0",
    "data.jitter=0",
    "train.batch_size=8",
    "train.epochs=6",
    "train.log_every=1",
    "optim.warmup_steps=0",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("stacks") / "eyes", by_class)


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "run"
    result = resnest.train("unet_binary", data=data, out=out, settings=SMALL)
    assert isinstance(result.evaluation, MaskEvaluation)
    assert result.evaluation.headline == (f"mIoU {result.figures['miou']:.2%}, Dice {result.figures['dice']:.2%}")
    return out


def test_a_run(run: Path) -> None:
    losses = [row["loss"] for row in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()) if "loss" in row]
    assert losses[-1] < losses[0]
    card = json.loads((run / "config.json").read_text())
    assert card["label_names"] == ["lesion", "vessel"]
    assert (card["resnest"]["segmenter"]["multi_label"], card["resnest"]["threshold"]) == (True, 0.5)
    report = (run / "report.html").read_text()
    assert "Multi-label segmentation" in report
    assert "Dice" in report
    assert "onfusion" not in report
    assert "vessel" in (run / "data.html").read_text()


def test_evaluated_as_by_hand(run: Path, data: Path) -> None:
    """From the masks that are predicted; at another threshold they are others."""
    for threshold in (None, 0.3):
        found = evaluate(run, data, threshold=threshold, surface=1.0)
        predict = resnest.Predictor(run, engine="torch", threshold=threshold)
        samples = opened(data).val
        sums = np.zeros((2, 3))
        for index, key in enumerate(samples.keys):
            masks = predict(data / "images" / "val" / key).masks
            true = samples.mask(index) == 1
            sums += np.stack([(masks & true).sum((1, 2)), masks.sum((1, 2)), true.sum((1, 2))], 1)
        right, predicted, truth = sums.T
        assert found.figures["miou"] == pytest.approx((right / (predicted + truth - right)).mean())
        assert found.figures["dice"] == pytest.approx((2 * right / (predicted + truth)).mean())
        assert found.figures["iou_micro"] == pytest.approx(right.sum() / (predicted + truth - right).sum())
        assert "surface_dice" in found.figures
        assert "pixel_accuracy" not in found.figures


@pytest.mark.parametrize("tolerance", [-1.0, math.inf, math.nan])
def test_a_tolerance_is_a_number_of_pixels(run: Path, data: Path, tolerance: float) -> None:
    with pytest.raises(ResnestError, match=r"surface=.*expected a tolerance of 0 pixels or more"):
        evaluate(run, data, surface=tolerance)


def by_pixel(images: NDArray[np.float32], sizes: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
    """An engine whose logits are those of the pixels: the red ones' and the blue ones'."""
    return {"logits": images[:, [0, 2]] * 3}


def test_windows_tiles_and_views_blend_probabilities(tmp_path: Path) -> None:
    """Of a network that sees single pixels, all ways to look at a picture give the same."""
    card = replace(_card(tmp_path), class_names=("lesion", "vessel"), category_ids=(0, 1), threshold=0.6)
    noisy = np.random.default_rng(0).integers(0, 256, (90, 130, 3)).astype(np.uint8)
    image = Image.fromarray(noisy)

    def look(card: Any, views: Views | None = None) -> MaskStack:
        prepared = Prepared("x", card.preprocess(image), image.size, image)
        [found] = predict(by_pixel, card, [prepared], views)
        assert isinstance(found, MaskStack)
        return found

    plain = look(card)
    red = card.preprocess(image)[[0, 2]] * 3
    assert np.array_equal(plain.masks, 1 / (1 + np.exp(-red)) >= 0.6)
    tiles = Tiles.of(64, 0.25)
    assert tiles is not None
    picture = Decoded(image, "x")
    tiled = predict_in_tiles(by_pixel, card.with_tiles(tiles), picture, "x", tiles)
    for other in (look(card.with_window(64)), look(card, Views(flip=True)), tiled):
        assert isinstance(other, MaskStack)
        assert (other.masks != plain.masks).mean() < 1e-3  # by rounding at the threshold
        assert other.scores == pytest.approx(plain.scores, abs=1e-4)


def test_several_scales(run: Path, data: Path) -> None:
    figures = evaluate(run, data, views=Views((0.75, 1.0), flip=True)).figures
    assert 0 < figures["miou"] <= 1


def test_exports_give_equal_masks(run: Path, data: Path, cli: Callable[..., Outcome], tmp_path: Path) -> None:
    outcome = cli("export", run, "--format", "onnx", "--out", tmp_path / "eyes.onnx")
    assert outcome.code == 0, outcome.err
    assert "the same for 4 of 4 validation pictures" in outcome.err + outcome.out
    pictures = data / "images" / "val"
    for name, model in (("torch", run), ("onnx", tmp_path / "eyes.onnx")):
        engine = ["--engine", "torch"] if name == "torch" else []
        outcome = cli("predict", model, pictures, "--masks", tmp_path / name, "--threshold", "0.4", *engine)
        assert outcome.code == 0, outcome.err
        assert "8 masks of 4 pictures and classes.json in" in outcome.err
    files = sorted(path.relative_to(tmp_path / "onnx") for path in (tmp_path / "onnx").rglob("*.png"))
    assert len(files) == 8
    for file in files:
        assert (tmp_path / "onnx" / file).read_bytes() == (tmp_path / "torch" / file).read_bytes()


def test_written_masks_are_read_again(run: Path, data: Path, cli: Callable[..., Outcome], tmp_path: Path) -> None:
    """With their pictures they are a data set, which the model then fits."""
    (tmp_path / "again" / "images").mkdir(parents=True)
    for path in (data / "images" / "val").iterdir():
        (tmp_path / "again" / "images" / path.name).write_bytes(path.read_bytes())
    pictures = tmp_path / "again" / "images"
    told = cli("predict", run, pictures, "--masks", tmp_path / "again" / "masks", "--draw", tmp_path / "drawn")
    assert told.code == 0, told.err
    samples = open_dataset(tmp_path / "again", task="segmentation", reading=MULTI_LABEL, val_fraction=0.5).train
    assert samples.class_names == ("lesion", "vessel")
    assert len(list((tmp_path / "drawn").iterdir())) >= 4
    figures = evaluate(run, tmp_path / "again", split="all").figures
    assert figures["miou"] == pytest.approx(1)
    before = (tmp_path / "again" / "masks" / "classes.json").read_text()
    (tmp_path / "again" / "masks" / "classes.json").write_text("[]")
    outcome = cli("predict", run, pictures, "--masks", tmp_path / "again" / "masks")
    assert (outcome.code, "differs from the model's" in outcome.err) == (2, True)
    assert before


def test_rows_of_a_batch_job(run: Path, data: Path, cli: Callable[..., Outcome], tmp_path: Path) -> None:
    rows = []
    for threshold in ("0.5", "0.01"):
        out = tmp_path / f"{threshold}.jsonl"
        outcome = cli("predict", run, data / "images" / "val", "--out", out, "--threshold", threshold)
        assert outcome.code == 0, outcome.err
        rows.append([json.loads(line) for line in out.read_text().splitlines()])
    assert all({"label", "pixels", "segmentation"} <= {*one} for row in rows[1] for one in row["segments"])
    pixels = [sum(one["pixels"] for row in part for one in row["segments"]) for part in rows]
    assert pixels[1] > pixels[0]
    outcome = cli("predict", run, data / "images" / "val", "--threshold", "0")
    assert (outcome.code, "expected a probability between 0 and 1" in outcome.err) == (2, True)


def test_served(run: Path, data: Path, tmp_path: Path) -> None:
    """Masks as run lengths, and drawn; the threshold is the model's, and no option of a request."""
    photo = data / "images" / "val" / "8.png"
    expected = resnest.Predictor(run, engine="torch")(photo)
    with server(tmp_path, run) as running:
        told = running.post("/predict", content=photo.read_bytes()).json()
        assert [one["label"] for one in told["segments"]] == [row["label"] for row in expected.rows()]
        for one in told["segments"]:
            assert np.array_equal(decode(one["segmentation"]), expected.mask(one["label"]))
        drawn = running.post("/predict?draw=1", content=photo.read_bytes())
        assert Image.open(io.BytesIO(drawn.content)).size == expected.draw(photo).size
        refused = running.post("/predict?threshold=0.2", content=photo.read_bytes())
        assert (refused.status_code, "threshold is no option of a segmenter" in refused.text) == (400, True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["segmentation.loss={cross_entropy: 1}"],
            "segmentation.loss has cross_entropy with segmenter.multi_label=true",
        ),
        (["segmenter.multi_label=false"], "segmentation.loss has bce with segmenter.multi_label=false"),
        (
            ["segmenter.multi_label=false", "segmentation.loss={cross_entropy: 1}", "segmentation.threshold=0.3"],
            "segmentation.threshold=0.3 plays no role with segmenter.multi_label=false",
        ),
        (["segmentation.threshold=1"], "segmentation.threshold=1"),
    ],
)
def test_contradictions(settings: list[str], message: str) -> None:
    with pytest.raises(ResnestError, match=re.escape(message)):
        resnest.recipes.override(resnest.recipes.find_recipe("unet_binary"), settings)


def test_one_class_with_weights_and_folds(tmp_path: Path) -> None:
    """A binary mask: frequency weights of its one class, and a card that says so."""
    root = write(tmp_path / "cells", binary(255), "background\ncell\n")
    settings = [*SMALL, "train.epochs=1", "segmentation.class_weights=frequency", "segmentation.threshold=0.4"]
    resnest.train("unet_binary", data=root, out=tmp_path / "run", settings=[*settings, "data.fold=0/4"])
    model = resnest.Model.from_pretrained(tmp_path / "run")
    assert (model.card.class_names, model.card.threshold) == (("cell",), 0.4)
    assert model.card.describe_purpose() == "finds the pixels of cell"
    told = json.loads((tmp_path / "run" / "run.json").read_text())
    assert told["measured"] == {"class weights": {"cell": 1.0}}
    found = resnest.Predictor(tmp_path / "run")(root / "images" / "val" / "8.png")
    found.save(tmp_path / "mask.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "mask.png")) > 0, found.masks[0])


def test_a_folder_without_masks_of_the_pictures_is_no_class(tmp_path: Path) -> None:
    root = write(tmp_path, by_class)
    save(root / "masks" / "train" / "preview" / "all.png", lesion())
    samples = opened(root).train
    assert samples.class_names == ("lesion", "vessel")
    assert "left out: 1 mask without an image" in samples.left_out
