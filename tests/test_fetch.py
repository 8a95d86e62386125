"""Fetching published weights from real servers on loopback: dead, slow, cut off, lying, gone."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import torch

import resnest
from conftest import Outcome, serving
from resnest.checkpoints import fetch as fetching
from resnest.checkpoints import manifest
from resnest.checkpoints.fetch import fetch, read_sums
from resnest.checkpoints.layouts import LAYOUTS, from_official
from resnest.checkpoints.manifest import Mirror, Weights, find_weights
from resnest.checkpoints.reading import write_params
from resnest.errors import ResnestError

PAGE = b"<!DOCTYPE html><html><title>Not here any more</title></html>"


@dataclass
class Server:
    """Files by path; a path may misbehave. Remembers what was asked for."""

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    cut: dict[str, list[int]] = field(default_factory=dict)  # bytes after which each answer in turn breaks off
    ranges: bool = True
    asked: list[tuple[str, str | None]] = field(default_factory=list)  # path, Range


@pytest.fixture
def server() -> Iterator[Server]:
    state: Server

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.asked.append((self.path, wanted))
            content = state.files.get(self.path)
            if content is None:
                self.send_error(404)
                return
            etag = f'"{hashlib.md5(content).hexdigest()}"'
            start = 0
            if wanted and state.ranges and self.headers.get("If-Range") == etag:
                start = int(wanted.removeprefix("bytes=").rstrip("-"))
                if start >= len(content):
                    self.send_error(416)
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(content) - start))
            self.send_header("ETag", etag)
            self.end_headers()
            body = content[start:]
            if state.cut.get(self.path):
                body = body[: state.cut[self.path].pop(0)]
                self.close_connection = True
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    with serving(Handler) as url:
        state = Server(url)
        yield state


@pytest.fixture(autouse=True)
def network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RESNEST_OFFLINE")
    monkeypatch.setenv("RESNEST_HOME", str(tmp_path / "home"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(fetching.time, "sleep", lambda seconds: None)


@pytest.fixture(scope="module")
def content() -> bytes:
    """A checkpoint of resnest14's names, with narrow planes, as torch.save writes it."""
    torch.manual_seed(0)
    buffer = io.BytesIO()
    torch.save(resnest.create_model("resnest14", num_classes=1000).state_dict(), buffer)
    return buffer.getvalue()


def _row(server: Server, content: bytes, *paths: str, **changes: Any) -> Weights:
    """A row of the manifest whose mirrors are on our server."""
    base = dataclasses.replace(find_weights("resnest14.converted"), sha256=hashlib.sha256(content).hexdigest()[:8])
    mirrors = tuple(Mirror(path if "://" in path else server.url + path) for path in paths)
    return dataclasses.replace(base, file="net.pth", mirrors=mirrors, **changes)


def _dead() -> str:
    """An address where nobody listens."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/net.pth"


def test_the_mirrors_in_turn(server: Server, content: bytes, tmp_path: Path) -> None:
    """Dead, cut off half-way for good, other bytes, a web page, missing: the sixth one delivers."""
    server.files = {"/cut.pth": content, "/other.pth": content[:-4] + b"evil", "/page.pth": PAGE, "/good.pth": content}
    server.cut = {"/cut.pth": [len(content) // 2, 0, 0]}
    row = _row(server, content, _dead(), "/cut.pth", "/other.pth", "/page.pth", "/gone.pth", "/good.pth")
    path = fetch(row, tmp_path / "weights")
    assert path == tmp_path / "weights" / "net.pth"
    assert path.read_bytes() == content
    assert read_sums(path.parent) == {"net.pth": hashlib.sha256(content).hexdigest()}
    assert [name for name, _ in server.asked] == ["/cut.pth"] * 3 + [
        "/other.pth",
        "/page.pth",
        "/gone.pth",
        "/good.pth",
    ]
    assert not list(path.parent.glob("*.part*"))
    assert fetch(row, tmp_path / "weights") == path  # from the cache
    assert len(server.asked) == 7


def test_all_mirrors_fail_and_each_is_heard(server: Server, content: bytes, tmp_path: Path) -> None:
    server.files = {"/other.pth": b"other", "/page.pth": PAGE}
    row = _row(server, content, _dead(), "/gone.pth", "/other.pth", "/page.pth")
    with pytest.raises(ResnestError) as caught:
        fetch(row, tmp_path)
    told = str(caught.value)
    assert "\n" not in told
    for part in (
        "no connection (Connection refused)",
        "HTTP 404",
        "other bytes",
        "a web page came instead of the file",
        "download it elsewhere and give the file",
    ):
        assert part in told
    assert [path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")] == []


def test_a_broken_download_goes_on_where_it_stopped(server: Server, content: bytes, tmp_path: Path) -> None:
    server.files = {"/net.pth": content}
    server.cut = {"/net.pth": [1000, 2000]}
    seen: list[int] = []
    path = fetch(_row(server, content, "/net.pth"), tmp_path, progress=lambda name, have, total: seen.append(have))
    assert path.read_bytes() == content
    assert server.asked == [("/net.pth", None), ("/net.pth", "bytes=1000-"), ("/net.pth", "bytes=3000-")]
    assert seen[-1] == len(content)


def test_a_later_process_goes_on_too(server: Server, content: bytes, tmp_path: Path) -> None:
    server.files = {"/net.pth": content}
    server.cut = {"/net.pth": [1000, 0, 0]}
    row = _row(server, content, "/net.pth")
    with pytest.raises(ResnestError, match=r"cut off after 1,000 of"):
        fetch(row, tmp_path)
    server.asked.clear()
    assert fetch(row, tmp_path).read_bytes() == content
    assert server.asked == [("/net.pth", "bytes=1000-")]


@pytest.mark.parametrize("ranges", [True, False])
def test_what_is_not_the_beginning_of_the_same_file_is_dropped(
    ranges: bool, server: Server, content: bytes, tmp_path: Path
) -> None:
    """The file changed on the server, or the server knows no ranges."""
    server.ranges = ranges
    server.files = {"/net.pth": b"x" * 5000 if ranges else content}
    server.cut = {"/net.pth": [1000, 0, 0]}
    row = _row(server, content, "/net.pth")
    with pytest.raises(ResnestError):
        fetch(row, tmp_path)
    server.files = {"/net.pth": content}
    assert fetch(row, tmp_path).read_bytes() == content


def test_two_processes_fetch_once(server: Server, content: bytes, tmp_path: Path) -> None:
    server.files = {"/net.pth": content}
    row = _row(server, content, "/net.pth")
    threads = [threading.Thread(target=fetch, args=(row, tmp_path)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.asked == [("/net.pth", None)]


def test_a_file_that_changed_since_is_refused(server: Server, content: bytes, tmp_path: Path) -> None:
    server.files = {"/net.pth": content}
    row = _row(server, content, "/net.pth")
    path = fetch(row, tmp_path)
    path.write_bytes(content[:-4] + b"evil")
    with pytest.raises(ResnestError, match="has changed since it was fetched"):
        fetch(row, tmp_path)
    path.unlink()
    assert fetch(row, tmp_path).read_bytes() == content


def test_a_file_that_a_user_put_there(content: bytes, server: Server, tmp_path: Path) -> None:
    row = _row(server, content, "/net.pth")
    (tmp_path / "net.pth").write_bytes(content)
    fetch(row, tmp_path)
    assert read_sums(tmp_path)["net.pth"] == hashlib.sha256(content).hexdigest()
    (tmp_path / "SHA256SUMS").unlink()
    (tmp_path / "net.pth").write_bytes(b"not it")
    with pytest.raises(ResnestError, match=r"is not the published resnest14\.converted"):
        fetch(row, tmp_path)


def test_the_pins_are_read_by_sha256sum(server: Server, content: bytes, tmp_path: Path) -> None:
    server.files = {"/net.pth": content}
    fetch(_row(server, content, "/net.pth"), tmp_path)
    done = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "net.pth: OK\n"


def test_a_published_zip(server: Server, tmp_path: Path) -> None:
    """Gluon's files come in zips, and the published hash is that of the file inside."""
    net = resnest.create_model("resnest14")
    write_params(tmp_path / "inner.params", from_official(net.state_dict(), LAYOUTS["gluon"]))
    inner = (tmp_path / "inner.params").read_bytes()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../resnest14-x.params", inner)
    server.files = {"/page.zip": PAGE, "/net.zip": buffer.getvalue()}
    row = dataclasses.replace(
        find_weights("resnest14.gluon"),
        file="net.params",
        sha1=hashlib.sha1(inner).hexdigest(),
        mirrors=(Mirror(f"{server.url}/page.zip"), Mirror(f"{server.url}/net.zip")),
    )
    path = fetch(row, tmp_path / "weights")
    assert path.read_bytes() == inner
    assert sorted(entry.name for entry in path.parent.iterdir() if not entry.name.startswith(".")) == [
        "SHA256SUMS",
        "net.params",
    ]
    loaded = resnest.create_model("resnest14", pretrained=path)
    assert torch.equal(loaded.get_parameter("fc.weight"), net.get_parameter("fc.weight"))
    wrong = dataclasses.replace(row, sha1="0" * 40, mirrors=row.mirrors[1:])
    with pytest.raises(ResnestError, match=r"other bytes .*not sha1 00000000"):
        fetch(wrong, tmp_path / "elsewhere")


@pytest.fixture
def published(server: Server, content: bytes, monkeypatch: pytest.MonkeyPatch) -> Weights:
    """A manifest of one row, whose mirrors are dead, missing and good."""
    server.files = {"/good.pth": content}
    row = dataclasses.replace(_row(server, content, _dead(), "/gone.pth", "/good.pth"), name="resnest14.official")
    monkeypatch.setattr(manifest, "MANIFEST", (row,))
    monkeypatch.setattr("resnest.checkpoints.fetch.MANIFEST", (row,))
    monkeypatch.setattr("resnest.cli.models.MANIFEST", (row,))
    return row


def test_create_model_pretrained(published: Weights, content: bytes, tmp_path: Path) -> None:
    torch.manual_seed(0)
    original = resnest.create_model("resnest14").eval()
    images = torch.randn(1, 3, 64, 64)
    net = resnest.create_model("resnest14", pretrained=True).eval()
    with torch.inference_mode():
        assert torch.equal(net(images), original(images))
    head = resnest.create_model("resnest14", pretrained=True, num_classes=5)
    assert head.get_parameter("fc.weight").shape == (5, 2048)
    backbone = resnest.create_backbone("resnest14d", pretrained="resnest14.official")
    assert torch.equal(backbone.get_parameter("bn1.weight"), original.get_parameter("bn1.weight"))
    with pytest.raises(ResnestError, match=r"resnest14\.official are weights of resnest14, not of resnest26"):
        resnest.create_model("resnest26", pretrained="resnest14.official")


def test_carried_in_a_folder_and_used_without_a_network(
    published: Weights, cli: Callable[..., Outcome], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    carried = tmp_path / "carried"
    outcome = cli("models", "fetch", "resnest14", "--to", carried)
    assert outcome.code == 0, outcome.err
    assert outcome.out == f"resnest14.official: {carried / 'net.pth'}\n"
    assert cli("models", "fetch", "--all", "--to", carried).out == outcome.out
    monkeypatch.setenv("RESNEST_OFFLINE", "1")
    offline = cli("predict", "resnest14", photos)
    assert offline.code == 2
    assert "the network is off (RESNEST_OFFLINE=1)" in offline.err
    assert "net.pth" in offline.err
    net = resnest.create_model("resnest14", pretrained=carried)
    file = resnest.create_model("resnest14", pretrained=carried / "net.pth")
    assert torch.equal(net.get_parameter("fc.weight"), file.get_parameter("fc.weight"))
    other = Weights(name="resnest26.official", network="resnest26", layout="official", file="none.pth", mirrors=())
    monkeypatch.setattr(manifest, "MANIFEST", (*manifest.MANIFEST, other))
    with pytest.raises(ResnestError, match="has no weights of resnest26"):
        resnest.create_model("resnest26", pretrained=carried)
    assert cli("predict", carried / "net.pth", photos, "--top", "2", "--json").code == 0
    monkeypatch.setenv("RESNEST_HOME", str(tmp_path / "moved"))
    (tmp_path / "moved").mkdir()
    carried.rename(tmp_path / "moved" / "weights")
    named = cli("predict", "resnest14", photos, "--json")
    assert named.code == 0, named.err


def test_a_folder_that_cannot_be_written(published: Weights, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResnestError, match="cannot be used for weights"):
        fetch(published, tmp_path / "file" / "below")


def test_the_command_needs_names_or_all(cli: Callable[..., Outcome]) -> None:
    for arguments in ([], ["resnest14", "--all"]):
        outcome = cli("models", "fetch", *arguments)
        assert outcome.code == 2
        assert "name the weights to fetch, or say --all" in outcome.err


def test_on_a_terminal_a_line_counts_up(server: Server, content: bytes, tmp_path: Path) -> None:
    """Under a real pseudo-terminal: megabytes, and the time left."""
    import os
    import pty

    server.files = {"/net.pth": content}
    script = (
        "import dataclasses, sys; from pathlib import Path\n"
        "from resnest.checkpoints.fetch import fetch\n"
        "from resnest.checkpoints.manifest import Mirror, find_weights\n"
        "row = dataclasses.replace(find_weights('resnest14.converted'), sha256='', file='net.pth',"
        " mirrors=(Mirror(sys.argv[1]),))\n"
        "fetch(row, Path(sys.argv[2]))\n"
    )
    master, slave = pty.openpty()
    subprocess.run(
        [sys.executable, "-c", script, f"{server.url}/net.pth", str(tmp_path)], stderr=slave, check=True, timeout=60
    )
    os.close(slave)
    shown = os.read(master, 100_000).decode()
    os.close(master)
    assert f"net.pth: {len(content) / 1e6:.0f} of {len(content) / 1e6:.0f} MB" in shown
    assert "s left" in shown
