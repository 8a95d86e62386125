"""Short runs of every task, through nothing but `resnest.train`, in a process whose last bits are those of any other.

    python tests/golden_runs.py OUT.jsonl         # trains all of them; what they logged

Such a process computes on one thread, with the instructions that every x86 processor of the last ten years has (AVX2),
and with MKL's results that are the same on all of them: PINNED is its environment. The size of the caches still decides
how oneDNN cuts its loops, and so the order of its sums: the processor is recorded, too.
"""

from __future__ import annotations

import json
import re
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import golden_data

PINNED = {
    "OMP_NUM_THREADS": "1",
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "COMPATIBLE",
}
CPU = Path("/proc/cpuinfo")
TIMES = ("seconds", "images_per_second", "data_wait", "memory_gib")  # of a line of metrics.jsonl: of the machine

COMMON = ("data.workers=0", "train.epochs=2", "train.log_every=1")
CLASSIFIER = (
    *COMMON, "model.name=resnest14", "model.spec={planes: [8, 16, 32, 64], stem: small, stem_width: 4}",
    "data.size=32", "data.eval_size=32", "train.batch_size=8", "optim.warmup_epochs=0.5",
)  # fmt: skip
PLACES = (
    *COMMON, "model.spec={planes: [8, 8, 8, 8], stem_width: 4}", "train.batch_size=2", "optim.warmup_steps=2",
)  # fmt: skip
UNET = (
    *PLACES, "segmenter.decoder_channels=[16, 8, 8, 8, 8]", "segmentation.base=96", "segmentation.crop=48",
    "segmentation.backbone_norm=batch",
)  # fmt: skip
DETECTOR = (
    *PLACES, "detector.fpn_channels=32", "detector.box_features=16", "detector.mask_channels=32",
    "detector.box_channels=32", "detector.pre_nms=[50, 50]", "detector.post_nms=[50, 50]", "detector.roi_batch=16",
    "detector.max_detections=20", "detector.anchor_sizes=[8, 16, 32, 64, 128]", "detector.score_threshold=0.01",
    "detection.short=[48, 64]", "detection.eval_short=64",
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """What is trained on what."""

    recipe: str
    data: Callable[[Path], Path]
    settings: tuple[str, ...]


RUNS = {
    "classification": Run("imagenette", golden_data.write_classification, CLASSIFIER),
    "classification, mixed and averaged": Run(
        "modern_resnest14", golden_data.write_classification, (*CLASSIFIER, "train.mixup=0.5", "train.ema=0.9")
    ),
    "multi-label": Run(
        "digits", golden_data.write_multilabel, (*CLASSIFIER, "train.batch_size=4", "train.accumulate=2")
    ),
    "boxes": Run("detect_small", golden_data.write_detection, DETECTOR),
    "masks": Run("instances_small", golden_data.write_detection, (*DETECTOR, "detector.cascade=true")),
    "segmentation": Run(
        "segment_small",
        golden_data.write_segmentation,
        (*PLACES, "segmenter.channels=32", "segmentation.base=96", "segmentation.crop=48",
         "segmentation.backbone_norm=batch"),
    ),
    "segmentation, U-Net": Run("unet_small", golden_data.write_segmentation, UNET),
    "segmentation, binary": Run("unet_binary", golden_data.write_binary, (*UNET, "segmenter.attention=scse")),
    "panoptic": Run(
        "panoptic_small",
        golden_data.write_panoptic,
        (*DETECTOR, "panoptic.channels=8", "panoptic.stuff_area=16", "panoptic.score=0.1"),
    ),
}  # fmt: skip


def logged(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what depends on the machine's speed."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def trace(name: str, folder: Path) -> list[dict[str, Any]]:
    """What a run of RUNS logs, trained in a new folder."""
    import resnest

    run = RUNS[name]
    data = run.data(folder / "data")
    resnest.train(run.recipe, data=data, out=folder / "run", settings=run.settings, device="cpu")
    return logged(folder / "run")


def machine() -> dict[str, str]:
    """What the last bits of a run hang on."""
    import numpy
    import torch

    return {
        "torch": torch.__version__.split("+")[0],
        "numpy": numpy.__version__,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
        "processor": " ".join(re.findall(r"(?:vendor_id|cpu family|model)\t+: (.+)", CPU.read_text())[:3]),
    }


def main(out: Path) -> None:
    """Trains every run of RUNS and writes a line for the machine and one for each line of their logs."""
    warnings.simplefilter("error")
    rows: list[dict[str, Any]] = [{"machine": machine()}]
    for name in RUNS:
        with TemporaryDirectory() as folder:
            rows += [{"run": name, **line} for line in trace(name, Path(folder))]
    out.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="ascii")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
