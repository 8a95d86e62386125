"""Every command and every Python block of the README and of docs/ is run, in order, page by page."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import resnest
from conftest import Outcome
from forms import write_parquet
from resnest.checkpoints.digest import sha256_of
from resnest.checkpoints.manifest import find_weights

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
MADE_ELSEWHERE = ("make ", "git ", "cd ", "pip ")  # `make demo` and `make test` are what runs this test
BY_SHELL = ("mkdir ", "(cd ", "for ", "torchrun ")


def _blocks(page: Path) -> list[tuple[str, str]]:
    return BLOCK.findall(page.read_text(encoding="utf-8"))


@pytest.fixture
def workplace(photos: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as the pages assume it: photos/ with classes, one of them roses, and a checkpoint, and a table."""
    (photos / "digit-0").rename(photos / "rose")
    first = sorted((photos / "rose").iterdir())[0]
    (photos / "rose" / "1.jpg").write_bytes(first.read_bytes())
    first.unlink()
    monkeypatch.chdir(photos.parent)
    rows = [f"{path.relative_to(photos.parent)},{path.parent.name}|plant" for path in sorted(photos.rglob("*.jpg"))]
    Path("plants.csv").write_text("\n".join(["path,labels", *rows]) + "\n", encoding="utf-8")
    save_file(resnest.create_model("resnest14").state_dict(), "resnest14.safetensors")
    torch.save(resnest.create_model("resnest50").state_dict(), "somewhere.pth")
    _publish(monkeypatch, photos.parent / "home")
    classes = sorted(folder.name for folder in photos.iterdir())
    rows = [(path.stem, path.parent.name, path.read_bytes()) for path in sorted(photos.rglob("*.jpg"))]
    write_parquet(photos.parent / "flowers" / "train-00000-of-00001.parquet", rows, classes)
    return photos.parent


def _publish(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """A cache that has the published files that pages name, with random weights: nothing is downloaded in tests."""
    monkeypatch.setenv("RESNEST_HOME", str(home))
    (home / "weights").mkdir(parents=True)
    sums = []
    for name in ("resnest50.official", "resnest14d.gluon_in1k"):
        row = find_weights(name)
        path = home / "weights" / row.file
        state = resnest.create_model(row.network).state_dict()
        save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
        sums.append(f"{sha256_of(path)}  {path.name}\n")
    (home / "weights" / "SHA256SUMS").write_text("".join(sums))


def _run(command: str, cli: Callable[..., Outcome]) -> None:
    if command.startswith(MADE_ELSEWHERE):
        return
    if command.startswith(BY_SHELL):
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        subprocess.run(command, shell=True, check=True, env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"})
        return
    command, _, target = command.partition(" > ")
    words = shlex.split(command, comments=True)
    assert words[0] == "resnest", f"what is {command}?"
    outcome = cli(*words[1:])
    assert outcome.code == 0, f"{command}: {outcome.err}"
    if target:
        Path(target.strip()).write_text(outcome.out, encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_the_page_shows_works(page: Path, workplace: Path, cli: Callable[..., Outcome]) -> None:
    namespace: dict[str, object] = {}
    for language, text in _blocks(page):
        if language == "python":
            exec(compile(text, str(page), "exec"), namespace)
        else:
            for command in filter(None, map(str.strip, text.replace("\\\n", " ").splitlines())):
                _run(command, cli)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_make_targets_named_in_pages_exist() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    pages = [*PAGES, ROOT / "CONTRIBUTING.md"]
    named = {name for page in pages for name in re.findall(r"`make (\w+)`", page.read_text(encoding="utf-8"))}
    assert named <= targets
