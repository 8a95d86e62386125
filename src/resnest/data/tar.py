"""The members of a tar file by their places, so that one of them is read without those before it.

Format: POSIX.1-2017, pax, "ustar Interchange Format"; GNU's long names. Stricter than the standard library's reader,
which takes a file that was cut off between two members for a whole one.

    for member in read_members(Path("train-000000.tar")):
        member.name, member.start, member.size
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from resnest.errors import ResnestError

BLOCK = tarfile.BLOCKSIZE  # 512
NAMES = ("utf-8", "backslashreplace")  # how the bytes of names are read
MAX_META = 1 << 20  # bytes of a pax header or a long name; real ones have a few hundred
PACKED = {  # first bytes -> what unpacks it
    b"\x1f\x8b": "gunzip",
    b"BZh": "bunzip2",
    b"\xfd7zXZ": "unxz",
    b"\x28\xb5\x2f\xfd": "unzstd",
}
FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
DESCRIBES_NEXT = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME)
NOT_NEEDED = (tarfile.DIRTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK)
REFUSED = {
    tarfile.LNKTYPE: "a hard link (tar --hard-dereference stores files in place of links)",
    tarfile.SYMTYPE: "a symbolic link, which is never followed (tar --dereference stores files in place of links)",
    tarfile.GNUTYPE_SPARSE: "a sparse file, which cannot be read in place",
}


class Member(NamedTuple):
    """A regular file in a tar file."""

    name: str  # relative, without "." and ".."
    start: int  # byte in the tar file
    size: int


class CutOff(Exception):
    """The file ends before its end mark: the message says where, `name` in which member, if in one."""

    def __init__(self, where: str, name: str = "") -> None:
        super().__init__(where)
        self.name = name


def read_members(path: Path) -> Iterator[Member]:
    """Regular files in their order; directories are left out.

    Raises:
        ResnestError: no tar file, a compressed one, links or devices in it, names that lead out of it.
        CutOff: the end is missing.
    """
    with path.open("rb") as file:
        length = os.fstat(file.fileno()).st_size
        _check_start(path, file.read(BLOCK), length)
        position, extra = 0, dict[str, str]()  # `extra` is what headers before a member's own say of it
        while (info := _header(path, file, position, length)) is not None:
            start = position + BLOCK
            size = int(extra.get("size", info.size))
            position = start + -(-size // BLOCK) * BLOCK
            name = extra.get("path", info.name)
            if start + size > length:
                raise CutOff(f"in {name}, {start + size - length:,} bytes short", name)
            if info.type in DESCRIBES_NEXT:
                extra |= _extra(path, file, start, size, info.type)
                continue
            if info.type in FILES:
                if any(key.startswith("GNU.sparse") for key in extra):
                    raise ResnestError(f"{path}: {name} is {REFUSED[tarfile.GNUTYPE_SPARSE]}")
                yield Member(_safe(path, name), start, size)
            elif info.type not in NOT_NEEDED:
                raise ResnestError(f"{path}: {name} is {REFUSED.get(info.type, 'neither a file nor a folder')}")
            if info.type != tarfile.GNUTYPE_LONGLINK:
                extra = {}
        _check_end(path, file, position)


def _check_start(path: Path, block: bytes, length: int) -> None:
    if not length:
        raise ResnestError(f"{path} is empty (0 bytes)")
    for magic, command in PACKED.items():
        if block.startswith(magic):
            raise ResnestError(
                f"{path} is compressed, and single images can only be read from a plain tar: {command} it first"
                " (JPEG files hardly shrink)"
            )


def _header(path: Path, file: BinaryIO, position: int, length: int) -> tarfile.TarInfo | None:
    """The header at a position; None at the end mark."""
    file.seek(position)
    block = file.read(BLOCK)
    try:
        info = tarfile.TarInfo.frombuf(block, *NAMES)
        if info.size < 0:  # which the binary form of large sizes can say
            raise tarfile.HeaderError("a negative size")
        return info
    except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
        return None
    except tarfile.HeaderError as error:
        if len(block) < BLOCK:
            raise CutOff(f"at byte {length:,}, before its end mark") from None
        if position == 0:
            raise ResnestError(f"{path} is not a tar file ({error})") from None
        raise ResnestError(f"{path} is damaged at byte {position:,} ({error}): copy or download it again") from None


def _extra(path: Path, file: BinaryIO, start: int, size: int, kind: bytes) -> dict[str, str]:
    """What a pax header or a GNU long name says of the next member."""
    if size > MAX_META:
        raise ResnestError(f"{path} is damaged at byte {start:,} (a header of {size:,} bytes)")
    file.seek(start)
    content = file.read(size)
    if kind == tarfile.GNUTYPE_LONGNAME:
        return {"path": content.rstrip(b"\0").decode(*NAMES)}
    found = {}
    while content.strip(b"\0"):
        digits = content.partition(b" ")[0]
        if not digits.isdigit() or not len(digits) + 1 < int(digits) <= len(content):
            raise ResnestError(f"{path} is damaged at byte {start:,} (a pax header that cannot be parsed)")
        key, _, value = content[len(digits) + 1 : int(digits) - 1].partition(b"=")
        found[key.decode(*NAMES)] = value.decode(*NAMES)
        content = content[int(digits) :]
    if not found.get("size", "0").isdigit():
        raise ResnestError(f"{path} is damaged at byte {start:,} (a pax header with the size {found['size']!r})")
    return found


def _safe(path: Path, name: str) -> str:
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts:
        raise ResnestError(f"{path}: the member {name} leads out of the tar file: pack it from within its folder")
    return "/".join(parts)


def _check_end(path: Path, file: BinaryIO, position: int) -> None:
    """Zeros follow the end mark; files that were joined by `cat` have members there."""
    file.seek(position)
    if file.read(MAX_META).strip(b"\0"):
        raise ResnestError(
            f"{path} goes on after its end mark at byte {position:,}: give the tar files that it was joined from"
        )
