"""The floors, counted by hand; the scripts for a GPU where there is none; what training keeps."""

from __future__ import annotations

import csv
import dataclasses
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gpu_bench import measure as gpu_measure
from gpu_bench.cases import Case, Compile, Contender, Network, Run, contenders, eager
from gpu_bench.floor import Floor, inference_floor, traffic_of, training_floor
from resnest.spec import PUBLISHED, Spec, macs, parameters

ROOT = Path(__file__).parents[1]
GPU, KEPT = ROOT / "benchmarks" / "gpu.py", ROOT / "benchmarks" / "kept.py"
HAND = Spec(depths=(1, 1, 1, 1), planes=(8, 8, 8, 8), stem="small", stem_width=4)  # at 8 pixels: maps of 8, 4, 2, 1
SMALL = [(8, 256, 32), (32, 512, 16)]  # fc1, fc2
# by hand, for one image: what a layer reads, its weights, what it writes
STEM = [(3 * 64, 8 * 3 * 9, 8 * 64)]
BLOCK1 = [(512, 64, 512), (512, 16 * 4 * 9, 1024), *SMALL, (512, 256, 2048), (512, 256, 2048)]
BLOCK2 = [(2048, 256, 512), (512, 576, 1024), *SMALL, (128, 256, 512), (512, 1024, 512)]
BLOCK3 = [(512, 256, 128), (128, 576, 256), *SMALL, (32, 256, 128), (128, 1024, 128)]
BLOCK4 = [(128, 256, 32), (32, 576, 64), *SMALL, (8, 256, 32), (32, 1024, 32)]
LAYERS = [*STEM, *BLOCK1, *BLOCK2, *BLOCK3, *BLOCK4, (32, 32 * 1000, 1000)]
UNPOOLED = (2048 - 512) + (512 - 128) + (128 - 32)  # the shortcuts read the maps before their pools
BLOCKS = [(1024, 512, 2048), (1024, 128, 512), (256, 32, 128), (64, 8, 32)]  # U, V, the sum
MACS = 219_392
IMAGES_GRADIENT = 8 * 3 * 9 * 64


def test_layers_counted_by_hand() -> None:
    traffic = traffic_of(HAND, 8)
    found = sorted((layer.reads, layer.weights, layer.writes) for layer in traffic.layers)
    assert found == sorted(LAYERS)
    assert [(block.splits, block.weighed, block.sums) for block in traffic.blocks] == BLOCKS
    assert traffic.unpooled == UNPOOLED
    assert sum(layer.macs for layer in traffic.layers) == MACS == macs(HAND, size=8)


def test_floors_counted_by_hand() -> None:
    weights = sum(weight for _, weight, _ in LAYERS)
    assert inference_floor(HAND, batch=2, size=8) == Floor((25_112 * 2 + weights) * 2, 2 * MACS * 2)
    step = training_floor(HAND, batch=2, size=8)
    assert step.bytes == (104_360 * 2 + 3 * weights) * 2 + 20 * parameters(HAND)
    assert step.operations == 2 * (3 * MACS - IMAGES_GRADIENT) * 2
    assert Floor(100, 30).seconds(10, 2) == 15
    assert Floor(100, 10).seconds(10, 2) == 10


def test_pools_and_the_deep_stem() -> None:
    """A max pool in inference: what is before it is never written. Networks that pool first have more to defer."""
    spec = dataclasses.replace(HAND, stem="deep")  # at 32 pixels: 16 before the max pool, 8 after it
    traffic = traffic_of(spec, 32)
    assert traffic.max_pool == (8 * 256, 8 * 64)
    assert traffic.deferred == 0
    first = traffic_of(dataclasses.replace(spec, avd_first=True), 32)
    assert first.deferred == 8 * (64 - 16) + 8 * (16 - 4) + 8 * (4 - 1)


def test_one_pass_is_bound_by_memory() -> None:
    """At a batch of 128 on an H100; by less in training than the factor of its operations would say."""
    spec = PUBLISHED["resnest50"].spec
    once, step = inference_floor(spec, batch=128, size=224), training_floor(spec, batch=128, size=224)
    for floor in (once, step):
        assert floor.bytes / 3.35e12 > floor.operations / 989e12
    assert 3 < step.bytes / once.bytes < 6


def _script(*words: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, env=environment)


def _rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(line for line in path.read_text().splitlines() if not line.startswith("#")))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """The script's own entry point, in this process."""
    monkeypatch.delenv("SMOKE", raising=False)

    def run(*words: str | Path) -> None:
        monkeypatch.setattr(sys, "argv", [str(GPU), *map(str, words)])
        runpy.run_path(str(GPU), run_name="__main__")

    return run


def test_without_a_gpu(
    gpu: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as stop:
        gpu("--out", tmp_path / "gpu.csv", "--plot", tmp_path / "gpu.svg")
    assert stop.value.code == 2
    told = capsys.readouterr()
    assert told.err == "no CUDA device here: nothing was measured (--floors computes the floors alone)\n"
    assert told.out == ""
    assert not list(tmp_path.iterdir())


def test_floors_of_a_network(gpu: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "floors.csv"
    gpu("--floors", "--models", "resnest50", "--out", path)
    assert capsys.readouterr().out.startswith("computed, not measured")
    assert "# computed, not measured" in path.read_text()
    inference, training = _rows(path)
    assert (inference["what"], training["what"]) == ("inference", "training")
    assert int(inference["operations"]) == 2 * 128 * macs(Spec(), size=224)
    committed = [row for row in _rows(ROOT / "results" / "gpu-floors.csv") if row["model"] == "resnest50"]
    assert [inference, training] == committed


def test_the_whole_path_on_a_cpu() -> None:
    done = _script(GPU, "--smoke", "--rounds", "1")
    assert done.returncode == 0, done.stderr
    table, picture = map(Path, done.stdout.splitlines()[-2:])
    rows = _rows(table)
    assert {row["what"] for row in rows} == {"inference", "training"}
    assert {row["contender"] for row in rows} >= {
        "plain eager",
        "plain compiled",
        "resnest kernels",
        "resnest kernels, compiled",
        "resnest no kernels, compiled",
        "resnest fused eager",
        "resnest fused compiled",
    }
    assert all(float(row["seconds"]) > 0 and float(row["floor_seconds"]) > 0 for row in rows)
    assert "<svg" in picture.read_text()


def test_half_the_batch_and_wrong_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of memory in one contender halves the batch of all; one that is off, or breaks, is named and not timed."""
    network = Network("tiny", HAND, size=16)

    def build(network: Network, state: dict[str, Tensor], images: Tensor) -> Run:
        if len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return lambda: torch.zeros(len(images), 1000)

    def broken(network: Network, state: dict[str, Tensor], images: Tensor) -> Run:
        raise RuntimeError("no such instruction")

    def some(case: Case, device: torch.device, compiled: Compile) -> list[Contender]:
        others = Contender("resnest wrong", "nchw", build), Contender("resnest broken", "nchw", broken)
        return [*contenders(case, device, compiled)[:1], *others]

    monkeypatch.setattr(gpu_measure, "contenders", some)
    told: list[str] = []
    device = gpu_measure.Device(torch.device("cpu"), 1e9, 1e9)
    measured = gpu_measure.measure(
        Case(network, "inference", 4, ("nchw",)), device, rounds=2, calls=3, compiled=eager, tell=told.append
    )
    assert measured.case.batch == 2
    assert "tiny, inference: out of memory at batch 4; all at 2" in told
    [base] = measured.results
    assert (base.contender.name, len(base.seconds)) == ("plain eager", 6)
    assert measured.refused[0].startswith("resnest wrong, nchw: not timed, relative error 1, allowed 0.0")
    assert measured.refused[1] == "resnest broken, nchw: did not run: RuntimeError: 'no such instruction'"


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    pytest.importorskip("triton")
    before = os.environ.get("TRITON_INTERPRET")
    try:
        return runpy.run_path(str(KEPT))
    finally:
        if before is None:
            os.environ.pop("TRITON_INTERPRET")
        else:
            os.environ["TRITON_INTERPRET"] = before


@pytest.mark.skipif(
    torch.cuda.is_available(), reason="it counts with Triton's interpreter on, which a GPU's tests have off"
)
def test_fused_keeps_less(kept: dict[str, Any]) -> None:
    plain, fused = (kept["kept_per_image"](kept[name], kept["TINY"]) for name in ("ours", "fused"))
    splits = sum(block.splits for block in traffic_of(kept["TINY"].spec, kept["TINY"].size).blocks)
    assert plain - fused >= 2 * splits / 2**20  # U, in bfloat16


def test_passes_over_memory(kept: dict[str, Any]) -> None:
    """One operator reads and writes; views and allocations do neither; an expanded tensor is as large as it is."""
    x = torch.ones(4, 8)
    with kept["Counting"]() as counting:
        torch.empty(100)
        x.view(32).expand(5, 32)
        x.relu()
    assert counting.bytes == 2 * 32 * 4
    assert kept["moved"](torch.ones(1).expand(100)) == 4
    rows = {row[0]: [float(value) for value in row[1:]] for row in kept["passes_rows"]((2, 16, 8))}
    assert rows["resnest fused"][:3] == [3.5, 4, 7.5]
    assert rows["timm eager"][2] > 2 * rows["resnest fused"][2]
