"""Hashes of files."""

from __future__ import annotations

import hashlib
from pathlib import Path


def digest_of(path: Path, algorithm: str) -> str:
    """Hexadecimal digits of the file's "sha256" or "sha1"."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def sha256_of(path: Path) -> str:
    return digest_of(path, "sha256")
