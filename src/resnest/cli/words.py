"""Help texts of several verbs; messages of the library, at the command line."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

MODEL_HELP = "Name of published weights, run directory, checkpoint file, exported file, or hub id (user/name)."
NETWORK_HELP = "The network in a checkpoint file, if the file does not identify it."
DATA_HELP = "Folder, .zip, .npz, .csv, .tar or .parquet with images, 'hf:owner/name' of the hub, or 'digits'."
EXIF_HELP = "Which way up pictures with an EXIF orientation were annotated: auto, upright or stored."
TILE_HELP = (
    "For detectors and segmenters: look at large pictures in overlapping tiles of this side, in pixels of the picture,"
    " as pictures of their own."
)
OVERLAP_HELP = "The part of a tile that its neighbours see, too; by default 0.2."
WINDOW_HELP = "Sliding windows of this side, for a segmenter: large pictures take less memory."

# What is called otherwise than in Python: parameters, and functions
OPTIONS = {"batches": "batch", "network": "model", "photos": "calibrate", "settings": "set", "sizes": "size"}
COMMANDS = {"find_recipe": "recipes show", "list_models": "models", "resume": "train --resume"}


def is_runtime() -> bool:
    """Whether this is resnest as packaging/runtime installs it: without torch."""
    import importlib.metadata  # slow, and seldom needed

    try:
        return importlib.metadata.version("resnest").endswith("+runtime")
    except importlib.metadata.PackageNotFoundError:  # run from a checkout
        return False


def at_command_line(function: str, positional: Sequence[object], named: Mapping[str, object]) -> str:
    """What `errors.parameter` and `errors.call` give: --split val, resnest train --resume runs/a."""
    options = [word for name, value in named.items() for word in _option(name, value)]
    if not function:
        return " ".join(options)
    return shlex.join(["resnest", *COMMANDS.get(function, function).split(), *map(str, positional), *options])


def _option(name: str, value: object) -> list[str]:
    option = f"--{OPTIONS.get(name, name.replace('_', '-'))}"
    if value is None or value is True:
        return [option]
    if isinstance(value, Mapping):
        return [word for key, entry in value.items() for word in (option, f"{key}={entry}")]
    if isinstance(value, tuple | list):  # height and width; several of one kind
        value = ("x" if isinstance(value, tuple) else ",").join(map(str, value))
    return [option, f"{value:g}" if isinstance(value, float) else str(value)]
