"""Which file of a folder holds the weights: our name for it, the hub's names, or the only checkpoint that there is.

find_weights_file(Path("saved"))         # saved/model.safetensors, saved/pytorch_model.bin, saved/model.pth, ...
shards_of(Path("saved/model.safetensors.index.json"))      # {"fc.weight": saved/model-00001-of-00002.safetensors}
"""

from __future__ import annotations

import json
from pathlib import Path

from resnest.errors import ResnestError
from resnest.files import WEIGHTS_NAME

INDEX = ".index.json"  # the list of the files that a large model is divided into, as the hub's libraries write it
USUAL = (WEIGHTS_NAME, f"{WEIGHTS_NAME}{INDEX}", "pytorch_model.bin", f"pytorch_model.bin{INDEX}")
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".pkl", ".params", ".tar")


def find_weights_file(folder: Path) -> Path | None:
    """The checkpoint in a folder; None if there is none.

    Raises:
        ResnestError: there are several, and none has a usual name.
    """
    usual = next((folder / name for name in USUAL if (folder / name).is_file()), None)
    if usual is not None:
        return usual
    files = sorted(file for file in folder.iterdir() if _may_be_checkpoint(file))
    if len(files) > 1:
        shown = ", ".join(file.name for file in files[:5]) + (", ..." if len(files) > 5 else "")
        raise ResnestError(f"{folder} holds {len(files)} checkpoints ({shown}): give the file instead of the folder")
    return files[0] if files else None


def _may_be_checkpoint(file: Path) -> bool:
    """By its name; OpenVINO keeps the weights of model.xml in model.bin."""
    openvino = file.suffix == ".bin" and file.with_suffix(".xml").exists()
    return file.suffix in SUFFIXES and not file.name.startswith(".") and not openvino and file.is_file()


def shards_of(index: Path) -> dict[str, Path]:
    """The file of each tensor of a model in several files.

    Raises:
        ResnestError: no such list, or a file of it is missing or elsewhere.
    """
    for file in shard_names(index):
        if not (index.parent / file).is_file():
            raise ResnestError(f"{index} lists {file}, which is not beside it")
    return {name: index.parent / file for name, file in _weight_map(index).items()}


def shard_names(index: Path) -> list[str]:
    """The names of the files of a model in several files. Raises ResnestError as `shards_of`."""
    names = sorted(set(_weight_map(index).values()))
    for file in names:
        if Path(file).name != file:
            raise ResnestError(f"{index} was refused: it names {file}, which is not in its folder")
    return names


def _weight_map(index: Path) -> dict[str, str]:
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return {str(name): str(file) for name, file in places.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ResnestError(f"{index} is no list of a model's files: it has no readable `weight_map`") from None
