"""resnest without torch, as it is installed and as an image: what it takes, what it does, and what it says."""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import containers
from conftest import FULL, Outcome
from resnest.cli import serve as program
from servers import models, picture, server

ROOT = Path(__file__).parents[1]
RUNTIME = ROOT / "packaging" / "runtime"
LIMIT = 200_000_000  # bytes of the whole runtime
FOR_TRAINING = {"torch", "torchvision", "lightning_fabric", "triton", "onnx", "jinja2", "safetensors"}
PINS = ("--constraint", ROOT / "requirements.txt", "--build-constraint", ROOT / "requirements.txt")


@pytest.fixture(scope="module")
def uv() -> Callable[..., subprocess.CompletedProcess[str]]:
    program = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if not program:
        pytest.skip("needs uv")

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([program, *arguments], capture_output=True, text=True, cwd=ROOT)

    return run


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory, uv: Callable[..., subprocess.CompletedProcess[str]]) -> Path:
    """The Python of an empty virtual environment; skips tests where no packages can be had."""
    folder = tmp_path_factory.mktemp("clean") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    probe = uv("pip", "install", "--dry-run", "--no-cache", "--python", folder / "bin" / "python", "idna")
    if probe.returncode:
        pytest.skip("the package index cannot be reached")
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def runtime(clean: Path, uv: Callable[..., subprocess.CompletedProcess[str]]) -> Path:
    """The Python of an environment with the runtime alone."""
    done = uv("pip", "install", "--python", clean, *PINS, RUNTIME)
    assert done.returncode == 0, done.stderr
    return clean


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model of each task, and a picture."""
    folder = tmp_path_factory.mktemp("exported")
    return {**models(folder), "picture": picture(folder)}


def _resnest(python: Path, *arguments: str | Path) -> Outcome:
    """The installed program, in a process that knows nothing of this checkout."""
    unset = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
    variables = {name: value for name, value in os.environ.items() if name not in unset}
    command = [python.with_name("resnest"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=variables, cwd=python.parent)
    return Outcome(done.returncode, done.stdout, done.stderr)


def _importable(python: Path) -> set[str]:
    code = "import pkgutil; print(*(module.name for module in pkgutil.iter_modules()))"
    return set(subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True).stdout.split())


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


# --- what it asks for ---


def _project(folder: Path) -> dict[str, object]:
    project: dict[str, object] = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project


def _wanted(project: dict[str, object]) -> set[str]:
    optional = project["optional-dependencies"]
    assert isinstance(optional, dict)
    return {*project["dependencies"], *(one for several in optional.values() for one in several)}  # type: ignore[misc]


def test_the_runtime_asks_for_nothing_that_resnest_does_not() -> None:
    """One list of versions, as if it were written once."""
    ours, full = _project(RUNTIME), _project(ROOT)
    assert _wanted(ours) <= _wanted(full)
    for name in ("name", "license", "requires-python", "scripts"):
        assert ours[name] == full[name]


# --- what it is ---


def test_the_runtime_predicts_as_resnest_does(
    runtime: Path, exported: dict[str, Path], cli: Callable[..., Outcome], tmp_path: Path
) -> None:
    for task in ("classification", "segmentation"):
        arguments = ("predict", exported[task], exported["picture"], "--json", "--draw", tmp_path / task)
        there = _resnest(runtime, *arguments)
        assert there.code == 0, there.err
        assert json.loads(there.out) == json.loads(cli(*arguments).out)


def test_the_runtime_serves(runtime: Path, exported: dict[str, Path], tmp_path: Path) -> None:
    names = [exported["classification"], exported["segmentation"]]
    with server(tmp_path, *names, python=runtime, PYTHONPATH="", PYTHONDONTWRITEBYTECODE="") as running:
        answer = running.post("/predict", content=exported["picture"].read_bytes())
        assert answer.status_code == 200
        assert answer.json()["top"]
        assert running.get("/").status_code == 200
        assert running.stop() == 0


def test_the_runtime_is_small_and_without_torch(runtime: Path) -> None:
    """After the tests above: with the bytecode of what is used."""
    assert not _importable(runtime) & FOR_TRAINING
    assert _bytes(runtime.parents[1]) < LIMIT


def test_help_and_doctor(runtime: Path) -> None:
    assert "predict" in _resnest(runtime, "--help").out
    assert "the runtime without torch" in _resnest(runtime, "doctor").out


@pytest.mark.parametrize(
    "command",
    [
        ("train", "imagenette", "--data", "photos"),
        ("demo",),
        ("evaluate", "model.onnx", "--data", "photos"),
        ("export", "runs/a"),
        ("doctor", "--data", "photos"),
        ("recipes", "show", "imagenette"),
        ("predict", "resnest50", "photo.jpg"),
        ("predict", "MODEL", "photo.jpg"),
        ("serve", "MODEL"),
    ],
    ids=" ".join,
)
def test_what_the_runtime_cannot_do_takes_one_line(
    command: tuple[str, ...], runtime: Path, exported: dict[str, Path]
) -> None:
    outcome = _resnest(runtime, *(exported["detection"] if word == "MODEL" else word for word in command))
    assert outcome.code == 2
    assert outcome.out == ""
    assert re.fullmatch(
        r"resnest: \w+ is not installed: this is the runtime, which predicts with exported files and serves them\. "
        r"For the rest: pip install \.\n",
        outcome.err,
    )


def test_resnest_takes_the_place_of_the_runtime(runtime: Path, uv: Callable[..., object]) -> None:
    """And the other way round: no file belongs to two distributions, so none is lost when one is removed."""
    packages = next(runtime.parents[1].glob("lib/*/site-packages"))
    for source, label in ((ROOT, ""), (RUNTIME, "+runtime")):
        uv("pip", "install", "--python", runtime, "--no-deps", *PINS, source)
        found = [path.name for path in packages.glob("resnest*.dist-info")]
        assert len(found) == 1
        assert ("+runtime" in found[0]) == bool(label)
        assert _resnest(runtime, "--version").code == 0


# --- images ---


@pytest.fixture(scope="module")
def stages() -> list[containers.Stage]:
    return containers.read(ROOT / "Dockerfile")


@pytest.fixture(scope="module")
def builder(
    stages: list[containers.Stage], clean: Path, tmp_path_factory: pytest.TempPathFactory
) -> containers.Builder:
    containers.needs_namespaces()
    folder = tmp_path_factory.mktemp("images")
    return containers.Builder(stages, containers.context(ROOT, folder / "context"), folder)


def test_what_docker_sees_of_the_checkout(tmp_path: Path) -> None:
    """All that the Dockerfile copies, and no more."""
    stages = containers.read(ROOT / "Dockerfile")
    copies = [
        rest.split()[:-1] for stage in stages for name, rest in stage.steps if name == "COPY" and "--" not in rest
    ]
    copied = {source for sources in copies for source in sources}
    assert {path.name for path in containers.context(ROOT, tmp_path / "context").iterdir()} == copied


def test_compose_agrees_with_the_dockerfile() -> None:
    """Read-only, with limits, and with time to finish what was accepted."""
    stages = {stage.name: dict(stage.steps) for stage in containers.read(ROOT / "Dockerfile")}
    services = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]
    for service in services.values():
        assert stages[service["build"]["target"]]["ENTRYPOINT"] == json.dumps(
            service.get("entrypoint", ["resnest"])[:1]
        )
        assert service["read_only"]
        assert service["tmpfs"][0].startswith("/tmp")
        assert service["mem_limit"]
    serve = services["serve"]
    assert serve["command"] == json.loads(stages["runtime"]["CMD"])
    assert serve["volumes"][0].endswith(f":{stages['runtime']['WORKDIR']}:ro")
    timeout = inspect.signature(program.serve).parameters["timeout"].default
    assert int(serve["stop_grace_period"].removesuffix("s")) > timeout
    assert services["train"]["shm_size"]


@pytest.mark.parametrize("target", ["runtime", "training"])
def test_a_builder_builds_it(target: str) -> None:
    tool = next((name for name in ("docker", "podman") if _works(name, "info")), None)
    if not tool:
        pytest.skip("neither docker nor podman works here")
    if target == "training" and not FULL:
        pytest.skip("gigabytes: at full figures")
    build = subprocess.run([tool, "build", "--target", target, "--tag", f"resnest:{target}", ROOT], capture_output=True)
    assert build.returncode == 0, build.stderr.decode()
    assert _works(tool, "run", "--rm", "--read-only", "--tmpfs", "/tmp", f"resnest:{target}", "doctor")


def _works(*command: str) -> bool:
    return bool(shutil.which(command[0])) and subprocess.run(command, capture_output=True).returncode == 0


# In a container: the image's command, asked for its health as the image says, with one picture, and stopped as Docker
# stops it. Its entry point, command and health check are the arguments.
DRIVER = """
import json, os, signal, subprocess, sys, time, urllib.request
entrypoint, command, health = map(json.loads, sys.argv[1:])
started = subprocess.Popen(entrypoint + command)
def healthy(): return subprocess.run(health, stderr=subprocess.DEVNULL).returncode == 0
before, end = healthy(), time.monotonic() + 60
while not healthy() and started.poll() is None and time.monotonic() < end: time.sleep(0.05)
with open("photo.jpg", "rb") as file:
    answer = urllib.request.urlopen("http://127.0.0.1:8000/predict", file.read()).read()
started.send_signal(signal.SIGTERM)
print(json.dumps({
    "before": before, "answer": json.loads(answer), "code": started.wait(60), "after": healthy(), "user": os.getuid(),
    "writable": [place for place in ("/", "/opt/resnest", "/models", "/usr", "/etc") if os.access(place, os.W_OK)],
}))
"""


def test_the_image_of_the_runtime(
    builder: containers.Builder, exported: dict[str, Path], cli: Callable[..., Outcome]
) -> None:
    """Its steps give what serves and predicts on a read-only root file system, as a user without rights."""
    image = builder.image("runtime")
    shutil.copy(exported["classification"], image.root / "models" / "model.onnx")
    shutil.copy(exported["picture"], image.root / "models" / "photo.jpg")
    expected = json.loads(cli("predict", exported["classification"], exported["picture"], "--json").out)
    del expected["image"]
    done = image.run(["python", "-c", DRIVER, *map(json.dumps, (image.entrypoint, image.command, image.health))])
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["before"], found["after"], found["code"]) == (False, False, 0)
    assert found["answer"].items() >= expected.items()
    assert found["writable"] == []
    assert os.getuid() != 0 or found["user"] == 10001
    there = image.run([*image.entrypoint, "predict", "model.onnx", "photo.jpg", "--json"])
    assert json.loads(there.stdout).items() >= expected.items(), there.stderr
    assert _bytes(image.root / "opt") < LIMIT
    assert image.run(["python", "-c", "import torch"]).returncode == 1


def test_the_image_for_training(builder: containers.Builder) -> None:
    """At full figures it is built and trains; else its packages are chosen, and not fetched."""
    if FULL:
        image = builder.image("training")
        done = image.run([*image.entrypoint, "demo", "--out", "/tmp/demo"])
        assert done.returncode == 0, done.stderr
        return
    stage = builder.stages["build-training"]
    place = next(place for place, (_, rest) in enumerate(stage.steps) if "uv pip install" in rest)
    stage.steps[place:] = [("RUN", f"{stage.steps[place][1]} --dry-run")]
    builder.image("build-training")
