"""The layers of the house: an arrow goes down only, and the ground floor never needs torch."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from resnest.tasks import TASKS

SOURCE = Path(__file__).parents[1] / "src" / "resnest"

# From the ground up; a room imports its own and lower layers. The rooms below the tasks name none of them: they reach
# them through the strings of `tasks`, whose annotations alone look up.
LAYERS = [
    {"errors", "figures"},
    {"files", "progress"},
    {"spec", "tasks"},
    {"runtime"},
    {"network"},
    {"kernels"},
    {"checkpoints", "data"},
    {"torch", "recipes", "adapters"},
    {"inference"},
    {"report", "serving", "batch"},
    {"training", "exporters"},
    {"explanation", "health"},
    {"classification", "detection"},
    {"segmentation", "keypoints"},
    {"panoptic"},
    {"bench", "comparison"},
    {"cli"},
    {"__init__", "__main__"},
]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
WITHOUT_TORCH = {
    "errors",
    "figures",
    "files",
    "progress",
    "spec",
    "tasks",
    "runtime",
    "recipes",
    "serving",
    "batch",
    "cli",
    "__init__",
}
TASK_ROOMS = {*TASKS}
# Of a task's package, what is imported without torch
TASK_FILES = {
    "__init__",
    "info",
    "card",
    "recipes",
    "predict",
    "data",
    "checks",
    "loss_settings",
    "activation",
    "mask_stack",
}
HEAVY = {"torch", "torchvision", "lightning_fabric", "timm", "onnx", "onnxruntime", "openvino", "nncf"}


def _room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def _imports(path: Path, *, nested: bool) -> Iterator[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if nested else _outside_functions(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def _outside_functions(tree: ast.AST) -> Iterator[ast.AST]:
    """Statements that run on import."""
    for child in ast.iter_child_nodes(tree):
        typing_only = (
            isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING"
        )
        if not isinstance(child, ast.FunctionDef) and not typing_only:
            yield child
            yield from _outside_functions(child)


FILES = sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_arrows_go_down(path: Path) -> None:
    room = _room(path)
    assert room in LEVEL, f"the room {room} is in no layer"
    for name in _imports(path, nested=room not in ("__init__", "cli", "tasks")):
        parts = name.split(".")
        if parts[0] == "resnest" and len(parts) > 1:
            assert LEVEL[parts[1]] <= LEVEL[room], f"{room} imports {name} from above"


@pytest.mark.parametrize(
    "path",
    [p for p in FILES if _room(p) in WITHOUT_TORCH or (_room(p) in TASK_ROOMS and p.stem in TASK_FILES)],
    ids=lambda path: str(path.relative_to(SOURCE)),
)
def test_the_ground_floor_does_not_import_torch(path: Path) -> None:
    assert not {name.split(".")[0] for name in _imports(path, nested=False)} & HEAVY


def test_only_benchmarks_need_matplotlib() -> None:
    """It is in the extra `bench`: reports draw their own charts."""
    users = {
        _room(path) for path in FILES if any(name.startswith("matplotlib") for name in _imports(path, nested=True))
    }
    assert users == {"bench"}


def test_files_stay_readable() -> None:
    long = {str(path.relative_to(SOURCE)): len(path.read_text().splitlines()) for path in FILES}
    assert {name: lines for name, lines in long.items() if lines > 450} == {}
