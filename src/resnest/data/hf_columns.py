"""Image and label columns of a table, by the `datasets` library's metadata, or by type and name.

columns = choose_columns("train.parquet", schema)
columns.image, columns.label, columns.names         # names of the classes, empty where the table has none
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from resnest.errors import ResnestError

IMAGE_NAMES = ("image", "img", "images", "picture", "photo", "jpg", "jpeg", "png", "webp")
LABEL_NAMES = ("label", "labels", "cls", "class", "class_name", "category", "target", "fine_label")


@dataclass(frozen=True)
class Columns:
    """The columns of a table that are read."""

    image: str
    label: str
    names: tuple[str, ...]


def choose_columns(where: str, schema: Any) -> Columns:
    """The columns, from a pyarrow schema.

    Raises:
        ResnestError: no such column, or several and none with a usual name.
    """
    import pyarrow.types as types

    notes = _features(schema)
    kinds = {field.name: field.type for field in schema}

    def noted(kind: str) -> list[str]:
        return [name for name in kinds if notes.get(name, {}).get("_type") == kind]

    images = noted("Image") or [name for name, kind in kinds.items() if _may_be_images(kind)]
    image = _pick(where, "image", images, IMAGE_NAMES, kinds)
    usable = [
        name for name, kind in kinds.items() if name in LABEL_NAMES and (types.is_integer(kind) or _is_text(kind))
    ]
    label = _pick(where, "label", noted("ClassLabel") or usable, LABEL_NAMES, kinds)
    names = notes.get(label, {}).get("names")
    known = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return Columns(image, label, tuple(names) if known and isinstance(names, list) else ())


def _pick(where: str, what: str, found: Sequence[str], usual: Sequence[str], kinds: dict[str, Any]) -> str:
    if len(found) == 1:
        return found[0]
    best = next((name for name in usual if name in found), None)
    if best is not None:
        return best
    shown = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
    if found:
        raise ResnestError(f"{where} has {len(found)} {what} columns ({', '.join(found)}): call the one meant {what!r}")
    raise ResnestError(f"{where} has no {what} column: expected one of {', '.join(usual)}; it has {shown or 'none'}")


def _may_be_images(kind: Any) -> bool:
    """The `datasets` library's struct of bytes and path, or the bytes themselves."""
    import pyarrow.types as types

    if types.is_struct(kind):
        return any(field.name == "bytes" and _is_bytes(field.type) for field in kind)
    return _is_bytes(kind)


def _is_bytes(kind: Any) -> bool:
    import pyarrow.types as types

    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _is_text(kind: Any) -> bool:
    import pyarrow.types as types

    if types.is_dictionary(kind):
        kind = kind.value_type
    return bool(types.is_string(kind) or types.is_large_string(kind))


def _features(schema: Any) -> dict[str, Any]:
    """The `datasets` library's metadata of the columns; empty if it is missing or unexpected."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return (
        {name: note for name, note in features.items() if isinstance(note, dict)} if isinstance(features, dict) else {}
    )
