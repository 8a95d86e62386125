"""The page about the data: for every task it shows what training gets, whatever the files are like."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cells import write_cells
from conftest import Outcome, pico
from painted_segments import paint_segments
from resnest.data.samples import describe_counts
from resnest.data.sources import Splits, open_dataset
from resnest.report.data_page import SHOWN, spread, write_data_page
from resnest.runtime.palette import colour
from resnest.training.train import train
from streets import write_streets
from test_report import HOSTILE, Page, read_page

Cli = Callable[..., Outcome]
WRITE: dict[str, Callable[[Path], Path]] = {
    "detection": write_cells,
    "segmentation": write_streets,
    "panoptic": lambda root: paint_segments(root, 3),
}


def data_of(task: str, root: Path, photos: Path) -> Path:
    return WRITE[task](root / task) if task in WRITE else photos


def images_of(page: Page) -> list[Image.Image]:
    sources = [attrs["src"] or "" for tag, attrs in page.elements if tag == "img"]
    return [Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).convert("RGB") for source in sources]


def written(splits: Splits, path: Path) -> Page:
    write_data_page(path, splits)
    return read_page(path)


@pytest.mark.parametrize("task", ["classification", *WRITE])
def test_every_task_has_one(task: str, photos: Path, tmp_path: Path, cli: Cli) -> None:
    data = data_of(task, tmp_path, photos)
    splits = open_dataset(data, task=task)
    page = written(splits, tmp_path / "data.html")
    shown = sum(min(SHOWN[name], len(part)) for name, part in (("train", splits.train), ("val", splits.val)))
    assert page.count("figure") == shown
    assert page.count("img") == shown * (2 if task in ("segmentation", "panoptic") else 1)
    assert page.count("p", "empty") == 0
    assert all(name in page.text for name in splits.train.class_names)
    assert splits.describe() in page.text
    done = cli("doctor", "--data", data, "--task", task, "--html", tmp_path / "doctor.html")
    assert done.code in (0, 2), done.err
    checked = read_page(tmp_path / "doctor.html")
    problems = [line.removeprefix("problem: ") for line in done.out.splitlines() if line.startswith("problem: ")]
    assert all(line in checked.text for line in problems)
    # pictures to go through come first
    assert images_of(page)[0].tobytes() in [image.tobytes() for image in images_of(checked)]


def test_boxes_are_where_the_network_gets_them(tmp_path: Path) -> None:
    """Also in a picture that is much larger than the page's, and with an object that is not trained on."""
    for part in ("train", "val"):
        (tmp_path / part).mkdir()
        Image.new("RGB", (2400, 1200), (128, 128, 128)).save(tmp_path / part / "a.jpg")
        boxes = [[600, 300, 600, 600], [1500, 300, 300, 300], [1900, 300, 0, 0]]
        content = {
            "images": [{"id": 1, "file_name": "a.jpg", "width": 2400, "height": 1200}],
            "categories": [{"id": 1, "name": "box"}, {"id": 2, "name": "other"}],
            "annotations": [
                {"id": k, "image_id": 1, "category_id": 1, "bbox": box, "area": box[2] * box[3], "iscrowd": k == 1}
                for k, box in enumerate(boxes)
            ],
        }
        (tmp_path / part / "_annotations.coco.json").write_text(json.dumps(content))
    page = written(open_dataset(tmp_path), tmp_path / "data.html")
    pixels = np.asarray(images_of(page)[0]).astype(int)
    coloured = np.abs(pixels - 128).sum(2) > 60
    rows, columns = np.flatnonzero(coloured.any(1)), np.flatnonzero(coloured.any(0))
    scale = 480 / 2400
    assert columns.min() == pytest.approx(600 * scale, abs=3)
    assert columns.max() == pytest.approx(1200 * scale, abs=3)  # not the crowd
    assert rows.max() == pytest.approx(900 * scale, abs=3)
    assert "1 box" in page.text
    assert "1 crowd or difficult object not drawn" in page.text
    assert "1 not drawn: no area in the picture" in page.text


def test_pixels_have_the_colours_of_the_table(tmp_path: Path) -> None:
    for part in ("train", "val"):
        (tmp_path / "images" / part).mkdir(parents=True)
        (tmp_path / "masks" / part).mkdir(parents=True)
        Image.new("RGB", (60, 40), (255, 255, 255)).save(tmp_path / "images" / part / "a.png")
        mask = np.zeros((40, 60), np.uint8)
        mask[:, 30:] = 1
        mask[30:] = 255
        Image.fromarray(mask).save(tmp_path / "masks" / part / "a.png")
    (tmp_path / "classes.txt").write_text("left\nright\n")
    page = written(open_dataset(tmp_path, task="segmentation"), tmp_path / "data.html")
    picture, painted = images_of(page)[:2]
    assert np.abs(np.asarray(picture).astype(int) - 255).max() < 5
    for label, x in ((0, 12), (1, 48)):
        patch = np.asarray(painted.crop((x - 3, 10, x + 3, 16))).reshape(-1, 3).mean(0)
        distances = [np.abs(patch - colour(k)).sum() for k in range(2)]
        assert int(np.argmin(distances)) == label
    assert "left 37.5 %, right 37.5 %, not counted 25.0 %" in page.text.replace("\xa0", " ")


def test_what_cannot_be_read_is_listed(photos: Path, tmp_path: Path) -> None:
    for path in sorted(photos.rglob("*.jpg"))[::2]:
        path.write_bytes(b"no picture")
    splits = open_dataset(photos)
    page = written(splits, tmp_path / "data.html")
    chosen = {name: spread(part.groups(), SHOWN[name]) for name, part in (("train", splits.train), ("val", splits.val))}
    keys = [part.keys[i] for name, part in (("train", splits.train), ("val", splits.val)) for i in chosen[name]]
    bad = [key for key in keys if (photos / key).read_bytes() == b"no picture"]
    assert 0 < len(bad) < len(keys)
    assert page.count("li") == len(bad)
    assert all(key in page.text for key in bad)
    for path in photos.rglob("*.jpg"):
        path.write_bytes(b"")
    assert written(splits, tmp_path / "data.html").count("p", "empty") == 2


def test_names_are_text(digit_images: list[tuple[str, Image.Image]], tmp_path: Path) -> None:
    for name in ("<b>a", "b&quot;'", HOSTILE.replace("/", "")):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(3):
            digit_images[number][1].save(tmp_path / "data" / name / f"<i>{number}.png")
    page = written(open_dataset(tmp_path / "data"), tmp_path / "data.html")
    assert page.open == []
    assert page.count("b") == len(images_of(page))  # a caption each
    assert page.count("i") == page.count("script") == 0
    assert "<b>a" in page.text


def test_a_run_has_one_and_its_report_leads_to_it(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    train("imagenette", data=photos, out=run, settings=pico(), quiet=False)
    said = capsys.readouterr().err
    assert f"pictures as the network gets them: {run / 'data.html'}" in said
    assert f"classes: {describe_counts(open_dataset(photos).train)}" in said
    assert read_page(run / "data.html").count("img") == 20
    links = [attrs["href"] for tag, attrs in read_page(run / "report.html").elements if tag == "a"]
    assert links == ["data.html"]


def test_orientations_are_named(digit_images: list[tuple[str, Image.Image]], tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(4):
            extra = {"exif": turned} if number == 0 else {}
            digit_images[number][1].resize((24, 16)).save(tmp_path / "data" / name / f"{number}.jpg", **extra)
    page = written(open_dataset(tmp_path / "data"), tmp_path / "data.html")
    assert page.text.count("EXIF orientation 6, read upright") == 2
    assert sorted(image.size for image in images_of(page)).count((16, 24)) == 2


@pytest.mark.parametrize("task", ["classification", *WRITE])
def test_classes_with_their_counts(task: str, photos: Path, tmp_path: Path) -> None:
    part = open_dataset(data_of(task, tmp_path, photos), task=task).train
    said = describe_counts(part)
    assert all(name in said for name in part.class_names)
    assert (part.known_counts() is None) == (task == "segmentation")
    counts = part.known_counts()
    if counts is not None:
        assert said == ", ".join(f"{name} {count}" for name, count in zip(part.class_names, counts, strict=True))


@pytest.mark.parametrize(("lonely", "told"), [(1, "; no validation image has b: not measured"), (2, "")])
def test_a_class_that_no_figure_covers(lonely: int, told: str, tmp_path: Path) -> None:
    """All of the others may be right: it is said beside the counts."""
    for name, count in (("a", 20), ("b", lonely)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / "data" / name / f"{number}.png")
    splits = open_dataset(tmp_path / "data")
    assert describe_counts(splits.train, splits.val) == f"a 16, b 1{told}"


SPREAD = {  # groups, how many; what is chosen
    "one group": ([0] * 100, 5, [0, 25, 50, 74, 99]),
    "few": ([3, 1, 2], 5, [0, 1, 2]),
    "small groups first": ([0] * 9 + [1], 4, [0, 4, 8, 9]),
    "more groups than pictures": (list(range(10)), 4, [0, 3, 6, 9]),
    "none": ([], 5, []),
}


@pytest.mark.parametrize(("groups", "most", "chosen"), SPREAD.values(), ids=SPREAD)
def test_spread(groups: list[int], most: int, chosen: list[int]) -> None:
    assert spread(np.array(groups, np.int64), most).tolist() == chosen


def test_the_page_needs_data(tmp_path: Path, photos: Path, cli: Cli) -> None:
    assert (
        "--html, --model, --exif, --stats, --in-chans and --value-range need --data"
        in cli("doctor", "--html", tmp_path / "a.html").err
    )
    (tmp_path / "file").touch()
    done = cli("doctor", "--data", photos, "--html", tmp_path / "file" / "a.html")
    assert done.code == 2
    assert re.search(r"a\.html cannot be written: ", done.err)
