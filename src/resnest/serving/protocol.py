"""The Open Inference Protocol v2 (KServe, Triton) over HTTP.

A model has two inputs, of which a request gives one: `image`, the bytes of encoded pictures (N,), or `pixels`, what the
network takes (N, 3, H, W), normalised. The outputs are the columns of `resnest predict --csv`, with the number of the
picture in place of its name, and `json`, what `resnest predict --json` prints for each picture.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from fastapi import FastAPI, Request, Response
from numpy.typing import NDArray

import resnest
from resnest.runtime.decode import BadImage
from resnest.runtime.results import Result, Show
from resnest.serving.body import Held, Upload, read_body
from resnest.serving.guard import State, as_unicode
from resnest.serving.limits import Limits, Refused
from resnest.serving.models import Models, Served
from resnest.serving.requests import answered, check_ready, show_of
from resnest.serving.tensors import TYPES, Tensor, parameters_of, read_inputs, write

VERSION = "1"  # of every model
DIGITS = 20  # of a number of bytes: Python refuses to read thousands of them
HEAD_LENGTH = "inference-header-content-length"  # of a request or an answer with binary data: bytes of its JSON


def add_routes(app: FastAPI, models: Models, limits: Limits, state: State, held: Held) -> None:
    """The routes of the protocol."""

    @app.get("/v2", summary="The server")
    async def server() -> dict[str, Any]:
        return {"name": "resnest", "version": resnest.__version__, "extensions": ["binary_tensor_data"]}

    @app.get("/v2/health/live", summary="Whether the server runs")
    async def live() -> Response:
        return Response()

    @app.get("/v2/health/ready", summary="Whether every model takes requests")
    async def ready() -> Response:
        return Response(status_code=200 if state.ready and not state.draining else 503)

    for path in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        _add_model(app, path, models, limits, state, held)


def _add_model(app: FastAPI, path: str, models: Models, limits: Limits, state: State, held: Held) -> None:
    @app.get(path, summary="A model's inputs and outputs")
    async def metadata(model: str, version: str = VERSION) -> dict[str, Any]:
        return describe(_find(models, model, version))

    @app.get(f"{path}/ready", summary="Whether a model takes requests")
    async def ready(model: str, version: str = VERSION) -> Response:
        _find(models, model, version)
        return Response(status_code=200 if state.ready and not state.draining else 503)

    @app.post(f"{path}/infer", summary="Predictions for tensors", response_class=Response)
    async def infer(request: Request, model: str, version: str = VERSION) -> Response:
        check_ready(state)
        served = _find(models, model, version)
        with held.body() as counter:
            body = await read_body(request, limits, counter)
            head, tail = _split(body, request.headers.get(HEAD_LENGTH))
            del body
            results, show = await answered(request, limits.timeout, _infer(served, head, tail, limits))
        return _answer(served, head, results, show)


def _find(models: Models, model: str, version: str) -> Served:
    served = models.find(model)
    if version != VERSION:
        raise Refused(404, f"model {model!r} has no version {version[:20]!r}: expected {VERSION}")
    return served


def describe(served: Served) -> dict[str, Any]:
    """A model's metadata."""
    inputs = [("image", "BYTES", [-1]), ("pixels", "FP32", pixel_shape(served))]
    return {
        "name": served.name,
        "versions": [VERSION],
        "platform": "resnest",
        "inputs": [{"name": name, "datatype": kind, "shape": shape} for name, kind, shape in inputs],
        "outputs": [{"name": name, "datatype": kind, "shape": [-1]} for name, kind in output_types(served).items()],
    }


def pixel_shape(served: Served) -> list[int]:
    """Of the input `pixels`: -1 where any number goes."""
    takes = served.card.info.exported.takes(served.card) if served.card.info.exported else (None, 3, None, None)
    return [-1, *(side or -1 for side in takes[1:])]


def output_types(served: Served) -> dict[str, str]:
    """Outputs and their types: the columns of the model's results."""
    kinds = {name: "FP32" if form.endswith("f") else "INT64" for name, form in served.result.COLUMNS.items()}
    return {**kinds, "image": "INT64", "label": "BYTES", "json": "BYTES"}


def _split(body: bytes, length: str | None) -> tuple[Any, bytes]:
    """The JSON and the binary data of a request."""
    size = len(body)
    if length is not None:
        if not (length.isascii() and length.isdigit() and len(length) < DIGITS) or int(length) > size:
            raise Refused(400, "Inference-Header-Content-Length is not within the body")
        size = int(length)
    try:
        return json.loads(body[:size].decode(), parse_constant=_no_constant), body[size:]
    except (ValueError, RecursionError):
        raise Refused(400, "the request is not valid JSON") from None


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON")  # NaN and Infinity, which Python would read


async def _infer(served: Served, head: Any, tail: bytes, limits: Limits) -> tuple[list[Result], Show]:
    inputs = read_inputs(head, tail)
    show = _show(served, head)
    boxes = parameters_of(head).get("boxes")
    _check_outputs(served, head)
    if set(inputs) not in ({"image"}, {"pixels"}):
        raise Refused(400, f"inputs: expected either 'image' or 'pixels', not {', '.join(sorted(inputs))[:100]}")
    ((name, tensor),) = inputs.items()
    if tensor.shape[0] > limits.images:
        raise Refused(413, f"more than {limits.images} pictures in a request")
    if boxes is not None and (name == "pixels" or not isinstance(boxes, str)):
        raise Refused(400, "parameter 'boxes': expected text, and input 'image'")
    if name == "pixels":
        return await served.predict_pixels(list(_pixels(served, tensor))), show
    if tensor.datatype != "BYTES" or len(tensor.shape) > 2 or tensor.shape[1:] not in ((), (1,)):
        raise Refused(400, "input 'image': expected BYTES of shape [N]")
    uploads = [Upload(f"image {number}", bytes(content)) for number, content in enumerate(tensor.data)]
    results = []
    for answer in await served.predict(uploads, show, boxes=boxes):
        if isinstance(answer, BadImage):
            raise Refused(422, str(answer))
        results.append(answer.result)
    return results, show


def _pixels(served: Served, tensor: Tensor) -> NDArray[np.float32]:
    wanted = pixel_shape(served)
    fits = len(tensor.shape) == 4 and all(
        side in (-1, own) for side, own in zip(wanted[1:], tensor.shape[1:], strict=True)
    )
    if tensor.datatype != "FP32" or not fits:
        raise Refused(400, f"input 'pixels': expected FP32 of shape {wanted}, not {tensor.datatype} {[*tensor.shape]}")
    divisor = next((step["multiple"] for step in served.card.preprocess.steps() if "multiple" in step), 1)
    if tensor.shape[2] % divisor or tensor.shape[3] % divisor:
        raise Refused(400, f"input 'pixels': height and width must be multiples of {divisor}: pad with zeros")
    if tensor.shape[2] * tensor.shape[3] > served.limits.pixels:
        raise Refused(413, "input 'pixels': too many pixels")
    values = np.asarray(tensor.data, np.float32)
    if not np.isfinite(values).all():
        raise Refused(400, "input 'pixels': there are values that are not finite")
    return values


def _show(served: Served, head: Mapping[str, Any]) -> Show:
    parameters = parameters_of(head)
    return show_of(served, {name: parameters.get(name) for name in ("top", "threshold")})


def _check_outputs(served: Served, head: Mapping[str, Any]) -> None:
    known = output_types(served)
    for entry in _wanted(head):
        parameters_of(entry)
        if not isinstance(entry.get("name"), str) or entry["name"] not in known:
            raise Refused(400, f"output {str(entry.get('name'))[:80]!r} is unknown: expected {', '.join(known)}")


def _wanted(head: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    outputs = head.get("outputs") or []
    if not isinstance(outputs, list) or not all(isinstance(one, dict) for one in outputs):
        raise Refused(400, "outputs: expected a list of objects")
    return outputs


def _answer(served: Served, head: Mapping[str, Any], results: Sequence[Result], show: Show) -> Response:
    outputs = tensors(served, results, show)
    wanted = {entry["name"]: parameters_of(entry) for entry in _wanted(head)}
    everywhere = parameters_of(head).get("binary_data_output") is True  # as Triton's clients ask
    chosen = {name: tensor for name, tensor in outputs.items() if name in wanted or not wanted}
    binary = {name for name in chosen if wanted.get(name, {}).get("binary_data", everywhere) is True}
    about: dict[str, Any] = {"model_name": served.name, "model_version": VERSION}
    if isinstance(head.get("id"), str):
        about["id"] = as_unicode(head["id"][:200])
    body, length = write(about, chosen, binary)
    if length is None:
        return Response(body, media_type="application/json")
    return Response(body, media_type="application/octet-stream", headers={HEAD_LENGTH: str(length)})


def tensors(served: Served, results: Sequence[Result], show: Show) -> dict[str, Tensor]:
    """Results as tensors: a value for each row of each column, and the JSON of each picture."""
    rows = [{**row, "image": number} for number, result in enumerate(results) for row in result.rows(show)]
    found = {}
    for name, datatype in output_types(served).items():
        if name == "json":
            texts = [result.to_json(show).encode() for result in results]
            found[name] = Tensor("BYTES", (len(texts),), texts)
        elif datatype == "BYTES":
            found[name] = Tensor("BYTES", (len(rows),), [str(row[name]).encode() for row in rows])
        else:
            values = np.array([row[name] for row in rows], TYPES[datatype])
            found[name] = Tensor(datatype, (len(rows),), values)
    return found
