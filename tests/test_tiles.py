"""Large pictures in tiles: the grid, weights, what becomes of objects and classes at the seams, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

import resnest
from conftest import Outcome
from masked import folders
from resnest.data.sources import open_dataset
from resnest.detection.card import DetectionCard, DetectionPreprocess
from resnest.detection.result import Detections
from resnest.detection.seams import join
from resnest.errors import ResnestError
from resnest.inference.evaluation import evaluate_samples
from resnest.runtime.decode import BadImage
from resnest.runtime.engines.exported import Views
from resnest.runtime.predictor import ImagePredictor
from resnest.runtime.rle import decode
from resnest.runtime.tiles import Grid, Tiles, fades, spans
from resnest.segmentation.card import SegmentationCard, SegmentationPreprocess
from resnest.segmentation.result import LabelMap
from servers import CLASSES, PREPROCESS
from small import HEADS, SPEC, small
from standins import CARDS


@pytest.mark.parametrize(
    ("length", "side", "overlap", "wanted"),
    [
        (640, 640, 0.2, [(0, 640)]),
        (1, 640, 0.2, [(0, 1)]),
        (641, 640, 0.2, [(0, 640), (1, 641)]),
        (1152, 640, 0.2, [(0, 640), (512, 1152)]),  # just so: no third
        (1153, 640, 0.2, [(0, 640), (256, 896), (513, 1153)]),
        (100, 50, 0, [(0, 50), (50, 100)]),
        (101, 50, 0.0, [(0, 50), (26, 76), (51, 101)]),
    ],
)
def test_spans(length: int, side: int, overlap: float, wanted: list[tuple[int, int]]) -> None:
    assert spans(length, side, overlap) == wanted


@pytest.mark.parametrize("overlap", [0, 0.1, 0.333, 0.5, 0.75, 0.99])
@pytest.mark.parametrize("length", [33, 64, 100, 1000])
def test_tiles_cover_overlap_and_their_weights_add_up(length: int, overlap: float) -> None:
    found = spans(length, 32, overlap)
    assert (found[0][0], found[-1][1]) == (0, length)
    assert all(stop - start == 32 for start, stop in found)
    for (start, stop), (following, _) in pairwise(found):
        assert start < following
        assert stop - following >= min(overlap * 32, 31) - 1  # of a pixel, by rounding
    total = np.zeros(length)
    for (start, stop), weights in zip(found, fades(found), strict=True):
        assert (weights > 0).all()
        total[start:stop] += weights
    assert np.allclose(total, 1, atol=1e-6)


def test_weights_go_over_in_a_straight_line() -> None:
    first, second = fades([(0, 10), (6, 16)])
    assert np.allclose(first[6:], [0.875, 0.625, 0.375, 0.125])
    assert np.allclose(second[:4], 1 - first[6:])


@pytest.mark.parametrize(
    ("tile", "overlap", "words"),
    [
        (31, 0.2, "`tile=31`: expected 32 to 8192 pixels"),
        (0, 0.2, "expected 32 to 8192"),
        (8193, 0.2, "expected 32 to 8192"),
        (64.0, 0.2, "expected 32 to 8192"),
        (True, 0.2, "expected 32 to 8192"),
        (64, 1, "`overlap=1`: expected a number from 0 to less than 1"),
        (64, -0.1, "expected a number from 0 to less than 1"),
        (64, float("nan"), "expected a number from 0 to less than 1"),
        (64, "much", "expected a number from 0 to less than 1"),
    ],
)
def test_refused_tiles(tile: Any, overlap: Any, words: str) -> None:
    with pytest.raises(ResnestError, match=words):
        Tiles(tile, overlap)


def test_an_overlap_needs_a_tile() -> None:
    assert Tiles.of(None, None) is None
    assert Tiles.of(64, None) == Tiles(64, 0.2)
    assert Tiles.of(64, 0) == Tiles(64, 0)
    with pytest.raises(ResnestError, match="`overlap` is for tiles: give `tile`, too"):
        Tiles.of(None, 0.3)


# --- Segmenters ---

SEGMENTER = CARDS["segmentation"]
assert isinstance(SEGMENTER, SegmentationCard)


class Blurred:
    """Logits of a local rule: the image, averaged over 3 x 3 pixels. Its view ends one pixel beyond its own."""

    name = "blurred"

    def __call__(self, images: NDArray[np.float32], sizes: Any = None) -> dict[str, NDArray[Any]]:
        padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
        high, wide = images.shape[2:]
        return {"logits": 5 * sum(padded[..., y : y + high, x : x + wide] for y in range(3) for x in range(3))}


class Own(Blurred):
    """Logits of each pixel alone."""

    def __call__(self, images: NDArray[np.float32], sizes: Any = None) -> dict[str, NDArray[Any]]:
        return {"logits": images * 10}


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8))


def labelled(card: Any, engine: Any, image: Image.Image, tiles: Tiles | None) -> LabelMap:
    found = ImagePredictor(engine, card, batch_size=3, tiles=tiles)(image)
    assert isinstance(found, LabelMap)
    return found


@pytest.mark.parametrize("overlap", [0, 0.2, 0.6, 0.95])
@pytest.mark.parametrize("size", [(100, 70), (64, 64), (129, 33), (32, 200), (1, 500), (500, 1)])
def test_a_local_rule_gives_the_labels_of_the_whole(size: tuple[int, int], overlap: float) -> None:
    """Exactly; scores up to rounding. Strips have tiles of their own height."""
    whole = labelled(SEGMENTER, Own(), noise(*size), None)
    tiled = labelled(SEGMENTER, Own(), noise(*size), Tiles(32, overlap))
    assert np.array_equal(whole.labels, tiled.labels)
    assert np.allclose(whole.scores, tiled.scores, atol=1e-5)


def test_a_neighbourhood_gives_the_labels_of_the_whole_away_from_borders() -> None:
    """Only at the ends of a tile its view is another one, and there the neighbour's weight is the larger one."""
    image = noise(150, 130)
    whole, tiled = (labelled(SEGMENTER, Blurred(), image, tiles) for tiles in (None, Tiles(50, 0.4)))
    assert (whole.labels != tiled.labels).mean() < 0.001
    borders = {x for span in spans(150, 50, 0.4) for x in span} | {x for span in spans(130, 50, 0.4) for x in span}
    away = np.ones(whole.labels.shape, bool)
    for border in borders:
        away[max(0, border - 1) : border + 1] = away[:, max(0, border - 1) : border + 1] = False
    assert np.array_equal(whole.labels[away], tiled.labels[away])


def test_tiles_are_blended_by_their_weights() -> None:
    """Against a plain restatement, with logits that depend on the place in the tile, and many tiles a pixel."""
    image, tiles = noise(90, 75), Tiles(40, 0.7)

    class Leaning(Own):
        def __call__(self, images: NDArray[np.float32], sizes: Any = None) -> dict[str, NDArray[Any]]:
            slope = np.linspace(-1, 2, images.shape[3]) + np.linspace(-1, 1, images.shape[2])[:, None]
            return {"logits": (images * 4 * slope).astype(np.float32)}

    grid = tiles.grid(90, 75)
    total = np.zeros((3, 75, 90))
    across, down = fades(grid.columns), fades(grid.rows)
    for tile in grid.tiles():
        left, top, right, bottom = tile.box
        pixels = SEGMENTER.preprocess(image.crop(tile.box))
        powers = np.exp(Leaning()(pixels[None])["logits"][0].astype(np.float64))
        weights = down[tile.row][:, None] * across[tile.column]
        total[:, top:bottom, left:right] += weights * powers[:, : bottom - top, : right - left] / powers.sum(0)
    found = labelled(SEGMENTER, Leaning(), image, tiles)
    assert (found.labels == total.argmax(0)).mean() > 0.999  # ties
    sums = [total.max(0)[found.labels == k].mean() for k in range(3)]
    assert np.allclose(found.scores, sums, atol=1e-5)


def test_one_tile_is_the_whole_picture() -> None:
    image = noise(60, 50)
    for tiles in (Tiles(64), Tiles(60)):
        whole, tiled = (labelled(SEGMENTER, Own(), image, one) for one in (None, tiles))
        assert np.array_equal(whole.labels, tiled.labels)
        assert np.array_equal(whole.scores, tiled.scores)


def test_tiles_are_resized_as_pictures_and_come_back() -> None:
    card = replace(SEGMENTER, preprocess=SegmentationPreprocess(long=64, mean=(0, 0, 0), std=(1, 1, 1)))
    pixels = np.zeros((100, 120, 3), np.uint8)
    pixels[:, :50, 0] = pixels[:, 50:, 2] = 255
    found = labelled(card, Own(), Image.fromarray(pixels), Tiles(48, 0.25))
    assert (found.labels[:, :48] == 0).all()
    assert (found.labels[:, 52:] == 2).all()


def test_tiles_replace_windows() -> None:
    card = SEGMENTER.with_window(64).with_tiles(Tiles(32))
    assert card.preprocess.window is None


def test_views_of_tiles() -> None:
    from resnest.runtime.regions import Decoded
    from resnest.runtime.tiling import predict_in_tiles

    image = noise(70, 50)
    views = Views(flip=True)
    found = predict_in_tiles(Own(), SEGMENTER, Decoded(image, "x"), "x", Tiles(40), views=views)
    assert isinstance(found, LabelMap)
    assert np.array_equal(found.labels, labelled(SEGMENTER, Own(), image, None).labels)


def test_an_evaluation_in_tiles_is_that_of_whole_pictures(tmp_path: Path) -> None:
    """Of a rule that looks at each pixel alone."""

    class Named(Own):
        """Sky is blue, and trees are green."""

        def __call__(self, images: NDArray[np.float32], sizes: Any = None) -> dict[str, NDArray[Any]]:
            return {"logits": images[:, [2, 0, 1]] * 10}

    samples = open_dataset(folders(tmp_path), task="segmentation").train
    figures = []
    for tiles in (None, Tiles(32, 0.3)):
        card = SEGMENTER.with_tiles(tiles) if tiles else SEGMENTER
        found = evaluate_samples(Named(), samples, card, batch_size=2, workers=0, tiles=tiles)
        assert found.count == len(samples)
        figures.append(found.figures)
    assert figures[0] == figures[1]
    assert 0 < figures[0]["pixel_accuracy"] < 1


# --- Detectors ---

COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
DETECTOR = CARDS["detection"]
assert isinstance(DETECTOR, DetectionCard)
AS_THEY_ARE = replace(
    DETECTOR, preprocess=DetectionPreprocess(short=64, long=64, mean=(0, 0, 0), std=(1, 1, 1))
)  # tiles of 64 pixels are not resized


class Squares:
    """Finds rectangles in pure colours on black, class by colour, each cut as the picture cuts it."""

    name = "squares"

    def __call__(self, images: NDArray[np.float32], sizes: Any = None) -> dict[str, NDArray[Any]]:
        found = [self.of(image[:, : size[0], : size[1]]) for image, size in zip(images, sizes, strict=True)]
        most = max(map(len, found))
        boxes, scores = np.zeros((len(images), most, 4), np.float32), np.zeros((len(images), most), np.float32)
        labels = np.zeros((len(images), most), np.int64)
        for number, rows in enumerate(found):
            for place, (label, box) in enumerate(rows):
                boxes[number, place], labels[number, place], scores[number, place] = box, label, 0.9
        masks = np.ones((len(images), most, 28, 28), np.float32)
        return {"boxes": boxes, "scores": scores, "labels": labels, "masks": masks}

    def of(self, image: NDArray[np.float32]) -> list[tuple[int, tuple[int, int, int, int]]]:
        rows = []
        for label in range(3):
            left = image[label] > 0.5  # not found yet
            while left.any():
                top, first = (int(line[0]) for line in np.nonzero(left))
                right = first + int(np.argmin(np.append(left[top, first:], False)))
                bottom = top + int(np.argmin(np.append(left[top:, first], False)))
                rows.append((label, (first, top, right, bottom)))
                left[top:bottom, first:right] = False
        return rows


def painted(size: tuple[int, int], boxes: list[tuple[int, tuple[int, int, int, int]]]) -> Image.Image:
    image = Image.new("RGB", size)
    pen = ImageDraw.Draw(image)
    for label, (left, top, right, bottom) in boxes:
        pen.rectangle((left, top, right - 1, bottom - 1), fill=COLOURS[label])
    return image


def objects(found: Detections) -> set[tuple[int, ...]]:
    return {(int(label), *map(round, box.tolist())) for label, box in zip(found.labels, found.boxes, strict=True)}


def grid_of(size: tuple[int, int], step: int, side: int) -> list[tuple[int, tuple[int, int, int, int]]]:
    places = [(x, y) for y in range(3, size[1] - side, step) for x in range(5, size[0] - side, step)]
    return [(number % 3, (x, y, x + side, y + side - number % 4)) for number, (x, y) in enumerate(places)]


@pytest.mark.parametrize("overlap", [0.1, 0.2, 0.5, 0.8])
@pytest.mark.parametrize("side", [5, 12, 30, 60])  # of objects; with small overlaps most of the large ones are cut
@pytest.mark.parametrize("size", [(200, 170), (64, 300), (65, 64)])
def test_a_grid_of_objects_is_found_as_in_the_whole(size: tuple[int, int], side: int, overlap: float) -> None:
    """Every object once, its box to the pixel, and its mask."""
    there = grid_of(size, side + 2, side)
    found = ImagePredictor(Squares(), AS_THEY_ARE, batch_size=2, tiles=Tiles(64, overlap))(painted(size, there))
    assert isinstance(found, Detections)
    assert len(found) == len(there)
    assert objects(found) == {(label, *box) for label, box in there}
    assert found.masks is not None
    for box, mask in zip(found.boxes.round().astype(int).tolist(), found.masks, strict=True):
        wanted = np.zeros(size[::-1], bool)
        wanted[box[1] : box[3], box[0] : box[2]] = True
        assert np.array_equal(decode(mask), wanted)


def test_an_object_over_many_tiles_is_one() -> None:
    there = [(0, (10, 10, 390, 40)), (1, (150, 60, 170, 290)), (2, (200, 100, 380, 280))]
    found = ImagePredictor(Squares(), AS_THEY_ARE, tiles=Tiles(64, 0.25))(painted((400, 300), there))
    assert isinstance(found, Detections)
    assert objects(found) == {(label, *box) for label, box in there}
    assert len(found) == 3


def test_without_overlap_objects_stay_in_pieces() -> None:
    found = ImagePredictor(Squares(), AS_THEY_ARE, tiles=Tiles(64, 0))(painted((128, 64), [(0, (50, 10, 80, 40))]))
    assert isinstance(found, Detections)
    assert objects(found) == {(0, 50, 10, 64, 40), (0, 64, 10, 80, 40)}


TWO = np.array([[0, 0, 100, 100], [60, 0, 160, 100]], np.float64)  # tiles of a picture of 160 x 100


@pytest.mark.parametrize(
    ("boxes", "labels", "scores", "owners", "wanted"),
    [
        # cut by the first tile, whole in the second: the whole one, whichever is better
        ([(70, 10, 100, 40), (70, 10, 130, 40)], [0, 0], [0.9, 0.6], [0, 1], [([0, 1], [1])]),
        ([(70, 10, 100, 40), (70, 10, 130, 40)], [0, 0], [0.5, 0.6], [0, 1], [([1, 0], [1])]),
        # of other classes
        ([(70, 10, 100, 40), (70, 10, 130, 40)], [0, 1], [0.9, 0.6], [0, 1], [([0], [0]), ([1], [1])]),
        # whole in both: the better one
        ([(70, 10, 90, 40), (70, 10, 91, 41)], [0, 0], [0.6, 0.9], [0, 1], [([1, 0], [1])]),
        # cut in both: their union
        ([(20, 10, 100, 40), (60, 10, 130, 40)], [0, 0], [0.9, 0.6], [0, 1], [([0, 1], [0, 1])]),
        # a small one in a large one
        ([(20, 10, 100, 90), (70, 20, 90, 40)], [0, 0], [0.9, 0.6], [0, 1], [([0], [0]), ([1], [1])]),
        # two of one tile are two, however much they overlap
        ([(10, 10, 40, 40), (11, 10, 41, 40)], [0, 0], [0.9, 0.6], [0, 0], [([0], [0]), ([1], [1])]),
        # at the picture's border nothing is cut
        ([(0, 10, 20, 40), (130, 0, 160, 40)], [0, 0], [0.9, 0.6], [0, 1], [([0], [0]), ([1], [1])]),
        # a sliver of what is whole in the other tile, with a poor box
        ([(80, 10, 100, 40), (70, 0, 130, 60)], [0, 0], [0.5, 0.9], [0, 1], [([1, 0], [1])]),
        # cut, and by chance a poor whole one around it: the cut one stays where it is
        ([(60, 10, 100, 40), (62, 5, 130, 60)], [0, 0], [0.9, 0.2], [0, 1], [([0, 1], [0])]),
        # two neighbours, and a poor box of the other tile over both: neither is lost
        (
            [(62, 10, 78, 40), (82, 10, 98, 40), (66, 10, 94, 40)], [0, 0, 0], [0.9, 0.8, 0.1], [0, 0, 1],
            [([0], [0]), ([1], [1]), ([2], [2])],
        ),
    ],
)  # fmt: skip
def test_seams(boxes: list[Any], labels: list[int], scores: list[float], owners: list[int], wanted: list[Any]) -> None:
    arrays = np.array(boxes, np.float64), np.array(labels), np.array(scores, np.float32), np.array(owners)
    assert join(*arrays, TWO, (160, 100)) == wanted


def test_nothing_found() -> None:
    found = ImagePredictor(Squares(), AS_THEY_ARE, tiles=Tiles(64))(Image.new("RGB", (200, 100)))
    assert isinstance(found, Detections)
    assert (len(found), found.size, found.masks) == (0, (200, 100), ())


# --- Which models, and which pictures ---


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("classification", "`tile=64` is for detectors and segmenters, and this model is a classifier: leave it out"),
        ("panoptic", "and this model is a panoptic detector: leave it out"),
    ],
)
def test_tasks_without_tiles(task: str, words: str) -> None:
    with pytest.raises(ResnestError, match=words):
        ImagePredictor(Own(), CARDS[task], tiles=Tiles(64))


def test_a_file_of_one_size_takes_tiles_that_it_does_not_shrink() -> None:
    fixed = replace(SEGMENTER, preprocess=replace(SEGMENTER.preprocess, canvas=(64, 96)))
    whole = labelled(SEGMENTER, Own(), noise(150, 100), Tiles(64))
    assert np.array_equal(labelled(fixed, Own(), noise(150, 100), Tiles(64)).labels, whole.labels)
    with pytest.raises(ResnestError, match="`tile=65`: this file takes 96 x 64 pixels, into which tiles would be shru"):
        ImagePredictor(Own(), fixed, tiles=Tiles(65))
    detector = replace(AS_THEY_ARE, preprocess=replace(AS_THEY_ARE.preprocess, canvas=(32, 64)))
    with pytest.raises(ResnestError, match="tiles would be shrunk to 32 pixels, and the model itself gets 64"):
        ImagePredictor(Squares(), detector, tiles=Tiles(64))


def test_a_long_strip() -> None:
    strip = Image.new("RGB", (100_000, 1))
    counts: list[tuple[int, int]] = []
    tiled = ImagePredictor(Squares(), AS_THEY_ARE, tiles=Tiles(640))
    tiled.on_tile = lambda done, of: counts.append((done, of))
    assert tiled(strip).size == (100_000, 1)
    assert (counts[0], counts[-1]) == ((0, 196), (196, 196))


def test_streams_go_on_after_an_unusable_picture() -> None:
    predictor = ImagePredictor(Own(), SEGMENTER, tiles=Tiles(32))
    found = list(predictor.stream([noise(40, 50), b"no picture", noise(50, 40)]))
    assert [type(one) for one in found] == [LabelMap, BadImage, LabelMap]


# --- The command line ---


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small networks of all kinds, an exported file of one size, and a picture as TIFF and as JPEG."""
    folder = tmp_path_factory.mktemp("tiled")
    networks: dict[str, Any] = {task: small(task) for task in PREPROCESS}
    networks["instances"] = resnest.create_detector(SPEC, resnest.DetectorSpec(masks=True, **HEADS), num_classes=3)
    for name, net in networks.items():
        of = "detection" if name == "instances" else name
        resnest.Model.of(net, CLASSES, PREPROCESS[of]).save_pretrained(folder / name)
    resnest.export(folder / "segmentation", format="onnx", size=(64, 96), out=folder / "fixed.onnx")
    noise(150, 100).save(folder / "x.tif", rowsperstrip=32)
    noise(150, 100).save(folder / "x.jpg")
    return folder


@pytest.mark.parametrize("picture", ["x.tif", "x.jpg"])
@pytest.mark.parametrize("model", ["segmentation", "detection", "instances", "fixed.onnx"])
def test_predict_in_tiles(model: str, picture: str, models: Path, tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    what = ("--tile", 64, "--overlap", 0.25, "--json", "--draw", tmp_path)
    outcome = cli("predict", models / model, models / picture, *what)
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert (found["width"], found["height"]) == (150, 100)
    with Image.open(found["files"]["draw"]) as drawn:
        assert min(drawn.size) >= 100


REFUSED = [
    ("segmentation", ["--tile", "16"], "--tile 16: expected 32 to 8192 pixels"),
    ("segmentation", ["--tile", "64", "--overlap", "1"], "--overlap 1: expected a number from 0 to less than 1"),
    ("segmentation", ["--tile", "64", "--overlap", "-0.5"], "--overlap -0.5: expected a number from 0 to less than 1"),
    ("segmentation", ["--overlap", "0.5"], "--overlap is for tiles: give --tile, too"),
    ("segmentation", ["--tile", "64", "--window", "64"], "--window 64 and --tile 64 exclude each other"),
    ("fixed.onnx", ["--tile", "128"], "--tile 128: this file takes 96 x 64 pixels, into which tiles would be shrunk"),
    ("classification", ["--tile", "64"], "--tile 64 is for detectors and segmenters, and this model is a classifier"),
    ("panoptic", ["--tile", "64"], "--tile 64 is for detectors and segmenters, and this model is a panoptic detector"),
]


@pytest.mark.parametrize(
    ("model", "options", "words"), REFUSED, ids=[f"{one[0]} {' '.join(one[1])}" for one in REFUSED]
)
def test_refused_on_the_command_line(
    model: str, options: list[str], words: str, models: Path, cli: Callable[..., Outcome]
) -> None:
    outcome = cli("predict", models / model, models / "x.jpg", *options)
    assert (outcome.code, outcome.out, len(outcome.err.splitlines())) == (2, "", 1)
    assert words in outcome.err


def test_a_grid_of_a_large_picture() -> None:
    grid = Tiles(640, 0.2).grid(12_000, 9_000)
    assert isinstance(grid, Grid)
    assert (len(grid.columns), len(grid.rows), len(grid)) == (24, 18, 432)
    assert next(grid.tiles()).box == (0, 0, 640, 640)
