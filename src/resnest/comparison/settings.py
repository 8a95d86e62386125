"""What two runs were made with: recipes, data, versions, and how they differ.

differences(account("runs/a"), account("runs/b"))          # [("recipe: train.epochs", "5", "1"), ...]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from resnest.errors import ResnestError
from resnest.inference.model import RECIPE_NAME, account_of, run_folders

NOT_SETTINGS = ("class_names", "started", "fingerprints", "monitor", "held_out_of")
NOTHING = "-"


def account(model: str) -> dict[str, str]:
    """The settings of the run that a model is, or lies in, as text by dotted name; empty for other models."""
    found = account_of(model)
    own = {name: value for name, value in found.items() if name not in NOT_SETTINGS}
    recipe = next((path for folder in run_folders(Path(model)) if (path := folder / RECIPE_NAME).is_file()), None)
    return {
        **dict(_flat("recipe: ", _settings(recipe) if recipe else {})),
        **dict(_flat("run: ", own)),
    }


def _settings(recipe: Path) -> Any:
    import yaml

    try:
        return yaml.safe_load(recipe.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ResnestError(f"{recipe} cannot be read: {error}") from None


def _flat(prefix: str, value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, entry in value.items():
            yield from _flat(prefix, entry, f"{name}.{key}" if name else str(key))
    else:
        yield prefix + name, str(value)


def differences(accounts: Sequence[Mapping[str, str]]) -> list[tuple[str, ...]]:
    """Name and the value of each, of what is not the same in all; `NOTHING` where one lacks it."""
    names = list(dict.fromkeys(name for one in accounts for name in one))
    rows = [(name, *(one.get(name, NOTHING) for one in accounts)) for name in names]
    return [row for row in rows if len(set(row[1:])) > 1]


def validation_fingerprint(model: str) -> str:
    """Of the pictures and annotations that a run was validated on; "" if unknown."""
    found = account_of(model).get("fingerprints")
    return str(found.get("validation", "")) if isinstance(found, Mapping) else ""
