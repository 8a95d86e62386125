"""The target of an export: checked first, written to a temporary folder, moved into place once verified.

with delivering(Path("model.onnx")) as temporary:
    temporary.write_bytes(...)              # in a folder of its own beside the target; an error leaves no trace
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from resnest.errors import ResnestError, parameter
from resnest.files import is_full, write_errors


def check_target(out: Path, suffix: str, kind: str) -> None:
    """Raises ResnestError for an impossible path of an exported file."""
    given = parameter("out", out)
    if out.suffix != suffix:
        raise ResnestError(f"{given}: the format {kind} is written to a file that ends in {suffix}")
    if out.is_dir():
        raise ResnestError(f"{given} is a folder: name a file in it, such as {out / ('model' + suffix)}")
    if out.exists() and not out.is_file():
        raise ResnestError(f"{given} is no file that could be replaced")
    if not out.parent.is_dir():
        raise ResnestError(f"{given}: there is no folder {out.parent}")


@contextmanager
def delivering(out: Path) -> Iterator[Path]:
    """Gives a temporary path; at the end all in its folder moves beside `out`, `out` itself last.

    Raises:
        ResnestError: the folder cannot be written, or the disk is full.
    """
    with write_errors(parameter("out", out)):
        folder = Path(mkdtemp(prefix=f".{out.name}.", suffix=".tmp", dir=out.parent))
    try:
        with write_errors(parameter("out", out)):
            yield folder / out.name
            for file in sorted(folder.iterdir(), key=lambda file: file.name == out.name):
                with file.open("rb+") as opened:
                    os.fsync(opened.fileno())
                file.chmod(0o644)
                file.replace(out.with_name(file.name))
    except Exception as error:
        if not isinstance(error, ResnestError):
            check_room(out)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_room(path: Path) -> None:
    """Raises ResnestError if the disk is full, which exporters' own errors rarely say."""
    if is_full(path.parent):
        raise ResnestError(f"{parameter('out', path)} cannot be written: no space left on device") from None
