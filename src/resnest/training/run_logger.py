"""Run logger: metrics.jsonl, and TensorBoard and Weights & Biases if the recipe enables them.

logger = RunLogger(run, recipe)
logger.write("train", step=10, epoch=0.1, seconds=3.2, loss=1.2, lr=0.1)
logger.close()
"""

from __future__ import annotations

import hashlib
import math
import resource
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Protocol, TypeVar

import torch

from resnest.errors import ResnestError
from resnest.inference.evaluation import check_bad_fraction
from resnest.recipes.schema import Recipe
from resnest.training.distributed import ProcessGroup
from resnest.training.run import RunDirectory

# --- Bad images of a run, from all processes, each listed once in bad_images.jsonl ---


class BadImages:
    """The bad images of all processes, by split and key."""

    def __init__(self, run: RunDirectory, world: ProcessGroup, totals: Mapping[str, int]) -> None:
        self.run, self.world, self.totals = run, world, totals  # images of each split
        self.known: set[tuple[str, str]] = set()
        self.pending: list[tuple[str, str, str]] = []  # split, key, reason: not yet exchanged

    def add(self, split: str, bad: Iterable[tuple[str, str]]) -> None:
        """Add bad images. Raises ResnestError if there are too many."""
        for key, reason in bad:
            self.pending.append((split, key, reason))
            self._record(split, key, reason)

    def all_gather(self) -> None:
        """Exchange them between processes. Raises ResnestError, on all processes, if there are too many in total."""
        gathered, self.pending = self.world.all_gather(self.pending), []
        for split, key, reason in (entry for entries in gathered for entry in entries):
            self._record(split, key, reason)

    def restore(self) -> None:
        """Restore those that the run has listed already."""
        lines = self.run.read_lines(self.run.bad_images)
        self.known = {(line["split"], line["image"]) for line in lines if line.keys() >= {"split", "image"}}

    def _record(self, split: str, key: str, reason: str) -> None:
        if (split, key) not in self.known:
            self.known.add((split, key))
            if self.world.is_rank_zero:
                self.run.append(self.run.bad_images, {"image": key, "split": split, "reason": reason})
        check_bad_fraction(sum(known == split for known, _ in self.known), self.totals[split], (key, reason))


T = TypeVar("T")


class Sink(Protocol):
    """A destination of log lines."""

    def write(self, kind: str, step: int, values: dict[str, float]) -> None: ...

    def close(self) -> None: ...


class RunLogger:
    """metrics.jsonl, and further sinks of the recipe. Only rank 0 has one."""

    def __init__(self, run: RunDirectory, recipe: Recipe, *, start: int = 0) -> None:
        self.run = run
        self.sinks: list[Sink] = []
        if recipe.train.tensorboard:
            self.sinks.append(TensorBoard(run, start))
        if recipe.train.wandb:
            self.sinks.append(WeightsAndBiases(run, recipe))

    def write(self, kind: str, *, step: int, epoch: float, seconds: float, **values: float) -> None:
        """Write one line; NaN becomes null, as JSON has no NaN."""
        finite = {key: value if math.isfinite(value) else None for key, value in values.items()}
        header = {"kind": kind, "step": step, "epoch": round(epoch, 4)}
        self.run.append(self.run.metrics, {**header, **finite, "seconds": round(seconds, 2)})
        for sink in self.sinks:
            sink.write(kind, step, {**values, "epoch": epoch})

    def close(self) -> None:
        for sink in self.sinks:
            sink.close()


class TensorBoard:
    """Event files in the run, for `tensorboard --logdir runs`; steps repeated by a resumed run are purged."""

    def __init__(self, run: RunDirectory, start: int) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of tensorboard's own dependencies
                from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ResnestError(
                "train.tensorboard=true needs the package tensorboard: pip install tensorboard"
            ) from None
        self.writer = SummaryWriter(str(run.path / "tensorboard"), purge_step=start + 1)

    def write(self, kind: str, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(f"{kind}/{name}", value, step)
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class WeightsAndBiases:
    """One W&B run for one run directory, a resumed one included; WANDB_MODE=offline works without a network."""

    def __init__(self, run: RunDirectory, recipe: Recipe) -> None:
        try:
            import wandb
        except ImportError:
            raise ResnestError("train.wandb needs the package wandb: pip install wandb") from None
        name = str(run.path.resolve())
        try:
            self.run = wandb.init(
                project=recipe.train.wandb,
                dir=name,
                name=run.path.resolve().name,
                id=hashlib.sha256(name.encode()).hexdigest()[:16],
                resume="allow",
                config=asdict(recipe),
            )
        except Exception as error:  # not logged in, no network; wandb has many exceptions
            raise ResnestError(
                f"train.wandb={recipe.train.wandb}: {' '.join(str(error).split())} (WANDB_MODE=offline needs neither)"
            ) from None

    def write(self, kind: str, step: int, values: dict[str, float]) -> None:
        self.run.log({f"{kind}/{name}": value for name, value in values.items()}, step=step)

    def close(self) -> None:
        self.run.finish()


class Meter:
    """Images per second, and the fraction of time spent waiting for data, between two log lines."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.since, self.waited, self.images = time.monotonic(), 0.0, 0
        self.losses: list[float] = []

    def waiting_for(self, items: Iterable[T]) -> Iterator[T]:
        """The same items; the time spent waiting for each is counted."""
        began = time.monotonic()
        for item in items:
            self.waited += time.monotonic() - began
            yield item
            began = time.monotonic()

    @property
    def images_per_second(self) -> float:
        return self.images / max(time.monotonic() - self.since, 1e-9)

    def figures(self, device: torch.device) -> dict[str, float]:
        finite = [loss for loss in self.losses if math.isfinite(loss)]
        return {
            "loss": sum(finite) / len(finite) if finite else math.nan,
            "images_per_second": round(self.images_per_second, 1),
            "data_wait": round(self.waited / max(time.monotonic() - self.since, 1e-9), 4),
            "memory_gib": round(peak_memory(device) / 2**30, 3),
        }


def peak_memory(device: torch.device) -> int:
    """Peak memory in bytes: of the GPU, or of this process without its data-loading workers."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024  # elsewhere in KiB: getrusage(2)
