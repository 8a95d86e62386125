"""Messages of the library name parameters and functions; at the command line the same messages name options."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import typer

import resnest
from conftest import Outcome
from exports import saved
from resnest import bench
from resnest.cli.app import app
from resnest.cli.words import COMMANDS, OPTIONS, at_command_line
from resnest.data.checks import check_dataset
from resnest.errors import ResnestError, call, parameter, wording
from resnest.exporters.int8 import Int8
from resnest.health.survey import Survey
from resnest.runtime.sources import open_source
from resnest.runtime.tiles import Tiles
from resnest.serving.address import bind

SOURCE = Path(__file__).parents[1] / "src" / "resnest"

FORMS = {  # a piece of a message: in Python, at the command line
    "no value": (lambda: parameter("max_drop"), "`max_drop`", "--max-drop"),
    "text": (lambda: parameter("split", 'a "b"'), r'`split="a \"b\""`', '--split a "b"'),
    "a path": (lambda: parameter("out", Path("a/ü b")), '`out="a/ü b"`', "--out a/ü b"),
    "a switch": (lambda: parameter("overwrite", True), "`overwrite=True`", "--overwrite"),
    "numbers": (lambda: parameter("max_drop", -1.0), "`max_drop=-1.0`", "--max-drop -1"),
    "height and width": (lambda: parameter("size", (64, 96)), "`size=(64, 96)`", "--size 64x96"),
    "several": (lambda: parameter("batches", [1, 16]), "`batches=[1, 16]`", "--batch 1,16"),
    "another name": (lambda: parameter("network", "NAME"), '`network="NAME"`', "--model NAME"),
    "settings": (
        lambda: parameter("settings", {"a.b": 1, "c": "d"}), '`settings={"a.b": 1, "c": "d"}`', "--set a.b=1 --set c=d",
    ),
    "settings as text": (lambda: parameter("settings", "a.b"), '`settings="a.b"`', "--set a.b"),
    "a function": (lambda: call("list_models"), "resnest.list_models()", "resnest models"),
    "a call": (
        lambda: call("resume", Path("a b")), 'resnest.resume("a b")', "resnest train --resume 'a b'",
    ),
    "a call with names": (
        lambda: call("export", "a", out="b"), 'resnest.export("a", out="b")', "resnest export a --out b",
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_forms(form: str) -> None:
    piece, python, command = FORMS[form]
    assert piece() == python
    with wording(at_command_line):
        assert piece() == command
    assert piece() == python


# --- errors, both ways ---


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model, a run that has begun, weights without names, files called like parts of messages."""
    folder = tmp_path_factory.mktemp("messages")
    saved(folder / "pico")
    torch.save(resnest.create_model("resnest14", num_classes=7).state_dict(), folder / "seven.pth")
    (folder / "begun").mkdir()
    (folder / "begun" / "metrics.jsonl").write_text("{}\n")
    (folder / "begun" / "recipe.yaml").write_text("{}\n")
    (folder / "begun" / "run.json").write_text('{"data": "digits", "class_names": ["0"], "train_images": 1}\n')
    (folder / "empty").mkdir()
    (folder / "empty" / "empty.jpg").touch()
    return folder


class Case(NamedTuple):
    """One mistake, made twice."""

    python: Callable[[], object]
    command: str  # arguments, with blanks between them
    told: str  # to Python
    printed: str  # by the command line


BOTH = {
    "a part of the data": Case(
        lambda: resnest.evaluate("pico", "digits", split="middle"),
        "evaluate pico --data digits --split middle",
        '`split="middle"`: expected auto, val, test, train or all',
        "--split middle: expected auto, val, test, train or all",
    ),
    "pictures to compare": Case(
        lambda: resnest.export("pico", format="torch", out="m.pt2", images="empty"),
        "export pico --format torch --out m.pt2 --images empty",
        '`images="empty"`: none of its 1 images can be used',
        "--images empty: none of its 1 images can be used",
    ),
    "a device": Case(
        lambda: resnest.Predictor("pico", device="abacus"),
        "predict pico x.jpg --device abacus",
        '`device="abacus"`: expected auto, cpu or cuda',
        "--device abacus: expected auto, cpu or cuda",
    ),
    "a card": Case(
        lambda: resnest.Predictor("pico", card="pico"),
        "predict pico x.jpg --card pico",
        "pico has its own card: `card` is for exported files that have none",
        "pico has its own card: --card is for exported files that have none",
    ),
    "nothing exported": Case(
        lambda: resnest.Predictor("resnest50", engine="openvino"),
        "predict resnest50 x.jpg --engine openvino",
        '`resnest.export("resnest50", format="openvino", out="resnest50.xml")`',
        "`resnest export resnest50 --format openvino --out resnest50.xml`",
    ),
    "an unknown name": Case(
        lambda: resnest.create_model("vgg"),
        "models show vgg",
        "'vgg' is not a known model. `resnest.list_models()` lists them all.",
        "'vgg' is not a known model. `resnest models` lists them all.",
    ),
    "weights without names": Case(
        lambda: resnest.Predictor("seven.pth", network="resnest14"),
        "predict seven.pth x.jpg --model resnest14",
        'or fine-tune from it with `settings={"model.pretrained": "seven.pth"}`',
        "or fine-tune from it with --set model.pretrained=seven.pth",
    ),
    "a run without weights": Case(
        lambda: resnest.Model.from_pretrained("begun"),
        "models save begun there",
        'begun has no weights yet: finish it with `resnest.resume("begun")`',
        "begun has no weights yet: finish it with `resnest train --resume begun`",
    ),
    "a run already there": Case(
        lambda: resnest.train("digits", data="digits", out="begun"),
        "train digits --data digits --out begun",
        'choose another `out`, resume it with `resnest.resume("begun")`, or replace it with `overwrite=True`',
        "choose another --out, resume it with `resnest train --resume begun`, or replace it with --overwrite",
    ),
    "a setting of another task": Case(
        lambda: resnest.train("digits", data="digits", out="new", settings={"detection": {"short": 3}}),
        "train digits --data digits --set detection.short=3",
        '`settings={"detection": {"short": 3}}`: recipe \'digits\' trains a network for classification',
        "--set detection.short=3: recipe 'digits' trains a network for classification",
    ),
    "text that is no setting": Case(
        lambda: resnest.train("digits", data="digits", out="new", settings=["epochs"]),
        "train digits --data digits --set epochs",
        '`settings="epochs"`: expected section.field=value',
        "--set epochs: expected section.field=value",
    ),
    "an unknown setting": Case(
        lambda: resnest.train("digits", data="digits", out="new", settings={"optim.abc": 3}),
        "train digits --data digits --set optim.abc=3",
        'See `resnest.find_recipe("digits")`.',
        "See `resnest recipes show digits`.",
    ),
    "a folder to export to": Case(
        lambda: resnest.export("pico", out="none/m.onnx"),
        "export pico --out none/m.onnx",
        '`out="none/m.onnx"`: there is no folder none',
        "--out none/m.onnx: there is no folder none",
    ),
    "a size": Case(
        lambda: resnest.export("pico", format="torch", out="m.pt2", size=(64, 96)),
        "export pico --format torch --out m.pt2 --size 64x96",
        "`size=(64, 96)`: a classifier takes squares, give one number",
        "--size 64x96: a classifier takes squares, give one number",
    ),
    "int8 in another format": Case(
        lambda: resnest.export("pico", format="torch", out="m.pt2", int8=Int8("digits")),
        "export pico --format torch --out m.pt2 --int8 --calibrate digits",
        "`int8` is written to onnx or openvino, not to torch",
        "--int8 is written to onnx or openvino, not to torch",
    ),
    "a layout that holds less": Case(
        lambda: resnest.convert(Path("seven.pth"), to="detectron2", out=Path("m.pth")),
        "convert seven.pth --to detectron2 --out m.pth",
        "would be lost; leave them out with `drop_head=True`",
        "would be lost; leave them out with --drop-head",
    ),
    "a file already there": Case(
        lambda: resnest.convert(Path("seven.pth"), to="timm", out=Path("seven.pth")),
        "convert seven.pth --to timm --out seven.pth",
        "seven.pth exists: choose another `out`, or replace it with `overwrite=True`",
        "seven.pth exists: choose another --out, or replace it with --overwrite",
    ),
    "no batch": Case(
        lambda: bench.plan(["resnest14"], batches=[0]),
        "bench resnest14 --batch 0",
        "`batches=[0]`: there must be 1 or more",
        "--batch 0: there must be 1 or more",
    ),
    "no thread": Case(
        lambda: bench.plan(["resnest14"], threads=0),
        "bench resnest14 --threads 0",
        "`threads=0`: there must be 1 or more",
        "--threads 0: there must be 1 or more",
    ),
}
# Names of files that look like parts of messages
NAMES = ("`split`", '`split="val"`', "--model NAME", 'resnest.resume("a")', "`resnest train --resume a`")
BOTH |= {
    name: Case(lambda name=name: resnest.open_dataset(name), f"evaluate pico --data\t{name}", name, name)  # type: ignore[misc]
    for name in NAMES
}


@pytest.mark.parametrize("case", BOTH)
def test_both_ways(case: str, workplace: Path, cli: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    python, command, told, printed = BOTH[case]
    words, tab, name = command.partition("\t")
    before = sorted(workplace.rglob("*"))
    done = cli(*words.split(), *([name] if tab else []))
    assert done.code == 2
    assert printed in done.err
    assert done.err.count("\n") == 1, done.err
    with pytest.raises(ResnestError) as caught:
        python()
    assert told in str(caught.value)
    assert sorted(workplace.rglob("*")) == before


# --- names, as functions and commands have them ---


class Use(NamedTuple):
    """A call of `parameter` or `call` in the library."""

    where: str
    kind: str
    node: ast.Call
    nested: bool  # in a function, so that it is made when a message arises


def _uses() -> Iterator[Use]:
    for path in sorted(SOURCE.rglob("*.py")):
        if path.parent.name == "cli" or path.name == "errors.py":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.Lambda)]
        nested = {id(node) for function in functions for node in ast.walk(function)}
        kinds = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module == "resnest.errors"
            for alias in node.names
        } & {"parameter", "call"}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in kinds:
                where = f"{path.relative_to(SOURCE)}:{node.lineno}"
                yield Use(where, node.func.id, node, id(node) in nested)


def _name(use: Use) -> str:
    first = use.node.args[0]
    assert isinstance(first, ast.Constant), f"{use.where}: the name must stand there"
    assert isinstance(first.value, str)
    return first.value


USES = list(_uses())
TWINS: list[tuple[Any, str]] = [  # what one calls in Python, and the command that does the same
    (resnest.train, "train"), (resnest.train_folds, "train"), (resnest.resume, "train"),
    (resnest.evaluate, "evaluate"), (resnest.Predictor, "predict"),
    (resnest.Model.from_pretrained, "models save"), (resnest.export, "export"), (Int8, "export"), (Tiles, "predict"),
    (resnest.convert, "convert"), (bench.plan, "bench"), (resnest.open_dataset, "doctor"), (check_dataset, "doctor"),
    (open_source, "predict"), (bind, "serve"), (Survey.review, "doctor"),
    (resnest.Explainer, "explain"), (resnest.explain, "explain"),
]  # fmt: skip


def _options(command: str) -> set[str]:
    """Of a command; its first words may be those of a group of commands. Raises KeyError where there is none."""
    found: Any = typer.main.get_command(app)
    for word in command.split():
        found = found.commands[word]
    return {option for one in found.params for option in one.opts}


def _option(name: str) -> str:
    with wording(at_command_line):
        return parameter(name)


def test_there_are_uses() -> None:
    assert {use.kind for use in USES} == {"parameter", "call"}
    assert len(USES) > 50


@pytest.mark.parametrize("use", USES, ids=lambda use: use.where)
def test_names_exist(use: Use) -> None:
    """On both sides, of functions and commands that do the same."""
    assert use.nested, f"{use.where}: this piece of a message is made once and for all, on import"
    name = _name(use)
    if use.kind == "parameter":
        takers = [command for function, command in TWINS if name in inspect.signature(function).parameters]
        assert takers, f"{use.where}: no function takes {name}"
        assert any(_option(name) in _options(command) for command in takers), f"{use.where}: {takers} lack {name}"
        return
    assert name in resnest.__all__, f"{use.where}: resnest.{name} does not exist"
    given = {keyword.arg: None for keyword in use.node.keywords if keyword.arg}
    inspect.signature(getattr(resnest, name)).bind(*use.node.args[1:], **given)
    words = COMMANDS.get(name, name).split()
    command = [word for word in words if not word.startswith("--")]
    known = _options("recipes" if name == "find_recipe" else " ".join(command))
    assert {*words[len(command) :], *map(_option, given)} <= known


def test_no_name_is_left_over() -> None:
    """In the tables of the command line."""
    used = {kind: {_name(use) for use in USES if use.kind == kind} for kind in ("parameter", "call")}
    assert set(OPTIONS) <= used["parameter"]
    assert set(COMMANDS) <= used["call"]
    assert all(name.replace("_", "-") != option for name, option in OPTIONS.items())


# Of other programs, of style sheets, of commands that have no twin in Python, and of the README of a saved model
FOREIGN = {
    "--max-restarts", "--dereference", "--hard-dereference", "--short", "--version", "--line", "--line-", "--to",
    "--data", "--draw", "--top", "--boxes", "--shm-size", "resnest predict",
}  # fmt: skip


def test_the_library_writes_no_options() -> None:
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings
        for node in ast.walk(tree) if path.parent.name != "cli" else ():
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
                options = re.findall(r"(?<![\w-])--[a-z][a-z-]*", node.value)
                commands = re.findall(r"resnest (?:train|evaluate|predict|export|convert|recipes show)\b", node.value)
                for word in {*options, *commands} - FOREIGN:
                    found[f"{path.relative_to(SOURCE)}:{node.lineno}"] = word
    assert not found
