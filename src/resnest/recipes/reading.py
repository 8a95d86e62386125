"""Recipes by name, from YAML and back; single settings changed; two recipes compared.

recipe = override(find_recipe("imagenette"), ["train.epochs=5", "optim.lr=0.2"])
recipe = override(find_recipe("imagenette"), {"train": {"epochs": 5}, "optim.lr": 0.2})
print(to_yaml(recipe))
"""

from __future__ import annotations

import dataclasses
import os
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from resnest.errors import ResnestError, call, parameter, unknown
from resnest.recipes.schema import ModelSettings, Recipe
from resnest.spec import Spec
from resnest.tasks import DEFAULT_TASK, TASKS, load_object, task_info

# --- Differences of two recipes, and the settings that may change when a run is resumed ---

# Settings of execution and logging, which do not affect the results.
FREE = {
    "data.workers",
    "train.eval_batch_size",
    "train.log_every",
    "train.max_steps",
    "train.save_every",
    "train.tensorboard",
    "train.wandb",
}
FREE_SECTIONS = ("expect", "name", "summary", "trainer.")
MOST_SHOWN = 6


def check_resumable(before: Recipe, now: Recipe, *, where: str) -> None:
    """Raises ResnestError, with the changed settings, if a run cannot be resumed with this recipe."""
    changed = [
        f"{key} is {old!r} there and {new!r} here"
        for key, old, new in differences(before, now)
        if key not in FREE and not key.startswith(FREE_SECTIONS)
    ]
    if changed:
        more = f"; and {len(changed) - MOST_SHOWN} more" if len(changed) > MOST_SHOWN else ""
        raise ResnestError(
            f"{where} was started with other settings: {'; '.join(changed[:MOST_SHOWN])}{more}. A run keeps its"
            " settings: leave them out, or start a new one (model.pretrained=RUN begins with its weights)"
        )


def differences(before: Recipe, now: Recipe) -> list[tuple[str, Any, Any]]:
    """Changed settings: (section.field, before, now)."""
    old, new = dict(_flat(before)), dict(_flat(now))
    return [(key, old.get(key), new.get(key)) for key in {**old, **new} if old.get(key) != new.get(key)]


def _flat(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for field in dataclasses.fields(node):
        value = getattr(node, field.name)
        if dataclasses.is_dataclass(value):
            yield from _flat(value, f"{prefix}{field.name}.")
        elif isinstance(value, dict):
            yield from ((f"{prefix}{field.name}.{key}", entry) for key, entry in value.items())
        else:
            yield f"{prefix}{field.name}", list(value) if isinstance(value, tuple) else value


Settings = Sequence[str] | Mapping[str, Any]

OWN_BEFORE = "optim"  # position of a task's own sections in a file


def read_recipe(path: Path) -> Recipe:
    """A recipe from a YAML file.

    Raises:
        ResnestError: no such file, not YAML, an unknown setting, a value of the wrong type.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ResnestError(f"{path} cannot be read: {error.strerror or error}") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ResnestError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        example = call("find_recipe", "NAME")
        raise ResnestError(f"{path} is not a recipe: expected settings such as 'train:', see `{example}`")
    content.setdefault("name", path.stem)
    return build(content, where=str(path))


def override(recipe: Recipe, settings: Settings) -> Recipe:
    """The recipe with some settings replaced: nested or dotted keys, or text whose values are YAML."""
    content = dataclasses.asdict(recipe)
    settings = [settings] if isinstance(settings, str) else settings
    pairs = _of_mapping(recipe, settings) if isinstance(settings, Mapping) else map(_of_text, settings)
    given = []
    for key, value, setting in pairs:
        keys = key.split(".")
        given.append(key)
        if keys[0] not in content and (owners := _owners(keys[0])):
            raise ResnestError(
                f"{setting}: recipe {recipe.name!r} trains a network for {recipe.task} and has no section"
                f" {keys[0]!r}; recipes for {' and '.join(owners)} have one (`resnest recipes` lists them)"
            )
        _set_value(content, keys, value, recipe.name)
    recipe.settle(content, given)
    changed = bool(settings) and content != dataclasses.asdict(recipe)
    if changed:
        content["expect"] = None  # what was measured holds for the recipe as it was
    return build(content, where=f"recipe {recipe.name!r}")


def _of_text(setting: str) -> tuple[str, Any, str]:
    """Key, value, and the name of the setting in messages."""
    import yaml

    key, equals, text = setting.partition("=")
    if not equals:
        raise ResnestError(f"{parameter('settings', setting)}: expected section.field=value, such as train.epochs=5")
    try:
        return key.strip(), yaml.safe_load(text), parameter("settings", setting)
    except yaml.YAMLError:
        return key.strip(), text, parameter("settings", setting)


def _of_mapping(node: Any, settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """The same for each setting, also those in nested dictionaries. `node`: the recipe, or a section of it."""
    for name, value in settings.items():
        key, section = f"{prefix}{name}", getattr(node, str(name), None)
        if isinstance(value, Mapping) and dataclasses.is_dataclass(section):
            yield from _of_mapping(section, value, f"{key}.")
        else:
            plain = os.fspath(value) if isinstance(value, os.PathLike) else value
            yield key, plain, parameter("settings", {key: plain})


def build(content: dict[str, Any], *, where: str) -> Recipe:
    """A validated recipe from nested dictionaries; all problems are in one message."""
    from pydantic import TypeAdapter, ValidationError

    content = upgraded(content)
    task = content["task"]
    if not isinstance(task, str) or task not in TASKS:
        raise ResnestError(f"{where}: {unknown('task', str(task), TASKS)}")
    kind = task_info(task).recipe
    known = typing.get_type_hints(kind)
    for name in content:
        if name not in known and (owners := _owners(name)):
            raise ResnestError(
                f"{where}: {name} belongs to recipes with task={' or '.join(owners)}, this one has task={task}:"
                " leave it out"
            )
    _check_names(content, kind, where)
    adapter = TypeAdapter(kind)
    try:
        return adapter.validate_python(content)
    except ValidationError as error:
        raise ResnestError(f"{where}: {'; '.join(_problem(item) for item in error.errors())}") from None


def upgraded(content: dict[str, Any]) -> dict[str, Any]:
    """Upgrade the content of an older version, whose recipes had every task's sections, also empty."""
    content = {"task": DEFAULT_TASK, **content}
    for name, value in list(content.items()):
        if value is None and _owners(name):
            del content[name]
    expect = content.get("expect")
    if isinstance(expect, dict):
        renamed = {{"within": "tolerance"}.get(name, name): value for name, value in expect.items()}
        content["expect"] = {name: value for name, value in renamed.items() if value is not None}
    return content


def _owners(section: str) -> list[str]:
    """The tasks whose recipes have this section of their own."""
    return [task for task in TASKS if section in task_info(task).recipe.own_sections]


def to_yaml(recipe: Recipe) -> str:
    """The recipe as YAML for `read_recipe`: complete, except settings that its task does not use."""
    import yaml

    content = dataclasses.asdict(recipe)
    for section, names in recipe.info.unused_settings.items():
        content[section] = {name: value for name, value in content[section].items() if name not in names}
    order = list(content)
    own = [name for name in order if name in recipe.own_sections]
    rest = [name for name in order if name not in own]
    rest[rest.index(OWN_BEFORE) : rest.index(OWN_BEFORE)] = own
    content = {name: content[name] for name in rest}
    return yaml.safe_dump(plain_values(content), sort_keys=False, allow_unicode=True, width=100)


def _set_value(content: dict[str, Any], keys: list[str], value: Any, recipe: str) -> None:
    """Set content[keys[0]][keys[1]]... where every key but one of `model.spec` must exist already."""
    node: Any = content
    for depth, key in enumerate(keys):
        dotted = ".".join(keys[: depth + 1])
        known = [field.name for field in dataclasses.fields(Spec)] if keys[:depth] == ["model", "spec"] else None
        if not isinstance(node, dict):
            raise ResnestError(f"{'.'.join(keys[:depth])} is a single value, {dotted} does not exist")
        if key not in (known or node):
            prefix = "".join(f"{part}." for part in keys[:depth])
            raise unknown(
                f"setting of recipe {recipe!r}",
                dotted,
                [f"{prefix}{name}" for name in (known or node)],
                hint=f"See `{call('find_recipe', recipe)}`.",
            )
        if depth == len(keys) - 1:
            if isinstance(node.get(key), dict) and not isinstance(value, dict):
                raise ResnestError(
                    f"{dotted} is a section: set one of its fields, such as {dotted}.{next(iter(node[key]), 'radix')}"
                )
            node[key] = value
        else:
            node = node[key]


def _check_names(content: dict[str, Any], kind: type, where: str, prefix: str = "") -> None:
    """Refuse unknown settings, and suggest the nearest name, which pydantic does not."""
    hints = typing.get_type_hints(kind)
    for key, value in content.items():
        if key not in hints:
            known = [f"{prefix}{name}" for name in hints]
            raise unknown(f"setting in {where}", f"{prefix}{key}", known)
        section = _section(hints[key])
        if section is not None and isinstance(value, dict):
            _check_names(value, section, where, f"{prefix}{key}.")
        if kind is ModelSettings and key == "spec" and isinstance(value, dict):
            _check_names(value, Spec, where, f"{prefix}spec.")


def _section(hint: Any) -> type | None:
    """The dataclass of a setting that is a section, also of an optional one."""
    for kind in (hint, *typing.get_args(hint)):
        if dataclasses.is_dataclass(kind):
            return typing.cast(type, kind)
    return None


def _problem(item: Any) -> str:
    message = str(item["msg"])
    if item["type"] == "value_error":  # ours, which names the setting itself
        return message.removeprefix("Value error, ")
    return f"{'.'.join(map(str, item['loc']))}: {message[0].lower()}{message[1:]} (it is {item['input']!r})"


def plain_values(value: Any) -> Any:
    """Tuples as lists: YAML has no tuples, and those of `torch.load(weights_only=True)` are refused by pydantic."""
    if isinstance(value, dict):
        return {key: plain_values(entry) for key, entry in value.items()}
    return [plain_values(entry) for entry in value] if isinstance(value, list | tuple) else value


# --- The recipes of the package, by task. Each docstring has its purpose and command ---


@cache
def all_recipes() -> Mapping[str, Callable[[], Recipe]]:
    """The functions that build them, by name."""
    return {name: build for task in TASKS for name, build in load_object(task_info(task).recipes).items()}


def find_recipe(name: str) -> Recipe:
    """A recipe by name, or from a YAML file.

    Raises:
        ResnestError: for an unknown name, with the nearest known one.
    """
    if name in all_recipes():
        return all_recipes()[name]()
    if name.endswith((".yaml", ".yml")):
        return read_recipe(Path(name))
    raise unknown("recipe", name, all_recipes(), hint="`resnest recipes` lists them; a file must end in .yaml.")
