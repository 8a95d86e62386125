"""A frame of a video or a page of a file, and which frames are wanted.

Every.of("10")       # frames 0, 10, 20, ...
Every.of("0.5s")     # the first frame at or after each half second
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from PIL import Image

from resnest.errors import ResnestError, parameter
from resnest.runtime.decode import BadImage
from resnest.runtime.regions import Regions

EARLY = 1e-6  # seconds by which a frame may be early: times are fractions, such as 1001/30000


class Frame(NamedTuple):
    """A frame of a video, or a page."""

    name: str  # clip.mp4[120]
    number: int  # from 0, in the whole video or file, whether predicted or not
    time: float | None  # seconds from the start of the video; None: a page
    image: Image.Image | Regions | BadImage  # upright, RGB


class Every(NamedTuple):
    """Which frames of a video are wanted: every so many frames, or one in so many seconds."""

    frames: int = 1
    seconds: float = 0.0

    @classmethod
    def of(cls, text: str) -> Every:
        """Of "10" or "0.5s". Raises ResnestError."""
        try:
            if re.fullmatch(r"[0-9]+", text) and int(text) > 0:
                return cls(frames=int(text))
            if text.endswith("s") and 0 < float(text[:-1]) < math.inf:
                return cls(seconds=float(text[:-1]))
        except ValueError:
            pass
        raise ResnestError(f"{parameter('every', text)}: expected a number of frames such as 10, or seconds as in 0.5s")


class Picker:
    """Says for each frame of a video, in order, whether it is wanted."""

    def __init__(self, every: Every) -> None:
        self.every = every
        self.next = -math.inf  # seconds

    def wants(self, number: int, time: float) -> bool:
        """Of seconds, the first frame at or after each multiple; the first frame of all in any case."""
        if not self.every.seconds:
            return number % self.every.frames == 0
        if time < self.next - EARLY:
            return False
        self.next = (math.floor((time + EARLY) / self.every.seconds) + 1) * self.every.seconds
        return True
