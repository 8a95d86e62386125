"""A server with clients, against the same predictor without a server and against the endpoint that a tutorial has.

    python benchmarks/serve.py --photos DIR            # writes results/serve-cpu.csv, prints a table

Contenders take turns in one run: `stream` is `Predictor.stream` over the photographs as bytes, `server` is
`resnest serve` with 16 clients, `plain` is benchmarks/plain_endpoint.py with the same 16. Clients are threads that send
one photograph after the other, each over a connection of its own. Then, of the server alone: the time of single
requests; the times at half of its throughput, in which requests come at random (Poisson); memory before and after many
small requests; and the seconds from its start until it is ready.
"""

from __future__ import annotations

import argparse
import csv
import http.client
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from statistics import median

import numpy as np

import resnest
from resnest.bench.networks import export
from resnest.bench.table import environment, head
from resnest.runtime.decode import SUFFIXES
from resnest.runtime.hardware import usable_cores

Row = tuple[str, str, int, int, float]  # what, figure, number of requests, round, value
HEADER = ("what", "figure", "requests", "round", "value")
CLIENTS = 16
PLAIN = Path(__file__).with_name("plain_endpoint.py")


@contextmanager
def running(*command: str) -> Iterator[tuple[subprocess.Popen[str], int, float]]:
    """A server in a process of its own: the process, its port, and seconds until it was ready."""
    started = time.perf_counter()
    with tempfile.NamedTemporaryFile("r") as log, Path(log.name).open("w") as file:
        process = subprocess.Popen([sys.executable, *command], stderr=file, text=True)
        try:
            while not (found := re.search(r"serving at http://127.0.0.1:(\d+)", Path(log.name).read_text())):
                assert process.poll() is None, Path(log.name).read_text()
                time.sleep(0.005)
            port = int(found[1])
            while not is_ready(port):
                time.sleep(0.005)
            yield process, port, time.perf_counter() - started
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()


def is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


class Client:
    """A connection; `form` sends the photograph as a multipart form, which the plain endpoint takes."""

    def __init__(self, port: int, form: bool = False) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        self.form = form

    def ask(self, photo: bytes) -> float:
        """Seconds."""
        started = time.perf_counter()
        headers = {}
        if self.form:
            first = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n'
            photo, headers = first + photo + b"\r\n--b--\r\n", {"Content-Type": "multipart/form-data; boundary=b"}
        self.connection.request("POST", "/predict", photo, headers)
        answer = self.connection.getresponse()
        content = answer.read()
        assert answer.status == 200, content
        return time.perf_counter() - started


def all_at_once(port: int, photos: list[bytes], form: bool = False) -> float:
    """Photographs a second with `CLIENTS` clients."""
    left, lock = iter(photos), threading.Lock()

    def work() -> None:
        client = Client(port, form)
        while True:
            with lock:
                photo = next(left, None)
            if photo is None:
                return
            client.ask(photo)

    started = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        for done in [pool.submit(work) for _ in range(CLIENTS)]:
            done.result()
    return len(photos) / (time.perf_counter() - started)


def at_random(port: int, photos: list[bytes], rate: float) -> list[float]:
    """Seconds of requests that come at random at a rate, whatever the server does."""
    rng, at = random.Random(0), 0.0
    starts = [at := at + rng.expovariate(rate) for _ in photos]
    begun = time.perf_counter()

    def ask(start: float, photo: bytes) -> float:
        time.sleep(max(0.0, begun + start - time.perf_counter()))
        return Client(port).ask(photo)

    with ThreadPoolExecutor(4 * CLIENTS) as pool:
        return list(pool.map(ask, starts, photos))


def memory(process: subprocess.Popen[str]) -> float:
    """Resident, MiB."""
    text = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", text)[0]) / 1024


def contest(model: str, photos: list[bytes], rounds: int) -> Iterator[Row]:
    """Throughput of the contenders in turn, the first of them changing from round to round."""
    predictor = resnest.Predictor(model, batch_size=8)
    serve = ("-m", "resnest", "serve", model, "--port", "0")
    with running(*serve) as (_, server, _), running(str(PLAIN), model) as (_, plain, _):

        def stream() -> float:
            started = time.perf_counter()
            assert len(list(predictor.stream(photos))) == len(photos)
            return len(photos) / (time.perf_counter() - started)

        turns: list[tuple[str, Callable[[], float]]] = [
            ("stream", stream),
            ("server", lambda: all_at_once(server, photos)),
            ("plain", lambda: all_at_once(plain, photos, form=True)),
        ]
        for _, run in turns:
            run()  # warm-up
        for index in range(rounds):
            for what, run in turns[index % 3 :] + turns[: index % 3]:
                yield what, "images/s", len(photos), index, run()


def latency(model: str, photos: list[bytes], rounds: int) -> Iterator[Row]:
    """Single requests, and the 99th percentile at half of the throughput of this round."""
    with running("-m", "resnest", "serve", model, "--port", "0") as (_, port, _):
        all_at_once(port, photos[:CLIENTS])
        for index in range(rounds):
            client = Client(port)
            yield "server", "single, s", len(photos), index, median(client.ask(photo) for photo in photos)
            rate = all_at_once(port, photos)
            seconds = at_random(port, photos * 2, rate / 2)
            yield "server", "p99 at half load, s", len(seconds), index, float(np.percentile(seconds, 99))


def growth(model: str, photo: bytes, number: int) -> Iterator[Row]:
    """Memory before and after."""
    with running("-m", "resnest", "serve", model, "--port", "0") as (process, port, _):
        all_at_once(port, [photo] * 500)
        before = memory(process)
        all_at_once(port, [photo] * number)
        yield "server", "memory added, MiB", number, 0, memory(process) - before


def start(model: str, rounds: int) -> Iterator[Row]:
    for index in range(rounds):
        with running("-m", "resnest", "serve", model, "--port", "0") as (_, _, seconds):
            yield "server", "start to ready, s", 1, index, seconds


def summary(rows: list[Row]) -> str:
    def values(what: str, figure: str) -> list[float]:
        return [row[4] for row in rows if row[:2] == (what, figure)]

    def share(one: list[float], other: list[float]) -> str:
        return f"{median(a / b for a, b in zip(one, other, strict=True)):.2f}"

    stream, server, plain = (values(what, "images/s") for what in ("stream", "server", "plain"))
    single, late = values("server", "single, s"), values("server", "p99 at half load, s")
    lines = {
        "images/s of stream, server, plain": ", ".join(f"{median(one):.1f}" for one in (stream, server, plain)),
        "server / stream": share(server, stream),
        "server / plain": share(server, plain),
        "single request, ms": f"{1000 * median(single):.1f}",
        "p99 at half load / single request": share(late, single),
        "memory added, MiB": ", ".join(f"{value:.1f}" for value in values("server", "memory added, MiB")),
        "start to ready, s": f"{median(values('server', 'start to ready, s')):.2f}",
    }
    return "\n".join(f"| {name} | {value} |" for name, value in lines.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="an exported classifier")
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--soak", type=int, default=20_000, help="requests to a small network, for memory")
    parser.add_argument("--out", type=Path, default=Path("results/serve-cpu.csv"))
    parser.add_argument("--smoke", action="store_true", default=os.environ.get("SMOKE") == "1")
    options = parser.parse_args()
    if options.smoke:
        options.images, options.rounds, options.soak = 16, 1, 200
        options.out = Path(tempfile.mkdtemp(prefix="resnest-smoke-")) / options.out.name
    found = [path for path in sorted(options.photos.iterdir()) if path.suffix.lower() in SUFFIXES]
    photos = [path.read_bytes() for path in found[: options.images]]
    with tempfile.TemporaryDirectory() as folder:
        model, small = options.model or Path(folder, "resnest50.onnx"), Path(folder, "resnest14.onnx")
        if options.model is None:
            export("resnest50", "ours", model, 224)
        export("resnest14", "ours", small, 64)
        notes = [f"network: {model.name}", f"photographs: the first {len(photos)} of {options.photos.parent.name}"]
        parts = (
            start(str(model), options.rounds),
            contest(str(model), photos, options.rounds),
            latency(str(model), photos, options.rounds),
            growth(str(small), photos[0], options.soak),
        )
        rows = []
        with options.out.open("w", newline="") as file:
            file.write(head(environment(threads=usable_cores(), notes=notes)))
            table = csv.writer(file, lineterminator="\n")
            table.writerow(HEADER)
            for row in chain(*parts):  # each is written at once: a later part may fail
                rows.append(row)
                table.writerow([*row[:4], f"{row[4]:.6f}"])
                file.flush()
    print(summary(rows))
    print(options.out)


if __name__ == "__main__":
    main()
