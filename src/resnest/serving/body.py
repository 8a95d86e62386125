"""The body of a request, read within the limits: bytes are counted as they come, packed and unpacked.

    body = await read_body(request, limits, held)       # bytes
    files = await read_files(request, body, limits)     # [Upload(name, content), ...]: raw or multipart

Content-Length is only believed if it is too large: what comes is counted, whatever it says.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from resnest.serving.limits import MEBIBYTE, Gone, Limits, Refused, busy

PACKINGS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}  # zlib's wbits
STEP = 64 * 1024  # bytes that are unpacked at once


class Upload(NamedTuple):
    """A picture of a request."""

    name: str  # as the client calls it
    content: bytes


class Held:
    """Bytes of bodies that are in memory, of all requests."""

    def __init__(self, most: int) -> None:
        self.most, self.now = most, 0

    @contextmanager
    def body(self) -> Iterator[Counter]:
        """Counts the bytes of a body, until the block ends."""
        counter = Counter(self)
        try:
            yield counter
        finally:
            self.now -= counter.size


class Counter:
    """Bytes of one body."""

    def __init__(self, held: Held) -> None:
        self.held, self.size = held, 0

    def add(self, size: int) -> None:
        """Raises Refused (429): all bodies together are too large."""
        self.size += size
        self.held.now += size
        if self.held.now > self.held.most:
            raise busy("too many large requests at once", 1)


async def read_body(request: Request, limits: Limits, counter: Counter) -> bytes:
    """The unpacked body.

    Raises:
        Refused: 413 too large, 408 too slow, 415 packed in an unknown way, 400 badly packed, 429 no memory left.
        Gone: the connection was closed.
    """
    packing = request.headers.get("content-encoding", "identity").strip().lower()
    if packing not in ("identity", "", *PACKINGS):
        raise Refused(415, f"Content-Encoding {packing[:40]!r} is unknown: expected gzip, deflate or none")
    if _declared(request) > limits.body:
        raise _too_large(limits)
    unpack = zlib.decompressobj(PACKINGS[packing]) if packing in PACKINGS else None
    parts = bytearray()
    read = 0  # as they come: packed
    async for part in _arriving(request, limits.receive_timeout):
        read += len(part)
        if read > limits.body:
            raise _too_large(limits)
        for piece in _unpacked(unpack, part) if unpack else [part]:
            counter.add(len(piece))
            parts += piece
            if len(parts) > limits.body:
                raise _too_large(limits)
    if unpack and not unpack.eof:
        raise Refused(400, f"the body ends before its {packing} data do")
    return bytes(parts)


def _declared(request: Request) -> int:
    length = request.headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() else 0


def _too_large(limits: Limits) -> Refused:
    return Refused(413, f"the body is larger than {limits.body / MEBIBYTE:g} MiB", {"Connection": "close"})


async def _arriving(request: Request, seconds: float) -> AsyncIterator[bytes]:
    try:
        async with asyncio.timeout(seconds):
            more = True
            while more:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise Gone
                more = message.get("more_body", False)
                yield message.get("body", b"")
    except TimeoutError:
        raise Refused(408, f"the body did not arrive within {seconds:g} seconds", {"Connection": "close"}) from None


def _unpacked(unpack: zlib._Decompress, part: bytes) -> Iterator[bytes]:
    """A packed part in small pieces: 20 MB of gzip can be 20 GB of zeros."""
    try:
        while part:
            yield unpack.decompress(part, STEP)
            if unpack.unused_data:
                raise Refused(400, "there are bytes after the end of the packed body")
            part = unpack.unconsumed_tail
    except zlib.error:
        raise Refused(400, "the body is not packed as its Content-Encoding says") from None


class _InMemory(MultiPartParser):
    spool_max_size = 2**62  # never to disk: the body is bounded, and the disk may be read-only
    whole = False  # the boundary at the end has come

    def on_end(self) -> None:
        self.whole = True


def is_form(request: Request) -> bool:
    """Whether the body is a multipart form."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == "multipart/form-data"


async def read_files(request: Request, body: bytes, limits: Limits) -> list[Upload]:
    """The pictures of a request: its body, or the files of a multipart form.

    Raises:
        Refused: 400 empty, no form, or one that is cut off; 413 too many pictures.
    """
    if not is_form(request):
        if not body:
            raise Refused(
                400, "the request has no body: send the bytes of a picture, or a multipart form with pictures"
            )
        return [Upload("image", body)]

    async def whole() -> AsyncGenerator[bytes, None]:
        yield body

    parser = _InMemory(request.headers, whole(), max_files=limits.images, max_fields=limits.images)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        many = "Too many" in str(error)
        raise Refused(413 if many else 400, _many(limits) if many else f"the form cannot be read: {error}") from None
    except (ValueError, KeyError, UnicodeDecodeError):
        raise Refused(400, "the form cannot be read") from None
    if not parser.whole:
        await form.close()
        raise Refused(400, "the form is cut off: the boundary at its end is missing")
    files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    uploads = [Upload(file.filename or f"image {number}", await file.read()) for number, file in enumerate(files)]
    await form.close()
    if not uploads:
        raise Refused(400, "the form has no files: send each picture as a file of it")
    return uploads


def _many(limits: Limits) -> str:
    return f"more than {limits.images} pictures in a request"
