"""What is delivered as folders around an ONNX file: a kit for hand-over, a repository for Triton.

parcel = Kit(Path("kit"))
with parcel.delivering() as folder: ...            # all or nothing; older folders of ours are replaced
"""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from PIL import __version__ as PILLOW

from resnest.errors import ResnestError, parameter
from resnest.exporters.baking import describe_input, outside
from resnest.exporters.calibration import Pictures
from resnest.exporters.onnx import INPUT
from resnest.exporters.writing import check_room
from resnest.files import OUTPUT_MARK, check_for_output, write_errors
from resnest.inference.model import Model

FILES = "resnest.exporters"  # whose folder `kit_files` has what every kit has


class Parcel(ABC):
    """Folders that are delivered together."""

    model_file: str  # below `root`

    def __init__(self, root: Path, names: tuple[str, ...], option: str) -> None:
        self.root, self.names, self.option = root, names, option

    @property
    def path(self) -> Path:
        """Of the exported file."""
        return self.root / self.model_file

    def check(self) -> None:
        """Raises ResnestError for a place that cannot be written, or where others' files are."""
        if not self.root.is_dir():
            raise ResnestError(f"{self.option}: there is no folder {self.root}")
        for folder in (self.root / name for name in self.names):
            if folder.exists() and not folder.is_dir():
                raise ResnestError(f"{self.option}: {folder} is a file, and a folder is to be written there")
            check_for_output(folder)

    def check_model(self, model: Model) -> None:
        """Raises ResnestError for one whose pictures other programs cannot prepare."""
        describe_preprocessing(model, None)

    @contextmanager
    def delivering(self) -> Iterator[Path]:
        """Gives the path of the file to export, in temporary folders; at the end these are moved into place.

        Raises:
            ResnestError: they cannot be written, or the disk is full.
        """
        with write_errors(self.option):
            temporary = Path(mkdtemp(prefix=".resnest.", suffix=".tmp", dir=self.root))
        try:
            with write_errors(self.option):
                (temporary / self.model_file).parent.mkdir(parents=True)
                yield temporary / self.model_file
                for name in self.names:
                    (temporary / name / OUTPUT_MARK).touch()
                    if (self.root / name).exists():
                        (self.root / name).replace(temporary / f"{name}.before")
                    (temporary / name).replace(self.root / name)
        except Exception as error:
            if not isinstance(error, ResnestError):
                check_room(self.path)
            raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    @abstractmethod
    def fill(self, file: Path, model: Model, pictures: Pictures, layout: str | None) -> None:
        """Write all that belongs to an exported file, beside it.

        Args:
            layout: of the 8-bit pixels that it takes; None: of normalised ones.
        """


def describe_preprocessing(model: Model, layout: str | None) -> dict[str, Any]:
    """All steps from a file to the input, in their order, with their numbers. Raises ResnestError for windows."""
    preprocess = model.card.preprocess
    window, canvas = getattr(preprocess, "window", None), getattr(preprocess, "canvas", None)
    if window and not canvas:
        raise ResnestError(
            f"{model.source} looks at pictures in windows of {window} pixels, which other programs do not: give the"
            f" size of a whole picture with {parameter('size', 'HxW')}"
        )
    if not model.card.bands.plain:
        raise ResnestError(
            f"{model.source} takes {model.card.bands.describe()}, and programs of other runtimes read RGB of 8 bits:"
            f" export the file alone, with {parameter('format', 'onnx')}"
        )
    decode = {"do": "decode", "mode": "RGB", "exif_orientation": "applied", "alpha": "dropped"}
    steps = preprocess.steps() if layout is None else outside(preprocess.steps())
    taken = {"name": INPUT, "dtype": "float32", "layout": "NCHW"}
    if layout:
        taken = {**describe_input(layout), "layout": layout.upper()}
    pillow = {"pillow": PILLOW, "vertical_first": vertical_first()}
    return {"input": taken, **pillow, "steps": [decode, *steps]}


def vertical_first() -> bool:
    """Whether this Pillow resizes columns first where the height shrinks most (its pull request 9549)."""
    return int(PILLOW.partition(".")[0]) >= 13


def template(package: str, name: str) -> str:
    """The text of a file in a package's folder `kit_files`."""
    return (files(package) / "kit_files" / name).read_text(encoding="utf-8")


def free_sides(model: Model) -> bool:
    """Whether the inputs of two pictures may have different sizes."""
    return len({model.card.preprocess.padded_size(*size) for size in ((640, 480), (123, 457))}) > 1


def clean_name(source: str) -> str:
    """A name for files and servers, of a model's source.

    >>> clean_name("runs/my flowers")
    'my_flowers'
    """
    name = Path(os.path.abspath(source)).name if os.path.exists(source) else source.rpartition("/")[2]
    stem = Path(name).stem if Path(source).is_file() else name
    return "".join(letter if letter.isascii() and (letter.isalnum() or letter in "-_.") else "_" for letter in stem)
