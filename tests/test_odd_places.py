"""Odd places and pictures: no home directory, one picture in every form, strips that would fill the memory."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from resnest import files
from resnest.classification.card import ClassificationCard
from resnest.data.loading import evaluation_batches
from resnest.data.sources import open_dataset
from resnest.detection.card import DetectionPreprocess
from resnest.errors import ResnestError
from resnest.runtime.decode import BadImage
from resnest.runtime.draw import draw_labels
from resnest.runtime.inputs import to_image
from resnest.runtime.predictor import ImagePredictor
from resnest.runtime.preprocess import Preprocess
from resnest.segmentation.card import SegmentationPreprocess
from resnest.segmentation.predict import logits_of
from resnest.spec import PUBLISHED
from resnest.tasks import task_info


@pytest.fixture
def homeless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No HOME, and a user id that no database knows; the temporary directory."""

    def unknown(*_: object) -> str:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", unknown)
    monkeypatch.setattr(Path, "expanduser", unknown)
    monkeypatch.setattr(files.tempfile, "gettempdir", lambda: str(tmp_path))
    files._temporary_cache.cache_clear()
    return tmp_path


@pytest.mark.parametrize("chosen", ["", "~/cache"])
def test_without_a_home_the_cache_is_in_the_temporary_directory(
    chosen: str, homeless: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RESNEST_HOME", chosen)
    folder = files.cache_folder()
    assert folder == files.cache_folder() == homeless / f"resnest-{os.getuid()}"
    assert folder.stat().st_mode & 0o777 == 0o700
    [said] = capfd.readouterr().err.splitlines()  # once
    assert said == f"warning: there is no home directory: the cache is {folder}; RESNEST_HOME sets another folder"


def test_a_chosen_cache_needs_no_home(homeless: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESNEST_HOME", str(homeless / "chosen"))
    assert files.cache_folder() == homeless / "chosen"


# What the environment names, with "ROOT" for a folder of the test; the cache, and the reason for one elsewhere
CACHES: dict[str, tuple[dict[str, str], str, str]] = {
    "home": ({"HOME": "ROOT/home"}, "ROOT/home/.cache/resnest", ""),
    "xdg": ({"HOME": "ROOT/home", "XDG_CACHE_HOME": "ROOT/xdg/new"}, "ROOT/xdg/new/resnest", ""),
    "xdg that is relative": ({"HOME": "ROOT/home", "XDG_CACHE_HOME": "xdg"}, "ROOT/home/.cache/resnest", ""),
    "chosen": ({"HOME": "ROOT/home", "RESNEST_HOME": "ROOT/locked/x"}, "ROOT/locked/x", ""),
    "home in a file": ({"HOME": "ROOT/file"}, "", "ROOT/file/.cache/resnest cannot be made"),
    "locked home": ({"HOME": "ROOT/locked"}, "", "ROOT/locked/.cache/resnest cannot be made"),
    "home that is nowhere": ({"HOME": "ROOT/locked/none"}, "", "ROOT/locked/none/.cache/resnest cannot be made"),
    "locked xdg": ({"XDG_CACHE_HOME": "ROOT/locked"}, "", "ROOT/locked/resnest cannot be made"),
    "locked, but there": ({"HOME": "ROOT/filled"}, "ROOT/filled/.cache/resnest", ""),
}


@pytest.mark.parametrize("case", CACHES)
def test_the_cache_by_the_environment(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """One that is there is used, be it for reading; one that cannot be made is in the temporary directory."""
    given, expected, why = CACHES[case]
    for name in ("home", "locked", "filled/.cache/resnest", "temporary"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "file").touch()
    access = os.access

    def locked(path: str, mode: int) -> bool:  # to root no folder is
        return "locked" not in str(path) and "filled" not in str(path) and access(path, mode)

    monkeypatch.setattr(files.os, "access", locked)
    monkeypatch.setattr(files.tempfile, "gettempdir", lambda: str(tmp_path / "temporary"))
    files._temporary_cache.cache_clear()
    for name in ("RESNEST_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value.replace("ROOT", str(tmp_path)))
    expected = expected or f"ROOT/temporary/resnest-{os.getuid()}"
    assert str(files.cache_folder()) == str(files.cache_folder()) == expected.replace("ROOT", str(tmp_path))
    said = capfd.readouterr().err.splitlines()  # once
    reason = f"warning: {why}: the cache is ".replace("ROOT", str(tmp_path))
    assert len(said) == bool(why)
    assert all(line.startswith(reason) for line in said)


def test_a_link_in_the_place_of_the_cache_is_refused(homeless: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RESNEST_HOME", raising=False)
    (homeless / "elsewhere").mkdir()
    (homeless / f"resnest-{os.getuid()}").symlink_to(homeless / "elsewhere")
    with pytest.raises(ResnestError, match="belongs to another user: set RESNEST_HOME"):
        files.cache_folder()


# --- Strips ---

STRIPS = [(1, 60_000), (60_000, 1), (2, 30_000), (3, 20_000)]
BICUBIC = Preprocess(size=224, crop=0.875, interpolation="bicubic", first="resize")


def _png(size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (10, 200, 30)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("size", STRIPS, ids=str)
def test_a_strip_is_a_bad_image(size: tuple[int, int]) -> None:
    with pytest.raises(BadImage, match=r"too long and narrow: \d+ x \d+ pixels would become \d+ x \d+, at most"):
        BICUBIC(Image.new("RGB", size))
    assert Preprocess(size=224)(Image.new("RGB", size)).shape == (3, 224, 224)  # the centre is cut out first


def test_a_long_picture_is_none() -> None:
    assert BICUBIC(Image.new("RGB", (100, 5000))).shape == (3, 224, 224)


def test_a_strip_ends_neither_prediction_nor_evaluation(photos: Path) -> None:
    class Engine:
        name, takes_sizes = "brightness", False

        def __call__(self, images: Any, sizes: Any = None) -> dict[str, Any]:
            return {"logits": np.repeat(images.mean((1, 2, 3))[:, None], 2, 1)}

    good = _png((20, 30))
    card = ClassificationCard(
        class_names=("a", "b"), preprocess=BICUBIC, architecture="resnest14", spec=PUBLISHED["resnest14"].spec
    )
    results = list(ImagePredictor(Engine(), card, batch_size=2).stream([good, _png((1, 60_000)), good]))
    assert [isinstance(result, BadImage) for result in results] == [False, True, False]
    assert str(results[1]).startswith("image 1: too long and narrow")

    samples = open_dataset(photos).train
    (photos / samples.keys[3]).write_bytes(_png((1, 60_000)))
    [batch] = evaluation_batches(samples.subset(np.arange(5)), BICUBIC, batch_size=8, workers=0)
    assert [key for key, _ in batch.bad] == [samples.keys[3]]
    assert batch.indices == [0, 1, 2, 4]


# --- One picture in every form that Python has it in ---


def _stored(mode: str, kind: str, orientation: int) -> bytes:
    values = np.random.RandomState(0).randint(0, 256, (12, 20), np.uint8)
    if mode == "I;16":
        picture = Image.fromarray(values.astype(np.uint16) * 256 + 77)
    elif mode == "P transparent":
        picture = Image.fromarray(values).convert("RGB").quantize(16)
        picture.info["transparency"] = 3
    else:
        picture = Image.fromarray(values).convert("RGB").convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    options = {"transparency": 3} if mode == "P transparent" else {}
    picture.save(buffer, kind, exif=exif, **options)
    return buffer.getvalue()


FORMS = [
    *((mode, "PNG", 6) for mode in ("RGB", "RGBA", "L", "LA", "1", "P", "I;16", "P transparent")),
    *(("RGB", "JPEG", orientation) for orientation in range(1, 9)),
    ("CMYK", "JPEG", 3),
    ("RGB", "WEBP", 8),
]


@pytest.mark.parametrize(("mode", "kind", "orientation"), FORMS)
def test_every_form_of_a_picture_is_the_same(mode: str, kind: str, orientation: int, tmp_path: Path) -> None:
    content = _stored(mode, kind, orientation)
    path = tmp_path / "picture"
    path.write_bytes(content)
    expected = np.asarray(to_image(path))
    assert expected.shape == ((20, 12, 3) if orientation >= 5 else (12, 20, 3))
    opened = Image.open(path)
    size = opened.size
    forms: list[Any] = [str(path), content, bytearray(content), memoryview(content), io.BytesIO(content), opened]
    forms += [Image.open(io.BytesIO(content)), to_image(path), expected]
    for form in forms:
        assert np.array_equal(np.asarray(to_image(form)), expected), type(form)
    assert opened.size == size  # the caller's stays as it is
    assert opened.getexif().get(0x0112, 1) == orientation
    with path.open("rb") as file:
        assert np.array_equal(np.asarray(to_image(file)), expected)


ENLARGED: dict[str, Any] = {
    "classification": BICUBIC,
    "detection": DetectionPreprocess(short=100_000, long=10**7),
    "panoptic": DetectionPreprocess(short=100_000, long=10**7),
    "segmentation": SegmentationPreprocess(window=2048),
}


@pytest.mark.parametrize("task", ENLARGED)
@pytest.mark.parametrize("size", [(60_000, 1), (1, 60_000)])
def test_a_strip_is_one_bad_image_in_every_task(task: str, size: tuple[int, int]) -> None:
    """A file of 300 bytes, of whose enlarged or padded picture a computer would not have the memory."""
    with pytest.raises(BadImage, match=r"too long and narrow: \d+ x \d+ pixels would become \d+ x \d+, at most 89 meg"):
        ENLARGED[task](Image.new("RGB", size))
    usual = task_info(task).card.preprocess_type()()
    assert usual(Image.new("RGB", size)).nbytes < 2**25


@pytest.mark.parametrize(
    ("size", "fits"),
    [((60_000, 1), False), ((1, 60_000), False), ((30_000, 8), False), ((8, 30_000), False), ((10_000, 20), True),
     ((2000, 20), True), ((20, 2000), True), ((40, 30), True), ((1, 1), True)],
)  # fmt: skip
def test_a_strip_takes_no_hundred_windows(size: tuple[int, int], fits: bool) -> None:
    """Of 60,000 x 1 pixels, 188 windows of 480 would be a minute of a network on padding."""
    preprocess = SegmentationPreprocess(window=480)
    if fits:
        assert preprocess(Image.new("RGB", size)).shape == (3, *(max(side, 480) for side in size[::-1]))
    else:
        with pytest.raises(BadImage, match=r"too long and narrow: .* at most \d"):
            preprocess(Image.new("RGB", size))


def test_a_strip_in_windows_takes_the_memory_of_its_own_pixels() -> None:
    """And not of windows full of padding; the probabilities are the same."""

    def logits(images: NDArray[np.float32]) -> NDArray[np.float32]:
        seen.append(images.shape)
        return np.concatenate([images, 2 * images], 1)  # (N, 6, H, W)

    seen: list[tuple[int, ...]] = []
    preprocess = SegmentationPreprocess(window=64)
    picture = Image.effect_noise((300, 3), 80).convert("RGB")
    padded = preprocess(picture)
    [found] = logits_of(logits, padded[None], preprocess, [(3, 300)])
    assert found.shape == (6, 3, 300)
    assert set(seen) == {(1, 3, 64, 64)}
    [whole] = logits_of(logits, padded[None], preprocess, [padded.shape[1:]])
    assert np.array_equal(found, whole[:, :3, :300])


def test_the_drawing_of_a_strip() -> None:
    drawn = draw_labels(Image.new("RGB", (1, 30_000)), [("rose", 0.5)])
    assert drawn.width * drawn.height < 10**6


# --- Standard output that cannot be written ---

REDIRECTED = {
    "closed": ("models", ">&-", 0, ""),
    "both closed": ("models", ">&- 2>&-", 0, ""),
    "a full disk": ("models", ">/dev/full", 2, "resnest: standard output cannot be written: No space left on device"),
    "help on a full disk": ("--help", ">/dev/full", 2, "standard output cannot be written"),
    "errors on a full disk": ("evaluate nothing", "2>/dev/full", 2, ""),
}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux")
@pytest.mark.parametrize("case", REDIRECTED)
def test_output_that_cannot_be_written_is_one_line(case: str) -> None:
    words, redirection, code, told = REDIRECTED[case]
    command = f"{sys.executable} -m resnest {words} {redirection}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (code, int(bool(told))), done.stderr
    assert told in done.stderr
