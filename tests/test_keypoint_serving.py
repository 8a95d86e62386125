"""Keypoint models behind a server and in batch jobs: boxes of a detector, of a request, or of a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from conftest import Outcome
from resnest.inference.predicting import Predictor
from resnest.keypoints.boxes import Boxes
from resnest.keypoints.looking import clipped
from resnest.keypoints.top_down import BoxSource
from servers import Server, models, picture, server

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
Cli = Callable[..., Outcome]
GIVEN = [[4, 6, 30, 20], [20.5, 10, 50, 60]]  # x, y, width, height


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return models(tmp_path_factory.mktemp("models"), ["keypoints", "detection", "classification"])


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def running(references: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A keypoint model with a detector beside it, and a classifier."""
    named = [f"{name}={references[task]}" for name, task in (("pose", "keypoints"), ("what", "classification"))]
    boxes = f"{references['detection']}@cat"
    with server(tmp_path_factory.mktemp("server"), *named, "--boxes", boxes) as found:
        yield found


def without_name(text: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(text)
    return {name: value for name, value in content.items() if name != "image"}


def test_a_server_finds_boxes_as_predict_does(
    running: Server, references: dict[str, Path], photo: Path, cli: Cli
) -> None:
    source = f"{references['detection']}@cat"
    told = cli("predict", references["keypoints"], photo, "--boxes", source, "--json", "--threshold", 0)
    answer = running.post("/predict?threshold=0", content=photo.read_bytes())
    assert len(answer.json()["objects"]) > 1
    assert without_name(answer.text) == without_name(told.out)
    drawn = running.post("/predict?threshold=0&draw=1", content=photo.read_bytes())
    assert drawn.headers["content-type"] == "image/jpeg"
    pose, what = running.get("/models").json()
    assert (pose["boxes"], what.get("boxes")) == ("found, or given", None)


def test_boxes_of_a_request_are_looked_at(running: Server, references: dict[str, Path], photo: Path) -> None:
    """The same as of a file of detections; those of an answer can be sent again."""
    with Image.open(photo) as image:
        entry = {"image_id": 1, "category_id": 1}
        content = {
            "images": [{"id": 1, "file_name": photo.name, "width": image.width, "height": image.height}],
            "categories": [{"id": 1, "name": "object"}],
            "annotations": [{**entry, "bbox": box, "score": 1.0} for box in GIVEN],
        }
    file = photo.with_suffix(".json")
    file.write_text(json.dumps(content))
    pose = Predictor(references["keypoints"])
    expected = BoxSource.open(file, pose.card).predictor(pose)(str(photo))
    for boxes in (GIVEN, [[float(side) for side in box] for box in GIVEN]):
        answer = running.post(f"/predict?threshold=0&boxes={json.dumps(boxes)}", content=photo.read_bytes())
        assert without_name(answer.text) == without_name(expected.to_json())
    again = json.dumps([one["bbox"] for one in answer.json()["objects"]])
    assert without_name(running.post(f"/predict?threshold=0&boxes={again}", content=photo.read_bytes()).text) == (
        without_name(expected.to_json())
    )
    nothing = running.post("/predict?boxes=[]", content=photo.read_bytes()).json()
    assert nothing["objects"] == []


def test_the_protocol_takes_boxes_too(running: Server, photo: Path) -> None:
    client = pytest.importorskip("tritonclient.http", reason="tritonclient is not installed")
    plain = running.post(f"/predict?threshold=0&boxes={json.dumps(GIVEN)}", content=photo.read_bytes())
    with client.InferenceServerClient(f"127.0.0.1:{running.port}") as triton:
        pictures = client.InferInput("image", [1], "BYTES")
        import numpy as np

        pictures.set_data_from_numpy(np.array([photo.read_bytes()], object))
        answer = triton.infer("pose", [pictures], parameters={"threshold": 0.0, "boxes": json.dumps(GIVEN)})
    text = answer.as_numpy("json")[0]
    assert without_name(text.decode() if isinstance(text, bytes) else text) == without_name(plain.text)


BAD = {
    "no json": ("[[1,2", "boxes: expected JSON, a list of [x, y, width, height]"),
    "an object": ("{}", "boxes: expected JSON, a list"),
    "three numbers": ("[[1, 2, 3]]", "boxes: expected JSON, a list"),
    "text": ('[["1", 2, 3, 4]]', "box 0 has a value that is no number"),
    "true": ("[[true, 2, 3, 4]]", "box 0 has a value that is no number"),
    "NaN": ("[[NaN, 2, 3, 4]]", "box 0 has a value that is no number"),
    "huge": ("[[1, 2, 3, 4], [1, 2, 1" + "0" * 400 + ", 4]]", "box 1 has a value that is no number"),
    "no area": ("[[1, 2, 0, 4]]", "box 0 is 0 wide and 4 high: it has no area"),
    "outside": ("[[9000, 2, 3, 4]]", "box 0 is outside the picture of"),
    "too many": (json.dumps([[1, 2, 3, 4]] * 1001), "1,001 of them, 1,000 are the most"),
    "deep": ("[" * 5000, "boxes: expected JSON, a list"),
}


@pytest.mark.parametrize(("boxes", "message"), BAD.values(), ids=BAD)
def test_boxes_that_make_no_sense_get_one_line(boxes: str, message: str, running: Server, photo: Path) -> None:
    answer = running.post("/predict", params={"boxes": boxes}, content=photo.read_bytes())
    assert answer.status_code == 400
    assert message in answer.json()["error"]


def test_boxes_are_of_one_picture_and_of_models_that_look_at_them(running: Server, photo: Path) -> None:
    files = [("a", ("one.jpg", photo.read_bytes())), ("b", ("two.jpg", photo.read_bytes()))]
    several = running.post("/predict", params={"boxes": "[]"}, files=files)
    assert several.json()["error"] == "boxes are those of one picture, and there are 2"
    other = running.post("/predict", params={"boxes": "[]", "model": "what"}, content=photo.read_bytes())
    assert (other.status_code, other.json()["error"]) == (400, "boxes is no option of a classifier")
    assert len(running.post("/predict?threshold=0", files=files).json()) == 2


def test_a_server_says_what_it_looks_at(references: dict[str, Path], tmp_path: Path, photo: Path, cli: Cli) -> None:
    with server(tmp_path, references["keypoints"]) as alone:
        assert "looks at a picture as the crop of one object" in alone.log.read_text()
        assert alone.get("/models").json()[0]["boxes"] == "given"
        assert len(alone.post("/predict?threshold=0", content=photo.read_bytes()).json()["objects"]) == 1
    file = tmp_path / "found.json"
    file.write_text(json.dumps({"images": [], "categories": [], "annotations": []}))
    for model, boxes, message in (
        ("classification", "x", "is for keypoint models, and this model is a classifier"),
        ("keypoints", file, "is a file: a server finds boxes with a detector"),
        ("keypoints", references["classification"], "is a classifier: expected a detector"),
        ("keypoints", f"{references['detection']}@bird", "the detector has no class 'bird'"),
    ):
        told = cli("serve", references[model], "--boxes", boxes, "--port", 0)
        assert told.code == 2
        assert message in told.err


def test_what_of_a_box_is_in_the_picture() -> None:
    found = clipped(Boxes.of([(-1e6, -5.0, 1e6, 8.0, 1.0)]), (64, 32))
    assert found.boxes.tolist() == [[0, 0, 64, 8]]


def test_a_batch_job_with_boxes(references: dict[str, Path], photo: Path, tmp_path: Path, cli: Cli) -> None:
    """Rows are those of predict; another source of boxes is another job; a picture that a file lacks has an error."""
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(photo.read_bytes())
    photos = [tmp_path / f"{number}.jpg" for number in range(3)]
    source, out = f"{references['detection']}@cat", tmp_path / "rows.jsonl"
    words: list[Any] = ["predict", references["keypoints"], *photos, "--threshold", 0]
    printed = cli(*words, "--boxes", source, "--json")
    told = cli(*words, "--boxes", source, "--out", out)
    assert told.code == 0, told.err
    assert out.read_text() == printed.out
    other = cli(*words, "--boxes", f"{references['detection']}@dog", "--out", out)
    assert other.code == 2
    assert "was begun with another source of boxes: repeat that command" in other.err
    assert "was finished before" in cli(*words, "--boxes", source, "--out", out).err

    images = [{"id": k, "file_name": f"{k}.jpg", "width": 9, "height": 9} for k in range(2)]
    entries = [{"image_id": k, "category_id": 1, "bbox": GIVEN[0], "score": 1} for k in range(2)]
    file, rows = tmp_path / "found.json", tmp_path / "file.csv"
    file.write_text(json.dumps({"images": images, "categories": [{"id": 1, "name": "object"}], "annotations": entries}))
    lacking = cli(*words, "--boxes", file, "--out", rows)
    assert lacking.code == 2
    assert "1 of 3 images could not be used" in lacking.err
    assert rows.read_text().count("is not among the images of") == 1
    assert rows.read_text().count("1.jpg,") == 3  # points
