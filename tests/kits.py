"""What tests of hand-over kits share: kits of every kind, pictures of every kind, node with its packages."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from resnest.exporters.parcels import FILES, template

PACKAGES = ("onnxruntime-node", "sharp")
ORIENTATION = 0x112


def node_packages() -> Path:
    """A folder with node_modules, kept between runs; skips without node, or where its registry is not reached."""
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("node and npm are not installed")
    folder = Path(os.environ.get("RESNEST_NODE", Path(tempfile.gettempdir(), "resnest-node")))
    folder.mkdir(exist_ok=True)
    if not all((folder / "node_modules" / name).is_dir() for name in PACKAGES):
        # Without scripts: onnxruntime-node would fetch CUDA's libraries, and has those for the CPU in the package
        words = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", *PACKAGES]
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=300)
        if done.returncode:
            pytest.skip(f"npm cannot install {' '.join(PACKAGES)}: {done.stderr.strip()[-200:]}")
    return folder / "node_modules"


def run_node(program: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    modules = program.parent / "node_modules"
    if not modules.exists():
        modules.symlink_to(node_packages())
    return _run(["node", program, *arguments])


def run_python(program: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Isolated: what is not beside the program comes from site-packages, where this package is not used."""
    return _run([sys.executable, "-W", "error", program, *arguments])


def _run(words: list[Any]) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"OMP_NUM_THREADS": "1"}
    return subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=120, env=environment)


def preprocess_program() -> dict[str, Any]:
    """What a kit's preprocess.py defines."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "preprocess.py")
        path.write_text(template(FILES, "preprocess.py.txt"), encoding="utf-8")
        return runpy.run_path(str(path))


def write_pictures(folder: Path) -> list[Path]:
    """Of every kind that is decoded: modes, orientations, sizes."""
    rng = np.random.default_rng(1)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 13, 3), np.uint8))
    picture = coarse.resize((317, 189), Image.Resampling.BICUBIC)
    turned = Image.Exif()
    turned[ORIENTATION] = 6
    grey = np.asarray(picture.convert("L"))
    folder.mkdir()
    picture.save(folder / "turned.jpg", quality=90, exif=turned)
    picture.save(folder / "progressive.jpg", quality=60, progressive=True)
    picture.convert("L").save(folder / "grey.jpg")
    picture.save(folder / "lossless.webp", lossless=True)
    picture.convert("RGBA").save(folder / "alpha.png")
    picture.convert("P").save(folder / "palette.png")
    picture.convert("L").save(folder / "grey.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(folder / "grey16.png")
    picture.resize((31, 67)).save(folder / "small.png")
    picture.resize((7, 201)).save(folder / "strip.png")
    return sorted(folder.iterdir())
