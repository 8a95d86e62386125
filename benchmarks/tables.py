"""The README's tables of speed, from the files in results/: paste what it prints, tests/test_results.py compares them.

python benchmarks/tables.py
"""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterator
from pathlib import Path

from resnest.bench import Case, Table, read_table
from resnest.bench.plot import figure_of
from resnest.bench.table import facts, paired, sign_interval

RESULTS = Path(__file__).parents[1] / "results"
EAGER = "timm:resnest50d"
# of a row: what it is called, the network's name, the engine; ours in torch's engines has the best of its layouts
ROWS = (
    ("timm `resnest50d`, eager", EAGER, "eager"),
    ("here, eager", "resnest50", "eager"),
    ("here, prepared for inference", "resnest50", "prepared"),
    ("here, torch as `Predictor` runs it", "resnest50", "torch"),
    ("here, an exported file as `Predictor` runs it", "resnest50", "predictor"),
    ("here, onnxruntime", "resnest50", "onnxruntime"),
    ("here, OpenVINO", "resnest50", "openvino"),
    ("timm `resnest50d`, onnxruntime", EAGER, "onnxruntime"),
)


def engines(table: Table) -> Iterator[str]:
    """ResNeSt-50 in every engine; ratios to timm's eager network, round by round."""
    batches = sorted({case.batch for case in table.cases})
    yield "| ResNeSt-50, 224 px, float32 | " + " | ".join(f"batch {batch} | ratio" for batch in batches) + " |"
    yield "|---" * (1 + 2 * len(batches)) + "|"
    for name, model, engine in ROWS:
        yield f"| {name} | " + " | ".join(_cells(table, model, engine, batch) for batch in batches) + " |"
    for case in _quantized(table, batches[0]):
        cells = (_cells(table, case.model, case.engine, batch) for batch in batches)
        yield f"| here, int8, {case.engine} | " + " | ".join(cells) + " |"


def duels(table: Table) -> Iterator[str]:
    """Against onnxruntime's float32 on timm's export, by whichever of torch's exporters it is quicker."""
    for batch in sorted({case.batch for case in table.cases}):
        files = [case for case in _of(table, batch) if case.model.startswith(EAGER) and case.engine == "onnxruntime"]
        theirs = min(files, key=lambda case: case.median)
        ours = {"onnxruntime": _best(table, "resnest50", "onnxruntime", batch)}
        ours |= {f"int8, {case.engine}": case for case in _quantized(table, batch)}
        told = (f"{name} {_ratio(theirs, case)}" for name, case in ours.items())
        yield f"Against onnxruntime on timm's export, batch {batch}: {', '.join(told)}."


def family(table: Table) -> Iterator[str]:
    """ResNeSt 14 to 269, one image in onnxruntime."""
    yield "| | crop | top-1, published | ms an image | images/s | peak MiB |"
    yield "|---" * 6 + "|"
    for case in table.cases:
        figure = figure_of(case.model)
        if figure and figure.family == "ResNeSt" and figure.size == case.size:
            time = f"{_ms(case)} | {case.batch / case.median:.1f} | {case.peak_mib:.0f}"
            yield f"| ResNeSt-{figure.label} | {case.size} | {figure.top1:.2f} % | {time} |"


# as near in published accuracy as these families come
NEIGHBOURS = (
    ("resnest50", "timm:tf_efficientnet_b2", "timm:tf_efficientnet_b3"),
    ("resnest101", "timm:convnext_tiny", "timm:tf_efficientnet_b4"),
    ("resnest200", "timm:tf_efficientnet_b5", "timm:convnext_base"),
    ("resnest269", "timm:tf_efficientnet_b7", ""),
)


def neighbours(table: Table) -> Iterator[str]:
    """What takes how long at about the same accuracy: the plot in words."""
    cases = {case.model: case for case in table.cases}
    for names in NEIGHBOURS:
        told = [_told(cases[name]) for name in names if name in cases]
        if names[0] in cases and len(told) > 1:
            yield f"- {told[0]}; {', '.join(told[1:])}"


def _told(case: Case) -> str:
    figure = figure_of(case.model)
    assert figure is not None
    return f"{figure.family}{'-' if figure.label.isdigit() else ' '}{figure.label} ({figure.top1:.1f} %) {_ms(case)} ms"


def startup(path: Path) -> Iterator[str]:
    """Whole processes."""
    times: dict[str, list[float]] = {}
    lines = path.read_text(encoding="utf-8").splitlines()
    for row in csv.DictReader(line for line in lines if not line.startswith("#")):
        times.setdefault(row["command"], []).append(float(row["seconds"]))
    for name, seconds in times.items():
        low, high, _ = sign_interval(seconds)
        yield f"| `{name}` | {statistics.median(seconds):.2f} s ({low:.2f} to {high:.2f}) |"


def where(table: Table) -> str:
    """Machine, versions and rounds in one line."""
    told = facts(table.environment)
    rounds = sorted({len(case.seconds) for case in table.cases}, reverse=True)
    return (
        f"{told['cpu']}, {told['instruction sets'].replace(' ', ', ')}, {told['threads']} threads;"
        f" {told['versions']}; {' and '.join(map(str, rounds))} rounds."
    )


def _of(table: Table, batch: int) -> list[Case]:
    return [case for case in table.cases if case.batch == batch]


def _best(table: Table, model: str, engine: str, batch: int) -> Case:
    """In its best layout."""
    own = [case for case in _of(table, batch) if (case.model, case.engine) == (model, engine)]
    return min(own, key=lambda case: case.median)


def _quantized(table: Table, batch: int) -> list[Case]:
    """The quickest int8 case, if there is one."""
    found = [case for case in _of(table, batch) if case.precision == "int8"]
    return [min(found, key=lambda case: case.median)] if found else []


def _cells(table: Table, model: str, engine: str, batch: int) -> str:
    case, base = _best(table, model, engine, batch), _best(table, EAGER, "eager", batch)
    return f"{_ms(case)} ms | {'1' if case is base else _ratio(base, case)}"


def _ratio(base: Case, case: Case) -> str:
    ratio, interval = paired(base.seconds, case.seconds)
    return f"{ratio:.2f}x ({interval.low:.2f} to {interval.high:.2f})"


def _ms(case: Case) -> str:
    return f"{1e3 * case.median:.0f}" if case.median >= 0.1 else f"{1e3 * case.median:.1f}"


def main() -> None:
    for name, parts in (("engines", (engines, duels)), ("family", (family, neighbours))):
        path = RESULTS / f"{name}-cpu.csv"
        if path.exists():
            table = read_table(path)
            print(f"{path.name}: {where(table)}\n")
            for part in parts:
                print("\n".join(part(table)), end="\n\n")
    if (RESULTS / "startup-cpu.csv").exists():
        print("\n".join(startup(RESULTS / "startup-cpu.csv")))


if __name__ == "__main__":
    main()
