"""The measures of the house: how large it is, who knows a task, what runs in circles. Read, not imported.

    python benchmarks/house.py                                # a table: measure, now, goal
    python benchmarks/house.py --list string                  # the lines behind a number
    python benchmarks/house.py --startup --csv results/house.csv --label after

A task's module lies in the package of its name, or is one of `STRAYS`: modules of a task in other rooms. Every other
module is generic. Lines of generic modules that know a task are counted as

- `string`: a literal that equals a word of `WORDS`. Docstrings are no code;
- `type`: isinstance, issubclass, `is` or a class pattern on what a task's module defines, or on a class with a task
  in its name (`CLASS`), such as DetectionPreprocess;
- `section`: `.detector`, `.segmentation`, ... of a card, a recipe or a model is read;
- `knowing`: distinct lines of these three;
- `imports` of a task's module, apart, as most serve such lines; those of the package's own `__init__` are its API.

`tables` are outermost displays and unions whose rows name three tasks or more, by word, class or import, and classes
with members named after as many. `chains` are functions whose `if`s and cases tell two tasks or more apart.
`circles` are groups of modules that import each other, by imports that run with the module, `circles_nested` by those
in functions too, `circles_typing` by those under TYPE_CHECKING too; packages on the way do not count. `up` are
imports, wherever they stand, that run up LAYERS of tests/test_layers.py; `resnest.__version__` is none, nor are the
annotations of `tasks`. `help_s` and `import_s` are the least of the runs: of `python -m resnest --help` the whole
process, of the import itself.
"""

from __future__ import annotations

import argparse
import ast
import csv
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatch
from importlib.util import resolve_name
from pathlib import Path

ROOT = Path(__file__).parents[1]
TASKS = ("classification", "detection", "segmentation", "panoptic", "keypoints")
WORDS = {*TASKS, "instances", "detector", "segmenter"}  # "instances": detection with masks
SECTIONS = {"detector", "detection", "segmenter", "segmentation", "panoptic"}
CLASS = {  # first wins: a panoptic detector is panoptic
    "panoptic": "Panoptic",
    "keypoints": "Keypoint|Pose[sN]",
    "detection": "Detect(ion|or|ed)",
    "segmentation": "Segment(ation|er)|Pixel|LabelMap",
    "classification": "Classif|MultiLabel",
}
STRAYS = {  # by task: its modules outside its package; first wins
    "panoptic": "*/panoptic* data/segments",
    "detection": "*/detect */detect[!r]* */coco* cli/objects data/segmentations data/targets data/voc detector_spec"
    " recipes/few_images report/pictures runtime/draw_detections runtime/masks",
    "segmentation": "*/segment* */pixel* */mask_* data/ade20k data/cityscapes data/class_lists data/voc_masks"
    " recipes/few_pixels runtime/draw_segments runtime/label_* segmenter_spec",
    "classification": "*/classification */multilabel cli/labels data/augment data/real data/transforms"
    " inference/outcome recipes/finetune recipes/imagenet recipes/modern tasks/losses tasks/mixing",
}
MEASURES: dict[str, tuple[str, float | None]] = {  # title, goal
    "files": ("source files", 190),
    "lines": ("source lines", 30_500),
    "knowing": ("lines outside a task's package that know a task", 15),
    "string": ("  by string", None),
    "type": ("  by type", None),
    "section": ("  by optional section", None),
    "imports": ("lines outside a task's package that import from it", 0),
    "strays": ("a task's modules outside its package", 0),
    "tables": ("tables with a row per task", 1),
    "chains": ("functions that tell tasks apart", None),
    "circles": ("import circles", 0),
    "circles_nested": ("import circles, imports inside functions too", 0),
    "circles_typing": ("import circles, imports for type checkers too", 0),
    "up": ("imports that run up the layers", 0),
    "long_files": ("files above 450 lines", 0),
    "long_functions": ("functions above 60 lines", None),
    "help_s": ("seconds of `resnest --help`", 0.13),
    "import_s": ("seconds of `import resnest`", 0.01),
}
LISTED = [name for name in MEASURES if not name.endswith("_s")]
Function = ast.FunctionDef | ast.AsyncFunctionDef


class Module:
    """One source file."""

    def __init__(self, path: Path, source: Path) -> None:
        self.path = path.relative_to(source).as_posix()
        self.stem = self.path.removesuffix(".py")
        self.name = ".".join([source.name, *self.stem.split("/")]).removesuffix(".__init__")
        text = path.read_text(encoding="utf-8")
        self.rows, self.tree = text.splitlines(), ast.parse(text)
        self.room = self.stem.split("/")[0]
        strays = (task for task, globs in STRAYS.items() if any(fnmatch(self.stem, one) for one in globs.split()))
        self.task = self.room if self.room in TASKS else next(strays, None)

    def lines(self, numbers: Iterable[int]) -> list[str]:
        return [f"{self.path}:{number}: {self.rows[number - 1].strip()}" for number in sorted(set(numbers))]


class House:
    """The modules of a package and what they import of it."""

    def __init__(self, source: Path) -> None:
        found = [Module(path, source) for path in sorted(source.rglob("*.py"))]
        self.modules = {module.name: module for module in found}
        self.imported = {module.name: list(self._imports(module.tree, "module", module)) for module in found}

    def _imports(self, node: ast.AST, where: str, module: Module) -> Iterator[tuple[str, str, int, str]]:
        """(module, name here, line, "module" or "function" or "typing")."""
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((a.name, "", child.lineno, where) for a in child.names if "." in a.name)
            elif isinstance(child, ast.ImportFrom):
                package = module.name if module.stem.endswith("__init__") else module.name.rpartition(".")[0]
                origin = resolve_name("." * child.level + (child.module or ""), package)
                for alias in child.names:
                    if alias.name != "__version__":
                        to = f"{origin}.{alias.name}"
                        yield to if to in self.modules else origin, alias.asname or alias.name, child.lineno, where
            elif isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
                yield from self._imports(child, "typing", module)
            elif not isinstance(child, ast.expr):
                inside = where == "module" and isinstance(child, Function)
                yield from self._imports(child, "function" if inside else where, module)

    def arrows(self, name: str, *kinds: str) -> Iterator[tuple[Module, str, int]]:
        """(module, name here, line) of what the module imports from the package."""
        for to, what, line, kind in self.imported[name]:
            if to in self.modules and kind in (kinds or ("module", "function", "typing")):
                yield self.modules[to], what, line

    def circles(self, *kinds: str) -> list[str]:
        """Strongly connected components: modules that reach each other."""
        reached = {name: {to.name for to, _, _ in self.arrows(name, *kinds)} for name in self.modules}
        while more := {n: far for n, to in reached.items() if (far := to.union(*(reached[m] for m in to))) != to}:
            reached.update(more)
        rings = {frozenset(m for m in to if name in reached[m]) for name, to in reached.items() if name in to}
        return sorted(" <-> ".join(sorted(ring)) for ring in rings)

    def climbs(self, layers: list[set[str]]) -> list[str]:
        """Imports from a higher layer, or where a side is in none. Layers hold rooms, or globs of modules: */info."""
        level = {entry: at for at, entries in enumerate(layers) for entry in entries}
        heights: dict[str, float] = {}
        for name, module in self.modules.items():
            globs = (at for entry, at in level.items() if "/" in entry and fnmatch(module.stem, entry))
            heights[name] = next(globs, level.get(module.room, float("nan")))
        lines = []
        for name, module in self.modules.items():
            kinds = ("module", "function") if module.stem == "tasks" else ()  # its annotations may look up
            lines += module.lines(
                at for to, _, at in self.arrows(name, *kinds) if not heights[to.name] <= heights[name]
            )
        return lines


class Reader:
    """What a module says about tasks, as numbers of lines."""

    def __init__(self, house: House, module: Module) -> None:
        self.owners = {what: to.task for to, what, _ in house.arrows(module.name) if what and to.task}
        nodes = list(ast.walk(module.tree))
        holders = [n.body for n in nodes if isinstance(n, ast.Module | ast.ClassDef | Function)]
        docstrings = {id(body[0].value) for body in holders if body and isinstance(body[0], ast.Expr)}
        self.nodes = [node for node in nodes if id(node) not in docstrings]

    def task_of(self, node: ast.AST) -> str | None:
        """The task that a literal or a name stands for."""
        if isinstance(node, ast.Constant):
            return str(node.value) if node.value in TASKS else None
        name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
        named = (task for task, word in CLASS.items() if name[:1].isupper() and re.search(word, name))
        return self.owners.get(name) or next(named, None)

    def tasks_in(self, *nodes: ast.AST) -> set[str]:
        return {task for top in nodes for node in ast.walk(top) if (task := self.task_of(node))}

    def string(self) -> Iterator[int]:
        yield from (n.lineno for n in self.nodes if isinstance(n, ast.Constant) and n.value in WORDS)

    def type(self) -> Iterator[int]:
        for node in self.nodes:
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("isinstance", "issubclass"):
                classes = [inner for argument in node.args[1:] for inner in ast.walk(argument)]
            elif isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Is | ast.IsNot):
                classes = [node.left, *node.comparators]
            elif isinstance(node, ast.MatchClass):
                classes = [node.cls]
            else:
                continue
            if any(self.task_of(one) for one in classes if not isinstance(one, ast.Constant)):
                yield node.lineno

    def section(self) -> Iterator[int]:
        read = (n for n in self.nodes if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Load))
        yield from (n.end_lineno or n.lineno for n in read if n.attr in SECTIONS)

    def tables(self, node: ast.AST) -> Iterator[int]:
        for child in ast.iter_child_nodes(node):
            table = len(self._rows(child)) > 2
            yield from [getattr(child, "lineno", 0)] if table else []
            if not table or isinstance(child, ast.ClassDef):  # else what is inside is of the same table
                yield from self.tables(child)

    def _rows(self, node: ast.AST) -> set[str]:
        """The tasks that rows name: a dict's by their keys, or else by their values; a class's by names of members."""
        if isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
            return set().union(*(self.tasks_in(*filter(None, [key])) or self.tasks_in(value) for key, value in pairs))
        if isinstance(node, ast.ClassDef):
            members = [getattr(part, "target", part) for part in node.body]
            names = [str(getattr(part, "id", getattr(part, "name", ""))) for part in members]
            return {task for task, word in CLASS.items() for name in names if re.match(word, name, re.IGNORECASE)}
        union = isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr)
        return self.tasks_in(node) if union or isinstance(node, ast.Tuple | ast.List | ast.Set) else set()

    def chains(self) -> Iterator[int]:
        for function in (node for node in self.nodes if isinstance(node, Function)):
            tests = [getattr(n, "test", getattr(n, "pattern", None)) for n in ast.walk(function)]
            if len(self.tasks_in(*filter(None, tests))) > 1:
                yield function.lineno


def layers_of(root: Path) -> list[set[str]]:
    """LAYERS of the repository's test of layers, from the ground up."""
    texts = map(ast.unparse, ast.parse((root / "tests" / "test_layers.py").read_text(encoding="utf-8")).body)
    return next(ast.literal_eval(text.removeprefix("LAYERS = ")) for text in texts if text.startswith("LAYERS = "))


def measure(source: Path, layers: list[set[str]]) -> dict[str, list[str]]:
    """What each measure counts: files, lines of code or circles."""
    house = House(source)
    found: dict[str, list[str]] = {name: [] for name in LISTED}
    for module in house.modules.values():
        reader = Reader(house, module)
        long = (n.lineno for n in reader.nodes if isinstance(n, Function) and (n.end_lineno or 0) - n.lineno >= 60)
        found["files"].append(module.path)
        found["lines"] += module.lines(range(1, len(module.rows) + 1))
        found["tables"] += module.lines(reader.tables(module.tree))
        found["chains"] += module.lines(reader.chains())
        found["long_functions"] += module.lines(long)
        found["long_files"] += [module.path] * (len(module.rows) > 450)
        if module.task:
            found["strays"] += [module.path] * (module.room not in TASKS)
            continue
        for kind in (Reader.string, Reader.type, Reader.section):
            found[kind.__name__] += module.lines(kind(reader))
        imports = (line for to, _, line in house.arrows(module.name) if to.task and module.stem != "__init__")
        found["imports"] += module.lines(imports)
    found["knowing"] = sorted({*found["string"], *found["type"], *found["section"]})
    circles = {"circles": ["module"], "circles_nested": ["module", "function"], "circles_typing": []}
    return {**found, **{name: house.circles(*kinds) for name, kinds in circles.items()}, "up": house.climbs(layers)}


def startup(source: Path, runs: int) -> dict[str, float]:
    """The least seconds of several processes: what else the machine does adds to the others."""
    environment = {**os.environ, "PYTHONPATH": str(source.parent)}
    clock = "import time; start = time.perf_counter(); import resnest; print(time.perf_counter() - start)"
    whole, inside = [], []
    for _ in range(runs):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "resnest", "--help"], env=environment, check=True, capture_output=True)
        whole.append(time.perf_counter() - started)
        inside.append(float(subprocess.check_output([sys.executable, "-c", clock], env=environment)))
    return {"help_s": round(min(whole), 3), "import_s": round(min(inside), 4)}


def record(file: Path, label: str, commit: str, values: Mapping[str, float]) -> None:
    """The label's rows of the table, in place of those that it has."""
    rows = list(csv.reader(file.read_text(encoding="utf-8").splitlines()))[1:] if file.exists() else []
    rows = [row for row in rows if row[0] != label] + [[label, commit, *map(str, item)] for item in values.items()]
    with file.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out, lineterminator="\n").writerows([["label", "commit", "measure", "value"], *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--source", type=Path, default=ROOT / "src" / "resnest", help="src/resnest of a repository")
    parser.add_argument("--list", metavar="NAME", choices=LISTED, help="the lines behind a number")
    parser.add_argument("--startup", action="store_true", help="measure seconds too, the least of 20 runs")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the values there, as rows of --label")
    parser.add_argument("--label", default="now")
    options = parser.parse_args()
    found = measure(source := options.source.resolve(), layers_of(source.parents[1]))
    values: dict[str, float] = {name: len(lines) for name, lines in found.items()}
    values |= startup(source, 20) if options.startup else {}
    if options.csv:
        head = subprocess.check_output(["git", "-C", str(source), "rev-parse", "--short", "HEAD"], text=True)
        record(options.csv, options.label, head.strip(), values)
    if options.list or options.json:
        print("\n".join(found[options.list]) if options.list else json.dumps(values, indent=2))
        return
    print(f"{'':15} {'measure':50} {'now':>7} {'goal':>7}")
    for name, value in values.items():
        title, goal = MEASURES[name]
        files = f"in {len({line.split(':')[0] for line in found[name]})} files" if name in LISTED[2:7] else ""
        print(f"{name:15} {title:50} {value:>7,} {'-' if goal is None else f'{goal:,}':>7} {files}".rstrip())


if __name__ == "__main__":
    main()
