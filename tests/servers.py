"""What tests of the server share: exported files of every task, and real servers in processes of their own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from resnest import Model
from resnest.detection.card import DetectionPreprocess
from resnest.exporters.exporting import export
from resnest.keypoints.card import KeypointPreprocess
from resnest.runtime.preprocess import Preprocess
from resnest.segmentation.card import SegmentationPreprocess
from resnest.tasks import TASKS
from small import small

WAIT = 60.0  # seconds, on a busy machine
CLASSES = ["cat", "dog", "héron"]
BOXES = DetectionPreprocess(short=64, long=96)
PREPROCESS: dict[str, Any] = {
    "classification": Preprocess(size=40),
    "detection": BOXES,
    "segmentation": SegmentationPreprocess(),
    "panoptic": BOXES,
    "keypoints": KeypointPreprocess(width=64, height=64),
}


def models(folder: Path, tasks: Iterable[str] = TASKS) -> dict[str, Path]:
    """A small model of each task, or of some: random weights; the classifier and the segmenter as exported files."""
    found = {}
    for task in tasks:
        saved = Model.of(small(task), CLASSES, PREPROCESS[task]).save_pretrained(folder / task)
        exported = task in ("classification", "segmentation")
        found[task] = export(saved, out=folder / f"{task}.onnx", format="onnx").path if exported else saved
    return found


@dataclass
class Server:
    """A server that runs."""

    process: subprocess.Popen[str]
    address: str
    log: Path

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(self.address + path, timeout=WAIT, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return httpx.post(self.address + path, timeout=WAIT, **options)

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def entries(self) -> list[dict[str, Any]]:
        """The log so far."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def memory(self) -> int:
        """Resident bytes."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(re.search(r"VmRSS:\s+(\d+)", text).group(1))  # type: ignore[union-attr]

    def stop(self, how: int = signal.SIGTERM) -> int:
        """The exit code."""
        self.process.send_signal(how)
        return self.process.wait(WAIT)


@contextmanager
def server(
    folder: Path,
    *arguments: str | Path,
    program: Path | None = None,
    python: str | Path = sys.executable,
    **environment: str,
) -> Iterator[Server]:
    """`resnest serve ...`, or another program that serves, at a port of its own; ready."""
    log = folder / f"server-{time.monotonic_ns()}.log"
    command = [str(program)] if program else ["-m", "resnest", "serve", "--port", "0"]
    with log.open("w") as file:
        process = subprocess.Popen(
            [str(python), *command, *map(str, arguments)],
            stderr=file,
            text=True,
            env={**os.environ, **environment},
        )
    try:
        found = until(lambda: re.search(r"serving at (\S+)", log.read_text()) or process.poll() is not None, log)
        assert not isinstance(found, bool), log.read_text()
        running = Server(process, found.group(1), log)
        until(lambda: _ready(running), log)
        yield running
    finally:
        process.kill()
        process.wait()


def _ready(running: Server) -> bool:
    try:
        return running.get("/v2/health/ready").status_code == 200
    except httpx.TransportError:
        return False


def until(happens: Callable[[], Any], log: Path | None = None) -> Any:
    """Wait for it."""
    end = time.monotonic() + WAIT
    while time.monotonic() < end:
        if found := happens():
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {WAIT:g} seconds: {log.read_text() if log else happens}")


def picture(folder: Path, name: str = "photo.jpg", size: tuple[int, int] = (120, 90)) -> Path:
    """A JPEG with something in it."""
    gradient = Image.linear_gradient("L").resize(size)
    image = Image.merge("RGB", [gradient, gradient.rotate(180), gradient.transpose(Image.Transpose.FLIP_LEFT_RIGHT)])
    image.save(folder / name, quality=90)
    return folder / name
