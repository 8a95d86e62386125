"""Limits of a server, and how a request that is beyond one is refused.

limits = Limits(queue=16)
raise Refused(413, "the body is larger than 20 MiB")
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated

from resnest.errors import Range, check_ranges

MEBIBYTE = 2**20
FORMATS = ("JPEG", "PNG", "WEBP")  # of uploads: the three that browsers and phones send


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a server takes. Every limit is checked before the work that it bounds is done."""

    body: Annotated[int, Range(1)] = 20 * MEBIBYTE  # bytes of a request, also after it is unpacked
    bodies: Annotated[int, Range(1)] = 512 * MEBIBYTE  # bytes of all requests that are in memory at once
    pixels: Annotated[int, Range(1)] = 50_000_000  # of a picture, by its header
    images: Annotated[int, Range(1)] = 16  # pictures of a request
    queue: Annotated[int, Range(1)] = 64  # pictures that wait for a model
    timeout: Annotated[float, Range(0, math.inf, "()")] = 30.0  # seconds until a request is given up
    receive_timeout: Annotated[float, Range(0, math.inf, "()")] = 10.0  # seconds that headers may take, and a body
    connections: Annotated[int, Range(1)] = 512  # at once

    def __post_init__(self) -> None:
        check_ranges(self, "")


@dataclass
class Refused(Exception):
    """A request that is answered with an error; `message` says why, without anything of the server's own."""

    status: int
    message: str
    headers: dict[str, str] = field(default_factory=dict)


def busy(message: str, seconds: float) -> Refused:
    """429: try again after so many seconds."""
    return Refused(429, message, {"Retry-After": str(max(1, math.ceil(seconds)))})


class Gone(Exception):
    """The client has closed the connection: nobody waits for the answer."""
