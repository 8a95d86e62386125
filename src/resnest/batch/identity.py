"""What a job is: a result that is begun goes on with the same model, options and pictures alone."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resnest.batch.pictures import PictureList
from resnest.errors import ResnestError, parameter
from resnest.files import sha256_of
from resnest.runtime.engines.exported import Engine, ExportedEngine
from resnest.runtime.predictor import ImagePredictor

Identity = Mapping[str, Any]  # ready for JSON

BESIDE = {".onnx": ".onnx.data", ".xml": ".bin"}  # suffix -> that of the file with the weights, if they are apart
WORDS = {
    "card": "window or card",
    "options": "choice of results",
    "pictures": "list",
    "folder": "current folder",
    "tiles": "choice of tiles",
    "boxes": "source of boxes",
}


def identity_of(predictor: ImagePredictor, options: Mapping[str, Any]) -> dict[str, Any]:
    """Of the model and the options; batch size and number of threads change the last digits at most."""
    card = json.dumps(dataclasses.asdict(predictor.card), sort_keys=True, default=str)
    return {
        "engine": predictor.engine.name.partition(",")[0].partition(":")[0],  # "torch on cuda"
        "model": _model(predictor.engine),
        "card": hashlib.sha256(card.encode("utf-8", "backslashreplace")).hexdigest(),
        "options": dict(options),
        **({"tiles": dataclasses.asdict(predictor.tiles)} if predictor.tiles else {}),
        **({"boxes": _boxes(*predictor.beside)} if predictor.beside[0] else {}),
    }


def _boxes(source: ImagePredictor | Path | None, chosen: Any) -> dict[str, Any]:
    """Of what finds boxes: a file, or a model and which of its boxes count."""
    if isinstance(source, ImagePredictor):
        return {**identity_of(source, {}), "chosen": chosen}
    return {"file": sha256_of(source) if source else ""}


def with_pictures(identity: Identity, pictures: PictureList, shard: tuple[int, int]) -> dict[str, Any]:
    """The whole identity."""
    return {
        **identity,
        "pictures": {"count": pictures.count, "sha256": pictures.sha256},
        "folder": os.getcwd() if pictures.relative else "",
        "shard": list(shard),
    }


def _model(engine: Engine) -> str:
    """A hash of the weights: of an exported file, or of the tensors of a network as the device has them."""
    if isinstance(engine, ExportedEngine):
        beside = engine.path.with_suffix(BESIDE.get(engine.path.suffix, engine.path.suffix))
        return " ".join(sha256_of(path) for path in dict.fromkeys([engine.path, beside]) if path.is_file())
    import torch

    digest = hashlib.sha256()
    for name, tensor in engine.net.state_dict().items():  # type: ignore[attr-defined]
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def other_job(where: str, then: Identity, now: Identity) -> ResnestError:
    """The error for a job that differs from the one that was begun, or finished, there."""
    differing = [key for key in {**now, **then} if then.get(key) != now.get(key)]
    differing = [key for key in differing if key != "card" or "model" not in differing]  # another model has its own
    parts = [f"another {WORDS.get(key, key)}{_shown(key, then.get(key), now.get(key))}" for key in differing]
    return ResnestError(
        f"{where} was begun with {', '.join(parts)}: repeat that command, name another file, or start anew with"
        f" {parameter('overwrite')}"
    )


def _shown(key: str, then: Any, now: Any) -> str:
    """Both values, if they say something to people."""
    before, after = (_words(key, value) if value is not None else "" for value in (then, now))
    return f" ({before or 'none'} then, {after or 'none'} now)" if before != after else ""


def _words(key: str, value: Any) -> str:
    match key:
        case "model" | "card" | "boxes":
            return ""
        case "pictures":
            return f"{value['count']:,} pictures"
        case "options" | "tiles":
            return ", ".join(f"{name} {number}" for name, number in value.items())
        case "shard":
            return "/".join(map(str, value))
    return str(value)
