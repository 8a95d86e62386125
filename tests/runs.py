"""What tests read of a run directory: its log, its losses, its newest checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch


def lines(run: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, all of them or those of "train" or "eval"."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in found if kind in (None, line["kind"])]


def losses(run: Path) -> list[float]:
    """Of training, a line each."""
    return [line["loss"] for line in lines(run, "train")]


def checkpoint(run: Path) -> dict[str, Any]:
    """The newest one."""
    content: dict[str, Any] = torch.load(max((run / "checkpoints").glob("step-*.pt")), weights_only=True)
    return content
