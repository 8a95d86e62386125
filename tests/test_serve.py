"""`resnest serve`: real servers on loopback, asked by httpx, curl, Triton's own client and Prometheus' own reader."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from conftest import Outcome, encoded
from resnest.errors import ResnestError
from resnest.inference.predicting import Predictor
from resnest.runtime.decode import decode_image
from resnest.runtime.results import LIKELY, Show
from resnest.serving.address import bind
from resnest.tasks import TASKS
from servers import BOXES, CLASSES, PREPROCESS, Server, models, picture, server, until

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
Cli = Callable[..., Outcome]


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def everything(references: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A model of each task, by its name."""
    named = [f"{task}={path}" for task, path in references.items()]
    with server(tmp_path_factory.mktemp("server"), *named) as running:
        yield running


@pytest.mark.parametrize("task", TASKS)
def test_an_answer_is_what_predict_prints_bit_for_bit(
    task: str, everything: Server, references: dict[str, Path], photo: Path, cli: Cli
) -> None:
    printed = cli("predict", references[task], photo, "--json")
    assert printed.code == 0, printed.err
    ours = everything.post(f"/predict?model={task}", files={"file": (str(photo), photo.read_bytes())})
    assert ours.text == f"[{printed.out.strip()}]"
    raw = everything.post(f"/predict?model={task}", content=photo.read_bytes())
    assert raw.text == printed.out.strip().replace(f'"{photo}"', '"image"')


@pytest.mark.parametrize("task", TASKS)
def test_a_drawing_is_what_predict_draws(
    task: str, everything: Server, references: dict[str, Path], photo: Path
) -> None:
    answer = everything.post(f"/predict?model={task}&draw=1", content=photo.read_bytes())
    assert answer.headers["content-type"] == "image/jpeg"
    result = Predictor(references[task])(str(photo))
    drawn = io.BytesIO()
    result.draw(str(photo), LIKELY).save(drawn, "JPEG", quality=90)
    assert answer.content == drawn.getvalue()
    data = everything.post(f"/predict?model={task}&draw=data", content=photo.read_bytes()).json()
    assert data.pop("drawing").startswith("data:image/jpeg;base64,/9j/")
    assert data == everything.post(f"/predict?model={task}", content=photo.read_bytes()).json()


def test_several_pictures_are_answered_in_order_and_a_bad_one_among_them_is_named(
    everything: Server, photo: Path
) -> None:
    files = [
        ("a", ("one.jpg", photo.read_bytes())),
        ("b", ("two.jpg", b"<html>")),
        ("c", ("../x.png", photo.read_bytes())),
    ]
    one, two, three = everything.post("/predict?top=2", files=files).json()
    assert (one["image"], two["image"], three["image"]) == ("one.jpg", "two.jpg", "../x.png")
    assert two["error"] == "not a JPEG, PNG or WEBP image"
    assert one["top"] == three["top"]
    assert len(one["top"]) == 2
    assert everything.post("/predict", files=[files[1]]).status_code == 422


@pytest.mark.parametrize("task", TASKS)
def test_triton_s_own_client_gets_the_columns_of_predict_and_its_json(
    task: str, everything: Server, references: dict[str, Path], photo: Path
) -> None:
    client = pytest.importorskip("tritonclient.http", reason="tritonclient is not installed")
    predictor = Predictor(references[task])
    result = predictor(photo.read_bytes())
    with client.InferenceServerClient(f"127.0.0.1:{everything.port}") as triton:
        assert triton.is_server_live()
        assert triton.is_server_ready()
        assert triton.is_model_ready(task, "1")
        about = triton.get_model_metadata(task)
        names = [output["name"] for output in about["outputs"]]
        assert names == [*type(result).COLUMNS, "json"]
        for binary in (True, False):
            pictures = client.InferInput("image", [1], "BYTES")
            pictures.set_data_from_numpy(np.array([photo.read_bytes()], object))
            wanted = [client.InferRequestedOutput(name, binary_data=binary) for name in names]
            answer = triton.infer(task, [pictures], outputs=wanted, request_id="n 7")
            assert answer.get_response()["id"] == "n 7"
            text = answer.as_numpy("json")[0]
            text = text.decode() if isinstance(text, bytes) else text
            assert text == result.to_json(LIKELY).replace('"image": "image"', '"image": "image 0"')
            rows = result.rows(LIKELY)
            for name in [*type(result).COLUMNS][1:]:
                got, expected = answer.as_numpy(name), [row[name] for row in rows]
                if name == "label":
                    assert [one.decode() if isinstance(one, bytes) else one for one in got] == expected
                else:
                    np.testing.assert_allclose(got, np.array(expected, got.dtype), rtol=1e-6)


def test_pixels_are_what_the_network_takes(everything: Server, references: dict[str, Path], photo: Path) -> None:
    client = pytest.importorskip("tritonclient.http", reason="tritonclient is not installed")
    predictor = Predictor(references["classification"])
    pixels = predictor.card.preprocess(decode_image(photo))[None]
    with client.InferenceServerClient(f"127.0.0.1:{everything.port}") as triton:
        tensor = client.InferInput("pixels", pixels.shape, "FP32")
        tensor.set_data_from_numpy(pixels)
        answer = triton.infer("classification", [tensor], parameters={"top": 3})
    expected = predictor(photo.read_bytes()).rows(Show(top=3))  # type: ignore[union-attr]
    assert [name.decode() for name in answer.as_numpy("label")] == [row["label"] for row in expected]
    np.testing.assert_array_equal(answer.as_numpy("score"), np.float32([row["score"] for row in expected]))


def _text(request: dict[str, Any], more: str) -> bytes:
    """A request as JSON, with something that Python would write otherwise."""
    return f"{json.dumps(request)[:-1]}, {more}}}".encode()


def _infer(**changes: Any) -> dict[str, Any]:
    """A request of the protocol with a picture, changed."""
    entry = {"name": "image", "shape": [1], "datatype": "BYTES", "data": ["/9j/"]}
    return {"inputs": [{**entry, **changes}]}


PIXELS = {"name": "pixels", "datatype": "FP32", "shape": [1, 3, 2, 2]}
BAD_INFER: dict[str, tuple[Any, int, str]] = {
    "no json": (b"{", 400, "not valid JSON"),
    "NaN in json": (b'{"inputs": [{"name": "pixels", "shape": [1], "datatype": "FP32", "data": [NaN]}]}', 400, "JSON"),
    "deep": (b"[" * 100_000, 400, "not valid JSON"),
    "a list": ([], 400, "no JSON object"),
    "no inputs": ({}, 400, "expected a list of tensors"),
    "inputs of strings": ({"inputs": ["image"]}, 400, "expected a list of tensors"),
    "another input": (_infer(name="picture"), 400, "expected either 'image' or 'pixels', not picture"),
    "both": ({"inputs": [_infer()["inputs"][0], {**PIXELS, "data": [0] * 12}]}, 400, "expected either"),
    "twice": ({"inputs": _infer()["inputs"] * 2}, 400, "there twice"),
    "datatype": (_infer(datatype="FP64"), 400, "'FP64' is not taken"),
    "negative side": (_infer(shape=[-1]), 400, "whole numbers above 0"),
    "huge side": (_infer(shape=[2**62, 2**62]), 400, "is not that of 1 values"),
    "shape of text": (_infer(shape="1"), 400, "whole numbers above 0"),
    "fewer values": (_infer(shape=[2]), 400, "shape [2] is not that of 1 values"),
    "no base64": (_infer(data=["é"]), 400, "base64"),
    "a number as picture": (_infer(data=[3]), 400, "base64"),
    "no picture": (_infer(data=["PGh0bWw+"]), 422, "not a JPEG, PNG or WEBP image"),
    "cut picture": (_infer(), 422, "image 0: "),
    "pixels of another size": ({"inputs": [{**PIXELS, "data": [0] * 12}]}, 400, "not FP32 [1, 3, 2, 2]"),
    "pixels of text": ({"inputs": [{**PIXELS, "data": ["a"] * 12}]}, 400, "expected numbers"),
    "pixels too large for a float": ({"inputs": [{**PIXELS, "data": [10**400] * 12}]}, 400, "too large"),
    "image as floats": ({"inputs": [{**PIXELS, "name": "image", "data": [0] * 12}]}, 400, "expected BYTES of shape"),
    "an unknown output": ({**_infer(), "outputs": [{"name": "logits"}]}, 400, "output 'logits' is unknown"),
    "outputs of strings": ({**_infer(), "outputs": ["label"]}, 400, "expected a list of objects"),
    "top of 0": ({**_infer(), "parameters": {"top": 0}}, 400, "top"),
    "top of 2.0": ({**_infer(), "parameters": {"top": 2.0}}, 400, "top=2.0 must be an integer"),
    "top of infinity": (_text(_infer(), '"parameters": {"top": 1e999}'), 400, "top=inf must be an integer"),
    "a list as top": ({**_infer(), "parameters": {"top": [1]}}, 400, "top=[1] must be an integer"),
    "parameters of text": ({**_infer(), "parameters": "top"}, 400, "expected an object"),
    "half a character as name": (_infer(name="\ud800"), 400, "either 'image' or 'pixels', not \\ud800"),
    "half a character as data": (_infer(data=["\ud800"]), 400, "base64"),
    "very many sides": (_infer(shape=[9] * 100_000), 400, "a shape of 1 to 4 whole numbers"),
    "a side of thousands of digits": (_infer(shape=[10**4000]), 400, "a shape of 1 to 4 whole numbers"),
    "an output of another type": ({**_infer(), "outputs": [{"name": ["label"]}]}, 400, "is unknown"),
    "an output's parameters": ({**_infer(), "outputs": [{"name": "label", "parameters": 3}]}, 400, "an object"),
    "an option of others": ({**_infer(), "parameters": {"threshold": 0.5}}, 400, "no option of a classifier"),
    "binary data that are not there": (_infer(parameters={"binary_data_size": 9}), 400, "not what the body holds"),
    "many": (_infer(shape=[17], data=["/9j/"] * 17), 413, "more than 16 pictures"),
}


@pytest.mark.parametrize("case", BAD_INFER)
def test_a_bad_request_of_the_protocol_gets_one_line(case: str, everything: Server) -> None:
    content, status, line = BAD_INFER[case]
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    answer = everything.post("/v2/models/classification/infer", content=body)
    assert answer.status_code == status, answer.text
    assert line in answer.json()["error"]
    assert "\n" not in answer.json()["error"]


def _cut_form() -> dict[str, Any]:
    """The first file of it is whole."""
    part = b'--X\r\nContent-Disposition: form-data; name="f"; filename="a.jpg"\r\n\r\nx\r\n'
    return {"content": 2 * part, "headers": {"content-type": "multipart/form-data; boundary=X"}}


BAD_REQUESTS: dict[str, tuple[str, dict[str, Any], int, str]] = {
    "an empty body": ("/predict", {}, 400, "no body"),
    "html": ("/predict", {"content": b"<html></html>"}, 422, "image: not a JPEG, PNG or WEBP image"),
    "an unknown model": ("/predict?model=nope", {"content": b"x"}, 404, "no model 'nope': expected classification,"),
    "a misspelt parameter": ("/predict?treshold=0.3", {"content": b"x"}, 400, "unknown parameter 'treshold'"),
    "top of 0": ("/predict?top=0", {"content": b"x"}, 400, "top: "),
    "a threshold of text": ("/predict?model=detection&threshold=high", {"content": b"x"}, 400, "threshold: "),
    "a threshold of NaN": ("/predict?model=detection&threshold=nan", {"content": b"x"}, 400, "threshold: "),
    "an option of others": ("/predict?threshold=0.5", {"content": b"x"}, 400, "no option of a classifier: it has top"),
    "no form": ("/predict", {"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, "form"),
    "a form without files": ("/predict", {"data": {"a": "b"}, "files": {"": ("", b"")}}, 400, "form"),
    "a form that is cut off": ("/predict", _cut_form(), 400, "the form is cut off"),
    "a form of 17": ("/predict", {"files": [("f", (f"{k}.jpg", b"x")) for k in range(17)]}, 413, "more than 16"),
    "a packed body that is none": (
        "/predict",
        {"content": b"<html></html>", "headers": {"content-encoding": "gzip"}},
        400,
        "packed",
    ),
    "an unknown packing": (
        "/predict",
        {"content": b"x", "headers": {"content-encoding": "br"}},
        415,
        "'br' is unknown",
    ),
    "an unknown page": ("/admin", {"content": b"x"}, 404, "not found"),
    "an unknown version": ("/v2/models/detection/versions/2/infer", {"content": b"{}"}, 404, "no version '2'"),
}


@pytest.mark.parametrize("case", BAD_REQUESTS)
def test_a_bad_request_gets_one_line(case: str, everything: Server) -> None:
    path, options, status, line = BAD_REQUESTS[case]
    answer = everything.post(path, **options)
    assert answer.status_code == status, answer.text
    assert line in answer.json()["error"]
    assert "\n" not in answer.json()["error"]


@pytest.mark.parametrize("length", ["9" * 5000, "-1", "1e3", "1000000", "0", "5"])
def test_a_header_length_that_lies_gets_one_line(length: str, everything: Server) -> None:
    body = json.dumps(_infer()).encode()
    headers = {"inference-header-content-length": length}
    answer = everything.post("/v2/models/classification/infer", content=body, headers=headers)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"] in (
        "Inference-Header-Content-Length is not within the body",
        "the request is not valid JSON",
    )


def test_an_id_comes_back_as_text(everything: Server, photo: Path) -> None:
    data = [base64.b64encode(photo.read_bytes()).decode()]
    for given, back in (("7", "7"), ("\ud800", "\\ud800"), ("é" * 300, "é" * 200)):
        body = json.dumps({**_infer(data=data), "id": given, "parameters": None}).encode()
        assert everything.post("/v2/models/classification/infer", content=body).json()["id"] == back


@pytest.mark.parametrize("task", [task for task in TASKS if PREPROCESS[task] is BOXES])
def test_pixels_that_are_not_padded_are_refused(task: str, everything: Server) -> None:
    entry = {"name": "pixels", "datatype": "FP32", "shape": [1, 3, 33, 64], "data": [0] * (3 * 33 * 64)}
    answer = everything.post(f"/v2/models/{task}/infer", json={"inputs": [entry]})
    assert (answer.status_code, "multiples of 32: pad" in answer.text) == (400, True), answer.text


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_what_a_network_cannot_compute_is_no_label(task: str, everything: Server) -> None:
    entry = {"name": "pixels", "datatype": "FP32", "shape": [1, 3, 40, 40], "data": [3e38] * 4800}
    answer = everything.post(f"/v2/models/{task}/infer", json={"inputs": [entry]})
    assert (answer.status_code, "not finite (logits)" in answer.text) == (422, True), answer.text


@pytest.mark.parametrize("path", ["/", "/page.js", "/models", "/metrics", "/v2", "/v2/health/ready"])
def test_heads_are_those_of_the_answers(path: str, everything: Server) -> None:
    head, whole = httpx.head(f"{everything.address}{path}"), everything.get(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers.get("content-type") == whole.headers.get("content-type")


@pytest.mark.parametrize("packing", ["gzip", "deflate"])
def test_a_packed_body_is_unpacked(packing: str, everything: Server, photo: Path) -> None:
    import zlib

    content = photo.read_bytes()
    packed = gzip.compress(content) if packing == "gzip" else zlib.compress(content)
    plain = everything.post("/predict", content=content)
    assert everything.post("/predict", content=packed, headers={"content-encoding": packing}).text == plain.text


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_pictures_of_any_kind_are_read_as_predict_reads_them(
    mode: str, everything: Server, references: dict[str, Path], tmp_path: Path
) -> None:
    image = Image.linear_gradient("L").resize((64, 48)).convert("RGB")
    content = (
        encoded(Image.fromarray(np.arange(64 * 48, dtype=np.uint16).reshape(48, 64)))
        if mode == "I;16"
        else encoded(image.convert(mode), "JPEG" if mode == "CMYK" else "PNG")
    )
    expected = Predictor(references["classification"])(content).to_json(LIKELY)  # type: ignore[union-attr]
    assert everything.post("/predict", content=content).text == expected


def test_figures_are_read_by_prometheus_own_parser(everything: Server, photo: Path) -> None:
    parser = pytest.importorskip("prometheus_client.parser", reason="prometheus_client is not installed")

    def value(name: str, **labels: str) -> float:
        families = parser.text_string_to_metric_families(everything.get("/metrics").text)
        samples = [sample for family in families for sample in family.samples if sample.name == name]
        return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())

    before = value("resnest_requests_total", route="/predict", status="200")
    pictures = value("resnest_batch_size_sum", model="classification")
    everything.post("/predict", content=photo.read_bytes())
    assert value("resnest_requests_total", route="/predict", status="200") == before + 1
    assert value("resnest_batch_size_sum", model="classification") == pictures + 1
    assert value("resnest_ready") == 1
    everything.get("/made-up-path")
    assert value("resnest_requests_total", route="other", status="404") >= 1  # not a label for each path


def test_the_log_is_a_json_line_for_each_request_without_anything_of_its_picture(
    everything: Server, photo: Path
) -> None:
    everything.post("/predict?model=detection", files={"file": ("secret name.jpg", photo.read_bytes())})
    entry = until(lambda: [one for one in everything.entries() if one.get("path") == "/predict"])[-1]
    assert {"time", "method", "path", "status", "seconds", "bytes", "client"} == {*entry}
    assert entry["bytes"] > photo.stat().st_size
    assert "secret" not in everything.log.read_text()


def test_the_interface_is_described(everything: Server) -> None:
    schema = everything.get("/openapi.json").json()
    assert {"/predict", "/models", "/metrics", "/v2/models/{model}/infer"} <= {*schema["paths"]}
    assert "image/jpeg" in schema["paths"]["/predict"]["post"]["requestBody"]["content"]
    assert everything.get("/docs").status_code == 200
    first = everything.get("/models").json()[0]
    assert (first["name"], first["task"], first["classes"]) == ("classification", "classification", CLASSES)


def test_a_token_is_asked_for_and_other_origins_are_answered_if_they_are_named(
    references: dict[str, Path], photo: Path, tmp_path: Path
) -> None:
    options = ["--cors", "https://ours.example"]
    with server(tmp_path, references["classification"], *options, RESNEST_TOKEN="s3cret") as running:
        body = photo.read_bytes()
        for header in (
            {},
            {"authorization": "Bearer no"},
            {"authorization": "Basic s3cret"},
            {"authorization": "s3cret"},
        ):
            refused = running.post("/predict", content=body, headers=header)
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"] == "Bearer"
        assert running.get("/metrics").status_code == running.get("/models").status_code == 401
        assert running.get("/").status_code == running.get("/v2/health/live").status_code == 200
        good = {"authorization": "Bearer s3cret"}
        assert running.post("/predict", content=body, headers=good).status_code == 200
        for origin, allowed in (("https://ours.example", True), ("https://other.example", False)):
            answer = running.post("/predict", content=body, headers={**good, "origin": origin})
            assert (answer.headers.get("access-control-allow-origin") == origin) is allowed
        asks = {"origin": "https://ours.example", "access-control-request-method": "POST"}
        asks["access-control-request-headers"] = "authorization"
        allowed = httpx.options(
            f"{running.address}/predict", headers=asks
        )  # as a browser asks first, without the token
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-headers"] == "authorization"
        assert "s3cret" not in running.log.read_text()


@pytest.mark.parametrize(
    "error", [ResnestError("cut off"), OSError(5, "I/O error"), RuntimeError("of an engine"), MemoryError()]
)
def test_reloading_goes_on_after_any_error(error: Exception, references: dict[str, Path], tmp_path: Path) -> None:
    from resnest.serving.limits import Limits
    from resnest.serving.models import Models
    from resnest.serving.reloading import Reloader

    file = tmp_path / "m.onnx"
    file.write_bytes(references["classification"].read_bytes())
    opened = Models({"m": Predictor(file)}, Limits(), largest=1, longest_wait=0)
    outcomes, entries = iter([error, other := Predictor(file)]), list[dict[str, Any]]()

    def open_again() -> Any:
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    Reloader(opened["m"], str(file), open_again, entries.append, every=0.05).start()
    for count in (1, 2):
        os.utime(file, (count, count))
        until(lambda count=count: len(entries) == count)
    assert [entry["level"] for entry in entries] == ["error", "info"]
    assert opened["m"].predictor is other


def test_a_changed_file_is_opened_again_only_if_that_was_asked_for(
    references: dict[str, Path], photo: Path, tmp_path: Path
) -> None:
    from resnest import Model
    from resnest.exporters.exporting import export
    from small import NETWORKS

    other = Model.of(
        NETWORKS["classification"]().eval(), ["a", "b", "c"], PREPROCESS["classification"]
    ).save_pretrained(tmp_path / "b")
    new = export(other, out=tmp_path / "b.onnx", format="onnx").path
    for options, answers in (([], CLASSES), (["--reload"], ["a", "b", "c"])):
        file = tmp_path / "m.onnx"
        shutil.copy(references["classification"], file)
        with server(tmp_path, file, *options) as running:

            def label(running: Server = running) -> str:
                return str(running.post("/predict", content=photo.read_bytes()).json()["top"][0]["label"])

            assert label() in CLASSES
            file.write_bytes(new.read_bytes()[:1000])  # half of it
            if options:
                until(lambda running=running: any("not opened again" in str(e) for e in running.entries()))
            assert label() in CLASSES
            shutil.copy(new, file)
            if options:
                until(lambda running=running: any("was opened again" in str(e) for e in running.entries()))
            assert label() in answers


STARTS: dict[str, tuple[list[str], str]] = {
    "no such model": (["no/such.onnx"], "no/such.onnx"),
    "one name twice": (["a=x.onnx", "a=y.onnx"], "would both be called 'a'"),
    "a host of elsewhere": (["m.onnx", "--host", "192.0.2.1"], "--host 192.0.2.1: "),
    "a host of no name": (["m.onnx", "--host", "no such host"], "--host no such host: "),
    "a model without a name": (["=m.onnx"], "has no name before its '='"),
    "a port that is none": (["m.onnx", "--port", "70000"], "0 to 65535"),
    "no time at all": (["m.onnx", "--timeout", "0"], "timeout"),
}


@pytest.mark.parametrize("case", STARTS)
def test_a_server_that_cannot_start_says_why_in_one_line(case: str, cli: Cli) -> None:
    arguments, line = STARTS[case]
    outcome = cli("serve", *arguments)
    assert outcome.code == 2
    assert line in outcome.err
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize("token", ["two words", "héron", "a\nb", "new line\n", " "])
def test_a_token_that_nobody_can_send_is_refused(token: str, references: dict[str, Path], cli: Cli) -> None:
    outcome = cli("serve", references["classification"], "--port", "0", "--token", token)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "the token has letters that clients cannot send" in outcome.err
    assert token not in outcome.err or token == " "


def test_a_taken_port_is_named(everything: Server, cli: Cli) -> None:
    outcome = cli("serve", "m.onnx", "--port", everything.port)
    assert outcome.code == 2
    assert re.search(rf"127.0.0.1 port {everything.port}: .*in use.*--port 0", outcome.err)


def test_an_exported_file_is_served_without_torch(references: dict[str, Path], photo: Path, tmp_path: Path) -> None:
    program = tmp_path / "without_torch.py"
    program.write_text(
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, *_):\n"
        "        assert name.split('.')[0] not in ('torch', 'torchvision'), name\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "from resnest.cli.app import main\n"
        "sys.argv[0] = 'resnest'\n"
        "main()\n"
    )
    arguments = ["serve", references["classification"], references["segmentation"], "--port", "0"]
    with server(tmp_path, *arguments, program=program) as running:
        for model in running.get("/models").json():
            assert running.post(f"/predict?model={model['name']}", content=photo.read_bytes()).status_code == 200


def test_curl_as_the_page_says(everything: Server, photo: Path) -> None:
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")
    command = ["curl", "-s", "--data-binary", f"@{photo}", f"{everything.address}/predict"]
    assert json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)["image"] == "image"
    command = ["curl", "-s", "-H", "Transfer-Encoding: chunked", "-H", "Expect: 100-continue", *command[2:]]
    assert json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)["top"]


def test_help_does_not_wait_for_the_server_s_libraries() -> None:
    command = "import sys; from resnest.cli.app import app; print({'fastapi', 'uvicorn', 'torch'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", command], capture_output=True, text=True).stdout.strip() == "set()"


def test_a_keep_alive_connection_serves_many(everything: Server, photo: Path) -> None:
    with httpx.Client(base_url=everything.address) as client:
        texts = {client.post("/predict", content=photo.read_bytes()).text for _ in range(20)}
    assert len(texts) == 1


def test_no_packet_waits_for_an_acknowledgement() -> None:
    """With Nagle's algorithm, every answer on a connection that is kept alive took 40 ms longer."""
    with bind("127.0.0.1", 0) as listening:
        listening.listen()
        with socket.create_connection(listening.getsockname()), listening.accept()[0] as accepted:
            assert accepted.proto == socket.IPPROTO_TCP  # asyncio looks at it
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
