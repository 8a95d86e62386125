"""The page of `resnest serve` in a real browser: headless Chromium, driven by playwright.

Skipped where playwright or a browser is not installed: Debian's is `apt-get install chromium`. Nothing is downloaded.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from conftest import encoded
from resnest.inference.predicting import Predictor
from resnest.runtime.results import Show
from resnest.tasks import TASKS
from servers import CLASSES, Server, models, picture, server

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
BROWSER = os.environ.get("RESNEST_BROWSER") or shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(not BROWSER, reason="no chromium or chrome is installed")
WAIT = 60_000  # milliseconds
OPTIONS = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def running(references: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    named = [f"{task}={path}" for task, path in references.items()]
    with server(tmp_path_factory.mktemp("server"), *named) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=BROWSER, args=OPTIONS)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: Any, running: Server) -> Iterator[Callable[..., Any]]:
    """Opens the page; at the end, it has neither complained nor asked anybody but the server for anything."""
    opened: list[Any] = []
    complaints: list[str] = []
    asked: set[str] = set()

    def open_page(address: str = running.address, **options: Any) -> Any:
        context = browser.new_context(**options)
        page = context.new_page()
        page.set_default_timeout(WAIT)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: asked.add(request.url))
        page.goto(f"{address}/")
        opened.append((context, address))
        return page

    yield open_page
    for context, _ in opened:
        context.close()
    refused = [text for text in complaints if "status of 4" not in text]  # what a test asked for
    assert not refused
    servers = tuple([address for _, address in opened] + ["blob:", "data:"])
    assert all(url.startswith(servers) for url in asked), asked


def _until(page: Any, condition: str) -> None:
    """playwright's own wait would evaluate text within the page, which its policy forbids."""
    for _ in range(WAIT // 50):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(condition)


def _choose(page: Any, model: str, *files: Path | dict[str, Any]) -> None:
    _until(page, "document.getElementById('model').options.length > 0")
    page.select_option("#model", model)
    page.set_input_files("#files", list(files))
    _wait(page)


def _wait(page: Any) -> None:
    """Until every picture has its answer."""
    done = "[...document.querySelectorAll('article .note')].every((note) => !note.textContent.includes('…'))"
    _until(page, f"document.querySelector('article') && {done}")


def _slide(page: Any, percent: int) -> None:
    page.locator("#threshold").fill(str(percent))


def _labels(page: Any) -> list[str]:
    return list(page.locator(".labels li span:nth-child(2)").all_inner_texts())


def _canvas(page: Any) -> list[list[int]]:
    """The colours of the overlay's pixels that are drawn on."""
    script = """() => { const c = document.querySelector('article canvas');
        const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
        const found = []; for (let i = 0; i < d.length; i += 4) if (d[i + 3]) found.push([i / 4 % c.width,
        Math.floor(i / 4 / c.width), d[i + 3]]); return found; }"""
    return list(page.evaluate(script))


def test_labels_with_bars(visit: Callable[..., Any], references: dict[str, Path], tmp_path: Path) -> None:
    page = visit()
    _choose(page, "classification", photo := picture(tmp_path))
    result = Predictor(references["classification"])(str(photo))
    assert _labels(page) == [name for name, _ in result.top(3)]
    shares = page.locator("meter").evaluate_all("bars => bars.map((bar) => bar.value)")
    assert shares == pytest.approx([score for _, score in result.top(3)])
    _slide(page, round(100 * result.top(1)[0][1]) - 1)
    assert _labels(page)[0] == result.label
    _slide(page, 100)
    assert _labels(page) == []


def test_a_late_answer_of_the_model_before_changes_nothing(
    visit: Callable[..., Any], references: dict[str, Path], tmp_path: Path
) -> None:
    page = visit()
    late: list[Any] = []
    page.route("**/predict?model=classification*", lambda route: late.append(route))  # kept back on its way
    _until(page, "document.getElementById('model').options.length > 0")
    page.select_option("#model", "classification")
    page.set_input_files("#files", [photo := picture(tmp_path)])
    _until(page, "document.querySelector('article')")
    page.wait_for_timeout(100)
    page.select_option("#model", "detection")
    _slide(page, 1)
    _until(page, "document.querySelector('article .note').textContent.includes('object')")
    expected = [
        one["label"] for one in Predictor(references["detection"])(str(photo)).to_dict(Show(threshold=0.01))["objects"]
    ]
    assert _labels(page) == expected[:200]
    with page.expect_response("**/predict?model=classification*"):
        [route] = late
        route.continue_()
    page.wait_for_timeout(300)
    assert _labels(page) == expected[:200]


@pytest.mark.parametrize("task", ["detection", "panoptic", "segmentation"])
def test_what_is_over_the_picture(
    task: str, visit: Callable[..., Any], references: dict[str, Path], tmp_path: Path
) -> None:
    page = visit()
    _choose(page, task, photo := picture(tmp_path))
    result = Predictor(references[task])(str(photo))
    content = result.to_dict(Show(threshold=0.01))
    if "objects" in content:
        _slide(page, 1)
        assert sorted(_labels(page)) == sorted(one["label"] for one in content["objects"])
        drawn = _canvas(page)
        columns, rows = {x for x, _, _ in drawn}, {y for _, y, _ in drawn}
        left, top, wide, high = content["objects"][0]["bbox"]
        assert min(abs(x - left) for x in columns) <= 2
        assert min(abs(y - min(89, top + high)) for y in rows) <= 2
        assert wide > 0
        _slide(page, 100)
        assert _canvas(page) == []
    else:
        assert _labels(page) == [one["label"] for one in content["segments"]]
        assert page.locator("article img").get_attribute("src").startswith("data:image/jpeg;base64,")


def test_masks_are_where_they_are(visit: Callable[..., Any]) -> None:
    """Run lengths as pycocotools writes them, read by the page's own reader."""
    mask_tools = pytest.importorskip("pycocotools.mask")
    import numpy as np

    mask = np.zeros((37, 53), np.uint8)
    mask[5:30, 7:20] = 1
    mask[0:37, 40] = 1
    mask[36, 52] = 1
    counts = mask_tools.encode(np.asfortranarray(mask))["counts"].decode()
    page = visit()
    read = page.evaluate(
        """([counts]) => { const c = maskOf({size: [37, 53], counts}, '#ff0000');
        const d = c.getContext('2d').getImageData(0, 0, 53, 37).data;
        return [...Array(37 * 53).keys()].map((i) => d[4 * i + 3] > 0 ? 1 : 0); }""",
        [counts],
    )
    assert np.array_equal(np.array(read).reshape(37, 53), mask)


def test_a_bad_file_is_named_and_the_others_are_shown(visit: Callable[..., Any], tmp_path: Path) -> None:
    page = visit()
    (bad := tmp_path / "bad.jpg").write_bytes(b"<html>")
    _choose(page, "classification", picture(tmp_path), bad)
    notes = page.locator("article.wrong .note").all_inner_texts()
    assert notes == ["image: not a JPEG, PNG or WEBP image"]
    assert page.locator("article").count() == 2
    page.locator("article.wrong .remove").click()
    assert page.locator("article").count() == 1


def test_another_model_looks_at_the_pictures_again(visit: Callable[..., Any], tmp_path: Path) -> None:
    page = visit()
    _choose(page, "classification", picture(tmp_path))
    assert not page.locator("#slider").is_hidden()
    page.select_option("#model", "segmentation")
    _until(page, "document.querySelector('article img').src.startsWith('data:')")
    assert page.locator("#slider").is_hidden()
    page.select_option("#model", "classification")
    _until(page, "document.querySelector('article img').src.startsWith('blob:')")
    _wait(page)
    assert len(_labels(page)) == len(CLASSES)


def test_json_is_copied(visit: Callable[..., Any], running: Server, tmp_path: Path) -> None:
    page = visit(permissions=["clipboard-read", "clipboard-write"])
    _choose(page, "classification", photo := picture(tmp_path))
    page.get_by_role("button", name="Copy JSON").click()
    _until(page, "document.getElementById('status').textContent === 'Copied.'")
    copied = json.loads(page.evaluate("navigator.clipboard.readText()"))
    assert copied == {**running.post("/predict?top=3", content=photo.read_bytes()).json(), "image": "photo.jpg"}


def test_pictures_are_dropped_and_pasted(visit: Callable[..., Any]) -> None:
    page = visit()
    _until(page, "document.getElementById('model').options.length > 0")
    content = [*encoded(Image.new("RGB", (50, 40), "teal"), "PNG")]
    give = """([kind, bytes]) => { const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], kind + '.png', {type: 'image/png'}));
        const event = kind === 'drop' ? new DragEvent(kind, {dataTransfer: data, bubbles: true, cancelable: true})
                                      : new ClipboardEvent(kind, {clipboardData: data, bubbles: true});
        document.getElementById('drop').dispatchEvent(event); }"""
    for kind in ("drop", "paste"):
        page.evaluate(give, [kind, content])
    _until(page, "document.querySelectorAll('article').length === 2")
    _wait(page)
    assert {*page.locator("h2").all_inner_texts()} == {"drop.png", "paste.png"}
    assert page.locator("article.wrong").count() == 0


def test_the_camera(visit: Callable[..., Any]) -> None:
    """Chromium's own stand-in for a camera."""
    page = visit(permissions=["camera"])
    _until(page, "document.getElementById('model').options.length > 0")
    page.get_by_role("button", name="Use the camera").click()
    _until(page, "document.getElementById('video').videoWidth > 0")
    page.get_by_role("button", name="Take a picture").click()
    _until(page, "document.querySelectorAll('article').length === 1")
    _wait(page)
    assert _labels(page)
    page.get_by_role("button", name="Close the camera").click()
    assert page.locator("#viewfinder").is_hidden()


def test_by_keyboard_and_for_screen_readers(visit: Callable[..., Any], tmp_path: Path) -> None:
    page = visit()
    _choose(page, "classification", picture(tmp_path))
    reached = []
    page.locator("body").press("Home")
    while "remove" not in reached and len(reached) < 20:
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.className"))
    assert [name for name in reached if name in ("model", "files", "camera", "threshold", "copy", "remove")] == [
        "model", "files", "camera", "threshold", "copy", "remove",
    ]  # fmt: skip
    page.locator("#threshold").press("ArrowRight")
    assert page.locator("#percent").inner_text() == "1 %"
    unnamed = """() => [...document.querySelectorAll('button, input, select, img')].filter((one) =>
        !(one.labels?.length || one.textContent.trim() || one.alt || one.ariaLabel)).map((one) => one.outerHTML)"""
    assert page.evaluate(unnamed) == []
    assert page.locator("[role=status][aria-live=polite]").count() == 1
    assert page.evaluate("document.documentElement.lang") == "en"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1200])
def test_it_fits_and_its_text_stands_out(scheme: str, width: int, visit: Callable[..., Any], tmp_path: Path) -> None:
    page = visit(color_scheme=scheme, viewport={"width": width, "height": 700})
    _choose(page, "detection", picture(tmp_path, size=(300, 90)))
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    contrasts = page.evaluate(
        """() => { const light = (text) => { const [r, g, b] = text.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255)
              .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
              return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
            const paper = light(getComputedStyle(document.body).backgroundColor);
            return [...document.querySelectorAll('h1, h2, #about, .note, a, label')].map((one) => {
              const ink = light(getComputedStyle(one).color);
              return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05); }); }"""
    )
    assert min(contrasts) >= 4.5  # WCAG 2.2, 1.4.3


def test_a_token_is_asked_for(visit: Callable[..., Any], references: dict[str, Path], tmp_path: Path) -> None:
    with server(tmp_path, references["classification"], RESNEST_TOKEN="s3cret") as guarded:
        page = visit(guarded.address)
        _until(page, "!document.getElementById('token-form').hidden")
        page.fill("#token", "s3cret")
        page.keyboard.press("Enter")
        _until(page, "document.getElementById('token-form').hidden")
        page.set_input_files("#files", picture(tmp_path))
        _wait(page)
        assert len(_labels(page)) == len(CLASSES)


def test_nothing_of_the_page_may_come_from_elsewhere(running: Server) -> None:
    policy = running.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert sum(len(running.get(path).content) for path in ("/", "/page.js", "/page.css")) < 50_000
    assert {*TASKS} == {model["task"] for model in running.get("/models").json()}
