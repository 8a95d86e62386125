"""Eager ResNeSt-50 against timm's resnest50d: inference and the training step, same weights, NCHW and channels_last.

    python benchmarks/network.py            # writes results/network-cpu.csv, prints a table

In every round each contender takes one turn, in an order that moves on from round to round, in one process: what
slows the machine down slows all of them. A ratio is the median over rounds of timm's time / ours, each in its best
layout, so above 1 means faster here. The training step is measured at the largest batch, if that is 2 or more.
"""

from __future__ import annotations

import argparse
import copy
import csv
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnest.bench.table import environment, head
from resnest.network import ResNeSt
from resnest.spec import Spec

SIZE = 224  # evaluation and training crop of ResNeSt-50
LAYOUTS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}


@dataclass
class Turn:  # one contender in one layout at one batch, and its times
    what: str
    contender: str
    layout: str
    batch: int
    run: Callable[[], object]
    seconds: list[float] = field(default_factory=list)


def contenders(device: str) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    theirs, ours = timm.create_model("resnest50d"), ResNeSt(Spec())
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return {"resnest": ours.to(device), "timm": theirs.to(device)}


def inference(net: nn.Module, x: Tensor) -> Callable[[], object]:
    net.eval()
    return torch.no_grad()(lambda: net(x))


def training_step(net: nn.Module, x: Tensor) -> Callable[[], object]:
    net.train()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)
    labels = torch.arange(len(x), device=x.device)

    def run() -> object:
        optimizer.zero_grad()
        F.cross_entropy(net(x), labels).backward()
        return optimizer.step()

    return run


def make_turns(nets: dict[str, nn.Module], what: str, batch: int, device: str) -> list[Turn]:
    build, turns = inference if what == "inference" else training_step, []
    for layout, memory_format in LAYOUTS.items():
        x = torch.randn(batch, 3, SIZE, SIZE, device=device).contiguous(memory_format=memory_format)
        for name, net in nets.items():
            own = copy.deepcopy(net).to(memory_format=memory_format)
            turns.append(Turn(what, name, layout, batch, build(own, x)))
    return turns


def seconds(run: Callable[[], object], device: str) -> float:
    start = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(turns: list[Turn], rounds: int, device: str) -> None:
    for turn in turns * 2:  # warm-up
        seconds(turn.run, device)
    for first in (index % len(turns) for index in range(rounds)):
        for turn in turns[first:] + turns[:first]:
            turn.seconds.append(seconds(turn.run, device))


def write(turns: list[Turn], path: Path, device: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        notes = [f"seconds: per call of ResNeSt-50, {SIZE} px, fp32, eager"]
        threads = torch.get_num_threads()
        file.write(head(environment(threads=threads, device=device, packages=("torch", "timm"), notes=notes)))
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("what", "contender", "layout", "batch", "repetition", "seconds"))
        for t in turns:
            rows.writerows((t.what, t.contender, t.layout, t.batch, i, f"{s:.6f}") for i, s in enumerate(t.seconds))


def report(turns: list[Turn]) -> None:
    for turn in turns:
        print(f"{turn.what:13} batch {turn.batch:3} {turn.contender:8} {turn.layout:14} {median(turn.seconds):9.4f} s")
    by_speed = sorted(turns, key=lambda turn: median(turn.seconds))
    ours, theirs = (next(turn for turn in by_speed if turn.contender == name) for name in ("resnest", "timm"))
    ratio = median(b / a for a, b in zip(ours.seconds, theirs.seconds, strict=True))
    print(f"timm ({theirs.layout}) / resnest ({ours.layout}): {ratio:.3f}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--out", type=Path, default=Path("results/network-cpu.csv"))
    parser.add_argument("--smoke", action="store_true", default=os.environ.get("SMOKE") == "1")
    options = parser.parse_args()
    if options.smoke:  # the same path in seconds, into a temporary folder
        options.rounds, options.batches = 1, [1, 2]
        options.out = Path(tempfile.mkdtemp(prefix="resnest-smoke-")) / options.out.name
    torch.set_num_threads(options.threads)
    nets, done = contenders(options.device), []
    plan = [("inference", batch) for batch in options.batches]
    plan += [("training step", max(options.batches))] if max(options.batches) > 1 else []
    for what, batch in plan:
        turns = make_turns(nets, what, batch, options.device)
        measure(turns, options.rounds, options.device)
        report(turns)
        done += turns
        write(done, options.out, options.device)


if __name__ == "__main__":
    main()
