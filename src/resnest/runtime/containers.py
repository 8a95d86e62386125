"""How many bytes a video file should have, by its own headers: decoders end in silence where a file is cut short."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import IO

BOXES = 100_000  # of an ISO file, that are looked at: a fragmented one has two in each second


def missing_bytes(path: Path) -> int:
    """Bytes that the file lacks at its end; 0 also if it cannot be said."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(12)
            if start[4:8] == b"ftyp":
                stated = _iso(file, size)
            elif start.startswith(b"\x1aE\xdf\xa3"):
                stated = _matroska(file)
            elif start[:4] == b"RIFF":
                stated = 8 + int.from_bytes(start[4:8], "little")
            else:
                stated = 0
    except (OSError, struct.error):
        return 0
    return max(0, stated - size)


def _iso(file: IO[bytes], size: int) -> int:
    """The end of the last box of an MP4 or QuickTime file (ISO 14496-12, 4.2)."""
    at = 0
    for _ in range(BOXES):
        file.seek(at)
        header = file.read(16)
        if len(header) < 8:
            break
        length = int.from_bytes(header[:4], "big")
        if length == 1 and len(header) == 16:
            length = int.from_bytes(header[8:], "big")
        if length < 8:  # 0: to the end of the file
            break
        at += length
        if at >= size:
            break
    return at


def _matroska(file: IO[bytes]) -> int:
    """The end of the segment; 0 if a recorder left its length open (RFC 8794, 6)."""
    file.seek(4)
    header = _number(file)
    file.seek(header or 0, 1)
    if header is None or file.read(4) != b"\x18S\x80g":
        return 0
    length = _number(file)
    return 0 if length is None else file.tell() + length


def _number(file: IO[bytes]) -> int | None:
    """A number of variable length; None if it is unknown: all its bits are set."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    more = 8 - first[0].bit_length()
    value = int.from_bytes(bytes([first[0] & (0x7F >> more)]) + file.read(more), "big")
    return None if value == (1 << 7 * (more + 1)) - 1 else value
