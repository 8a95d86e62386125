"""P13, overload: beyond its capacity a server refuses at once, and what it accepts is not late.

`make promises`: at four times the capacity for 60 seconds; `make test`: for 5 seconds.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path

import httpx
import numpy as np
import pytest

from conftest import FULL
from servers import WAIT, Server, picture, server

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
SECONDS = 60.0 if FULL else 5.0
ENGINE = 0.1  # seconds that the engine takes for a picture: ten pictures a second, which any client overloads
QUEUE = 64
BESIDE = 1 if FULL else 4  # `make test` runs two files at once, and what is to be quick has to wait for the other
PROGRAM = Path(__file__).parents[1] / "slow_server.py"


def _post(running: Server, body: bytes) -> tuple[int, float]:
    started = time.perf_counter()
    answer = running.post("/predict", content=body)
    return answer.status_code, time.perf_counter() - started


async def _load(
    running: Server, body: bytes, *, rate: float, seconds: float
) -> tuple[list[httpx.Response], list[float]]:
    """Requests at a rate, whatever the server does, and meanwhile how long its health takes to answer."""
    limits = httpx.Limits(max_connections=400, max_keepalive_connections=400)
    async with httpx.AsyncClient(base_url=running.address, timeout=WAIT, limits=limits) as client:
        health: list[float] = []

        async def ask(delay: float) -> httpx.Response:
            await asyncio.sleep(delay)
            return await client.post("/predict", content=body)

        async def look() -> None:
            while True:
                started = time.perf_counter()
                assert (await client.get("/v2/health/live")).status_code == 200
                health.append(time.perf_counter() - started)
                await asyncio.sleep(0.1)

        looking = asyncio.create_task(look())
        answers = await asyncio.gather(*(ask(number / rate) for number in range(int(rate * seconds))))
        looking.cancel()
        return answers, health


def test_four_times_the_capacity_is_answered_or_refused_at_once(tmp_path: Path) -> None:
    body = picture(tmp_path, size=(40, 30)).read_bytes()
    with server(tmp_path, str(ENGINE), f"queue={QUEUE}", program=PROGRAM) as running:
        unloaded = float(np.percentile([_post(running, body)[1] for _ in range(30)], 99))
        answers, health = asyncio.run(_load(running, body, rate=4 / ENGINE, seconds=SECONDS))
        entries = [one for one in running.entries() if one.get("path") == "/predict"][30:]
    counts = Counter(answer.status_code for answer in answers)
    assert {*counts} == {200, 429}, counts
    assert len(answers) == len(entries) == int(4 * SECONDS / ENGINE)  # exactly one answer each
    assert counts[200] >= 0.7 * SECONDS / ENGINE  # the engine is busy all along
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers if answer.status_code == 429)
    accepted = [one["seconds"] for one in entries if one["status"] == 200]
    refused = [one["seconds"] for one in entries if one["status"] == 429]
    assert np.percentile(accepted, 99) <= 2 * (unloaded + QUEUE * ENGINE)
    assert np.median(refused) < 0.05 * BESIDE
    assert np.percentile(health, 95) < 0.1 * BESIDE


def test_two_hundred_clients_at_once_get_an_answer_each(tmp_path: Path) -> None:
    body = picture(tmp_path, size=(40, 30)).read_bytes()

    async def all_at_once(address: str) -> list[int]:
        limits = httpx.Limits(max_connections=200)
        async with httpx.AsyncClient(base_url=address, timeout=WAIT, limits=limits) as client:
            answers = await asyncio.gather(*(client.post("/predict", content=body) for _ in range(200)))
        return [answer.status_code for answer in answers]

    with server(tmp_path, "0.005", f"queue={QUEUE}", program=PROGRAM) as running:
        counts = Counter(asyncio.run(all_at_once(running.address)))
    assert sum(counts.values()) == 200
    assert {*counts} <= {200, 429}
    assert counts[200] >= QUEUE


def test_requests_that_come_together_are_one_batch(tmp_path: Path) -> None:
    body = picture(tmp_path, size=(40, 30)).read_bytes()

    async def together(address: str) -> None:
        async with httpx.AsyncClient(base_url=address, timeout=WAIT) as client:
            await asyncio.gather(*(client.post("/predict", content=body) for _ in range(40)))

    with server(tmp_path, "0.01", program=PROGRAM) as running:
        asyncio.run(together(running.address))
        figures = running.get("/metrics").text
    lines = dict(line.rsplit(" ", 1) for line in figures.splitlines() if not line.startswith("#"))
    pictures, batches = (float(lines[f'resnest_batch_size_{kind}{{model="slow"}}']) for kind in ("sum", "count"))
    assert pictures == 40
    assert batches <= 20
