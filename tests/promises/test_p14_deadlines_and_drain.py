"""P14, deadlines, drain and soak: late work is dropped, nothing accepted is lost at the end, and nothing grows.

`make promises`: 20,000 requests; `make test`: 400.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import threading
import time
from pathlib import Path

import httpx
import pytest

from conftest import FULL
from resnest.exporters.exporting import export
from servers import WAIT, Server, models, picture, server, until

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
SOAK = 20_000 if FULL else 400
PROGRAM = Path(__file__).parents[1] / "slow_server.py"


def _computed(running: Server) -> float:
    lines = running.get("/metrics").text.splitlines()
    return next((float(line.split()[-1]) for line in lines if line.startswith("resnest_batch_size_sum")), 0.0)


async def _post_all(address: str, body: bytes, number: int, timeout: float = WAIT) -> list[int]:
    limits = httpx.Limits(max_connections=number)
    async with httpx.AsyncClient(base_url=address, timeout=timeout, limits=limits) as client:
        answers = await asyncio.gather(*(client.post("/predict", content=body) for _ in range(number)))
    return [answer.status_code for answer in answers]


def test_a_late_answer_is_a_504_and_its_picture_is_not_computed(tmp_path: Path) -> None:
    """A second for each picture and a second and a half for a request: of 20 the first batch is under way."""
    body = picture(tmp_path, size=(40, 30)).read_bytes()
    with server(tmp_path, "1", "timeout=1.5", program=PROGRAM) as running:
        answers = asyncio.run(_post_all(running.address, body, 20))
        assert set(answers) <= {200, 504}
        assert answers.count(504) >= 15
        until(lambda: 'resnest_queue{model="slow"} 0' in running.get("/metrics").text)
        until(lambda: asyncio.run(_post_all(running.address, body, 1)) == [200])  # when the batch under way is over
        assert _computed(running) <= 8 + 4


def test_the_picture_of_a_client_that_has_gone_is_not_computed(tmp_path: Path) -> None:
    body = picture(tmp_path, size=(40, 30)).read_bytes()
    with server(tmp_path, "0.5", program=PROGRAM) as running:
        socks = []
        for _ in range(20):
            sock = socket.create_connection(("127.0.0.1", running.port))
            head = f"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n"
            sock.sendall(head.encode() + body)
            socks.append(sock)
        until(lambda: 'resnest_queue{model="slow"} 20' in running.get("/metrics").text)
        for sock in socks:
            sock.close()
        until(lambda: 'resnest_queue{model="slow"} 0' in running.get("/metrics").text)
        assert _computed(running) <= 8
        gone = until(lambda: [one for one in running.entries() if one.get("status") == 499])
        assert len(gone) >= 12


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_the_end_under_load_loses_no_accepted_request(how: signal.Signals, tmp_path: Path) -> None:
    body = picture(tmp_path, size=(40, 30)).read_bytes()
    with server(tmp_path, "0.1", program=PROGRAM) as running:
        answers: list[int] = []
        client = threading.Thread(target=lambda: answers.extend(asyncio.run(_post_all(running.address, body, 30))))
        client.start()
        until(lambda: 'resnest_queue{model="slow"} 2' in running.get("/metrics").text)
        running.process.send_signal(how)
        sent = time.monotonic()
        until(lambda: running.get("/v2/health/ready").status_code == 503)
        assert time.monotonic() - sent < 0.1 * (1 if FULL else 10)  # `make test` runs two files at once
        refused = running.post("/predict", content=body)
        assert (refused.status_code, refused.json()["error"]) == (503, "the server is shutting down")
        assert refused.headers["retry-after"]
        assert running.process.wait(WAIT) == 0
        client.join()
    assert answers == [200] * 30


def test_what_does_not_finish_in_time_does_not_hold_the_end_up(tmp_path: Path) -> None:
    body = picture(tmp_path, size=(40, 30)).read_bytes()
    with server(tmp_path, "2", "drain=1", program=PROGRAM) as running:
        with socket.create_connection(("127.0.0.1", running.port)) as sock:
            sock.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\n")  # a body that never comes
            until(lambda: "resnest_active_requests 2" in running.get("/metrics").text)
            started = time.monotonic()
            running.stop()
            assert time.monotonic() - started < 8
        assert body


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    body = picture(tmp_path, size=(40, 30)).read_bytes()
    with server(tmp_path, "5", program=PROGRAM) as running:
        threading.Thread(target=lambda: _quietly(running, body), daemon=True).start()
        until(lambda: 'resnest_queue{model="slow"} 1' in running.get("/metrics").text)
        running.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        started = time.monotonic()
        assert running.stop() != 0
        assert time.monotonic() - started < 4
        assert "Traceback" not in running.log.read_text()


def _quietly(running: Server, body: bytes) -> None:
    with contextlib.suppress(httpx.TransportError):
        running.post("/predict", content=body)


def test_an_idle_keep_alive_connection_does_not_hold_the_end_up(tmp_path: Path) -> None:
    with server(tmp_path, "0.001", program=PROGRAM) as running, httpx.Client(base_url=running.address) as client:
        client.get("/models")
        started = time.monotonic()
        assert running.stop() == 0
        assert time.monotonic() - started < 5


def test_nothing_grows(tmp_path: Path) -> None:
    """Memory and open files, over pictures and refusals."""
    body = picture(tmp_path).read_bytes()
    reference = models(tmp_path, ["classification"])["classification"]
    with server(tmp_path, reference) as running:

        def ask(number: int) -> None:
            with httpx.Client(base_url=running.address, timeout=WAIT) as client:
                for index in range(number):
                    kind = index % 10
                    content = b"<html>" if kind == 0 else body
                    query = "?draw=1" if kind == 1 else "?model=no" if kind == 2 else ""
                    assert client.post(f"/predict{query}", content=content).status_code in (200, 404, 422)
            for _ in range(number // 50):
                socket.create_connection(("127.0.0.1", running.port)).close()

        def open_files() -> int:
            return len(os.listdir(f"/proc/{running.process.pid}/fd"))

        ask(200)
        memory, files = running.memory(), open_files()
        ask(SOAK)
        assert running.memory() - memory <= 50 * 2**20
        until(lambda: open_files() <= files + 2)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "torch"])
def test_a_model_file_that_is_damaged_while_it_serves_changes_nothing(engine: str, tmp_path: Path) -> None:
    """Written over in its place, cut short and removed, with all that lies beside it."""
    pytest.importorskip(engine)
    body = picture(tmp_path).read_bytes()
    reference = models(tmp_path, ["classification"])["classification"]
    if engine == "torch":
        reference = tmp_path / "classification"
    if engine == "openvino":
        reference = export(tmp_path / "classification", out=tmp_path / "network.xml", format="openvino").path
    files = [*reference.iterdir()] if reference.is_dir() else [*tmp_path.glob(f"{reference.stem}.*")]
    with server(tmp_path, reference, "--engine", engine) as running:
        before = running.post("/predict", content=body).text
        for harm in (_overwrite, _cut, Path.unlink):
            for file in files:
                harm(file)
            assert running.post("/predict", content=body).text == before


def _overwrite(file: Path) -> None:
    with file.open("r+b") as content:
        content.write(os.urandom(file.stat().st_size))


def _cut(file: Path) -> None:
    os.truncate(file, 9)
