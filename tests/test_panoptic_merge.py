"""Objects and stuff joined to one picture, and files that hold it: truth sent through both is found again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from conftest import shared_data
from resnest.detection.card import Classes, DetectionPreprocess
from resnest.detection.result import Detections, RawDetections, RawPanoptic
from resnest.errors import ResnestError
from resnest.panoptic.card import PanopticSpec
from resnest.panoptic.metrics import PanopticMetrics
from resnest.panoptic.predict import Semantic, merge, panoptic_map, semantic_of
from resnest.panoptic.result import PanopticFiles, PanopticMap, write_panoptic
from resnest.runtime.palette import decode_ids, encode_ids
from resnest.runtime.rle import decode, encode
from segments import CLASSES, THINGS, as_predicted, described, random_truth

EXACT = PanopticSpec(stuff_area=0)
CAT, DOG, COW, SKY, SEA, MUD = range(6)
TRUTHS = {seed: random_truth(np.random.default_rng(seed), (20 + seed, 30), name=f"{seed}.png") for seed in range(1, 40)}


def objects(*found: tuple[NDArray[np.bool_], int, float]) -> Detections:
    """Masks, labels, scores."""
    masks = [one[0] for one in found]
    return Detections(
        name="x.jpg",
        width=10,
        height=10,
        classes=Classes(CLASSES.names[:THINGS], CLASSES.ids[:THINGS]),
        boxes=np.zeros((len(found), 4), np.float32),
        labels=np.array([one[1] for one in found], np.int64),
        scores=np.array([one[2] for one in found], np.float32),
        masks=tuple(encode(mask) for mask in masks),
    )


def block(top: int, left: int, bottom: int, right: int) -> NDArray[np.bool_]:
    mask = np.zeros((10, 10), bool)
    mask[top:bottom, left:right] = True
    return mask


def plain(label: int = 0, score: float = 1.0) -> Semantic:
    """All of one kind."""
    return Semantic(np.full((10, 10), label, np.uint8), np.full((10, 10), score, np.float32))


def test_the_better_object_lies_above() -> None:
    found = objects((block(0, 0, 4, 10), CAT, 0.6), (block(2, 0, 6, 10), DOG, 0.9))
    merged = merge(found, plain(), CLASSES, PanopticSpec())
    assert [(one.id, one.label, one.area, one.box) for one in merged.segments] == [
        (1, DOG, 40, (0, 2, 10, 4)),
        (2, CAT, 20, (0, 0, 10, 2)),
    ]
    assert (merged.ids[:2] == 2).all()
    assert (merged.ids[2:6] == 1).all()
    assert (merged.ids[6:] == 0).all()
    assert merged.segments[0].score == pytest.approx(0.9)
    assert merged.counts() == {"cat": 1, "dog": 1}


# rows of a second object that the first one (rows 0 to 4) covers, of how many; overlap, whether it stays
OVERLAPS = {
    "half is covered": (slice(4, 6), 0.5, True),
    "a little more": (slice(3, 6), 0.5, False),
    "all, and all may be": (slice(0, 5), 1.0, False),  # nothing of it would be left to see
    "a little, and nothing may be": (slice(4, 9), 0.0, False),
    "nothing": (slice(5, 9), 0.0, True),
}


@pytest.mark.parametrize("case", OVERLAPS)
def test_overlap(case: str) -> None:
    rows, overlap, stays = OVERLAPS[case]
    found = objects((block(0, 0, 5, 10), CAT, 0.9), (block(rows.start, 0, rows.stop, 10), CAT, 0.8))
    assert len(merge(found, plain(), CLASSES, PanopticSpec(overlap=overlap)).segments) == 1 + stays


def test_faint_and_empty_objects_go() -> None:
    found = objects((block(0, 0, 2, 2), CAT, 0.49), (block(4, 4, 4, 4), CAT, 0.9), (block(6, 6, 8, 8), DOG, 0.5))
    merged = merge(found, plain(), CLASSES, PanopticSpec())
    assert [one.label for one in merged.segments] == [DOG]
    assert len(merge(found, plain(), CLASSES, PanopticSpec(score=0.4)).segments) == 2


def test_stuff_fills_what_is_left() -> None:
    semantic = plain(1, 0.5)  # sky
    semantic.labels[5:] = 3  # mud
    semantic.labels[:, 9] = 0  # some thing, of which no object was found
    semantic.scores[5:7] = 0.8
    found = objects((block(0, 0, 5, 5), CAT, 0.9))
    merged = merge(found, semantic, CLASSES, PanopticSpec(stuff_area=20))
    told = [(one.label, one.area, round(one.score, 6)) for one in merged.segments]
    assert told == [(CAT, 25, 0.9), (SKY, 20, 0.5), (MUD, 45, 0.62)]
    assert (merged.ids[:, 9] == 0).all()
    small = merge(found, semantic, CLASSES, PanopticSpec(stuff_area=21))
    assert [one.label for one in small.segments] == [CAT, MUD]


def test_logits_in_the_size_of_the_picture() -> None:
    """As a direct computation: each plane resized, softmax over the kinds."""
    logits = np.random.default_rng(0).normal(0, 3, (5, 12, 9)).astype(np.float32)
    planes = [np.asarray(Image.fromarray(one).resize((31, 22), Image.Resampling.BILINEAR)) for one in logits]
    stacked = np.stack(planes).astype(np.float64)
    odds = np.exp(stacked) / np.exp(stacked).sum(0)
    semantic = semantic_of(logits, (31, 22))
    np.testing.assert_array_equal(semantic.labels, stacked.argmax(0))
    np.testing.assert_allclose(semantic.scores, odds.max(0), rtol=1e-5)
    far = semantic_of(np.stack([np.full((2, 2), -1e4, np.float32), np.full((2, 2), 1e4, np.float32)]), (3, 3))
    assert (far.labels == 1).all()
    assert (far.scores == 1).all()


def test_from_what_an_engine_gives() -> None:
    """A picture of 20 x 10 in an input of 64 x 32, padded: only what is not padding counts."""
    preprocess = DetectionPreprocess(short=24, long=60)
    wide, high = preprocess.scaled_size(20, 10)
    assert preprocess.padded_size(20, 10) == (32, 64)
    semantic = np.zeros((2, 5, 32, 64), np.float32)
    semantic[1, 2, :high] = 4  # sea
    semantic[1, 4, high:] = semantic[1, 4, :, wide:] = 90  # fog, in the padding alone
    masks = np.ones((2, 2, 28, 28), np.float32)
    raw = RawPanoptic(
        RawDetections(
            boxes=np.array([[[0, 0, wide / 2, high], [0, 0, 9, 9]]] * 2, np.float32),
            scores=np.array([[0.9, 0.3]] * 2, np.float32),
            labels=np.array([[COW, CAT]] * 2),
            masks=masks,
        ),
        semantic,
    )
    found = panoptic_map(
        raw, 1, name="a.jpg", size=(20, 10), preprocess=preprocess, classes=CLASSES, spec=PanopticSpec(stuff_area=50)
    )
    assert found.ids.shape == (10, 20)
    assert [(one.label, one.area) for one in found.segments] == [(COW, 100), (SEA, 100)]
    assert found.segments[1].score == pytest.approx(np.exp(4) / (np.exp(4) + 4))
    assert (found.ids[:, :10] == 1).all()


def quality(found: PanopticMap, truth: PanopticMap) -> dict[str, float]:
    metrics = PanopticMetrics(len(truth.classes.names), truth.classes.things)
    metrics.update(found, truth)
    return metrics.compute().figures


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Truths sent through merging and into files."""
    path = tmp_path_factory.mktemp("found") / "panoptic.json"
    merged = ((seed, merge(*as_predicted(truth), CLASSES, EXACT)) for seed, truth in TRUTHS.items())
    write_panoptic(path, merged, CLASSES)
    return path


def test_truth_through_merging_and_files_is_found_again(written: Path) -> None:
    files = PanopticFiles.read(written)
    assert files.classes == CLASSES
    assert list(files.entries) == list(TRUTHS)
    metrics = PanopticMetrics(len(CLASSES.names), THINGS)
    for seed, truth in TRUTHS.items():
        metrics.update(files.load(seed), truth)
    figures = metrics.compute().figures
    assert len(figures) == 9
    assert set(figures.values()) == {1.0}


def test_files_hold_everything(written: Path) -> None:
    before = merge(*as_predicted(TRUTHS[3]), CLASSES, EXACT)
    after = PanopticFiles.read(written).load(3)
    assert (after.name, after.segments) == ("3.png", before.segments)
    np.testing.assert_array_equal(after.ids, before.ids)
    content = json.loads(written.read_text())
    assert content["images"][2] == {"id": 3, "file_name": "3.png", "width": 30, "height": 23}
    assert content["categories"][3] == {"id": 92, "name": "sky", "isthing": 0, "color": [70, 130, 180]}
    info = content["annotations"][2]["segments_info"][0]
    assert set(info) == {"id", "category_id", "area", "bbox", "iscrowd", "score"}


def test_ids_of_three_bytes() -> None:
    ids = np.array([[0, 255, 256, 65536, 2**24 - 1]], np.int32)
    pixels = encode_ids(ids)
    assert pixels.tolist() == [[[0, 0, 0], [255, 0, 0], [0, 1, 0], [0, 0, 1], [255, 255, 255]]]
    np.testing.assert_array_equal(decode_ids(pixels), ids)


def _entry(change: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
    return lambda content: change(content["annotations"][2])


BROKEN: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no categories": (lambda content: content.pop("categories"), "found.json is not a panoptic json.*'categories' is"),
    "two of one id": (
        lambda content: content["categories"].append(content["categories"][0]),
        "found.json is not .* two have one id",
    ),
    "no image": (lambda content: content["annotations"].pop(2), "found.json has no segments of the image 3"),
    "a segment less": (
        _entry(lambda one: one["segments_info"].pop()),
        r"000003.png: segment \d+ is in the PNG and not",
    ),
    "a segment more": (
        _entry(lambda one: one["segments_info"].append({"id": 999, "category_id": 1})),
        "000003.png: segment 999 is in the json and has no pixel",
    ),
    "twice": (
        _entry(lambda one: one["segments_info"].append(one["segments_info"][0])),
        "000003.png: segment 1 occurs twice",
    ),
    "black": (_entry(lambda one: one["segments_info"][0].update(id=0)), "segment 0 cannot be: black is void"),
    "unknown category": (
        _entry(lambda one: one["segments_info"][0].update(category_id=5)),
        "000003.png: segment 1 has the category 5, which is not among",
    ),
    "no number": (
        _entry(lambda one: one["segments_info"][0].update(id="a")),
        "found.json: .* image 3 is not as expect",
    ),
    "nothing told": (_entry(lambda one: one.pop("segments_info")), "found.json: .* image 3 is not as expected"),
    "no such PNG": (_entry(lambda one: one.update(file_name="x.png")), "x.png: cannot be read"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files(case: str, written: Path, tmp_path: Path) -> None:
    change, message = BROKEN[case]
    content = json.loads(written.read_text())
    change(content)
    (tmp_path / "found.json").write_text(json.dumps(content))
    with pytest.raises(ResnestError, match=message) as caught:
        PanopticFiles.read(tmp_path / "found.json", folder=written.with_suffix("")).load(3)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_written_or_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResnestError, match=r"file.* cannot be written"):
        write_panoptic(tmp_path / "file" / "a.json", [], CLASSES)
    with pytest.raises(ResnestError, match=r"none.json cannot be read: No such file"):
        PanopticFiles.read(tmp_path / "none.json")
    (tmp_path / "file").write_text("[" * 100_000)
    with pytest.raises(ResnestError, match="is not a panoptic json"):
        PanopticFiles.read(tmp_path / "file")


@pytest.mark.data
def test_coco_through_merging_and_files(tmp_path: Path) -> None:
    """All of the validation split: exactly 1."""
    data = shared_data() / "coco200-panoptic"
    files = PanopticFiles.read(data / "annotations" / "panoptic_val.json", data / "panoptic")
    assert (len(files.entries), files.classes.things, len(files.classes.names)) == (50, 80, 133)
    truth = {image: files.load(image) for image in files.entries}
    merged = ((image, merge(*as_predicted(one), files.classes, EXACT)) for image, one in truth.items())
    write_panoptic(tmp_path / "found.json", merged, files.classes)
    found = PanopticFiles.read(tmp_path / "found.json")
    metrics = PanopticMetrics(133, 80)
    for image, one in truth.items():
        metrics.update(found.load(image), one)
    figures = metrics.compute().figures
    assert set(figures.values()) == {1.0}
    assert metrics.matched.sum() == 305 + 183 - 1  # without the crowd


@pytest.mark.data
def test_the_two_forms_of_panopticapis_sample() -> None:
    """The same segments as PNGs and as run lengths, areas and boxes as their json has them."""
    data = shared_data() / "coco200-panoptic" / "panopticapi_sample"
    files = PanopticFiles.read(data / "panoptic_examples.json", data / "panoptic_examples")
    runs = json.loads((data / "panoptic_coco_detection_format.json").read_text())["annotations"]
    for image, entry in files.entries.items():
        panoptic = files.load(image)
        told = {one["id"]: one for one in entry["segments_info"]}
        for one in panoptic.segments:
            assert (one.area, list(one.box)) == (told[one.id]["area"], told[one.id]["bbox"])
        ids = np.zeros(panoptic.ids.shape, np.int32)
        mine = [one for one in runs if one["image_id"] == image]
        for number, one in enumerate(mine, start=1):
            ids[decode(one["segmentation"])] = number
        number_of = {key: label for label, key in enumerate(files.classes.ids)}
        labels = {number: number_of[one["category_id"]] for number, one in enumerate(mine, start=1)}
        again = described(ids, labels, frozenset(n for n, one in enumerate(mine, start=1) if one["iscrowd"]))
        assert len(again.segments) == len(panoptic.segments)
        metrics = PanopticMetrics(133, 80)
        metrics.update(again, panoptic)
        assert metrics.matched.sum() == sum(not one.crowd for one in panoptic.segments)
        assert metrics.compute().figures["pq"] == 1
