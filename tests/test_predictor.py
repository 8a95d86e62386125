"""Streams of images: decoded ahead in threads, in order, bounded, and bit for bit what one image at a time gives."""

from __future__ import annotations

import csv
import io
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
import torch
from numpy.typing import NDArray
from PIL import Image
from rich import progress
from rich.console import Console

from resnest.classification.card import ClassificationCard
from resnest.errors import ResnestError
from resnest.progress import Progress
from resnest.runtime.decode import BadImage, decode_image
from resnest.runtime.engines.exported import Prepared
from resnest.runtime.inputs import ImageInput, WrongInput
from resnest.runtime.predictor import BATCHES_AHEAD, ImagePredictor, prefetch
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
    return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


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
        def prepare(self, image: ImageInput, name: str) -> Prepared:
            pixels = super().prepare(image, name)
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
def test_prefetch_keeps_the_order(most: int, threads: int) -> None:
    def work(number: int) -> int:
        time.sleep(0.002 * (number % 3))
        return number

    with prefetch(work, range(50), most=most, threads=threads) as results:
        assert list(results) == list(range(50))
    with prefetch(work, [], most=most, threads=threads) as results:
        assert list(results) == []


def _opened(path: Path) -> Any:
    """Opened by Pillow, and not decoded yet."""
    return Image.open(path)


def _used(path: Path) -> io.BytesIO:
    """Written and not rewound."""
    file = io.BytesIO()
    file.write(path.read_bytes())
    return file


FORMS: dict[str, tuple[Callable[[Path], Any], str]] = {  # and the name of the result; P: the path
    "a path": (lambda path: path, "P"),
    "text": (str, "P"),
    "bytes": (Path.read_bytes, "image"),
    "a bytearray": (lambda path: bytearray(path.read_bytes()), "image"),
    "a memoryview": (lambda path: memoryview(path.read_bytes()), "image"),
    "a BytesIO": (lambda path: io.BytesIO(path.read_bytes()), "image"),
    "a BytesIO at its end": (_used, "image"),
    "an open file": (lambda path: path.open("rb"), "P"),
    "an unbuffered file": (lambda path: path.open("rb", buffering=0), "P"),
    "a Pillow image": (decode_image, "image"),
    "a Pillow file": (_opened, "image"),
    "an array": (lambda path: np.array(decode_image(path)), "image"),
    "an array that is a view": (lambda path: np.array(decode_image(path))[:, ::-1].copy()[:, ::-1], "image"),
    "an array that cannot be written": (lambda path: np.asarray(decode_image(path)), "image"),
}


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "rose.png")
    return tmp_path / "rose.png"


@pytest.mark.parametrize(("form", "name"), FORMS.values(), ids=FORMS)
def test_one_image_in_every_form(form: Callable[[Path], Any], name: str, picture: Path) -> None:
    predictor = ImagePredictor(Means(), CARD)
    expected = predictor(picture).to_dict()["top"]
    for call, unnamed in ((predictor, "image"), (lambda one: predictor([one])[0], "image 0")):
        source = form(picture)
        result = call(source)
        assert result.to_dict() == {"image": {"P": str(picture), "image": unnamed}[name], "top": expected}
        if hasattr(source, "close") and not isinstance(source, Image.Image):
            source.close()


def test_grey_images_are_grey_in_every_form(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (30, 40)).astype(np.uint8)
    for name, pixels in (("grey.png", grey), ("deep.png", grey.astype(np.uint16) * 257)):
        Image.fromarray(pixels).save(tmp_path / name)
    predictor = ImagePredictor(Means(), CARD)
    forms = [
        grey,
        Image.fromarray(grey),
        np.stack([grey] * 3, -1),
        *(tmp_path / f"{kind}.png" for kind in ("grey", "deep")),
    ]
    with Image.open(tmp_path / "deep.png") as deep:  # 16 bits, in Pillow's own conversion white
        scores = [tuple(result.scores.tolist()) for result in predictor([*forms, deep])]  # type: ignore[attr-defined]
    assert len(set(scores)) == 1


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 1), (1, 4000, 3), (4000, 1), (3, 40, 3)])
def test_arrays_of_odd_shapes(shape: tuple[int, ...]) -> None:
    array = np.full(shape, 7, np.uint8)
    assert np.isfinite(ImagePredictor(Means(), CARD)(array).rows()[0]["score"])


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "nothing": (lambda: None, "None"),
    "a number": (lambda: 5, "an int"),
    "a dict": (dict, "a dict"),
    "a generator": (lambda: (path for path in ()), "a generator"),
    "a tensor": (lambda: torch.zeros(3, 24, 24), r"a torch.Tensor of shape \(3, 24, 24\) and torch.float32"),
    "a tensor of bytes": (lambda: torch.zeros(24, 24, 3, dtype=torch.uint8), "a torch.Tensor of .* and torch.uint8"),
    "fractions": (lambda: np.zeros((24, 24, 3), np.float32), r"a numpy.ndarray of shape \(24, 24, 3\) and float32"),
    "64-bit numbers": (lambda: np.zeros((24, 24, 3), np.int64), "a numpy.ndarray of .* and int64"),
    "a mask": (lambda: np.zeros((24, 24), bool), "a numpy.ndarray of .* and bool"),
    "channels first": (lambda: np.zeros((3, 24, 24), np.uint8), r"a numpy.ndarray of shape \(3, 24, 24\) and uint8"),
    "four channels": (lambda: np.zeros((24, 24, 4), np.uint8), "a numpy.ndarray of .* and uint8"),
    "one channel of three axes": (lambda: np.zeros((24, 24, 1), np.uint8), "a numpy.ndarray of .* and uint8"),
    "a batch": (lambda: np.zeros((2, 24, 24, 3), np.uint8), "a numpy.ndarray of .* and uint8"),
    "a line": (lambda: np.zeros(24, np.uint8), "a numpy.ndarray of .* and uint8"),
    "a type": (lambda: Path, "a type"),
    "a file of text": (lambda: io.StringIO("abc"), "a file that gives a str, not bytes: open it in binary mode, 'rb'"),
}


@pytest.mark.parametrize(("make", "told"), WRONG.values(), ids=WRONG)
def test_what_is_no_image_is_one_clear_error(make: Callable[[], Any], told: str, picture: Path) -> None:
    predictor, rest = ImagePredictor(Means(), CARD), "" if "binary mode" in told else ": expected a path, the bytes of"
    calls = {"image": predictor, "image 1": lambda one: predictor([picture, one])}
    for name, call in {**calls, "image 2": lambda one: list(predictor.stream(iter([picture, b"", one])))}.items():
        with pytest.raises(ResnestError, match=f"^{name} is {told}{rest}") as caught:
            call(make())
        assert isinstance(caught.value, TypeError)
        assert not isinstance(caught.value, BadImage)
        assert len(str(caught.value).splitlines()) == 1
    assert not _decoders()


def _closed() -> io.BytesIO:
    file = io.BytesIO(b"abc")
    file.close()
    return file


def _cut() -> Image.Image:
    """Opened by Pillow from a file that ends too early."""
    file = io.BytesIO()
    Image.effect_noise((64, 64), 50).convert("RGB").save(file, "JPEG")
    return Image.open(io.BytesIO(file.getvalue()[:-500]))


BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "no bytes": (bytes, "empty file"),
    "an empty file": (io.BytesIO, "empty file"),
    "other bytes": (lambda: b"hello", "not a JPEG, PNG, WEBP, BMP or GIF image"),
    "a closed file": (_closed, "cannot be read .I/O operation on closed file"),
    "an array without pixels": (lambda: np.zeros((0, 24, 3), np.uint8), "has no pixels"),
    "an image without pixels": (lambda: Image.new("RGB", (0, 0)), "has no pixels"),
    "a file that Pillow cannot finish": (_cut, "damaged .*truncated"),
}


@pytest.mark.parametrize(("make", "told"), BAD.values(), ids=BAD)
def test_bad_images_that_are_no_files(make: Callable[[], Any], told: str, picture: Path) -> None:
    predictor = ImagePredictor(Means(), CARD)
    with pytest.raises(BadImage, match=f"^image: {told}"):
        predictor(make())
    with pytest.raises(BadImage, match=f"^image 1: {told}"):
        predictor([picture, make(), picture])
    results = list(predictor.stream([picture, make(), picture]))
    assert [isinstance(result, BadImage) for result in results] == [False, True, False]


def test_a_list_gives_a_list(photos: Path) -> None:
    files = sorted(photos.rglob("*.jpg"))[:9]
    predictor = ImagePredictor(Means(), CARD, batch_size=4)
    streamed = [result.to_dict() for result in predictor.stream(files) if not isinstance(result, BadImage)]
    for images in (files, tuple(files)):
        results = predictor(images)
        assert isinstance(results, list)
        assert [result.to_dict() for result in results] == streamed
    assert predictor([]) == predictor(()) == []
    mixed = predictor([files[0], files[1].read_bytes(), decode_image(files[2]), np.asarray(decode_image(files[3]))])
    assert [result.name for result in mixed] == [str(files[0]), "image 1", "image 2", "image 3"]
    assert [result.to_dict()["top"] for result in mixed] == [one["top"] for one in streamed[:4]]


@pytest.mark.parametrize(
    ("images", "told"),
    [
        ("photos", "a str"),
        (Path("photos"), "a pathlib.PosixPath"),
        (b"abc", "a bytes"),
        (io.BytesIO(), "a _io.BytesIO"),
        (Image.new("RGB", (4, 4)), "a PIL.Image"),
        (np.zeros((2, 4, 4, 3), np.uint8), r"a numpy.ndarray of shape \(2, 4, 4, 3\)"),
        (None, "None"),
        (5, "an int"),
    ],
)
def test_a_stream_takes_several_images(images: Any, told: str) -> None:
    with pytest.raises(WrongInput, match=f"^a stream of images cannot be {told}.*: expected several images, such as"):
        ImagePredictor(Means(), CARD).stream(images)


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


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_network_that_gives_no_numbers_is_no_label(value: float, picture: Path) -> None:
    class Broken(Means):
        def __call__(self, images: NDArray[np.float32], sizes: Any = None) -> dict[str, NDArray[np.float32]]:
            return {"logits": np.array([[0.5, value, 0]] * len(images), np.float32)}

    with pytest.raises(ResnestError, match=r"not finite \(logits\): its weights"):
        ImagePredictor(Broken(), CARD)(picture)
