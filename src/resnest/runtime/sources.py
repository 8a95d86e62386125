"""What has many pictures in it: videos, cameras, streams, and TIFF files.

    frames = open_source("clip.mp4", every="0.5s")
    for frame in frames: ...                     # frame.name, frame.time, frame.image
    frames.close()

A file is recognised by its first bytes, or by its suffix where these tell nothing; addresses by their beginning.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from resnest.runtime.decode import SUFFIXES
from resnest.runtime.frames import Every, Frame
from resnest.runtime.pages import RegionPages, TiffPages
from resnest.runtime.regions import tiff_pages
from resnest.runtime.tiff import STARTS as TIFF_STARTS
from resnest.runtime.tiff import SUFFIXES as TIFF_SUFFIXES

START = 12  # bytes of a file that tell its kind
VIDEO, PAGES = "video", "pages"
VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts", ".wmv", ".flv", ".3gp",
    ".ogv", ".mjpeg", ".mjpg",
)  # fmt: skip
VIDEO_STARTS = (b"\x1aE\xdf\xa3", b"\0\0\1\xba", b"FLV\1")  # Matroska and WebM, MPEG, Flash
PICTURE_STARTS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM")  # with the suffix of a video: decoded as what it is
PICTURE_BRANDS = (b"avif", b"avis", b"hei", b"hev", b"mif1", b"msf1")  # of ISO files: pictures in a video's container
ADDRESS = re.compile(r"(camera:\d+|(rtsps?|rtmps?|https?|udp|rtp|srt)://.+)", re.IGNORECASE | re.DOTALL)
CAMERA = re.compile(r"/dev/video\d+")


class Frames(Protocol):
    """Frames in order."""

    name: str
    size: tuple[int, int]  # width and height of the first
    live: bool  # whether frames come in their own time
    problem: str  # why it ended early, once it has ended; "": it did not

    def __iter__(self) -> Iterator[Frame]:
        """The frames. Once only."""

    def stop(self) -> None:
        """End after the frame that is being read."""

    def close(self) -> None:
        """Close files and connections."""


def is_address(text: str) -> bool:
    """Whether it is a camera or the address of a stream."""
    return ADDRESS.fullmatch(text) is not None


def kind_of(name: str, start: bytes) -> str:
    """VIDEO, PAGES, or "" for a picture or anything else, by a file's name and its first `START` bytes."""
    if start.startswith(TIFF_STARTS):
        return PAGES
    if start[4:8] == b"ftyp":
        return "" if start[8:12].startswith(PICTURE_BRANDS) else VIDEO
    if start.startswith(VIDEO_STARTS) or (start[:4] == b"RIFF" and start[8:12] == b"AVI "):
        return VIDEO
    suffix = os.path.splitext(name)[1].lower()
    if suffix in TIFF_SUFFIXES + VIDEO_SUFFIXES and not start.startswith(PICTURE_STARTS) and start[8:12] != b"WEBP":
        return VIDEO if suffix in VIDEO_SUFFIXES else PAGES
    return ""


def kind_of_file(path: Path) -> str:
    """As `kind_of`. A file with a picture's suffix is not looked into."""
    if path.suffix.lower() in SUFFIXES:
        return ""
    try:
        if CAMERA.fullmatch(str(path)) and stat.S_ISCHR(path.stat().st_mode):
            return VIDEO
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            return kind_of(path.name, file.read(START))
    except OSError:
        return ""  # said when it is read


def open_source(source: str | Path, every: Every | str = "1", *, regions: bool = False) -> Frames:
    """Open a video, a camera, a stream or a TIFF file.

    Args:
        every: which frames of a video: "10" for every tenth, "0.5s" for one each half second.
        regions: pages of a TIFF file are not decoded but read by regions where the file allows it, for tiles.

    Raises:
        BadImage: it cannot be read, or is none of these; PyAV, which videos need, is not installed.
        ResnestError: `every` makes no sense.
    """
    wanted = Every.of(every) if isinstance(every, str) else every
    if not is_address(str(source)) and kind_of_file(Path(source)) == PAGES:
        pages = tiff_pages(Path(source)) if regions else []
        return RegionPages(Path(source), pages) if pages else TiffPages(Path(source))
    from resnest.runtime.video import VideoFrames

    return VideoFrames(str(source), wanted)
