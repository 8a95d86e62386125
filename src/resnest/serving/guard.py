"""What every request passes: the token, the end of the server, the log, and the last resort for errors.

The log is one JSON line a request, without anything of its pictures:
{"time": "...", "method": "POST", "path": "/predict", "status": 200, "seconds": 0.041, "bytes": 81233}
"""

from __future__ import annotations

import datetime
import hmac
import json
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from resnest.errors import ResnestError
from resnest.serving.limits import Refused
from resnest.serving.metrics import Metrics

OPEN = ("/", "/page.js", "/page.css", "/v2/health/live", "/v2/health/ready", "/docs", "/openapi.json")  # no token
Log = Callable[[dict[str, Any]], None]


def log_line(entry: dict[str, Any]) -> None:
    """One JSON line on standard error; no more than a lost line if that is closed or full."""
    try:
        sys.stderr.write(json.dumps(entry) + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass


def check_token(token: str) -> None:
    """Raises ResnestError for what no Authorization header brings as it is."""
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise ResnestError("the token has letters that clients cannot send: use those of ASCII, without spaces")


class State:
    """Whether the server takes requests, and how many it works on."""

    def __init__(self) -> None:
        self.ready = False
        self.draining = False
        self.active = 0  # requests


class Guard:
    """The outermost layer of the application (ASGI)."""

    def __init__(self, app: ASGIApp, *, state: State, metrics: Metrics, token: str | None, log: Log) -> None:
        self.app, self.state, self.metrics, self.log = app, state, metrics, log
        self.token = token.encode("ascii") if token else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        method = scope["method"]
        if method == "HEAD":  # as GET; uvicorn leaves out what follows the headers
            scope = {**scope, "method": "GET"}
        watched = _Watched(receive, send)
        started = time.perf_counter()
        self.state.active += 1
        failure = ""
        try:
            if refusal := self._refusal(scope):
                await refused(refusal)(scope, watched.receive, watched.send)
            else:
                await self.app(scope, watched.receive, watched.send)
        except Exception as error:
            failure = "".join(traceback.format_exception(error))[-4000:]  # for the log alone
            if watched.status is None:
                answer = refused(Refused(500, "the server has failed: see its log"))
                await answer(scope, watched.receive, watched.send)
        finally:
            self.state.active -= 1
            self._tell(scope, method, watched, time.perf_counter() - started, failure)

    def _refusal(self, scope: Scope) -> Refused | None:
        path = scope["path"]
        if self.token and path not in OPEN and not self._has_token(scope):
            return Refused(
                401, "this server needs a token: Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"}
            )
        if self.state.draining and not path.startswith("/v2/health") and path != "/metrics":
            return Refused(503, "the server is shutting down", {"Connection": "close", "Retry-After": "5"})
        return None

    def _has_token(self, scope: Scope) -> bool:
        given = dict(scope["headers"]).get(b"authorization", b"")
        kind, _, token = given.partition(b" ")
        return kind.lower() == b"bearer" and hmac.compare_digest(token.strip(), self.token or b"")

    def _tell(self, scope: Scope, method: str, watched: _Watched, seconds: float, failure: str) -> None:
        status = watched.status or 499  # the client has gone: nginx's number for it
        route = getattr(scope.get("route"), "path", None) or "other"
        self.metrics.answered(route, status, seconds)
        entry: dict[str, Any] = {
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
            "method": method,
            "path": scope["path"][:200],
            "status": status,
            "seconds": round(seconds, 4),
            "bytes": watched.bytes,
        }
        if client := scope.get("client"):
            entry["client"] = client[0]
        if failure:
            entry["failure"] = failure
        self.log(entry)


class _Watched:
    """A request's two directions, and what came through them."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self.bytes, self.status = 0, None

    status: int | None

    async def receive(self) -> Message:
        message = await self._receive()
        self.bytes += len(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)


def refused(refusal: Refused) -> JSONResponse:
    """The answer to a request that is refused."""
    return JSONResponse({"error": as_unicode(refusal.message)}, refusal.status, refusal.headers)


def as_unicode(text: str) -> str:
    """Text of a client that can be sent back: JSON may have halves of characters, such as \\ud800."""
    return text.encode("utf-8", "backslashreplace").decode()
