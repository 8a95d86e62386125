"""Videos, streams and TIFF files as sources of `resnest predict`: frames, times, drawings, and what is damaged."""

from __future__ import annotations

import csv
import gc
import io
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import standins
from conftest import Outcome
from resnest.data.listing import list_images
from resnest.errors import ResnestError
from resnest.files import WRITTEN, is_replaceable
from resnest.runtime.decode import MAX_PIXELS, BadImage, decode_image
from resnest.runtime.frames import Every, Frame, Picker
from resnest.runtime.sources import is_address, kind_of, open_source

Cli = Callable[..., Outcome]
needs_av = pytest.mark.skipif(
    not __import__("importlib.util").util.find_spec("av"), reason="videos need PyAV: pip install av"
)
SIZE = (64, 48)
KINDS = {"mp4": "libx264", "mkv": "libx264", "mov": "libx264", "avi": "mpeg4", "webm": "libvpx-vp9", "ts": "libx264"}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def film(
    path: str, *, frames: int = 20, times: list[int] | None = None, codec: str = "", size: tuple[int, int] = SIZE,
    turned: int = 0, faststart: bool = False,
) -> None:  # fmt: skip
    """A video at 10 frames a second, or at these times in ms, with a red left upper corner that does not move."""
    import av

    form = {"ts": "mpegts", "mkv": "matroska"}.get(path.rpartition(".")[2])
    with av.open(path, "w", format=form, options={"movflags": "faststart"} if faststart else {}) as out:
        stream: Any = out.add_stream(codec or KINDS.get(path.rpartition(".")[2], "libx264"), rate=10)
        stream.width, stream.height = size
        stream.pix_fmt, stream.gop_size = "yuv420p", 5
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        if turned:
            stream.set_display_rotation(turned)
        noise = np.random.default_rng(0)
        for number in range(frames):
            pixels = noise.integers(0, 120, (size[1], size[0], 3), np.uint8)
            pixels[: size[1] // 3, : size[0] // 3] = (255, 0, 0)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = times[number] if times else number * 100, Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def read(path: str, every: str = "1") -> tuple[list[Frame], str]:
    source = open_source(path, every)
    frames = list(source)
    source.close()
    return frames, source.problem


def numbers(out: str) -> list[tuple[int, float]]:
    return [(line["frame"], line["time"]) for line in map(json.loads, out.splitlines())]


# --- which frames ---


@pytest.mark.parametrize(
    ("every", "times", "wanted"),
    [
        ("1", [0, 1, 2], [0, 1, 2]),
        ("2", [0, 0.1, 0.2, 5, 9], [0, 2, 4]),
        ("0.5s", [0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2], [0, 3, 5]),
        ("1s", [0, 0.9, 0.9999999, 3.5, 3.9, 4.0], [0, 2, 3, 5]),
        ("0.1s", [0, 1, 2], [0, 1, 2]),
        ("1s", [7.5, 7.9, 8.0], [0, 2]),
    ],
)
def test_every(every: str, times: list[float], wanted: list[int]) -> None:
    picker = Picker(Every.of(every))
    assert [number for number, time in enumerate(times) if picker.wants(number, time)] == wanted


@pytest.mark.parametrize("every", ["0", "-1", "0s", "-1s", "nans", "infs", "s", "", "1.5", "1m", "1e999s", "²"])
def test_every_that_makes_no_sense(every: str) -> None:
    with pytest.raises(ResnestError, match=r"expected a number of frames such as 10, or seconds as in 0.5s"):
        Every.of(every)


@pytest.mark.parametrize(
    ("name", "start", "kind"),
    [
        ("a.mp4", b"\0\0\0 ftypisom", "video"), ("a", b"\0\0\0 ftypqt  ", "video"), ("a.heic", b"\0\0\0 ftypheic", ""),
        ("a.avif", b"\0\0\0 ftypavif", ""), ("a.bin", b"\x1aE\xdf\xa3", "video"), ("a", b"RIFF0000AVI ", "video"),
        ("a.webp", b"RIFF0000WEBP", ""), ("a.wav", b"RIFF0000WAVE", ""), ("a.mp4", b"\xff\xd8\xff\xe0", ""),
        ("a.MOV", b"", "video"), ("a.tif", b"II*\0", "pages"), ("a", b"MM\0*", "pages"), ("a.tiff", b"text", "pages"),
        ("a.txt", b"text", ""), ("a.mp4", b"text", "video"),
    ],
)  # fmt: skip
def test_kinds(name: str, start: bytes, kind: str) -> None:
    assert kind_of(name, start) == kind


def test_addresses() -> None:
    assert all(map(is_address, ["camera:0", "rtsp://a/b", "HTTP://a", "https://a/b.m3u8?c=d*e", "udp://@:1234"]))
    assert not any(map(is_address, ["camera", "camera:x", "a.mp4", "file:///etc/passwd", "concat:a|b", "hf:a/b", "-"]))


# --- videos ---


@needs_av
@pytest.mark.parametrize("kind", KINDS)
def test_a_video(kind: str, here: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each container: names, numbers and times of frames, and a drawing that plays as long."""
    film(f"clip.{kind}")
    standins.use(monkeypatch, "detection")
    outcome = cli("predict", "m", f"clip.{kind}", "--every", "0.5s", "--json", "--draw", "drawn")
    assert outcome.code == 0, outcome.err
    assert numbers(outcome.out) == [(0, 0.0), (5, 0.5), (10, 1.0), (15, 1.5)]
    assert json.loads(outcome.out.splitlines()[1])["image"] == f"clip.{kind}[5]"
    frames, problem = read("drawn/clip.mp4")
    assert [round(frame.time or 0, 3) for frame in frames] == [0, 0.5, 1.0, 1.5]
    assert not problem
    assert WRITTEN.encode() in Path("drawn/clip.mp4").read_bytes()[:4096]
    assert is_replaceable("drawn/clip.mp4")
    assert cli("predict", "m", f"clip.{kind}", "--every", "10", "--draw", "drawn").code == 0  # again


@needs_av
@pytest.mark.parametrize("task", standins.CARDS)
def test_each_task(task: str, here: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    film("clip.mp4", frames=3, size=(66, 50))
    standins.use(monkeypatch, task)
    outcome = cli("predict", "m", "clip.mp4", "--csv", "--draw", "drawn")
    assert outcome.code == 0, outcome.err
    rows = list(csv.DictReader(io.StringIO(outcome.out)))
    assert {(row["image"], row["frame"], row["time"]) for row in rows} == {
        (f"clip.mp4[{number}]", str(number), str(number / 10)) for number in range(3)
    }
    assert len(read("drawn/clip.mp4")[0]) == 3


@needs_av
@pytest.mark.parametrize(("turned", "corner"), [(0, (0, 0)), (90, (0, 1)), (-90, (1, 0)), (180, (1, 1))])
def test_the_rotation_of_phones(turned: int, corner: tuple[int, int], here: Path) -> None:
    """Counterclockwise, as FFmpeg's: where the red corner is then."""
    film("clip.mp4", frames=2, turned=turned)
    (frame, _), _ = read("clip.mp4")
    assert isinstance(frame.image, Image.Image)
    assert frame.image.size == (SIZE if turned in (0, 180) else SIZE[::-1])
    width, height = frame.image.size
    red, green, _ = frame.image.getpixel((4 if not corner[0] else width - 5, 4 if not corner[1] else height - 5))  # type: ignore[misc]
    assert red > 180
    assert green < 60


@needs_av
def test_frames_are_freed_at_once(here: Path) -> None:
    """Without waiting for Python's search for cycles: a frame of 4K has 12 MB."""
    import av

    film("clip.mp4", frames=20, turned=90)
    gc.collect()
    gc.disable()
    try:
        frames = open_source("clip.mp4")
        alive = []
        for _ in frames:
            alive.append(sum(isinstance(one, av.VideoFrame) for one in gc.get_objects()))
        frames.close()
    finally:
        gc.enable()
    assert max(alive) <= 5


@needs_av
@pytest.mark.parametrize("kind", ["mp4", "mkv"])
def test_frames_that_are_not_evenly_spaced(kind: str, here: Path) -> None:
    film(f"clip.{kind}", frames=6, times=[0, 40, 500, 520, 1990, 4000])
    assert [round(frame.time or 0, 2) for frame in read(f"clip.{kind}")[0]] == [0, 0.04, 0.5, 0.52, 1.99, 4.0]
    assert [frame.number for frame in read(f"clip.{kind}", "1s")[0]] == [0, 4, 5]


def _middle(content: bytes) -> int:
    """A place in the frames of a file."""
    end = content.rfind(b"idx1")  # of AVI, whose headers have 10 kB
    return (content.find(b"movi") + end) // 2 if end > 0 else len(content) * 6 // 10


def _cut(content: bytes) -> bytes:
    return content[: _middle(content)]


def _holed(content: bytes) -> bytes:
    middle = _middle(content)
    return content[:middle] + bytes(3000) + content[middle + 3000 :]


@needs_av
@pytest.mark.parametrize(
    ("kind", "harm"), [("mp4", _cut), ("mkv", _cut), ("avi", _cut), ("webm", _cut), ("mp4", _holed), ("mkv", _holed)]
)
def test_a_damaged_video(
    kind: str, harm: Callable[[bytes], bytes], here: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames before the damage are kept, and one line says where it ends."""
    film(f"clip.{kind}", frames=40, faststart=kind == "mp4")
    whole = [np.asarray(frame.image) for frame in read(f"clip.{kind}")[0]]
    Path(f"clip.{kind}").write_bytes(harm(Path(f"clip.{kind}").read_bytes()))
    frames, problem = read(f"clip.{kind}")
    assert 5 <= len(frames) < 40
    assert f"ends after frame {len(frames) - 1} (" in problem
    assert all((np.asarray(frame.image) == known).all() for frame, known in zip(frames[:-1], whole, strict=False))
    standins.use(monkeypatch, "classification")
    outcome = cli("predict", "m", f"clip.{kind}", "--draw", "drawn")
    assert outcome.code == 2
    assert f"clip.{kind}: {problem}\n" in outcome.err
    assert outcome.out.count("\n") == len(frames) == len(read("drawn/clip.mp4")[0])


@needs_av
def test_no_video(here: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line each; others go on."""
    import av

    film("good.mp4", frames=2)
    film("late.mp4")  # its table stands at its end
    Path("late.mp4").write_bytes(_cut(Path("late.mp4").read_bytes()))
    Path("text.mp4").write_text("hello\n" * 100)
    Path("empty.mp4").write_bytes(b"")
    Path("list.avi").write_text("ffconcat version 1.0\nfile 'good.mp4'\n")
    Path("play.ts").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\ngood.mp4\n#EXT-X-ENDLIST\n")
    with av.open("sound.mp4", "w") as out:
        stream: Any = out.add_stream("aac", rate=16000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 16000
        out.mux(stream.encode(sound))
        out.mux(stream.encode(None))
    bad = ["late.mp4", "text.mp4", "empty.mp4", "list.avi", "play.ts", "sound.mp4", "none.mp4", "camera:97"]
    standins.use(monkeypatch, "classification")
    outcome = cli("predict", "m", *bad, "good.mp4")
    assert outcome.code == 2
    assert [line.partition(":")[0] for line in outcome.out.splitlines()] == ["good.mp4[0]", "good.mp4[1]"]
    for name, why in {
        "late.mp4": "cut short", "text.mp4": "no video", "empty.mp4": "empty", "list.avi": "no video",
        "play.ts": "no video", "sound.mp4": "sound alone", "none.mp4": "No such file", "camera:97": "No such file",
    }.items():  # fmt: skip
        assert any(line.startswith(f"skipped: {name}: ") and why in line for line in outcome.err.splitlines()), name
    assert outcome.err.splitlines()[-1].endswith("8 of 10 images could not be used")


@needs_av
def test_too_many_pixels(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    film("clip.mp4", frames=2)
    monkeypatch.setattr("resnest.runtime.video.MAX_PIXELS", 1000)
    with pytest.raises(BadImage, match=r"too many pixels \(64 x 48"):
        open_source(Path("clip.mp4"))
    assert MAX_PIXELS > 1000


@needs_av
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption(number: int, here: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """The drawing plays, with the frames that were printed."""
    film("clip.mp4", frames=60)
    standins.use(monkeypatch, "classification")
    engine, calls = standins.StandIn.__call__, []

    def interrupted(self: Any, images: Any, sizes: Any = None) -> Any:
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), number)
        return engine(self, images, sizes)

    monkeypatch.setattr(standins.StandIn, "__call__", interrupted)
    outcome = cli("predict", "m", "clip.mp4", "--draw", "drawn", "--batch-size", "2")
    assert outcome.code == 130
    printed = outcome.out.count("\n")
    assert 2 < printed < 60
    assert len(read("drawn/clip.mp4")[0]) == printed
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@contextmanager
def served(content: bytes, kind: str) -> Iterator[str]:
    """An address on this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@needs_av
def test_a_stream(here: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures one after the other, as network cameras send them; secrets of the address are not shown."""
    picture = io.BytesIO()
    Image.new("RGB", SIZE, (200, 0, 0)).save(picture, "JPEG")
    jpeg = picture.getvalue()
    part = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n" % (len(jpeg), jpeg)
    standins.use(monkeypatch, "classification")
    with served(part * 6, "multipart/x-mixed-replace; boundary=frame") as host:
        outcome = cli("predict", "m", f"http://me:secret@{host}/live.mjpg?key=secret", "--every", "2", "--draw", "d")
    assert outcome.code == 0, outcome.err
    assert [line.split(": ")[0] for line in outcome.out.splitlines()] == [
        f"http://{host}/live.mjpg[{number}]" for number in (0, 2, 4)
    ]
    assert f"http://{host}/live.mjpg: the stream has ended" in outcome.err
    assert "secret" not in outcome.out + outcome.err
    assert len(list(Path("d").glob("*.mp4"))) == 1


@needs_av
def test_lists_and_folders(here: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of their names, with pictures between them."""
    os.makedirs("in/sub")
    film("in/b.mp4", frames=1)
    Image.new("RGB", (32, 24)).save("in/a.png")
    Image.new("RGB", (32, 24)).save("in/sub/c.tif", save_all=True, append_images=[Image.new("L", (20, 30))])
    Path("list.txt").write_text("in/sub/c.tif\nhttp://127.0.0.1:9/live\nin/a.png\nin/b.mp4\n")
    standins.use(monkeypatch, "detection")
    outcome = cli("predict", "m", "in")
    assert outcome.code == 0, outcome.err
    assert ".mp4[" not in outcome.out
    assert "in: --every 1 takes the videos of folders, too: 1 here" in outcome.err
    outcome = cli("predict", "m", "in", "--draw", "out", "--coco", "all.json", "--every", "1")
    assert outcome.code == 0, outcome.err
    names = ["in/a.png", "in/b.mp4[0]", "in/sub/c.tif[0]", "in/sub/c.tif[1]"]
    assert [line.split(": ")[0] for line in outcome.out.splitlines()] == names
    drawn = {path.relative_to("out").as_posix() for path in Path("out").rglob("*.*") if path.suffix}
    assert drawn == {"a.jpg", "b.mp4", "sub/c/000000.jpg", "sub/c/000001.jpg"}
    images = json.loads(Path("all.json").read_text())["images"]
    assert [image["file_name"] for image in images] == names
    assert len({image["id"] for image in images}) == 4
    outcome = cli("predict", "m", "list.txt")
    assert outcome.code == 2
    assert [line.split(": ")[0] for line in outcome.out.splitlines()] == [*names[2:], *names[:2]]
    assert "skipped: http://127.0.0.1:9/live: cannot be read (Connection refused)" in outcome.err


# --- TIFF ---


def grey(value: int, kind: Any = np.uint8) -> Image.Image:
    return Image.fromarray(np.full((24, 32), value, kind))


PAGES = {
    "grey": (grey(100), {}, 100), "RGB": (grey(100).convert("RGB"), {}, 100),
    "palette": (grey(100).convert("P"), {}, 100), "CMYK": (grey(100).convert("RGB").convert("CMYK"), {}, 100),
    "with alpha": (grey(100).convert("RGBA"), {}, 100), "two colours": (grey(255).convert("1"), {}, 255),
    "16 bits": (grey(25600, np.uint16), {}, 100), "16 bits, white is zero": (grey(25600, np.uint16), {262: 0}, 155),
}  # fmt: skip


@pytest.mark.parametrize("name", PAGES)
def test_pages(name: str, here: Path) -> None:
    image, tags, value = PAGES[name]
    image.save("one.tif", tiffinfo=tags)
    (frame,), problem = read("one.tif")
    assert (frame.name, frame.number, frame.time, problem) == ("one.tif", 0, None, "")
    assert isinstance(frame.image, Image.Image)
    assert frame.image.getpixel((5, 5)) == (value,) * 3


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (grey(1, np.float32), "32-bit floating-point pixels"),
        (grey(70000, np.int32), "32-bit signed pixels"),
        (Image.new("LAB", (32, 24)), "LAB"),
    ],
)
def test_pages_without_a_known_range(image: Image.Image, why: str, here: Path) -> None:
    image.save("one.tif")
    (frame,), _ = read("one.tif")
    assert isinstance(frame.image, BadImage)
    assert why in frame.image.reason


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_page_that_is_turned(orientation: int, here: Path) -> None:
    from PIL import ImageOps

    pixels = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
    Image.fromarray(pixels).save("one.tif", tiffinfo={274: orientation})
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(pixels).save("one.png", exif=exif)
    (frame,), _ = read("one.tif")
    with Image.open("one.png") as picture:
        assert (np.asarray(frame.image) == np.asarray(ImageOps.exif_transpose(picture))).all()


def test_smaller_copies_are_no_pages(here: Path) -> None:
    small = grey(9).resize((8, 6))
    small.encoderinfo = {"tiffinfo": {254: 1}}
    grey(7).save("pyramid.tif", save_all=True, append_images=[small, grey(8)])
    assert [frame.number for frame in read("pyramid.tif")[0]] == [0, 2]


def test_damaged_tiffs(here: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every length of a file that is cut: no traceback, and whole pages stay."""
    grey(7).save("whole.tif", save_all=True, append_images=[grey(8), grey(9)])
    content = Path("whole.tif").read_bytes()
    for length in range(0, len(content), 97):
        Path("cut.tif").write_bytes(content[:length])
        try:
            frames, _ = read("cut.tif")
        except BadImage:
            continue
        good = [frame.image for frame in frames if isinstance(frame.image, Image.Image)]
        assert [image.getpixel((0, 0)) for image in good] == [(7 + n,) * 3 for n in range(len(good))]
    Path("text.tif").write_text("text")
    standins.use(monkeypatch, "classification")
    outcome = cli("predict", "m", "cut.tif", "text.tif", "whole.tif")
    assert outcome.code == 2
    assert "skipped: text.tif: not a TIFF file, or one that is damaged" in outcome.err
    assert [line.split(": ")[0] for line in outcome.out.splitlines()][-3:] == [f"whole.tif[{n}]" for n in range(3)]


def test_a_page_of_too_many_pixels(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grey(7).save("a.tif", save_all=True, append_images=[Image.new("L", (200, 100)), grey(9)])
    monkeypatch.setattr("resnest.runtime.pages.MAX_PIXELS", 1000)
    frames, _ = read("a.tif")
    assert [isinstance(frame.image, BadImage) for frame in frames] == [False, True, False]


@pytest.mark.parametrize("words", [["--every", "2"], ["--annotations", "a.json", "--coco", "b.json"]])
def test_options_that_do_not_fit(words: list[str], here: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    grey(7).save("a.tif", save_all=True, append_images=[grey(8)])
    standins.use(monkeypatch, "detection")
    outcome = cli("predict", "m", "a.tif", *words)
    assert outcome.code == 2
    assert "is for" in outcome.err.splitlines()[-1]


def test_tiff_is_for_prediction_only(here: Path) -> None:
    """What data sets and the server decode with refuses it."""
    grey(7).save("a.tif")
    with pytest.raises(BadImage, match="not a JPEG"):
        decode_image(Path("a.tif"))
    assert not list_images(here).images


def test_without_pyav(here: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Videos are skipped, with what to install; the rest goes on."""
    monkeypatch.setitem(sys.modules, "av", None)
    os.makedirs("in")
    Path("in/clip.mp4").write_bytes(b"\0\0\0 ftypisom")
    grey(7).save("in/a.png")
    standins.use(monkeypatch, "classification")
    outcome = cli("predict", "m", "in", "--every", "1")
    assert outcome.code == 2
    assert outcome.out.startswith("in/a.png: ")
    assert "skipped: in/clip.mp4: videos need PyAV: pip install av" in outcome.err


@needs_av
def test_masks_of_frames(here: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    film("clip.mp4", frames=4)
    standins.use(monkeypatch, "segmentation")
    outcome = cli("predict", "m", "clip.mp4", "--every", "3", "--masks", "masks", "--json")
    assert outcome.code == 0, outcome.err
    assert [json.loads(line)["files"] for line in outcome.out.splitlines()] == [
        {"masks": f"masks/clip/{number:06}.png"} for number in (0, 3)
    ]


@needs_av
def test_other_files_are_not_replaced(here: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the video itself, nor one that somebody else made."""
    os.makedirs("out")
    film("clip.mp4", frames=2)
    film("out/clip.mp4", frames=2)
    before = Path("out/clip.mp4").read_bytes(), Path("clip.mp4").read_bytes()
    standins.use(monkeypatch, "classification")
    assert cli("predict", "m", "clip.mp4", "--draw", "out").code == 2
    assert cli("predict", "m", "clip.mp4", "--draw", ".").code == 2
    assert before == (Path("out/clip.mp4").read_bytes(), Path("clip.mp4").read_bytes())
