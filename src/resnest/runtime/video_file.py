"""A video that is written frame by frame, MP4 with H.264, by PyAV.

    with VideoFile.writing(Path("drawn.mp4"), Fraction(25)) as video:
        video.add(image, time=0.04)

It has the size of its first frame; a frame of another size is fitted in. It is complete under its name or not there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

from PIL import Image

from resnest.errors import ResnestError, one_line
from resnest.files import WRITTEN, replacing, write_errors
from resnest.runtime.video import load_av

CODECS = {"libx264": {"preset": "veryfast", "crf": "20"}, "h264": {}, "mpeg4": {"qscale": "4"}}  # in order of choice
TICKS = 60_000  # of a second: frames of 24, 25, 29.97, 30 and 60 a second fall on one, and MPEG-4 allows 65,535
MOST = 16_384  # pixels of a side, of the codecs
PAPER = (18, 22, 28)  # around a smaller frame


class VideoFile:
    """An open video file."""

    def __init__(self, path: Path, rate: Fraction) -> None:
        av = self.av = load_av()
        # the mark of our own output is the name of the stream, which stands at the file's start with `faststart`
        self.container = av.open(str(path), "w", format="mp4", options={"movflags": "faststart"})
        codec = next(name for name in CODECS if name in av.codecs_available)
        self.stream: Any = self.container.add_stream(codec, rate=rate, options=CODECS[codec])
        self.stream.pix_fmt = "yuv420p"
        self.stream.codec_context.time_base = self.stream.time_base = Fraction(1, TICKS)
        self.stream.metadata["handler_name"] = WRITTEN
        self.size: tuple[int, int] | None = None
        self.last = -1

    @classmethod
    @contextmanager
    def writing(cls, path: Path, rate: Fraction) -> Iterator[Self]:
        """A new file. Raises ResnestError if it cannot be written."""
        with write_errors(path), replacing(path) as temporary:
            video = cls(temporary, rate)
            try:
                yield video
                if video.size is None:  # a video without frames is no file that opens
                    video.add(Image.new("RGB", (64, 64), PAPER), 0.0)
                video._finish(path)
            finally:
                video.container.close()

    def add(self, image: Image.Image, time: float) -> None:
        """Add a frame at a time in seconds. Raises ResnestError."""
        if self.size is None:
            self.size = _even(image.size)
            self.stream.width, self.stream.height = self.size
        frame = self.av.VideoFrame.from_image(_fitted(image, self.size))
        self.last = max(self.last + 1, round(time * TICKS))
        frame.pts, frame.time_base = self.last, Fraction(1, TICKS)
        try:
            self.container.mux(self.stream.encode(frame))
        except self.av.error.FFmpegError as error:
            raise ResnestError(f"the video of drawings cannot be written: {one_line(error)}") from None

    def _finish(self, path: Path) -> None:
        try:
            self.container.mux(self.stream.encode(None))
            self.container.close()
        except self.av.error.FFmpegError as error:
            raise ResnestError(f"{path} cannot be written: {one_line(error)}") from None


def _even(size: tuple[int, int]) -> tuple[int, int]:
    """Sides that the codecs allow: even, as colours have half the resolution, and no longer than MOST."""
    scale = min(1.0, MOST / max(size))
    return max(2, -(-round(size[0] * scale) // 2) * 2), max(2, -(-round(size[1] * scale) // 2) * 2)


def _fitted(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    if image.size == size:
        return image
    if image.width > size[0] or image.height > size[1]:
        scale = min(size[0] / image.width, size[1] / image.height)
        image = image.resize((max(1, int(image.width * scale)), max(1, int(image.height * scale))))
    canvas = Image.new("RGB", size, PAPER)
    canvas.paste(image, (0, 0))
    return canvas
