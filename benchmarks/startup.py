"""What a command costs as a whole process, from start to end: the program's help, and one photograph labelled.

    python benchmarks/startup.py --photo one.jpg     # writes results/startup-cpu.csv, prints a table

`resnest predict` runs an exported ResNeSt-50 with random weights. The commands take turns; Python alone is among them.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from resnest.bench.networks import export
from resnest.bench.table import environment, head, sign_interval

PROGRAM = [sys.executable, "-m", "resnest"]


def run(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def imports_torch(command: list[str]) -> bool:
    """Whether torch is among what Python says that it imported."""
    told = subprocess.run([command[0], "-X", "importtime", *command[1:]], check=True, capture_output=True, text=True)
    return any(line.rpartition("|")[2].strip() == "torch" for line in told.stderr.splitlines())


def write(path: Path, told: list[str], seconds: dict[str, list[float]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        file.write(head(told))
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("command", "repetition", "seconds"))
        for name, times in seconds.items():
            rows.writerows((name, number, f"{value:.4f}") for number, value in enumerate(times))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photo", type=Path, required=True, help="a JPEG, or a folder of which the first is taken")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("results/startup-cpu.csv"))
    parser.add_argument("--smoke", action="store_true", default=os.environ.get("SMOKE") == "1")
    options = parser.parse_args()
    photo = sorted(options.photo.iterdir())[0] if options.photo.is_dir() else options.photo
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.onnx")
        export("resnest14" if options.smoke else "resnest50", "ours", file, 224)
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "resnest --help": [*PROGRAM, "--help"],
            "resnest predict model.onnx one.jpg": [*PROGRAM, "predict", str(file), str(photo)],
        }
        notes = [
            f"torch: {'imported' if imports_torch(command) else 'not imported'} by `{name}`"
            for name, command in commands.items()
        ]
        told = environment(packages=("onnxruntime",), notes=[*notes, "seconds: of the whole process"])
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(2 if options.smoke else options.rounds):
            for name, command in commands.items():
                seconds[name].append(run(command))
    if not options.smoke:
        write(options.out, told, seconds)
    print("\n".join(notes))
    for name, times in seconds.items():
        low, high, _ = sign_interval(times)
        print(f"{name:36} {median(times):6.3f} s ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
