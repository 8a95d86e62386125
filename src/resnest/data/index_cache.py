"""Index cache: what is worked out once about a large file, beside it, or in the cache where that cannot be written.

    content = cached_json(shard, beside, stamp)      # None, or what cache_json wrote with the same stamp

The cache is $RESNEST_HOME, ~/.cache/resnest by default.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from resnest.files import cache_folder, write_whole

T = TypeVar("T")


def cached_json(source: Path, beside: Path, stamp: dict[str, Any]) -> dict[str, Any] | None:
    """What was written about `source` with this stamp."""
    for path in (beside, _in_cache(source, beside.name)):
        try:
            content = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(content, dict) and all(content.get(key) == value for key, value in stamp.items()):
            return content
    return None


def cache_json(source: Path, beside: Path, content: dict[str, Any]) -> None:
    """Write it where that can be done; it can be worked out again. A linked file's folder is another program's."""
    for path in (_in_cache(source, beside.name),) if source.is_symlink() else (beside, _in_cache(source, beside.name)):
        try:
            write_whole(path, json.dumps(content).encode())
            return
        except OSError:
            continue


def from_columns(
    kind: type[T],
    content: dict[str, Any] | None,
    same_length: Sequence[str],
    *,
    texts: Sequence[str],
    numbers: Sequence[str],
) -> T | None:
    """A dataclass of columns from kept JSON; None for anything else, whoever wrote it."""
    if content is None:
        return None
    try:
        columns = {field.name: content[field.name] for field in fields(kind)}  # type: ignore[arg-type]
        good = (
            all(isinstance(columns[name], list) for name in (*texts, *numbers))
            and len({len(columns[name]) for name in same_length}) == 1
            and all(type(text) is str for name in texts for text in columns[name])
            and all(type(number) is int and number >= 0 for name in numbers for number in columns[name])
        )
    except KeyError:
        return None
    return kind(**columns) if good else None


def path_mark(path: Path) -> str:
    """A short name for a place on this machine."""
    return hashlib.sha256(str(path.absolute()).encode(errors="surrogateescape")).hexdigest()[:16]


def _in_cache(source: Path, name: str) -> Path:
    return cache_folder() / "index" / path_mark(source.parent) / name
