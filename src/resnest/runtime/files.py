"""Files of a saved model, as timm and the hub name them; ways to write any file whole, and many into one folder.

with replacing(Path("config.json")) as temporary:
    temporary.write_text("{}")
folder = OutputFolder(Path("out"), inputs=pictures)
with folder.writing(Path("sub/x.jpg")) as path: ...
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from resnest.errors import ResnestError

CARD_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A temporary file beside `target` that takes its place once it is whole and on disk; each process has its own."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """An OSError within becomes a ResnestError that names the file."""
    try:
        yield
    except OSError as error:
        raise ResnestError(f"{error.filename or path} cannot be written: {error.strerror or error}") from None


class OutputFolder:
    """Files that go into one folder, never two under one name, and never over one of the `inputs`.

    Raises:
        ResnestError: it cannot be made.
    """

    def __init__(self, folder: Path, inputs: Iterable[Path] = ()) -> None:
        self.folder = folder
        self.inputs = {path.resolve() for path in inputs}
        self.names: set[Path] = set()
        with write_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def writing(self, name: Path) -> Iterator[Path]:
        """The path for a file of this name, or with a number behind its stem if the name is taken.

        Raises:
            ResnestError: it would replace an input, or cannot be written.
        """
        stem, number = name.stem, 1
        while name in self.names:
            number += 1
            name = name.with_name(f"{stem}-{number}{name.suffix}")
        self.names.add(name)
        path = self.folder / name
        if path.resolve() in self.inputs:
            raise ResnestError(f"{path} is a picture that is looked at: take another folder than {self.folder}")
        with write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield path
