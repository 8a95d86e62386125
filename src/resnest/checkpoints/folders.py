"""Which file of a folder holds the weights: our name for it, the hub's names, or the only checkpoint that there is.

find_weights_file(Path("saved"))         # saved/model.safetensors, saved/pytorch_model.bin, saved/model.pth, ...
check_whole(Path("saved/model-00001-of-00002.safetensors"))          # raises ResnestError: a part alone
shards_of(Path("saved/model.safetensors.index.json"))      # {"fc.weight": saved/model-00001-of-00002.safetensors}
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from resnest.errors import ResnestError
from resnest.files import WEIGHTS_NAME

INDEX = ".index.json"  # the list of the files that a large model is divided into, as the hub's libraries write it
WEIGHTS_SUFFIX = ".safetensors"
USUAL = (WEIGHTS_NAME, f"{WEIGHTS_NAME}{INDEX}", "pytorch_model.bin", f"pytorch_model.bin{INDEX}")
PART = re.compile(r"-(\d{5})-of-(\d{5})\.")  # in the names of these files
SHARDED = ".distcp"  # torch.distributed.checkpoint: a file of each process, and .metadata
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".pkl", ".params", ".tar")


def find_weights_file(folder: Path) -> Path | None:
    """The checkpoint in a folder; None if there is none.

    Raises:
        ResnestError: there are several, and none has a usual name; or it is what each process wrote of its own.
    """
    usual = next((folder / name for name in USUAL if (folder / name).is_file()), None)
    if usual is not None:
        return usual
    _refuse_sharded(folder)
    lists = sorted(file for file in folder.iterdir() if file.name.endswith(INDEX) and file.is_file())
    lists = [file for file in lists if WEIGHTS_SUFFIX in file.suffixes] or lists  # one model, in two formats
    files = lists or sorted(file for file in folder.iterdir() if _may_be_checkpoint(file))
    if len(files) > 1:
        shown = ", ".join(file.name for file in files[:5]) + (", ..." if len(files) > 5 else "")
        raise ResnestError(f"{folder} holds {len(files)} checkpoints ({shown}): give the file instead of the folder")
    return files[0] if files else None


def check_whole(path: Path) -> None:
    """Raises ResnestError for one of several files of a model."""
    if path.suffix == SHARDED:
        _refuse_sharded(path.parent)
    part = PART.search(path.name)
    if part and int(part[2]) > 1:
        listed = f"{path.name[: part.start()]}{path.name[part.end() - 1 :]}{INDEX}"
        beside = "beside it" if (path.parent / listed).is_file() else "which is missing"
        raise ResnestError(f"{path} is one of {int(part[2])} files of a model: give their list, {listed}, {beside}")


def _refuse_sharded(folder: Path) -> None:
    """Raises ResnestError for a folder in which each process of a training run has written its part."""
    if any(folder.glob(f"*{SHARDED}")):
        raise ResnestError(
            f"{folder} has a file of each process (torch.distributed.checkpoint): make one of them with `python -m"
            f" torch.distributed.checkpoint.format_utils dcp_to_torch {folder.name} weights.pt`"
        )
    if any(folder.glob("*/*_model_states.pt")) or any(folder.glob("*_optim_states.pt")):
        raise ResnestError(
            f"{folder} has files of each process (DeepSpeed): make one of them with its script zero_to_fp32.py"
        )


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
