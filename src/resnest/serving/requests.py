"""What the routes share: whether the server is ready, what is shown of a result, and how long a request may take."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request

from resnest.errors import ResnestError
from resnest.runtime.results import Show
from resnest.serving.guard import State
from resnest.serving.limits import Gone, Refused
from resnest.serving.models import Served

T = TypeVar("T")


def check_ready(state: State) -> None:
    """Raises Refused (503) before the models are warm."""
    if not state.ready:
        raise Refused(503, "the models are not ready yet", {"Retry-After": "1"})


def show_of(served: Served, options: dict[str, Any]) -> Show:
    """What to show of a result. Raises Refused (400) for an option of another kind of model, or out of range."""
    given = {name: value for name, value in options.items() if value is not None}
    for name in given:
        if name not in served.result.OPTIONS:
            takes = ", ".join(sorted(served.result.OPTIONS)) or "none"
            raise Refused(400, f"{name} is no option of {served.card.info.noun}: it has {takes}")
    try:
        return Show(**given)
    except ResnestError as error:
        raise Refused(400, str(error)) from None


async def answered(request: Request, seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """The work's result; the work is cancelled if it takes too long, or nobody waits for it any more.

    Raises:
        Refused: 504.
        Gone: the client has closed the connection.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if gone.done():
            raise Gone
        raise Refused(504, f"no answer within {seconds:g} seconds")
    finally:
        for one in (task, gone):
            one.cancel()


async def _gone(request: Request) -> None:
    """Returns when the client closes the connection; its body was read to the end."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
