"""Every command and every Python block of the README and of docs/ is run, in order, page by page.

At full figures as they stand. Else the same words, but small recipes train networks of a quarter of their width on
smaller images, loaded without workers, and torchrun's processes are forked from this warm one.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import processes
import resnest
from cells import write_cells, write_lvis
from conftest import FULL, Outcome, write_photos
from eyes import write as write_eyes
from forms import write_parquet
from painted_segments import paint_segments
from posed import write_coco
from resnest.checkpoints.manifest import find_weights
from resnest.files import sha256_of
from resnest.recipes import all_recipes
from resnest.recipes.schema import Recipe
from servers import server
from streets import write_streets

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
MADE_ELSEWHERE = ("make ", "git ", "cd ", "pip ")  # `make demo` and `make test` are what runs this test
PHOTOS = 5 if FULL else 3  # of a class: enough to split, and quick to train on
BY_SHELL = ("mkdir ", "(cd ", "for ", "torchrun ", "curl ")
ADDRESS = "localhost:8000"  # where pages have their server; here it has a port of its own
NARROW = {"planes": [8, 16, 32, 64], "stem_width": 4}
SIDE = 64  # pixels, of classifiers' images


def _blocks(page: Path) -> list[tuple[str, str]]:
    return BLOCK.findall(page.read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def prepared(digit_images: list[tuple[str, Image.Image]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that pages assume: photos/ with classes, one of them roses, objects, checkpoints, a table."""
    folder = tmp_path_factory.mktemp("prepared")
    photos = write_photos(folder / "photos", digit_images, most=PHOTOS)
    (photos / "digit-0").rename(photos / "rose")
    sorted((photos / "rose").iterdir())[0].rename(photos / "rose" / "1.jpg")
    files = sorted(photos.rglob("*.jpg"))
    rows = [f"{path.relative_to(folder)},{path.parent.name}|plant" for path in files]
    (folder / "plants.csv").write_text("\n".join(["path,labels", *rows]) + "\n", encoding="utf-8")
    classes = sorted(sub.name for sub in photos.iterdir())
    write_parquet(
        folder / "flowers" / "train-00000-of-00001.parquet",
        [(path.stem, path.parent.name, path.read_bytes()) for path in files],
        classes,
    )
    write_cells(folder / "cells")
    write_lvis(folder / "lvis")
    write_streets(folder / "streets")
    write_eyes(folder / "eyes")
    write_coco(folder / "tiles")
    paint_segments(folder / "scenes", 2)
    _write_weights(folder)
    return folder


def _write_weights(folder: Path) -> None:
    """Checkpoints, and a cache with the published files that pages name: random weights, nothing is fetched."""
    states = {name: resnest.create_model(name).state_dict() for name in ("resnest14", "resnest50")}
    save_file(states["resnest14"], folder / "resnest14.safetensors")
    torch.save(states["resnest50"], folder / "somewhere.pth")
    weights = folder / "home" / "weights"
    weights.mkdir(parents=True)
    sums = []
    for name in ("resnest50.official", "resnest14d.gluon_in1k"):
        row = find_weights(name)
        path = weights / row.file
        state = {key: value.flip(0) if value.ndim == 4 else value for key, value in states[row.network].items()}
        save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
        sums.append(f"{sha256_of(path)}  {path.name}\n")
    (weights / "SHA256SUMS").write_text("".join(sums))


@pytest.fixture
def workplace(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy for one page; weights, which no command changes in place, are the same files."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True, copy_function=_link_large)
    monkeypatch.setenv("RESNEST_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=not FULL)
def _scaled_down(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, recipe in all_recipes().items():
        monkeypatch.setitem(all_recipes(), name, lambda recipe=recipe: _small(recipe()))


def _small(recipe: Recipe) -> Recipe:
    recipe = replace(recipe, data=replace(recipe.data, workers=0))  # a forked copy of this large process is slow
    if "planes" in recipe.model.spec:
        recipe = replace(recipe, model=replace(recipe.model, spec={**recipe.model.spec, **NARROW}))
    if recipe.task == "classification" and recipe.data.size > SIDE:
        recipe = replace(recipe, data=replace(recipe.data, size=SIDE, eval_size=SIDE))
    return recipe


def _link_large(source: str, target: str) -> None:
    if os.path.getsize(source) > 2**20:
        os.link(source, target)
    else:
        shutil.copy2(source, target)


def _run(command: str, cli: Callable[..., Outcome]) -> None:
    if command.startswith(MADE_ELSEWHERE):
        return
    if command.startswith("torchrun ") and not FULL:
        _forked(shlex.split(command))
    elif command.startswith(BY_SHELL):
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        command = command.replace("curl -s", "curl -sf", 1)
        subprocess.run(command, shell=True, check=True, env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"})
    else:
        command, _, target = command.partition(" > ")
        words = shlex.split(command, comments=True)
        assert words[0] == "resnest", f"what is {command}?"
        outcome = cli(*words[1:])
        assert outcome.code == 0, f"{command}: {outcome.err}"
        if target:
            Path(target.strip()).write_text(outcome.out, encoding="utf-8")


def _forked(words: list[str]) -> None:
    """`torchrun --nproc-per-node COUNT -m resnest ...`, by torchrun's own agent."""
    option, count, *program = words[1:]
    assert (option, program[:2]) == ("--nproc-per-node", ["-m", "resnest"])
    job = processes.Elastic(program[1:], count=int(count), restarts=0, told=Path("torchrun.log"))
    assert job.wait(100) == 0, job.told.read_text()


def _with_marks(page: Path) -> Any:
    forks = any(command.startswith("torchrun ") for _, text in _blocks(page) for command in text.splitlines())
    return pytest.param(page, marks=[pytest.mark.forks] if forks else [])


@pytest.mark.parametrize("page", [*map(_with_marks, PAGES)], ids=lambda page: page.name)
def test_what_the_page_shows_works(page: Path, workplace: Path, cli: Callable[..., Outcome]) -> None:
    namespace: dict[str, object] = {}
    address = ADDRESS
    with ExitStack() as servers:
        for language, text in _blocks(page):
            if language == "python":
                exec(compile(text, str(page), "exec"), namespace)
                continue
            for command in filter(None, map(str.strip, text.replace("\\\n", " ").splitlines())):
                if command.startswith("resnest serve "):
                    servers.close()
                    words = shlex.split(command.removesuffix("&").replace("--port 8000", ""))[2:]
                    address = servers.enter_context(server(workplace, *words)).address.removeprefix("http://")
                else:
                    _run(command.replace(ADDRESS, address), cli)


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
