"""ResNeSt-50 in every engine against timm's resnest50d: the speed table of the README.

    python benchmarks/engines.py                    # writes results/engines-cpu.csv, prints a table
    python benchmarks/engines.py --photos DIR       # int8 calibrated on photographs instead of synthetic pictures
    python benchmarks/engines.py --smoke            # the same path with a small network, into a temporary folder

Random weights, a process for each contender, turn by turn. timm's network goes through both of torch's ONNX exporters,
so that the comparison is with the quicker file; ours through `resnest export`. int8 is made as `--int8` makes it. What
it costs in accuracy nobody can say of random weights (docs/int8.md has a trained network); its speed does not depend on
them.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import onnx

from resnest.bench import Case, Plan, Table, bench, lines, plan, write_table
from resnest.bench.contenders import Entrant, find_entrant
from resnest.bench.networks import build, export, write_onnx
from resnest.classification.export import ClassificationExporter
from resnest.exporters.calibration import BATCH, find_pictures, synthetic
from resnest.exporters.formats import find_format
from resnest.exporters.int8 import choices_here, write_quantized
from resnest.exporters.quantize import quantize
from resnest.runtime.card import ModelCard
from resnest.runtime.engines.exported import CARD_KEY, ORIGIN_KEY

ROUNDS = {1: 15, 16: 7}  # of a batch: about eight minutes together on two cores
DYNAMO = ", dynamo export"


def export_all(folder: Path, ours: str, size: int) -> tuple[Entrant, Entrant, Entrant]:
    """The file of our network, and two of timm's."""
    peer = find_entrant(f"timm:{ours}d")
    print(f"exporting {ours} and {peer.name}", flush=True)
    export(ours, "ours", folder / "ours.onnx", size)
    net = build(peer.reference, peer.kind, size)
    write_onnx(net, folder / "traced.onnx", size)
    write_onnx(net, folder / "dynamo.onnx", size, dynamo=True)
    return (
        find_entrant(str(folder / "ours.onnx"), name=ours),
        find_entrant(str(folder / "traced.onnx"), name=peer.name),
        find_entrant(str(folder / "dynamo.onnx"), name=f"{peer.name}{DYNAMO}"),
    )


def quantize_ours(source: Path, target: Path, photos: Path | None) -> None:
    """The int8 file of an exported one."""
    model = onnx.load(source)
    strings = {entry.key: entry.value for entry in model.metadata_props}
    card = ModelCard.from_json(strings[CARD_KEY], where=str(source))
    pictures = find_pictures(photos) if photos else synthetic()
    batches = ClassificationExporter().batches(card, pictures.images, BATCH)
    quantize(source, target, list(batches), choices_here())
    origin = {**json.loads(strings[ORIGIN_KEY]), "precision": "int8"}
    write_quantized(find_format("onnx"), target, target, {**strings, ORIGIN_KEY: json.dumps(origin)})


def make_plan(files: tuple[Entrant, Entrant, Entrant], int8: Path, **how: Any) -> Plan:
    """Everyone of one batch; timm's eager network is what ratios are taken to, so it comes first."""
    ours, traced, dynamo = files
    planned = plan(
        [find_entrant(traced.name), find_entrant(ours.name)],
        engines=["eager", "eager-kept", "prepared", "torch"],
        **how,
    )
    parts = [
        plan([ours], engines=["onnxruntime", "openvino", "predictor"], **how),
        plan([traced], engines=["onnxruntime", "openvino"], **how),
        plan([dynamo], engines=["onnxruntime"], **how),
    ]
    parts += [plan([find_entrant(str(int8), name=f"{ours.name} int8")], engines=["onnxruntime", "openvino"], **how)]
    planned.heats[0] += [contender for part in parts for contender in part.heats[0]]
    return planned


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=Path, help="a folder of pictures to calibrate int8 on")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", type=Path, default=Path("results/engines-cpu.csv"))
    parser.add_argument("--smoke", action="store_true", default=os.environ.get("SMOKE") == "1")
    options = parser.parse_args()
    ours, size = ("resnest14", 64) if options.smoke else ("resnest50", 224)
    if options.smoke:
        options.out = Path(tempfile.mkdtemp(prefix="resnest-smoke-")) / options.out.name
    table = Table([])
    with tempfile.TemporaryDirectory() as folder:
        files = export_all(Path(folder), ours, size)
        int8 = Path(folder, "int8.onnx")
        quantize_ours(Path(folder, "ours.onnx"), int8, options.photos)
        for batch, rounds in ROUNDS.items():
            how = {"batches": [batch], "sizes": [size], "threads": options.threads}
            planned = make_plan(files, int8, rounds=2 if options.smoke else rounds, **how)
            done = list(table.cases)

            def keep(part: Table, done: list[Case] = done) -> None:
                table.environment = table.environment or part.environment
                table.cases = [*done, *part.cases]
                write_table(options.out, table)

            bench(planned, on_step=lambda step: print(step, flush=True), on_round=keep)
    print("\n".join(lines(table)))
    print(options.out)


if __name__ == "__main__":
    main()
