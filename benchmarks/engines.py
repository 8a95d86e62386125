"""ResNeSt-50 in every engine against timm's resnest50d: the speed table of the README.

    python benchmarks/engines.py                    # writes results/engines-cpu.csv, prints a table
    python benchmarks/engines.py --int8 q.onnx      # with int8 files, `resnest export --int8`
    python benchmarks/engines.py --smoke            # the same path with a small network in a minute, writes no results

Random weights, a process for each contender, turn by turn. timm's network goes through both of torch's ONNX exporters,
so that the comparison is with the quicker file; ours through `resnest export`.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from resnest.bench import Table, bench, plan, text, write_table
from resnest.bench.contenders import Entrant, find_entrant
from resnest.bench.networks import build, export, write_onnx

ROUNDS = {1: 15, 16: 7}  # of a batch: about six minutes together on two cores
TORCH = ["eager", "prepared"]


def entrants(folder: Path, ours: str, size: int, int8: list[Path]) -> tuple[list[Entrant], list[Entrant]]:
    """Networks for torch's engines, and exported files."""
    peer = find_entrant(f"timm:{ours}d")
    net = build(peer.reference, peer.kind, size)
    print(f"exporting {ours} and {peer.name}", flush=True)
    export(ours, "ours", folder / "ours.onnx", size)
    write_onnx(net, folder / "traced.onnx", size)
    write_onnx(net, folder / "dynamo.onnx", size, dynamo=True)
    files = [
        find_entrant(str(folder / "ours.onnx"), name=ours),
        find_entrant(str(folder / "traced.onnx"), name=peer.name),
        find_entrant(str(folder / "dynamo.onnx"), name=f"{peer.name}, dynamo export"),
        *(find_entrant(str(path), name=f"{ours}, {path.name}") for path in int8),
    ]
    return [peer, find_entrant(ours)], files


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--int8", type=Path, nargs="+", default=[], help="int8 files, .onnx or .xml")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", type=Path, default=Path("results/engines-cpu.csv"))
    parser.add_argument("--smoke", action="store_true", default=os.environ.get("SMOKE") == "1")
    options = parser.parse_args()
    ours, size = ("resnest14", 64) if options.smoke else ("resnest50", 224)
    table = Table([])
    with tempfile.TemporaryDirectory() as folder:
        nets, files = entrants(Path(folder), ours, size, options.int8)
        for batch, rounds in ROUNDS.items():
            common = {"batches": [batch], "sizes": [size], "threads": options.threads}
            common["rounds"] = 2 if options.smoke else rounds
            planned = plan(nets, engines=TORCH, **common)
            planned.heats[0] += plan(files, engines=["onnxruntime", "openvino"], **common).heats[0]
            done = list(table.cases)

            def keep(part: Table, done=done) -> None:
                table.environment = table.environment or part.environment
                table.cases = [*done, *part.cases]
                if not options.smoke:
                    write_table(options.out, table)

            bench(planned, on_step=lambda step: print(step, flush=True), on_round=keep)
    print("\n".join(text.lines(table)))


if __name__ == "__main__":
    main()
