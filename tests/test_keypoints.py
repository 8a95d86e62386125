"""Points, crops, heatmaps and OKS of keypoints, each by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from resnest.errors import ResnestError
from resnest.keypoints.card import KeypointPreprocess
from resnest.keypoints.crops import Affine, Frame
from resnest.keypoints.heatmaps import STRIDE, Decoding, decode, encode, flipped
from resnest.keypoints.metrics import oks, oks_figures, suppress
from resnest.keypoints.points import PERSON_SIGMAS, PointLayout
from resnest.keypoints.result import Poses
from resnest.runtime.raster import Raster

PERSON = tuple(PERSON_SIGMAS)
SHAPE = (64, 48)


def maps_of(points: np.ndarray[Any, Any], sigma: float = 2.0, shape: tuple[int, int] = SHAPE) -> Any:
    """(N, 1, h, w) of points (N, 2) in pixels of the input."""
    seen = np.ones(1, bool)
    return np.stack([encode(point[None], seen, shape, sigma=sigma) for point in points])


@pytest.mark.parametrize("sigma", [1.5, 2.0, 3.0])
@pytest.mark.parametrize(("how", "most"), [("dark", 0.02), ("quarter", 0.25)])
def test_gaussians_are_read_back(how: Decoding, most: float, sigma: float) -> None:
    """Within these cells, wherever the peak lies between them, down to two and a half cells from the border."""
    rng = np.random.default_rng(0)
    points = rng.uniform((2.5, 2.5), (SHAPE[1] - 2.5, SHAPE[0] - 2.5), (300, 2)) * STRIDE
    places, values = decode(maps_of(points, sigma), sigma=sigma, how=how)
    assert np.abs(places[:, 0] - points).max() / STRIDE <= most + 1e-3
    assert values.min() > 0.8


def test_noisy_maps_are_read_better_by_dark() -> None:
    rng = np.random.default_rng(1)
    points = rng.uniform(40, 150, (200, 2))
    maps = maps_of(points) + rng.normal(0, 0.02, (200, 1, *SHAPE)).astype(np.float32)
    errors = [np.abs(decode(maps, sigma=2, how=how)[0][:, 0] - points).mean() for how in ("dark", "quarter")]  # type: ignore[arg-type]
    assert errors[0] < 0.6 * errors[1]


def test_maps_without_a_peak_are_read() -> None:
    flat = np.zeros((1, 2, *SHAPE), np.float32)
    flat[0, 1, 0, 0] = 1  # a corner
    places, values = decode(flat, sigma=2)
    assert np.isfinite(places).all()
    assert values.tolist() == [[0, 1]]
    assert places[0, 1].tolist() == [2, 2]
    empty, none = decode(np.zeros((0, 2, *SHAPE), np.float32), sigma=2)
    assert (empty.shape, none.shape) == ((0, 2, 2), (0, 2))


def test_points_that_are_not_seen_have_no_map() -> None:
    maps = encode(np.array([[10.0, 10], [20, 20]]), np.array([True, False]), SHAPE, sigma=2)
    assert (maps.max((1, 2)) > 0).tolist() == [True, False]


def test_flipping_twice_is_identity_and_swaps_sides_by_name() -> None:
    layout = PointLayout.of(PERSON)
    swapped = [PERSON[k] for k in layout.mirrored]
    assert swapped[:5] == ["nose", "right_eye", "left_eye", "right_ear", "left_ear"]
    assert all(a.replace("left", "x").replace("right", "left").replace("x", "right") == b
               for a, b in zip(PERSON, swapped, strict=True))  # fmt: skip
    maps = np.random.default_rng(0).random((2, 17, 8, 6), np.float32)
    assert np.array_equal(flipped(flipped(maps, layout.mirrored), layout.mirrored), maps)


def test_maps_of_a_mirrored_input_need_no_shift() -> None:
    """A point at x is at width - x in a mirrored picture, and its map the mirrored map, to the last cell."""
    points = np.random.default_rng(2).uniform(20, 170, (50, 2))
    mirrored = points * (-1, 1) + (SHAPE[1] * STRIDE, 0)
    assert flipped(maps_of(mirrored), [0]) == pytest.approx(maps_of(points), abs=1e-6)


@pytest.mark.parametrize("turn", [0.0, 33.0, -160.0])
@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("frame", [Frame(), Frame(width=96, height=96, padding=1.5)])
def test_a_turned_crop_returns_to_the_picture(turn: float, mirror: bool, frame: Frame) -> None:
    """To 1e-3 pixels: from points in the picture to heatmaps and back."""
    rng = np.random.default_rng(3)
    centre, size = frame.region((100, 50, 180, 190))
    view = Affine.of(centre, size, frame, turn=turn, mirror=mirror)
    points = view.inverse.points(rng.uniform(0.2, 0.8, (17, 2)) * (frame.width, frame.height))
    assert view.inverse.points(view.points(points)) == pytest.approx(points, abs=1e-9)
    shape = (frame.height // STRIDE, frame.width // STRIDE)
    places, _ = decode(maps_of(view.points(points), shape=shape), sigma=2)
    assert view.inverse.points(places[:, 0]) == pytest.approx(points, abs=1e-3)


@pytest.mark.parametrize("side", [60.0, 150.0, 600.0])  # enlarged, about as it is, reduced
@pytest.mark.parametrize("bands", [False, True])
def test_pixels_move_as_points(side: float, bands: bool) -> None:
    pixels = np.zeros((300, 400, 3), np.uint8)
    pixels[100:104, 200:204] = 255
    picture = Raster.of(pixels.astype(np.uint16)) if bands else Image.fromarray(pixels)
    view = Affine.of(np.array([190.0, 110]), np.array([side, side * 4 / 3]), Frame(), turn=40, mirror=True)
    seen = np.asarray(view.pixels(picture), np.float64)[..., 0]
    assert seen.shape == (256, 192)
    rows, columns = np.indices(seen.shape) + 0.5
    middle = (columns * seen).sum() / seen.sum(), (rows * seen).sum() / seen.sum()
    assert middle == pytest.approx(view.points(np.array([202.0, 102])), abs=0.1)


def test_windows_have_the_proportions_of_the_input() -> None:
    assert Frame().window((100, 100, 130, 140)) == (96, 95, 134, 145)  # 40 x 1.25 high, three quarters of it wide
    assert Frame().window((0, 0, 120, 10)) == (-15, -95, 135, 105)
    assert Frame().window((5, 5, 5, 5)) == (4, 4, 6, 6)


def test_a_crop_is_fitted_into_the_input() -> None:
    prepare = KeypointPreprocess(width=96, height=128, mean=(0.0,) * 3, std=(1.0,) * 3)
    out = prepare(Image.new("RGB", (40, 20), (255, 255, 255)))
    assert out.shape == (3, 128, 96)
    assert prepare.scaled_size(40, 20) == (96, 48)
    assert (out[:, :48] == 1).all()
    assert not out[:, 48:].any()


BAD_LAYOUTS: dict[str, tuple[Callable[[], Any], str]] = {
    "no points": (lambda: PointLayout.of(()), "has no points"),
    "two of one name": (lambda: PointLayout.of(("a", "b", "a")), "two points are called 'a'"),
    "sigmas": (lambda: PointLayout.of(("a", "b"), sigmas=[0.1]), "1 sigmas for 2 points"),
    "a sigma of 0": (lambda: PointLayout.of(("a",), sigmas=[0.0]), "a sigma of 0.0"),
    "a skeleton": (lambda: PointLayout.of(("a", "b"), skeleton=((0, 2),)), "the skeleton name point 3 of 2"),
    "a line to itself": (lambda: PointLayout.of(("a", "b"), skeleton=((1, 1),)), "join 'b' with itself"),
    "pairs": (
        lambda: PointLayout(names=("a", "b", "c"), sigmas=(0.1,) * 3, pairs=((0, 1), (1, 2))),
        "flip pairs name 'b' twice",
    ),
    "unknown pairs": (lambda: PointLayout(names=("1",), sigmas=(0.1,), pairs=None).mirrored, "is not known"),
}


@pytest.mark.parametrize(("make", "message"), BAD_LAYOUTS.values(), ids=BAD_LAYOUTS)
def test_layouts_that_cannot_be(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ResnestError, match=message):
        make()


def test_a_layout_is_kept_by_its_card() -> None:
    for pairs in (None, (), ((1, 2),)):
        layout = PointLayout(names=("a", "b", "c"), sigmas=(0.1, 0.2, 0.3), pairs=pairs, skeleton=((0, 1),))
        assert PointLayout.from_dict(layout.to_dict()) == layout
    assert PointLayout.of(("left_tip", "stem")).unpaired() == ["left_tip"]
    assert PointLayout.of(PERSON).halves is not None
    assert PointLayout.of(("a", "b")).halves is None


# --- OKS ---


def random_set(seed: int) -> tuple[list[Any], list[Any], list[Any]]:
    """Pictures, annotations and results with crowds, unannotated objects, ties and more than twenty results."""
    rng = np.random.default_rng(seed)
    images, truths, found = [], [], []
    for image in range(1, 7):
        images.append({"id": image, "width": 640, "height": 480})
        for _ in range(rng.integers(0, 6)):
            points = np.column_stack([rng.uniform(0, 300, (17, 2)), rng.integers(0, 3, 17)])
            if rng.random() < 0.2:
                points[:, 2] = 0
            x, y, wide, high = rng.uniform(0, 200), rng.uniform(0, 200), rng.uniform(5, 250), rng.uniform(5, 250)
            truths.append(
                {"id": len(truths) + 1, "image_id": image, "category_id": 1, "iscrowd": int(rng.random() < 0.1)}
                | {"bbox": [x, y, wide, high], "area": float(wide * high * rng.uniform(0.3, 1))}
                | {"keypoints": points.ravel().tolist(), "num_keypoints": int((points[:, 2] > 0).sum())}
            )
            for _ in range(rng.integers(0, 8)):
                near = points.copy()
                near[:, :2] += rng.normal(0, rng.choice([1, 5, 20]), (17, 2))
                near[:, 2] = 1
                found.append({"image_id": image, "category_id": 1, "keypoints": near.ravel().tolist()})
                found[-1]["score"] = float(np.round(rng.random(), 1))
    return images, truths, found


@pytest.mark.parametrize("seed", range(20))
def test_figures_are_pycocotools(seed: int) -> None:
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    from pycocotools.cocoeval import COCOeval

    images, truths, found = random_set(seed)
    if not truths or not found:
        return
    truth = coco.COCO()
    truth.dataset = {"images": images, "annotations": truths, "categories": [{"id": 1, "name": "person"}]}
    truth.createIndex()
    theirs = COCOeval(truth, truth.loadRes([dict(one) for one in found]), "keypoints")
    theirs.evaluate()
    theirs.accumulate()
    theirs.summarize()
    names = ("ap", "ap50", "ap75", "apm", "apl", "ar", "ar50", "ar75", "arm", "arl")
    ours = oks_figures(images, truths, found, sigmas=list(PERSON_SIGMAS.values()))
    expected = [np.nan if value == -1 else value for value in theirs.stats]
    assert [ours[name] for name in names] == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_known_figures() -> None:
    """One object of two, found exactly; a second result of the same is false."""
    images = [{"id": 1, "width": 100, "height": 100}]
    points = [10.0, 10.0, 2.0, 30.0, 30.0, 2.0]
    truth = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 40, 40], "area": 1600.0, "iscrowd": 0}
    truths = [{**truth, "keypoints": points, "num_keypoints": 2}]
    truths.append({**truths[0], "id": 2, "keypoints": [60.0, 60.0, 2.0, 90.0, 90.0, 2.0]})
    result = {"image_id": 1, "category_id": 1, "keypoints": points}
    found = [{**result, "score": 0.9}, {**result, "score": 0.8}]
    figures = oks_figures(images, truths, found, sigmas=[0.1, 0.1])
    assert figures["ar"] == pytest.approx(0.5)
    assert figures["ap"] == pytest.approx(51 / 101)
    assert oks_figures(images, truths, [], sigmas=[0.1, 0.1])["ap"] == 0
    assert np.isnan(oks_figures(images, [], found, sigmas=[0.1, 0.1])["ap"])


def test_oks_by_hand() -> None:
    truth, visible, area = np.zeros((1, 2, 2)), np.array([[2, 0]]), np.array([100.0])
    found = np.array([[[3.0, 4.0], [99, 99]]])  # 5 pixels; the other point is not annotated
    assert oks(found, truth, visible, area, [0.1, 0.1])[0, 0] == pytest.approx(np.exp(-25 / (2 * 100 * 0.2**2)))
    assert np.isnan(oks(found, truth, np.zeros((1, 2), int), area, [0.1, 0.1])[0, 0])


def test_doubles_are_dropped() -> None:
    layout = PointLayout.of(("a", "b"))
    poses = Poses(
        name="x",
        width=100,
        height=100,
        layout=layout,
        thing="t",
        category_id=1,
        boxes=np.array([[0, 0, 50, 50]] * 3, float),
        points=np.array([[[10, 10], [20, 20]], [[10.2, 10], [20, 20.2]], [[40, 10], [20, 20]]], float),
        point_scores=np.ones((3, 2), np.float32),
        scores=np.array([0.5, 0.9, 0.4]),
    )
    assert suppress(poses, 0.9).scores.tolist() == [0.9, 0.4]
    assert suppress(replace(poses), 1.0).scores.tolist() == [0.9, 0.5, 0.4]
