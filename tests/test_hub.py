"""The hub, played by a real server on loopback: timm's eight networks come from it, a model of ours goes to it."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from timm.models import save_for_hf

import resnest
from conftest import FULL, Outcome, pico, serving
from resnest.checkpoints.manifest import MANIFEST
from resnest.classification.card import ClassificationCard
from resnest.inference.model import Model
from resnest.inference.readme import model_card_text
from resnest.runtime.preprocess import Preprocess
from resnest.spec import Spec

Pairs = dict[str, tuple[torch.Tensor, torch.Tensor]]  # by timm's name: its logits, and ours

HUB_ROWS = [row for row in MANIFEST if row.mirrors[0].hub]
LARGE = () if FULL else ("resnest200e", "resnest269e")  # a gigabyte to write, hash and read: with `make promises`
FETCHED = [row for row in HUB_ROWS if not row.name.startswith(LARGE)]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """Repositories as folders below `root`; commits that were uploaded."""

    url: str
    root: Path
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)
    token: str | None = None


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    root = tmp_path_factory.mktemp("hub")
    state: Hub

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._file(with_body=False)

        def do_GET(self) -> None:
            self._file(with_body=True)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            state.token = self.headers.get("Authorization")
            if self.path == "/api/repos/create":
                repo = json.loads(body)
                name = f"{repo['organization']}/{repo['name']}" if repo.get("organization") else repo["name"]
                self._json({"url": f"{state.url}/{name}"})
            elif self.path.endswith("/preupload/main"):
                files = json.loads(body)["files"]
                self._json(
                    {
                        "files": [
                            {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in files
                        ]
                    }
                )
            elif self.path == "/api/validate-yaml":
                self._json({"errors": [], "warnings": []})
            elif "/commit/main" in self.path:
                lines = [json.loads(line) for line in body.splitlines()]
                files = {
                    line["value"]["path"]: base64.b64decode(line["value"]["content"])
                    for line in lines
                    if line["key"] == "file"
                }
                repo_id = self.path.removeprefix("/api/models/").split("/commit/")[0]
                state.commits.append((repo_id, files))
                for name, content in files.items():
                    target = root / repo_id / name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(content)
                self._json({"commitUrl": f"{state.url}/{repo_id}/commit/{COMMIT}", "commitOid": COMMIT})
            else:
                self.send_error(404)

        def _file(self, *, with_body: bool) -> None:
            repo, _, rest = self.path.lstrip("/").partition("/resolve/")
            path = root / repo / rest.partition("/")[2]
            if not path.is_file():
                self.send_response(404)
                known = (root / repo).is_dir()
                self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
                self.end_headers()
                return
            content = path.read_bytes()
            self.send_response(200)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if with_body:
                self.wfile.write(content)

        def _json(self, content: object) -> None:
            body = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    with serving(Handler) as url:
        state = Hub(url, root)
        yield state
    shutil.rmtree(root)


def _environment(hub: Hub, home: Path) -> dict[str, str]:
    """Another process whose hub is ours, and whose caches are its own."""
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    kept.pop("RESNEST_OFFLINE", None)
    mine = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home / "hf"), "RESNEST_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    return {**kept, **mine, "HF_TOKEN": "hf_test", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


def _randomise(net: torch.nn.Module) -> None:
    for name, tensor in net.state_dict().items():
        if name.endswith("running_mean"):
            tensor.normal_(0, 0.1)
        elif name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif name.endswith("bn3.weight"):
            tensor.uniform_(0.1, 0.3)  # timm starts it at zero, where half of the network would not count


def _image() -> torch.Tensor:
    return torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))


FETCH_ALL = """
import sys, torch, resnest
images = torch.load(sys.argv[1], weights_only=True)
logits = {}
for name in sys.argv[3:]:
    net = resnest.create_model(name, pretrained=True).eval()
    with torch.inference_mode():
        logits[name] = net(images)
torch.save(logits, sys.argv[2])
"""


@pytest.fixture(scope="module")
def logits(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pairs]:
    """By timm's name: timm's logits, and those of what a fresh process fetched by that name."""
    folder = tmp_path_factory.mktemp("fetched")
    expected = {}
    for row in FETCHED:
        name = row.name.split(".")[0]
        torch.manual_seed(len(name))
        net = timm.create_model(name).eval()
        _randomise(net)
        save_for_hf(net, hub.root / row.mirrors[0].hub, safe_serialization=True)
        with torch.inference_mode():
            expected[name] = net(_image())
    torch.save(_image(), folder / "images.pt")
    script = [sys.executable, "-c", FETCH_ALL, str(folder / "images.pt"), str(folder / "logits.pt"), *expected]
    done = subprocess.run(script, env=_environment(hub, folder / "home"), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    fetched = torch.load(folder / "logits.pt", weights_only=True)
    yield {name: (expected[name], fetched[name]) for name in expected}
    shutil.rmtree(folder)


@pytest.mark.parametrize("name", [row.name.split(".")[0] for row in FETCHED])
def test_a_network_of_timm_comes_from_the_hub(name: str, logits: Pairs) -> None:
    theirs, ours = logits[name]
    assert theirs.abs().max() > 0.1
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


def test_there_are_eight() -> None:
    assert len(HUB_ROWS) == 8


CARDS = {
    "a published name": ClassificationCard.of_imagenet("resnest14", Preprocess(size=64)),
    "a name that timm lacks": ClassificationCard.of_imagenet("resnest50_fast_1s2x40d", Preprocess(size=64)),
    "a baseline": ClassificationCard(
        architecture="resnet50d", spec=Spec(radix=0, avd=False), class_names=("a", "b"), preprocess=Preprocess(size=64)
    ),
    "a free structure": ClassificationCard(
        architecture="resnest",
        spec=Spec(depths=(1, 1, 1, 2), radix=4, cardinality=2, width=40, stem_width=16, avd_first=True),
        class_names=("a", "b", "c"),
        preprocess=Preprocess(size=64, interpolation="bicubic"),
        figures={"top1": 0.91, "loss": 0.3},
    ),
}


@pytest.mark.parametrize("case", CARDS)
def test_what_is_saved_here_loads_in_timm_and_here(case: str, tmp_path: Path) -> None:
    card = CARDS[case]
    torch.manual_seed(0)
    net = resnest.create_model(card.spec, num_classes=len(card.class_names), zero_gamma=False).eval()
    _randomise(net)
    folder = Model(net, card, "here").save_pretrained(tmp_path / "saved")
    with torch.inference_mode():
        expected = net(_image())
        theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        assert torch.allclose(theirs(_image()), expected, atol=float(1e-5 * expected.abs().max()))
        again = Model.from_pretrained(folder)
        assert torch.equal(again.net(_image()), expected)
    assert again.card == card
    text = (folder / "README.md").read_text()
    assert text.startswith("---\nlibrary_name: timm\n")
    assert ("91.00%" in text) == bool(card.figures)


NAMES = [
    *("flowers", "a: b", "#1", "yes", "- x", "1e3", "null", "2024-01-01", "[x", "{y", "%TAG", "*a", "&a", "!t", "a #b"),
    *("it's", 'a "b"', "'", '"', "\\", "h\u00e9ron", "\u82b1 \U0001f33c", " a ", "-", "---", "~", "0x1f", "?", "a\tb"),
    "a long name " * 12,
]


@pytest.mark.parametrize("name", NAMES)
def test_a_readme_names_the_model_whatever_its_folder_is_called(name: str) -> None:
    text = model_card_text(CARDS["a free structure"], name, account={"format": name})
    assert text.startswith("---\n")
    header = yaml.safe_load(text.split("\n---\n")[0].removeprefix("---\n"))
    [entry] = header["model-index"]
    assert entry["name"] == name
    [result] = entry["results"]
    assert result["dataset"] == {"name": f"validation images ({name})", "type": "images"}
    assert result["task"] == {"type": "image-classification"}
    assert result["metrics"] == [{"type": "accuracy", "value": 0.91}]
    assert (header["library_name"], header["pipeline_tag"]) == ("timm", "image-classification")
    assert header["tags"] == ["image-classification", "resnest"]


def test_a_readme_without_figures_and_that_of_a_repository() -> None:
    card = CARDS["a free structure"]
    assert "model-index" not in model_card_text(replace(card, figures={}), "a: b")
    assert "- name: yes it is\n" in model_card_text(card, "me/yes it is")


SEVERAL = """
import contextlib, io, json, sys
from resnest.cli.app import main
told = []
for words in json.loads(sys.argv[1]):
    sys.argv = ["resnest", *words]
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
    told.append((code, out.getvalue(), err.getvalue()))
print(json.dumps(told))
"""


def test_push_and_pull(hub: Hub, cli: Callable[..., Outcome], photos: Path, tmp_path: Path) -> None:
    """A trained run goes to the hub by one command and comes back by its id, in processes that know only the hub."""
    run = tmp_path / "run"
    settings = [word for setting in pico() for word in ("--set", setting)]
    outcome = cli("train", "imagenette", "--data", photos, "--out", run, *settings)
    assert outcome.code == 0, outcome.err
    environment = _environment(hub, tmp_path / "home")

    def there(*words: str | Path) -> str:
        command = [sys.executable, *map(str, words)]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert there("-m", "resnest", "models", "push", run, "me/digits") == f"{hub.url}/me/digits"
    assert hub.token == "Bearer hf_test"
    repo, files = hub.commits[-1]
    assert repo == "me/digits"
    assert {"config.json", "model.safetensors", "README.md"} <= set(files)
    card = files["README.md"].decode()
    figures = json.loads(files["config.json"])["resnest"]["figures"]
    assert f"{figures['top1']:.2%}" in card
    assert "digit-3" in card
    assert 'resnest.Predictor("me/digits")' in card
    image = next(photos.rglob("*.jpg"))
    here = cli("predict", run, image, "--top", "4", "--json")
    references = ("me/digits", "hf-hub:me/digits", f"me/digits@{COMMIT}", "me/nothing")
    commands = [["predict", reference, str(image), "--top", "4", "--json"] for reference in references]
    *pulled, missing = json.loads(there("-c", SEVERAL, json.dumps(commands)))
    for code, out, err in pulled:
        assert code == 0, err
        assert json.loads(out) == json.loads(here.out)
    code, _, err = missing
    assert code == 2
    assert err.startswith("resnest: there is no model at me/nothing, and as a repository of the hub")
    assert err.count("\n") == 1


def test_a_repository_of_timm_works_as_a_model(hub: Hub, logits: Pairs, photos: Path, tmp_path: Path) -> None:
    """timm's own config.json, without ours in it: its preprocessing, and the classes of ImageNet."""
    saved = hub.root / "timm" / "fast"  # what timm writes of a network of its own making
    made = timm.create_model(
        "resnest50d", block_args={"radix": 1, "avd": True, "avd_first": True}, num_classes=1000
    ).eval()
    _randomise(made)
    save_for_hf(made, saved, safe_serialization=True)
    opened = Model.from_pretrained(saved)
    assert opened.card.spec == Spec(radix=1, avd_first=True)
    with torch.inference_mode():
        assert torch.allclose(opened.net(_image()), made(_image()), atol=1e-4)
    image = next(photos.rglob("*.jpg"))
    words = [sys.executable, "-m", "resnest", "predict", "timm/resnest14d.gluon_in1k", str(image), "--json"]
    done = subprocess.run(words, env=_environment(hub, tmp_path), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["top"][0]["label"]
