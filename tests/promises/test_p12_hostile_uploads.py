"""P12, hostile uploads: what is sent to a server is bounded before it is unpacked, decoded or believed.

Real servers and raw sockets. `make promises`: 10,000 mutated files; `make test`: 400.
"""

from __future__ import annotations

import gzip
import io
import random
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image, PngImagePlugin

from conftest import FULL, encoded
from servers import WAIT, Server, models, picture, server, until

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
MIB = 2**20
MUTATED = 10_000 if FULL else 400
AT_ONCE = 320 * 1024  # bytes: asyncio reads 256 KiB at once, and uvicorn keeps 64
SLOW = 2.0  # seconds that the server's slow senders get here


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    reference = models(tmp_path_factory.mktemp("models"), ["classification"])["classification"]
    with server(tmp_path_factory.mktemp("server"), reference) as found:
        yield found


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that gives slow senders little time."""
    program = Path(__file__).parents[1] / "slow_server.py"
    folder = tmp_path_factory.mktemp("hasty")
    with server(folder, "0.001", f"receive_timeout={SLOW}", "connections=64", program=program) as found:
        yield found


def _head(*lines: str, path: str = "/predict") -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()


def _connect(running: Server) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", running.port), timeout=WAIT)
    return sock


def _status(sock: socket.socket) -> int:
    answer = sock.recv(65536)
    assert answer.startswith(b"HTTP/1.1 "), answer
    return int(answer.split()[1])


def _read(running: Server) -> int:
    """Bytes of the last request's body that the server has read."""
    return int(until(lambda: [one for one in running.entries() if one.get("path") == "/predict"])[-1]["bytes"])


def _endless(running: Server, *head: str, chunk: bytes) -> tuple[int, int]:
    """Send chunks until the server answers; returns the status, and the bytes that it has read."""
    before = len(running.entries())
    with _connect(running) as sock:
        sock.sendall(_head(*head))
        try:
            for _ in range(200 * MIB // len(chunk)):
                sock.sendall(chunk)
                if before < len(running.entries()):
                    break
        except OSError:  # it has answered, and closed the connection
            pass
    until(lambda: len(running.entries()) > before)
    entry = running.entries()[-1]
    return entry["status"], entry["bytes"]


def test_a_declared_size_beyond_the_limit_is_refused_without_a_byte_of_it(running: Server) -> None:
    with _connect(running) as sock:
        sock.sendall(_head(f"Content-Length: {21 * MIB}"))
        assert _status(sock) == 413
    assert _read(running) == 0


@pytest.mark.parametrize("head", ["Transfer-Encoding: chunked", f"Content-Length: {20 * MIB}"])
def test_bytes_are_counted_as_they_come(head: str, running: Server) -> None:
    chunk = b"x" * 65536
    if head.startswith("Transfer"):
        chunk = b"10000\r\n" + chunk + b"\r\n"
        status, read = _endless(running, head, chunk=chunk)
        assert (status, read <= 20 * MIB + AT_ONCE) == (413, True), read
        return
    answer = httpx.post(f"{running.address}/predict", content=b"x" * (20 * MIB), timeout=WAIT)
    assert answer.status_code == 422  # just within the limit, and no picture
    with _connect(running) as sock:  # more than was declared is another request, and no good one
        sock.sendall(_head("Content-Length: 5") + b"x" * 65536)
        assert _status(sock) == 422


@pytest.mark.parametrize("kind", ["gzip", "deflate"])
def test_what_a_packed_body_unpacks_to_is_counted(kind: str, running: Server) -> None:
    """20 MB of zeros pack to 20 kB, and 200 MB to 200 kB."""
    pack = gzip.compress if kind == "gzip" else zlib.compress
    small, large = pack(bytes(19 * MIB)), pack(bytes(200 * MIB))
    before = running.memory()
    for body, status in ((small, 422), (large, 413)):
        answer = running.post("/predict", content=body, headers={"content-encoding": kind})
        assert answer.status_code == status
    assert running.memory() - before < 100 * MIB


def test_a_body_that_is_cut_off_is_forgotten(running: Server) -> None:
    for body in (_head("Content-Length: 1000") + b"x" * 10, _head("Transfer-Encoding: chunked") + b"5\r\nxxx"):
        with _connect(running) as sock:
            sock.sendall(body)
    assert running.get("/v2/health/ready").status_code == 200
    figures = until(lambda: "resnest_active_requests 1\n" in (text := running.get("/metrics").text) and text)
    assert 'resnest_queue{model="classification"} 0' in figures


def _bomb(side: int) -> bytes:
    """A PNG of side x side pixels that are all alike: 196 megapixels in 190 kB."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))]
    packer = zlib.compressobj(9)
    row = bytes(side + 1)
    data = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    chunks += [(b"IDAT", data), (b"IEND", b"")]
    parts = [struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_pixels_are_counted_before_they_are_decoded(running: Server) -> None:
    bomb = _bomb(14_000)
    assert len(bomb) < 200_000
    before = running.memory()
    answers = [running.post("/predict", content=bomb) for _ in range(3)]
    assert {answer.status_code for answer in answers} == {422}
    assert "too many pixels" in answers[0].json()["error"]
    answer = running.post("/predict", content=_bomb(7100))  # fewer than Pillow itself refuses
    assert "too many pixels (7100 x 7100, at most 50 megapixels)" in answer.json()["error"]
    assert running.memory() - before < 20 * MIB
    last = [one for one in running.entries() if one.get("path") == "/predict"][-3:]
    assert min(one["seconds"] for one in last) < 0.05 * (1 if FULL else 4)


REFUSED = {
    "GIF": encoded(Image.new("RGB", (8, 8)), "GIF"),
    "BMP": encoded(Image.new("RGB", (8, 8)), "BMP"),
    "TIFF": encoded(Image.new("RGB", (8, 8)), "TIFF"),
    "EPS": encoded(Image.new("RGB", (8, 8)), "EPS"),
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><image href="http://127.0.0.1:1/x"/></svg>',
    "HTML": b"<!doctype html><p>404",
    "an address": b"http://127.0.0.1:1/photo.jpg",
    "a path": b"/etc/hostname",
    "a zip": b"PK\x03\x04" + bytes(60),
    "zeros": bytes(1000),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_formats_are_known_by_content_and_not_by_name(kind: str, running: Server) -> None:
    for name in ("photo.jpg", "photo.png", "x"):
        answer = running.post("/predict", files={"file": (name, REFUSED[kind], "image/jpeg")})
        assert answer.status_code == 422
        assert answer.json()[0]["error"] == "not a JPEG, PNG or WEBP image"


def test_metadata_of_pictures_are_not_echoed(running: Server) -> None:
    about = PngImagePlugin.PngInfo()
    about.add_text("Comment", "where-it-was-taken")
    exif = Image.Exif()
    exif[0x010E] = "where-it-was-taken"
    content = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(content, "PNG", pnginfo=about, exif=exif)
    for query in ("", "?draw=1", "?draw=data"):
        answer = running.post(f"/predict{query}", content=content.getvalue())
        assert answer.status_code == 200
        assert b"where-it-was-taken" not in answer.content
    assert "where-it-was-taken" not in running.log.read_text()


def test_mutated_files_are_answers_or_refusals(running: Server, tmp_path: Path) -> None:
    """A byte changed, a piece cut, doubled or zeroed: never a 5xx, and the server goes on."""
    rng = random.Random(0)
    whole = Image.open(picture(tmp_path))
    seeds = [encoded(whole, form) for form in ("JPEG", "PNG", "WEBP")]
    seeds += [encoded(whole.convert("P"), "PNG"), encoded(whole, "JPEG", progressive=True)]
    with httpx.Client(base_url=running.address, timeout=WAIT) as client:
        for number in range(MUTATED):
            answer = client.post("/predict", content=_mutated(rng, bytearray(rng.choice(seeds))))
            assert answer.status_code in (200, 400, 422), (number, answer.text)
            if answer.status_code != 200:
                error = answer.json()["error"]
                assert "\n" not in error
                assert not any(word in error for word in ("/home", "/root", "/usr", ".py", "Traceback", "0x")), error
    assert running.process.poll() is None
    assert not any("failure" in entry for entry in running.entries())


def _mutated(rng: random.Random, content: bytearray) -> bytes:
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(len(content) + 1)
        piece = slice(start, start + rng.randint(1, 64))
        match rng.randrange(4):
            case 0:
                content[piece] = rng.randbytes(len(content[piece]))
            case 1:
                del content[piece]
            case 2:
                content[piece] = content[piece] * 2
            case 3:
                content[piece] = bytes(len(content[piece]))
    return bytes(content)


HEADS = {
    "one long": ["X-Long: " + "a" * 100_000],
    "many": [f"X-{number}: a" for number in range(20_000)],
    "no colon": ["nonsense"],
    "a length of text": ["Content-Length: many"],
    "a length below 0": ["Content-Length: -1"],
    "two lengths": ["Content-Length: 1", "Content-Length: 2"],
    "a length and chunks": ["Content-Length: 1", "Transfer-Encoding: gzip, chunked"],
    "a null": ["X: \x00"],
}


@pytest.mark.parametrize("case", HEADS)
def test_odd_headers_are_refused(case: str, running: Server) -> None:
    with _connect(running) as sock:
        try:
            sock.sendall(_head(*HEADS[case]))
            status = _status(sock)
        except OSError:
            status = 400  # closed while they were sent
    assert status in (400, 413, 422, 431, 501)
    assert running.get("/v2/health/ready").status_code == 200


def test_ten_thousand_bytes_of_headers_are_read(running: Server, tmp_path: Path) -> None:
    header = {"x-trace": "a" * 10_000}
    answer = running.post("/predict", content=picture(tmp_path).read_bytes(), headers=header)
    assert answer.status_code == 200


def test_no_answer_names_a_path_or_a_file_of_the_server(running: Server) -> None:
    asked = [
        running.post("/predict", content=b"x"),
        running.post("/predict?model=../../etc/passwd", content=b"x"),
        running.get("/../../etc/passwd"),
        running.get("/page/../../limits.py"),
        running.get("/%2e%2e/%2e%2e/etc/passwd"),
        running.get("/page.js%00"),
        running.get("/models"),
        running.get("/v2/models/classification"),
        running.get("/metrics"),
        running.post("/v2/models/classification/infer", content=b"{}"),
        running.get("/openapi.json"),
    ]
    for answer in asked:
        assert not any(word in answer.text for word in (".onnx", "/tmp", "/home", "Traceback", 'File "', "root:")), (
            answer
        )
        assert answer.status_code != 500


@pytest.mark.parametrize("part", ["headers", "body", "nothing", "a second request"])
def test_slow_senders_are_cut_off(part: str, hasty: Server) -> None:
    """A byte every fifth of a second; uvicorn alone would wait for headers for ever."""
    sent = {
        "headers": _head("X: " + "a" * 200),
        "body": b"x" * 200,
        "nothing": b"",
        "a second request": _head("X: " + "a" * 200),
    }[part]
    started = time.monotonic()
    with _connect(hasty) as sock:
        sock.settimeout(0.2)
        if part == "body":
            sock.sendall(_head("Content-Length: 200"))
        if part == "a second request":
            sock.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n")
            assert sock.recv(65536).startswith(b"HTTP/1.1 200")
        answer = b""
        for number in range(300):
            try:
                sock.sendall(sent[number : number + 1])
                answer = sock.recv(65536)
                break
            except TimeoutError:
                continue
            except OSError:
                break
    assert time.monotonic() - started < 4 * SLOW + 5
    if part in ("headers", "body"):
        assert answer.startswith(b"HTTP/1.1 408")


def test_two_hundred_clients_that_send_nothing_leave_room_for_others(hasty: Server, tmp_path: Path) -> None:
    """Sixty-four connections are allowed here: those that idle are closed, and others get in again."""
    idle = [_connect(hasty) for _ in range(200)]
    body = picture(tmp_path).read_bytes()

    def answered() -> bool:
        try:
            return hasty.post("/predict", content=body).status_code == 200
        except httpx.TransportError:
            return False

    try:
        until(answered)
    finally:
        for sock in idle:
            sock.close()


def test_bodies_of_all_requests_are_bounded_together(tmp_path: Path) -> None:
    program = Path(__file__).parents[1] / "slow_server.py"
    with server(tmp_path, "0.001", f"bodies={8 * MIB}", "receive_timeout=20", program=program) as running:
        held = []
        for _ in range(4):
            sock = _connect(running)
            sock.sendall(_head(f"Content-Length: {3 * MIB}") + bytes(3 * MIB - 1))  # all but the last byte
            held.append(sock)
        statuses = []
        for sock in held:
            sock.settimeout(1)
            try:
                statuses.append(_status(sock))
            except TimeoutError:
                statuses.append(0)
        assert sorted(statuses) == [0, 0, 429, 429]
        for sock, status in zip(held, statuses, strict=True):
            if not status:
                sock.sendall(b"\0")
                sock.settimeout(WAIT)
                assert _status(sock) == 422
            sock.close()
