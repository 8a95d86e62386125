"""Runs that were stopped a few steps before their end, packed into golden/runs with what their version made of them.

    python tests/recorded_runs.py            # records all of them anew

A recorded run is the run directory as `resnest.train` left it when a signal stopped it, without its report and with
the newest of its checkpoints. The path of the data in run.json is `data`, not that of the machine that recorded it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import tarfile
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import golden_data
from golden_runs import logged, machine

FOLDER = Path(__file__).parent / "golden" / "runs"
EXPECTED = FOLDER / "expected.json"
PICTURES = 24  # of places to train on

COMMON = ("data.workers=0", "train.log_every=1")
CLASSIFIER = (
    *COMMON, "model.name=resnest14", "model.spec={planes: [2, 4, 4, 8], stem: small, stem_width: 2}", "data.size=32",
    "data.eval_size=32", "train.epochs=5",
)  # fmt: skip
PLACES = (
    *COMMON, "model.spec={planes: [2, 4, 4, 8], stem_width: 2, attention_norm: layer}", "optim.name=muon",
    "optim.nesterov=true", "optim.lr=0.02", "optim.lr_batch=4", "optim.warmup_steps=2", "optim.warmup_factor=0.1",
    "train.batch_size=4", "train.clip_norm=null",
)  # fmt: skip
DETECTOR = (
    *PLACES, "train.epochs=25", "detector.norm=none", "detector.fpn_channels=8", "detector.box_features=16",
    "detector.box_fcs=1", "detector.mask_channels=8", "detector.mask_convs=1", "detector.pre_nms=[100, 100]",
    "detector.post_nms=[60, 60]", "detector.roi_batch=64", "detector.max_detections=20",
    "detector.anchor_sizes=[8, 16, 24, 32, 64]", "detector.score_threshold=0.01", "detection.short=[64]",
    "detection.eval_short=64", "detection.backbone_norm=batch",
)  # fmt: skip


@dataclass(frozen=True)
class Recorded:
    """How a run was made."""

    recipe: str
    data: Callable[[Path], Path]
    settings: tuple[str, ...]
    picture: str  # in the data's folder: the one whose prediction is recorded
    stop_after: int  # a signal comes after this step, and ends the run one or two steps later, within an epoch


RECORDED = {
    "classification": Recorded(
        "imagenette",
        golden_data.write_classification,
        (*CLASSIFIER, "train.batch_size=6", "train.ema=0.5", "optim.lr=0.01"),
        "val/red/000.png",
        stop_after=17,
    ),
    "multilabel": Recorded(
        "digits", golden_data.write_multilabel, (*CLASSIFIER, "train.batch_size=5"), "031.png", stop_after=17
    ),
    "detection": Recorded(
        "instances_small",
        partial(golden_data.write_detection, train=PICTURES),
        (*DETECTOR, "detection.rotate=false", "detection.flip_vertical=false"),
        "images/val/000.png",
        stop_after=121,
    ),
    "segmentation": Recorded(
        "segment_small",
        partial(golden_data.write_segmentation, train=PICTURES),
        (*PLACES, "train.epochs=8", "segmenter.channels=8", "segmenter.norm=batch", "segmentation.base=96",
         "segmentation.crop=64", "segmentation.backbone_norm=batch"),
        "images/val/000.png",
        stop_after=43,
    ),
    "panoptic": Recorded(
        "panoptic_small",
        partial(golden_data.write_panoptic, train=PICTURES),
        (*DETECTOR, "panoptic.channels=8", "panoptic.stuff_area=16", "panoptic.score=0.3"),
        "val/000.png",
        stop_after=145,
    ),
}  # fmt: skip


def unpack(name: str, folder: Path) -> Path:
    """The recorded run of that name, in a new directory of `folder`."""
    with tarfile.open(FOLDER / f"{name}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / name


def described(found: Any) -> dict[str, Any]:
    """What a prediction says, as plain numbers; the classes of pixels as a text of digits for each row."""
    if hasattr(found, "segments"):  # panoptic
        classes = np.full(found.ids.shape, 9)
        for segment in found.segments:
            classes[found.ids == segment.id] = segment.label
        return {"pixels": _rows(classes), "labels": sorted(segment.label for segment in found.segments)}
    if hasattr(found, "boxes"):
        from pycocotools import mask

        areas = [int(mask.area(one)) for one in found.masks]
        return {name: getattr(found, name).tolist() for name in ("boxes", "labels", "scores")} | {"areas": areas}
    if hasattr(found, "class_names"):
        return {"class_names": list(found.class_names), "scores": found.scores.tolist()}
    return {"pixels": _rows(found.labels)}


def _rows(classes: Any) -> list[str]:
    return ["".join(map(str, row)) for row in classes.tolist()]


def outcome(model: Path, data: Path, picture: Path) -> dict[str, Any]:
    """What a model reaches on the validation split, and what it says of a picture."""
    import resnest

    figures = resnest.evaluate(model, data, workers=0, device="cpu").figures
    return {"figures": figures, "prediction": described(resnest.Predictor(model, device="cpu")(picture))}


def record(name: str) -> dict[str, Any]:
    """Pack the run of that name; what it reaches as it is, and what it logs when it goes on to its end."""
    import resnest
    from resnest.training.train import resume

    recorded = RECORDED[name]
    with TemporaryDirectory() as folder:
        root, run = Path(folder) / "data", Path(folder) / name
        data = recorded.data(root)
        _train_until_stopped(recorded, data, run)
        _make_neutral(run)
        with tarfile.open(FOLDER / f"{name}.tar.xz", "w:xz") as archive:
            archive.add(run, name, filter=_owned_by_nobody)
        stopped = logged(run)[-1]["step"]
        expected = {"stopped": stopped, **outcome(run, data, root / recorded.picture)}
        if name == "classification":
            with contextlib.chdir(folder):  # its path is in the file
                resnest.export(name, format="onnx", out=FOLDER / "classification.onnx")
        resume(run, data=data, device="cpu")
        rest = [line for line in logged(run) if line["step"] > stopped]
    return {**expected, "rest": rest}


def _train_until_stopped(recorded: Recorded, data: Path, run: Path) -> None:
    import resnest
    from resnest.errors import Preempted

    def stop() -> None:
        log = run / "metrics.jsonl"
        while not log.exists() or log.read_bytes().count(b'"train"') < recorded.stop_after:
            time.sleep(1e-3)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop, daemon=True).start()
    with contextlib.suppress(Preempted):
        resnest.train(recorded.recipe, data=data, out=run, settings=recorded.settings, device="cpu")
    assert logged(run)[-1]["epoch"] % 1, "it stopped between two epochs: choose another step"


def _make_neutral(run: Path) -> None:
    """Without what names or tells of the machine, and with a single checkpoint."""
    account = json.loads((run / "run.json").read_text(encoding="utf-8"))
    account["data"] = "data"
    (run / "run.json").write_text(json.dumps(account, indent=2) + "\n", encoding="utf-8")
    *older, _ = sorted((run / "checkpoints").glob("*.pt"))
    for path in older:
        path.unlink()
        path.with_suffix(".sha256").unlink()


def _owned_by_nobody(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def main() -> None:
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", module="torch.onnx")
    FOLDER.mkdir(parents=True, exist_ok=True)
    expected: dict[str, Any] = {"machine": machine()}
    expected |= {name: record(name) for name in RECORDED}
    EXPECTED.write_text(json.dumps(expected, indent=1) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
