"""The application: routes of a server of models (FastAPI).

    app = create_app(Models({"birds": Predictor("model.onnx")}, Limits(), largest=8, longest_wait=0.002))

Routes read a request within its limits, and give the work to a model's queue. Nothing that takes long runs in the
event loop: pictures are decoded and drawn in threads, and each engine has one of its own.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib import resources
from typing import Any, Literal

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

import resnest
from resnest.runtime.decode import BadImage
from resnest.runtime.predictor import NotFinite
from resnest.runtime.results import Show
from resnest.serving import protocol
from resnest.serving.body import Held, is_form, read_body, read_files
from resnest.serving.guard import Guard, Log, State, check_token, log_line, refused
from resnest.serving.limits import Gone, Limits, Refused
from resnest.serving.metrics import KIND, Metrics, label
from resnest.serving.models import Answer, Models
from resnest.serving.requests import answered, check_ready, show_of

PAGE = {
    "/": ("page.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
}
HEADERS = {  # of the page: it loads nothing from elsewhere, and shows pictures that the person chose
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:;"
    " media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
BODY = {  # for /docs: the body is read here, not by FastAPI, which would not limit it
    "requestBody": {
        "required": True,
        "content": {
            **{
                kind: {"schema": {"type": "string", "format": "binary"}}
                for kind in ("image/jpeg", "image/png", "image/webp")
            },
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"files": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                }
            },
        },
    }
}


def create_app(
    models: Models,
    limits: Limits,
    *,
    metrics: Metrics | None = None,
    state: State | None = None,
    token: str | None = None,
    cors: Sequence[str] = (),
    log: Log = log_line,
) -> FastAPI:
    """The application for these models.

    Args:
        metrics: where the models tell of their batches.
        state: to be told when the server drains.
        token: what clients must send as `Authorization: Bearer`, except for the page and for health.
        cors: origins whose pages may call the server.
        log: takes an entry for each request.

    Raises:
        ResnestError: no client can send the token.
    """
    metrics, state = metrics or Metrics(), state or State()
    if token:
        check_token(token)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        warming = asyncio.create_task(_warm_up(models, state))
        yield
        state.draining = True
        warming.cancel()
        await asyncio.to_thread(models.close)

    app = FastAPI(
        title="resnest",
        version=resnest.__version__,
        lifespan=lifespan,
        redoc_url=None,
        description=_about(models),
        telemetry={"auto_configure": False},  # nothing is sent anywhere, whatever OTEL_* of the environment say
    )
    app.state.server = state
    _add_errors(app)
    _add_page(app)
    _add_health(app, models, metrics, state)
    held = Held(limits.bodies)
    _add_predict(app, models, limits, state, held)
    protocol.add_routes(app, models, limits, state, held)
    app.add_middleware(Guard, state=state, metrics=metrics, token=token, log=log)
    if cors:  # outermost: a browser asks without the token whether it may ask with it
        app.add_middleware(CORSMiddleware, allow_origins=[*cors], allow_methods=["GET", "POST"], allow_headers=["*"])
    return app


def _about(models: Models) -> str:
    return "Models: " + "; ".join(f"{name}, {served.card.info.noun}" for name, served in models.items())


async def _warm_up(models: Models, state: State) -> None:
    await asyncio.to_thread(models.start)
    state.ready = True


def _add_errors(app: FastAPI) -> None:
    """Every error is {"error": "one line"}."""

    async def on_refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refused)
        return refused(error)

    async def on_not_finite(request: Request, error: Exception) -> Response:
        return refused(Refused(422, str(error)))

    async def on_gone(request: Request, error: Exception) -> Response:
        return Response(status_code=499)  # nobody reads it

    async def on_parameter(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        return refused(Refused(400, f"{first['loc'][-1]}: {first['msg']}"))

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return refused(Refused(error.status_code, str(error.detail).lower(), dict(error.headers or {})))

    app.add_exception_handler(Refused, on_refused)
    app.add_exception_handler(NotFinite, on_not_finite)
    app.add_exception_handler(Gone, on_gone)
    app.add_exception_handler(RequestValidationError, on_parameter)
    app.add_exception_handler(HTTPException, on_http)


def _add_page(app: FastAPI) -> None:
    folder = resources.files("resnest.serving") / "page"
    for path, (name, kind) in PAGE.items():
        content = (folder / name).read_bytes()

        def give(content: bytes = content, kind: str = kind) -> Response:
            return Response(content, media_type=kind, headers=HEADERS)

        app.get(path, include_in_schema=False)(give)


def _add_health(app: FastAPI, models: Models, metrics: Metrics, state: State) -> None:
    @app.get("/models", summary="The models: their task, classes, preprocessing and options")
    async def describe() -> list[dict[str, Any]]:
        return [served.describe() for served in models.values()]

    @app.get("/metrics", summary="Figures for Prometheus")
    async def figures() -> Response:
        waiting = {label("model", name): float(served.batcher.accepted) for name, served in models.items()}
        gauges = {
            "resnest_ready": ("Whether requests are taken.", {"": float(state.ready and not state.draining)}),
            "resnest_active_requests": ("Requests without an answer yet.", {"": float(state.active)}),
            "resnest_queue": ("Pictures that are accepted and not answered.", waiting),
        }
        return Response(metrics.text(gauges), media_type=KIND)


def _add_predict(app: FastAPI, models: Models, limits: Limits, state: State, held: Held) -> None:
    @app.post(
        "/predict",
        summary="The prediction for a picture, or for several as a multipart form",
        openapi_extra=BODY,
        response_class=Response,
    )
    async def predict(
        request: Request,
        model: str | None = None,
        top: int | None = Query(None, ge=1),
        threshold: float | None = Query(None, ge=0, le=1),
        draw: Literal["0", "1", "data"] = "0",
        boxes: str | None = None,
    ) -> Response:
        """
        The answer to a picture is what `resnest predict --json` prints for it; a form gets a list.

        - **model**: one of `/models`, by default the first
        - **top**: labels to show (classifiers); **threshold**: the lowest score of an object (detectors)
        - **draw**: `1` answers with the drawn picture, `data` adds it to the JSON as a data URL
        - **boxes**: JSON, [[x, y, width, height], ...] in pixels: where to look (models that look at boxes)
        """
        check_ready(state)
        unknown = set(request.query_params) - {"model", "top", "threshold", "draw", "boxes"}
        if unknown:
            expected = "expected model, top, threshold, draw or boxes"
            raise Refused(400, f"unknown parameter {min(unknown)[:80]!r}: {expected}")
        served = models.find(model)
        show = show_of(served, {"top": top, "threshold": threshold})
        with held.body() as counter:
            body = await read_body(request, limits, counter)
            uploads = await read_files(request, body, limits)
            if draw == "1" and len(uploads) > 1:
                raise Refused(400, "draw=1 is for one picture: draw=data answers with several")
            answers = await answered(request, limits.timeout, served.predict(uploads, show, draw != "0", boxes))
        return _response(answers, show, one=not is_form(request), picture=draw == "1")


def _response(answers: Sequence[Answer | BadImage], show: Show, *, one: bool, picture: bool) -> Response:
    """The answers as JSON, or the drawing. Unusable pictures of a form are named among the others."""
    errors = [answer for answer in answers if isinstance(answer, BadImage)]
    if len(errors) == len(answers) and (one or picture):
        raise Refused(422, str(errors[0]))
    first = answers[0]
    if picture and isinstance(first, Answer) and first.drawing is not None:
        return Response(first.drawing, media_type="image/jpeg")
    texts = [_json(answer, show) for answer in answers]
    content = texts[0] if one else f"[{', '.join(texts)}]"
    return Response(content, 422 if len(errors) == len(answers) else 200, media_type="application/json")


def _json(answer: Answer | BadImage, show: Show) -> str:
    if isinstance(answer, BadImage):
        return json.dumps({"image": answer.name, "error": answer.reason}, ensure_ascii=False)
    if answer.drawing is None:
        return answer.result.to_json(show)
    drawing = f"data:image/jpeg;base64,{base64.b64encode(answer.drawing).decode()}"
    return json.dumps({**answer.result.to_dict(show), "drawing": drawing}, ensure_ascii=False)
