"""Streams of images: decoded ahead in threads, in order, bounded, and bit for bit what one image at a time gives."""

from __future__ import annotations

import csv
import runpy
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from rich import progress
from rich.console import Console

from resnest.classification.card import ClassificationCard
from resnest.progress import Progress
from resnest.runtime.ahead import ahead
from resnest.runtime.decode import BadImage, decode_image
from resnest.runtime.predictor import BATCHES_AHEAD, ImagePredictor
from resnest.runtime.preprocess import Preprocess
from resnest.spec import Spec

CARD = ClassificationCard(architecture="resnest", spec=Spec(), class_names=tuple("abc"), preprocess=Preprocess(size=24))


class Means:
    """An engine that notes its batches: the mean of each channel, plus the batch's own, so that batching shows."""

    name = "means"

    def __init__(self) -> None:
        self.batches: list[NDArray[np.float32]] = []

    def __call__(self, images: NDArray[np.float32], sizes: Any = None) -> dict[str, NDArray[np.float32]]:
        self.batches.append(images.copy())
        return {"logits": images.mean((2, 3)) + images.mean()}


def _decoders() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


def test_streams_equal_single_images_bit_for_bit(photos: Path) -> None:
    files = sorted(photos.rglob("*.jpg"))
    broken = photos / "broken.jpg"
    broken.write_bytes(files[0].read_bytes()[:200])
    paths: list[Path | str] = [broken, *files[:5], str(broken), *files[5:], broken]
    engine = Means()
    results = list(ImagePredictor(engine, CARD, batch_size=4).stream(paths))
    batches = iter(engine.batches)
    for start in range(0, len(paths), 4):  # batches are of four paths, as they come, without the broken ones
        good = [CARD.preprocess(decode_image(Path(path))) for path in paths[start : start + 4] if Path(path) != broken]
        if good:
            assert np.array_equal(next(batches), np.stack(good))
    assert next(batches, None) is None
    assert [isinstance(result, BadImage) for result in results] == [Path(path) == broken for path in paths]
    assert [result.name for result in results] == [str(path) for path in paths]
    assert not _decoders()


def test_no_more_is_decoded_than_needed(photos: Path) -> None:
    """Of an endless input too; and a stream that is left early leaves no threads behind."""
    files, asked = sorted(photos.rglob("*.jpg")), []

    def endless() -> Iterator[Path]:
        for index in count():
            asked.append(index)
            yield files[index % len(files)]

    stream = ImagePredictor(Means(), CARD, batch_size=4).stream(endless())
    for taken in range(1, 18):
        next(stream)
        assert len(asked) <= 4 * (-(-taken // 4) + BATCHES_AHEAD)
    assert _decoders()
    stream.close()
    assert not _decoders()


def test_the_engine_runs_while_images_are_decoded(photos: Path) -> None:
    files = sorted(photos.rglob("*.jpg"))[:12]
    seen: list[int] = []

    class Waiting(Means):
        def __call__(self, images: NDArray[np.float32], sizes: Any = None) -> dict[str, NDArray[np.float32]]:
            deadline = time.monotonic() + 10
            while len(decoded) < min(12, len(seen) + 8) and time.monotonic() < deadline:
                time.sleep(0.001)
            seen.extend([len(decoded)] * len(images))
            return super().__call__(images)

    decoded: list[object] = []

    class Noting(ImagePredictor):
        def _prepare(self, image: object, name: str) -> Any:
            pixels = super()._prepare(image, name)  # type: ignore[arg-type]
            decoded.append(image)
            return pixels

    assert len(list(Noting(Waiting(), CARD, batch_size=4).stream(files))) == 12
    assert seen[0] >= 8  # while the first batch was in the engine, the second was decoded


@pytest.mark.parametrize("where", ["engine", "input", "decoding"])
def test_an_error_ends_the_stream_and_its_threads(where: str, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = sorted(photos.rglob("*.jpg"))

    class Failing(Means):
        def __call__(self, images: NDArray[np.float32], sizes: Any = None) -> dict[str, NDArray[np.float32]]:
            raise RuntimeError("engine")

    def failing() -> Iterator[Path]:
        yield from files[:6]
        raise RuntimeError("input")

    def no_memory(*_: object) -> None:
        raise MemoryError("decoding")

    predictor = ImagePredictor(Failing() if where == "engine" else Means(), CARD, batch_size=4)
    if where == "decoding":
        monkeypatch.setattr(Preprocess, "__call__", no_memory)
    with pytest.raises((RuntimeError, MemoryError), match=where):
        list(predictor.stream(failing() if where == "input" else files))
    assert not _decoders()


@pytest.mark.parametrize(("most", "threads"), [(1, 1), (3, 2), (100, 8)])
def test_ahead_keeps_the_order(most: int, threads: int) -> None:
    def work(number: int) -> int:
        time.sleep(0.002 * (number % 3))
        return number

    with ahead(work, range(50), most=most, threads=threads) as results:
        assert list(results) == list(range(50))
    with ahead(work, [], most=most, threads=threads) as results:
        assert list(results) == []


def test_one_image_in_every_form(photos: Path) -> None:
    path = next(photos.rglob("*.jpg"))
    predictor = ImagePredictor(Means(), CARD)
    results = [predictor(form) for form in (path, str(path), path.read_bytes(), decode_image(path))]
    assert len({tuple(result.scores.tolist()) for result in results}) == 1
    grey = predictor(Image.new("L", (30, 30), 100))
    assert grey.top(1)


def test_decoding_in_threads_leaves_the_filters_of_warnings(tmp_path: Path) -> None:
    """Pillow warns of this file (palette with transparency in bytes, in a 16-bit EXIF of nonsense); nobody hears it."""
    image = Image.new("RGB", (64, 64), (10, 20, 30))
    exif = Image.Exif()
    exif[0x010E] = "a" * 100
    image.save(tmp_path / "a.jpg", exif=exif.tobytes()[:-60])  # its EXIF data end too early
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        with Image.open(tmp_path / "a.jpg") as opened:
            opened.getexif()
    assert heard  # Pillow does warn
    with warnings.catch_warnings():
        before = list(warnings.filters)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(decode_image, [tmp_path / "a.jpg"] * 200))
        assert list(warnings.filters) == before
        with pytest.warns(UserWarning, match="mine"):
            warnings.warn("mine", UserWarning, stacklevel=1)


@pytest.mark.parametrize(("seconds", "shown"), [(2, "50 images/s"), (20, "5.0 images/s")])
def test_the_bar_shows_the_rate(
    seconds: int, shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock: Callable[[], float] = iter([0.0, float(seconds)]).__next__
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setattr("resnest.progress.time.perf_counter", clock)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(Console, "is_terminal", True)
    monkeypatch.setattr(progress, "get_time", time.monotonic, raising=False)
    with Progress("predicting:", rate="images", lines=False) as bar:
        bar.start(200)
        bar.advance(100)
        assert bar.rich is not None
        bar.rich.refresh()
    assert shown in capsys.readouterr().err


def test_the_page_has_the_measured_figures() -> None:
    """docs/predict.md shows what benchmarks/predict.py printed of results/predict-cpu.csv."""
    root = Path(__file__).parents[1]
    lines = (root / "results" / "predict-cpu.csv").read_text(encoding="utf-8").splitlines()
    rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    summary = runpy.run_path(str(root / "benchmarks" / "predict.py"))["summary"]
    page = (root / "docs" / "predict.md").read_text(encoding="utf-8")
    names = {row["engine"].split(",")[0] for row in rows}
    assert "onnxruntime" in names
    for name in names:
        assert summary([row for row in rows if row["engine"].startswith(name)], name) in page
