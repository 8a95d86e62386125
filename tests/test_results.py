"""The figures in the README are those of the files in results/."""

from __future__ import annotations

import csv
import json
import runpy
from pathlib import Path
from statistics import median

import pytest

from resnest.bench import read_table

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _rows(name: str) -> list[dict[str, str]]:
    lines = (ROOT / "results" / name).read_text(encoding="utf-8").splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def test_imagenette_curve() -> None:
    percent = [f"{100 * float(row['top1']):.1f}" for row in _rows("imagenette128.csv")]
    assert f"{', '.join(percent[:-1])} and {percent[-1]} percent" in README
    assert f"**{percent[-1]} % top-1**" in README


def test_memory_of_segmenters_in_the_docs() -> None:
    page = (ROOT / "docs" / "segmentation.md").read_text(encoding="utf-8")
    rows = _rows("segmentation-memory.csv")
    for row in rows:
        assert f"| {int(row['peak_mib']):,} MiB | {float(row['seconds']):.0f} |" in page
    predicting, plain, again = (int(row["peak_mib"]) for row in rows)
    assert predicting < 8 * 1024
    assert again < plain / 2


def test_crops_and_tiles_in_the_docs() -> None:
    page = (ROOT / "docs" / "segmentation.md").read_text(encoding="utf-8").replace("\n", " ")
    times = {
        (mask, way): median(
            float(row["seconds"]) for row in _rows("crops.csv") if (row["mask"], row["way"]) == (mask, way)
        )
        for mask in ("tiff", "png")
        for way in ("window", "whole")
    }
    assert f"a crop takes {times['tiff', 'window']:.2f} s instead of {times['tiff', 'whole']:.1f} s" in page
    assert f"decoded whole, {times['png', 'window']:.1f} s instead of {times['png', 'whole']:.1f} s" in page
    page = (ROOT / "docs" / "predict.md").read_text(encoding="utf-8")
    for row in _rows("tiles.csv"):
        what = f"| {row['model']}, {row['engine']}, {row['format'].upper()} |"
        assert f"{what} {int(row['peak_mib']) / 1024:.2f} GiB | {float(row['cpu_seconds']):.0f} s |" in page


def test_counts_of_the_kernels_in_the_docs() -> None:
    """Passes, what is kept, floors; and that nobody calls them measured."""
    page = (ROOT / "docs" / "kernels.md").read_text(encoding="utf-8")
    names = {"timm eager": "timm 1.0.31", "resnest plain": "here, plain", "resnest fused": "here, fused"}
    passes = {row["contender"]: row for row in _rows("passes.csv")}
    for contender, row in passes.items():
        cells = (f"{float(row[part]):.1f}" for part in ("forward", "backward", "both"))
        assert f"| {names[contender]} | {' | '.join(cells)} |" in page
    assert (
        f"{float(passes['resnest fused']['both']):.1f} times instead of {float(passes['timm eager']['both']):.1f}"
        in README
    )
    kept = {(row["model"], row["contender"]): float(row["mib_per_image"]) for row in _rows("kept.csv")}
    timm, fused = kept["resnest50", "timm eager"], kept["resnest50", "resnest fused"]
    assert f"ResNeSt-50 {timm:.1f} MiB with timm, {fused:.1f} MiB fused ({fused / timm:.2f}x)" in page
    assert f"keeps {fused:.1f} MiB an image" in README.replace("\n", " ")
    timm, fused = kept["resnest101", "timm eager"], kept["resnest101", "resnest fused"]
    assert f"ResNeSt-101 {timm:.1f} and {fused:.1f} MiB ({fused / timm:.2f}x)" in page
    floors = {(row["model"], row["what"]): float(row["floor_ms"]) for row in _rows("gpu-floors.csv")}
    for model, crop in (("50", 224), ("101", 256), ("200", 320), ("269", 416)):
        cells = (f"{floors[f'resnest{model}', what]:.3g} ms" for what in ("inference", "training"))
        assert f"| ResNeSt-{model} | {crop} | {' | '.join(cells)} |" in page
    if not (ROOT / "results" / "gpu.csv").exists():
        assert "**Speed on a GPU: not measured.**" in page


def test_camvid_in_the_docs() -> None:
    """The best evaluation, the length of the run, and what is said of single classes."""
    page = (ROOT / "docs" / "segmentation.md").read_text(encoding="utf-8")
    rows = _rows("camvid.csv")
    best = max(rows, key=lambda row: float(row["miou"]))
    cells = [float(rows[-1]["seconds"]) / 60, 100 * float(best["miou"]), 100 * float(best["pixel_accuracy"])]
    assert "| {:.1f} | {:.1f} % | {:.1f} % |".format(*cells) in page
    told = json.loads((ROOT / "results" / "camvid.json").read_text(encoding="utf-8"))
    assert told["miou"] == pytest.approx(float(best["miou"]), abs=1e-4)
    for name, word in (
        ("Road", "road"),
        ("Sky", "sky"),
        ("Building", "building"),
        ("Pole", "poles"),
        ("SignSymbol", "signs"),
    ):
        assert f"{word} {100 * told['per_class'][name]:.0f} %" in page.replace("\n", " ")
    nuclei = max(float(row["miou"]) for row in _rows("nuclei-pixels.csv"))
    assert f"({100 * nuclei:.1f} % mIoU" in page


def test_decoders_in_the_docs() -> None:
    page = (ROOT / "docs" / "unet.md").read_text(encoding="utf-8")
    names = {"camvid": ("mIoU", "miou"), "nuclei-masks binary": ("Dice", "dice")}
    rows = _rows("decoders.csv")
    assert len(rows) >= 4
    for row in rows:
        title, key = names[row["data"]]
        measured = (
            f"| {row['epochs']} | {float(row['processor_minutes']):.0f} | {title} {100 * float(row[key]):.1f} % |"
        )
        assert measured in page, row


@pytest.mark.parametrize(
    ("label", "what", "batch"),
    [
        ("inference, batch 16", "inference", "16"),
        ("inference, batch 1", "inference", "1"),
        ("training step, batch 16", "training step", "16"),
    ],
)
def test_speed_table(label: str, what: str, batch: str) -> None:
    times: dict[tuple[str, str], list[float]] = {}
    for row in _rows("network-cpu.csv"):
        if (row["what"], row["batch"]) == (what, batch):
            times.setdefault((row["contender"], row["layout"]), []).append(float(row["seconds"]))
    best = {
        name: min((median(values), layout) for (contender, layout), values in times.items() if contender == name)
        for name in ("timm", "resnest")
    }
    pairs = zip(times["timm", best["timm"][1]], times["resnest", best["resnest"][1]], strict=True)
    ratio = median(theirs / ours for theirs, ours in pairs)
    line = next(line for line in README.splitlines() if line.startswith(f"| {label} |"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[3] == f"{ratio:.2f}x"
    for cell, name in ((cells[1], "timm"), (cells[2], "resnest")):
        seconds, layout = cell.split(" s ")
        assert float(seconds) == pytest.approx(best[name][0], rel=0.005)
        assert layout.strip("()").lower() == best[name][1]


@pytest.mark.parametrize("pixels", ["500x375", "1920x1080", "3264x2448", "4000x3000"])
def test_speed_of_input(pixels: str) -> None:
    times: dict[tuple[str, str], list[float]] = {}
    for row in _rows("input-cpu.csv"):
        if row["pixels"] == pixels:
            times.setdefault((row["recipe"], row["contender"]), []).append(float(row["cpu_seconds"]))
    expected = []
    for recipe in ("plain", "paper"):
        theirs, ours = times[recipe, "torchvision"], times[recipe, "resnest"]
        ratio = median(a / b for a, b in zip(theirs, ours, strict=True))
        expected += [f"{1 / median(theirs):.0f}", f"{1 / median(ours):.0f}", f"{ratio:.2f}x"]
    line = next(line for line in README.splitlines() if line.startswith(f"| {pixels.replace('x', ' x ')} |"))
    assert [cell.strip() for cell in line.strip("|").split("|")][1:] == expected


ABLATIONS = [path.stem for path in sorted((ROOT / "results").glob("ablation-*.csv")) if not path.stem.endswith("-cost")]


@pytest.mark.parametrize("name", ABLATIONS)
def test_ablation(name: str) -> None:
    script = runpy.run_path(str(ROOT / "benchmarks" / "ablation.py"))
    for line in script["summary"](_rows(f"{name}.csv"), _rows(f"{name}-cost.csv"))[2:]:
        assert line in README


@pytest.mark.parametrize(
    ("file", "parts"),
    [("engines-cpu.csv", ("engines", "duels")), ("family-cpu.csv", ("family", "neighbours")), ("startup-cpu.csv", ())],
)
def test_tables_of_speed(file: str, parts: tuple[str, ...]) -> None:
    path = ROOT / "results" / file
    if not path.exists():
        pytest.skip(f"`make bench` has not written {file} yet")
    script = runpy.run_path(str(ROOT / "benchmarks" / "tables.py"))
    if not parts:
        lines = list(script["startup"](path))
    else:
        table = read_table(path)
        lines = [line for part in parts for line in script[part](table)]
    assert lines
    assert [line for line in lines if line not in README] == []


def test_detectors() -> None:
    """Figures and minutes of the best evaluation, as docs/detection.md has them."""
    page = (ROOT / "docs" / "detection.md").read_text(encoding="utf-8")
    for name, kinds in (("bccd", ("box",)), ("nuclei", ("box", "mask"))):
        rows = _rows(f"{name}.csv")
        best = max(rows, key=lambda row: float(row[f"{kinds[-1]}_ap"]))
        pairs = [
            f"{100 * float(best[f'{kind}_ap']):.1f} %, {100 * float(best[f'{kind}_ap50']):.1f} %" for kind in kinds
        ]
        cells = [f"{float(rows[-1]['seconds']) / 60:.1f}", *pairs, *[""] * (2 - len(pairs))]
        line = next(line for line in page.splitlines() if f"--data {name} " in line and line.startswith("|"))
        assert [cell.strip() for cell in line.split("|")][3:6] == cells
        percent = f"{100 * float(best[f'{kinds[-1]}_ap50']):.1f} % {kinds[-1]} AP50"
        assert f"**{percent}**" in README


def test_detectors_that_memorise() -> None:
    """Every kind of detector finds again what it has learned by heart, and every parameter learned."""
    rows = _rows("detection-memorised.csv")
    names = {row["detector"] for row in rows}
    later = {"lvis_mask_rcnn", "retinanet", "fcos"}  # by a newer script, on pictures of one shape
    assert names - later == {
        "faster_rcnn", "cascade_rcnn", "mask_rcnn", "cascade_mask_rcnn", "faster_rcnn_dcn", "cascade_mask_rcnn_dcn",
    }  # fmt: skip
    assert names & later in (set(), later)
    for row in rows:
        assert names.isdisjoint(later) or float(row["box_ap"]) > 0.95
        assert float(row["box_ap50"]) > 0.95
        assert not row["mask_ap50"] or float(row["mask_ap50"]) > 0.95
        assert float(row["last_loss"]) < float(row["first_loss"]) / 10
        assert row["without_gradient"] == "0"


def test_a_panoptic_detector_that_memorises() -> None:
    """Trained on eight pictures, its maps written to files and read again: both things and stuff are found."""
    (row,) = _rows("panoptic-memorised.csv")
    assert (row["pictures"], row["things"], row["stuff"]) == ("8", "25", "23")
    assert float(row["pq"]) > 0.6
    assert min(float(row["pq_things"]), float(row["pq_stuff"])) > 0.5
    assert float(row["last_loss"]) < float(row["first_loss"]) / 10
