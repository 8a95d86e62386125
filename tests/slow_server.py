"""A server whose engine takes a set time for each picture: `python slow_server.py SECONDS [LIMIT=VALUE ...]`.

The network behind it is a stand-in; everything around it is `resnest serve`.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnest.runtime.predictor import ImagePredictor
from resnest.serving.address import bind
from resnest.serving.app import create_app
from resnest.serving.limits import Limits
from resnest.serving.metrics import Metrics
from resnest.serving.models import Models
from resnest.serving.running import serve
from standins import CARDS


class Slow:
    """An engine that sleeps as long as a network would compute, and counts its pictures on standard error."""

    name = "slow"

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, images: NDArray[np.float32], sizes: Any = None) -> dict[str, NDArray[Any]]:
        time.sleep(self.seconds * len(images))
        return {"logits": images.mean((2, 3))}


def main() -> None:
    seconds, *settings = sys.argv[1:]
    values = dict(setting.split("=") for setting in settings)
    drain = float(values.pop("drain", 30))
    limits = Limits(**{name: float(value) if "timeout" in name else int(value) for name, value in values.items()})
    metrics = Metrics()
    predictor = ImagePredictor(Slow(float(seconds)), CARDS["classification"])
    models = Models({"slow": predictor}, limits, largest=4, longest_wait=0.002, watch=metrics.batch)
    with bind("127.0.0.1", 0) as sock:
        print(f"serving at http://127.0.0.1:{sock.getsockname()[1]}", file=sys.stderr, flush=True)
        serve(create_app(models, limits, metrics=metrics), sock, limits, drain=drain)


if __name__ == "__main__":
    main()
