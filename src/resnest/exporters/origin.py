"""Provenance of an exported file: the string `resnest_origin` in its metadata, beside the model card.

json.loads(origin("runs/a", precision="float32", sizes={...}))["weights_sha256"]
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from resnest import __version__
from resnest.checkpoints.references import locate
from resnest.files import WEIGHTS_NAME, sha256_of


def origin(
    source: str,
    *,
    weights_sha256: str | None,
    precision: str,
    sizes: Mapping[str, Any],
    told: Mapping[str, Any] | None = None,
) -> str:
    """JSON of the provenance; `told` has further entries of some exports, such as int8's `accuracy`."""
    content = {
        "source": source,
        "weights_sha256": weights_sha256,
        "resnest": __version__,
        "torch": torch.__version__,
        "precision": precision,
        "sizes": dict(sizes),
        **(told or {}),
    }
    return json.dumps({key: value for key, value in content.items() if value is not None})


def weights_hash(reference: str | Path) -> str | None:
    """Hash of the file that a reference's weights are in."""
    path, _ = locate(reference)
    file = path / WEIGHTS_NAME if path.is_dir() else path
    return sha256_of(file) if file.is_file() else None
