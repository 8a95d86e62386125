"""Files of a saved model, as timm and the hub name them, and a way to write any file whole.

with replacing(Path("config.json")) as temporary:
    temporary.write_text("{}")
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
