"""Image inputs of any kind, from a path to an array, as Pillow images in RGB.

    to_image("rose.jpg"), to_image(b"..."), to_image(array)

Arrays are (H, W, 3) uint8 in RGB order, as in Pillow and torchvision; OpenCV's are BGR: `array[..., ::-1]`. (H, W)
uint8 is grey.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.errors import ResnestError
from resnest.runtime.decode import (
    FORMATS,
    MAX_BYTES,
    BadImage,
    decode_image,
    exif_orientation,
    refusing,
    to_rgb,
    turn_upright,
)

ImageInput = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | Image.Image | NDArray[np.uint8]

TAKES = (
    "a path, the bytes of a file, a file opened in binary mode, a Pillow image, an (H, W, 3) uint8 array in RGB order,"
    " or an (H, W) one in grey"
)


class WrongInput(ResnestError, TypeError):
    """An input that is no image, whatever its content."""


def is_image(source: object) -> bool:
    """Whether its type is that of an image, and not of a collection."""
    kinds = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image, np.ndarray)
    return isinstance(source, kinds) or hasattr(source, "read")


def name_of(source: object, default: str) -> str:
    """The name of an image in results and errors: its path, or that of a file object."""
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    name = getattr(source, "name", None) if hasattr(source, "read") else None
    return name if isinstance(name, str) else default


def to_image(source: ImageInput, name: str = "image") -> Image.Image:
    """The RGB image.

    Raises:
        BadImage: a file that is not a usable image; an image without pixels.
        WrongInput: something else than `TAKES`.
    """
    picture = _of_array(source, name) if isinstance(source, np.ndarray) else source
    if not isinstance(picture, Image.Image):
        return decode_image(content_of(picture, name), name=name)
    with refusing(name, FORMATS):
        return to_rgb(upright_copy(picture, name))


def content_of(source: Any, name: str) -> bytes | Path:
    """What is decoded: the bytes of a file, or its path. Raises WrongInput for something else than `TAKES`."""
    if isinstance(source, str | os.PathLike):
        return Path(source)
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    if hasattr(source, "read"):
        return _content(source, name)
    raise WrongInput(f"{name} is {described(source)}: expected {TAKES}")


def described(source: object) -> str:
    """The type of an object, and the shape and type of an array or tensor of any library."""
    if source is None:
        return "None"
    kind = type(source)
    package = "" if kind.__module__ == "builtins" else f"{kind.__module__.partition('.')[0]}."
    article = "an" if kind.__qualname__[0] in "aeiou" and not package else "a"
    shape = getattr(source, "shape", None)
    about = f" of shape {tuple(shape)} and {getattr(source, 'dtype', 'no type')}" if isinstance(shape, tuple) else ""
    return f"{article} {package}{kind.__qualname__}{about}"


def upright_copy(image: Image.Image, name: str) -> Image.Image:
    """A caller's picture, upright and loaded; the picture itself is not changed. Raises BadImage."""
    if not image.width or not image.height:
        raise BadImage(name, f"has no pixels ({image.width} x {image.height})")
    with refusing(name, FORMATS):
        image.load()  # a file that Pillow has opened is decoded now
        orientation = exif_orientation(image)
        # a copy, as the picture is the caller's; what was turned before has no orientation any more
        return image if orientation == 1 else turn_upright(image.copy(), orientation)


def _of_array(array: NDArray[Any], name: str) -> Image.Image:
    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)):
        raise WrongInput(f"{name} is {described(array)}: expected {TAKES}")
    if not array.size:
        raise BadImage(name, f"has no pixels {array.shape}")
    return Image.fromarray(np.ascontiguousarray(array))


def _content(file: IO[bytes], name: str) -> bytes:
    """Content of a file object from its start, if it can be rewound, as in Pillow; no more than the decoder's limit."""
    try:
        with contextlib.suppress(AttributeError, OSError):
            file.seek(0)
        content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: it is closed
        raise BadImage(name, f"cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if not isinstance(content, bytes):
        raise WrongInput(f"{name} is a file that gives {described(content)}, not bytes: open it in binary mode, 'rb'")
    return content
