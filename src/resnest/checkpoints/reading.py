"""Tensors from a checkpoint file, without running any code that the file may hold (promise P9).

state = read_weights(Path("resnest50.safetensors"))       # name -> tensor
"""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from resnest.errors import ResnestError
from resnest.runtime.card import WEIGHTS_NAME

WRAPPERS = ("state_dict", "model", "net")  # where training checkpoints keep the weights, in this order
FORBIDDEN = ("GLOBAL", "unsupported class", "unrecognized function")  # torch's words for a pickle that wants code
PREFIXES = ("module.", "_orig_mod.")  # of DistributedDataParallel and torch.compile


def read_weights(path: Path) -> dict[str, Tensor]:
    """Names and tensors of a .safetensors or .pth file, or of a directory with model.safetensors, on the CPU.

    Raises:
        ResnestError: missing, damaged, without tensors, or a file that would run code when loaded.
    """
    if path.is_dir():
        path = path / WEIGHTS_NAME
    if not path.is_file():
        raise ResnestError(f"there is no checkpoint at {path}")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else read_torch_file(path)
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping):
        raise ResnestError(f"{path} holds a {type(content).__name__}, not named tensors")
    state = {_plain_name(str(name)): value for name, value in content.items() if isinstance(value, Tensor)}
    if not state:
        raise ResnestError(f"{path} holds no tensors (found: {', '.join(map(str, list(content)[:5])) or 'nothing'})")
    return state


def read_torch_file(path: Path) -> Any:
    """Whatever a `torch.save` file holds, tensors and plain containers only.

    Raises:
        ResnestError: damaged, or it asks for code to be run.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols and dtypes in foreign files
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        message = str(error)
        if any(word in message for word in FORBIDDEN) or _is_pickle(path):
            raise ResnestError(f"{path} would run code when loaded, and was refused: {_asked_for(message)}") from None
        raise ResnestError(f"{path} is damaged or no checkpoint: {message.splitlines()[-1].strip()}") from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise ResnestError(f"{path} is damaged or no checkpoint: {first}") from None


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ResnestError(f"{path} is damaged or no safetensors file: {error}") from None


def _is_pickle(path: Path) -> bool:
    """A bare pickle of some protocol that torch does not read, by its first byte."""
    with path.open("rb") as file:
        return file.read(1) == b"\x80"


def _plain_name(name: str) -> str:
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _asked_for(message: str) -> str:
    """What a refused pickle wanted, out of torch's long explanation."""
    for line in message.splitlines():
        if any(word in line for word in FORBIDDEN):
            return line.strip()
    return "it holds more than tensors"
