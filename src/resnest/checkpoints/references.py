"""Resolving a model reference to a file: a path, a name of published weights, or a repository of the hub.

locate("resnest50")                        # fetched, verified: (path, its row of the manifest)
locate("weights/", network="resnest50")    # the row's file in a folder of `resnest models fetch --to`
locate("hf-hub:someone/flowers")           # (folder with config.json and model.safetensors, None)
"""

from __future__ import annotations

import re
from pathlib import Path

from resnest.checkpoints import hub
from resnest.checkpoints.fetch import HAND_OVER, fetch, is_offline, read_sums
from resnest.checkpoints.manifest import MANIFEST, Weights, find_weights
from resnest.errors import ResnestError
from resnest.files import CARD_NAME, WEIGHTS_NAME
from resnest.spec import ALIASES, BASELINES, PUBLISHED, find_spec

HUB_PREFIX = "hf-hub:"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


def is_network_name(reference: str) -> bool:
    """Whether it is the name of a published network, with or without a tag, or of a baseline."""
    base = reference.split(".", 1)[0]
    return base in PUBLISHED or base in ALIASES or base in BASELINES


def locate(reference: str | Path, *, network: str | None = None) -> tuple[Path, Weights | None]:
    """The checkpoint file, or the directory of a saved model, behind a reference; and the published row if it is one.

    Args:
        network: the name of the network that weights are wanted for, where the reference is a folder of many.

    Raises:
        ResnestError: nothing there, or it could not be fetched.
    """
    path = Path(reference)
    text = str(reference)
    if not text:
        raise ResnestError("the name of the model is empty")
    if path.is_file():
        return path, None
    if path.is_dir():
        return _in_folder(path, network)
    if is_network_name(text):
        row = find_weights(text)
        return fetch(row), row
    if text.startswith(HUB_PREFIX) or _HUB_ID.fullmatch(text):
        return from_hub(text), None
    if path.suffix or len(path.parts) > 1:
        raise ResnestError(f"there is no model at {reference}: expected a run directory or a checkpoint file")
    find_weights(text)  # an unknown name ends here, with the nearest one
    raise AssertionError(text)


def locate_for(network: str | None, reference: str | Path) -> Path:
    """The file or directory of a reference, for a named network. Raises ResnestError for another network's weights."""
    path, row = locate(reference, network=network)
    if row and network and find_spec(network)[1] != row.network:
        raise ResnestError(f"{row.name} are weights of {row.network}, not of {find_spec(network)[1]}")
    return path


def _in_folder(folder: Path, network: str | None) -> tuple[Path, Weights | None]:
    """A saved model, or a file downloaded by `resnest models fetch --to`."""
    if (folder / WEIGHTS_NAME).exists() or (folder / CARD_NAME).exists() or (folder / "recipe.yaml").exists():
        return folder, None
    held = [row for row in MANIFEST if (folder / row.file).is_file()]
    if not held and not read_sums(folder):
        raise ResnestError(f"{folder} has neither {WEIGHTS_NAME} nor files of `resnest models fetch`")
    if network is None:
        raise ResnestError(f"{folder} holds {', '.join(row.name for row in held)}: give the file instead of the folder")
    wanted = find_weights(network)
    fitting = [row for row in held if row.network == wanted.network and row.head]
    if not fitting:
        raise ResnestError(
            f"{folder} has no weights of {wanted.network}: `resnest models fetch {wanted.name} --to {folder}`"
        )
    row = wanted if wanted in fitting else fitting[0]
    return fetch(row, folder), row


def from_hub(reference: str) -> Path:
    """The folder with weights and card of a repository of the hub, `user/name` or `user/name@revision`.

    Raises:
        ResnestError: no such repository, no network, offline and not in the hub's cache.
    """
    repo, _, revision = reference.removeprefix(HUB_PREFIX).partition("@")
    try:
        for name in (CARD_NAME, WEIGHTS_NAME):
            path = hub.download(repo, name, revision=revision or None, offline=is_offline())
    except hub.HubError as error:
        raise ResnestError(
            f"there is no model at {reference}, and as a repository of the hub it could not be fetched: {error}."
            f" Without a network, {HAND_OVER}"
        ) from None
    return path.parent
