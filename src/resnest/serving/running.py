"""Running a server: its socket, its signals, and its end, in which no accepted request is lost.

    serve(create_app(...), bind("127.0.0.1", 8000), limits, drain=30)

SIGTERM and Ctrl-C: readiness is 503 at once, new requests are refused with 503, those accepted are finished, and the
program ends with exit code 0. A second signal ends it at once.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from resnest.serving.guard import Log, State, log_line
from resnest.serving.limits import Limits

SEEN = 0.5  # seconds that a server at its end still answers 503, for whoever asks whether it is ready
KEEP_ALIVE = 75  # seconds: nginx's; load balancers of clouds have 60
STOPPED = 128 + signal.SIGTERM


class Connection(H11Protocol):
    """A connection that is closed if the headers of a request do not come in time: uvicorn alone would wait.

    Between two requests it may be idle for `KEEP_ALIVE`, longer than load balancers leave theirs: one that was closed
    at this end would be an error at theirs.
    """

    SECONDS = 10.0  # for headers; `serve` sets it
    _checking: asyncio.TimerHandle | None = None
    _idle: object = None  # the last request at the last check, if it was answered

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._checking = self.loop.call_later(self.SECONDS, self._check)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._checking:
            self._checking.cancel()
        super().connection_lost(exc)

    def _check(self) -> None:
        answered = self.cycle is None or self.cycle.response_complete
        idle = answered and self.timeout_keep_alive_task is None  # bytes of a request have come, or none ever
        if idle and self.cycle is self._idle:
            self.transport.write(b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            self.transport.close()
            return
        self._idle = self.cycle if idle else None
        self._checking = self.loop.call_later(self.SECONDS, self._check)


class Server(uvicorn.Server):
    """uvicorn's server, which answers while it drains."""

    def __init__(self, config: uvicorn.Config, state: State, drain: float) -> None:
        super().__init__(config)
        self.state, self.drain = state, drain

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.state.draining:
            self.force_exit = self.should_exit = True
            return
        self.state.draining = True
        self._ending = asyncio.get_running_loop().create_task(self._end())

    async def _end(self) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + self.drain
        await asyncio.sleep(SEEN)
        while self.state.active and loop.time() < until:
            await asyncio.sleep(0.02)
        self.should_exit = True


class _JsonLines(logging.Handler):
    """What uvicorn has to say, as our log has it."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self.write = log

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().rstrip().endswith("asyncio.exceptions.CancelledError"):
            return  # a second signal has ended it: nothing that went wrong
        self.write({"level": record.levelname.lower(), "message": record.getMessage()})


def serve(app: FastAPI, sock: socket.socket, limits: Limits, *, drain: float, log: Log = log_line) -> None:
    """Answer requests until a signal comes.

    Args:
        drain: seconds that accepted requests get to finish after it.
    """
    Connection.SECONDS = limits.receive_timeout
    logger = logging.getLogger("uvicorn.error")
    logger.handlers, logger.propagate = [_JsonLines(log)], False
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=limits.connections,
        backlog=limits.connections,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=1,  # what had time has had it
    )
    server = Server(config, app.state.server, drain)
    server.run(sockets=[sock])
    if server.force_exit:
        sys.exit(STOPPED)
