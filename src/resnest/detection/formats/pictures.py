"""The pictures of annotations: where they lie, and their sizes, read from their headers.

pictures = find_pictures(Path("export/result.json"), ["images\\\\a.jpg"])       # root, names, notes
sizes = read_sizes(Path("photos"), ["a.jpg"])                                   # upright, as tools show them
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from PIL import Image

from resnest.data.folders import locate_images
from resnest.data.stores import cache_json, cached_json
from resnest.errors import ResnestError
from resnest.runtime.band_files import SUFFIXES as BANDS
from resnest.runtime.bands import AS_IS, read_picture
from resnest.runtime.decode import FORMATS, BadImage, exif_orientation, refusing, turned_size

CACHED = 1000  # pictures from which on their sizes are kept in a file
CACHE_NAME = ".resnest-sizes"

Size = tuple[int, int]  # width, height


class Pictures(NamedTuple):
    """Files below a folder, one for each image of the annotations."""

    root: Path
    names: list[str]
    notes: tuple[str, ...] = ()  # how names were read


def find_pictures(annotations: Path, names: Sequence[str]) -> Pictures:
    """The pictures that annotations name, as `locate_images` finds them.

    Names of another computer are read too: with backslashes, or with folders that are not here, as Label Studio and
    CVAT write them. Their last part counts then, if it is unique.

    Raises:
        ResnestError: none of them is there.
    """
    plain = [name.replace("\\", "/") for name in names]
    try:
        return Pictures(locate_images(annotations, plain), plain)
    except ResnestError:
        last = [PurePosixPath(name).name for name in plain]
        if last == plain or len(set(last)) < len(set(plain)) or not all(last):
            raise
        try:
            root = locate_images(annotations, last)
        except ResnestError:
            root = None
        if root is None:
            raise
        note = f"images are found by the last part of their names, such as {last[0]} for {plain[0]}"
        return Pictures(root, last, (note,))


def common_root(files: Sequence[Path]) -> Path:
    """The innermost folder that contains all files, which are absolute."""
    return Path(os.path.commonpath([file.parent for file in files]))


def below(root: Path, file: Path) -> str:
    return file.relative_to(root).as_posix()


def upright_size(path: Path) -> Size:
    """Width and height of a picture as its EXIF orientation shows it; no pixel is decoded. Raises BadImage."""
    if path.suffix.lower() in BANDS and path.is_file():
        return read_picture(path, AS_IS, name=path.name).size
    try:
        with refusing(path.name, FORMATS), Image.open(path, formats=FORMATS) as image:
            if image.format == "PNG" and "exif" not in image.info:
                return image.size  # Pillow would decode the pixels to look behind them
            return turned_size(image.size, exif_orientation(image))
    except FileNotFoundError:
        raise BadImage(path.name, "is not there") from None


def read_sizes(root: Path, names: Sequence[str]) -> list[Size | None]:
    """The upright size of each picture; None for one that cannot be read.

    Of many pictures, sizes are kept in a file beside them or in the cache, and read again where a file has changed.
    """
    many = len(names) >= CACHED
    beside, stamp = root / CACHE_NAME, {"version": 1}
    known = (cached_json(beside, beside, stamp) or {}).get("sizes") if many else None
    known = known if isinstance(known, dict) else {}
    sizes: list[Size | None] = []
    seen, fresh = {}, 0
    for name in names:
        try:
            state = (root / name).stat()
            mark = [state.st_size, state.st_mtime_ns]
            before = known.get(name)
            if before and before[:2] == mark:
                width, height = before[2:]
            else:
                (width, height), fresh = upright_size(root / name), fresh + 1
        except (OSError, BadImage):
            sizes.append(None)
            continue
        seen[name] = [*mark, width, height]
        sizes.append((width, height))
    if many and fresh:
        cache_json(beside, beside, {**stamp, "sizes": {**known, **seen}})
    return sizes
