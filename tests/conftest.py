"""What tests share: a tiny set of real photographs-like files, the command line in this process, the shared data."""

from __future__ import annotations

import copy
import functools
import gc
import hashlib
import io
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

# One thread for each process of the tests: on two, small networks wait for their threads up to ten times longer than
# they compute, and the last bits of sums hang on the number. It is read when torch is imported, here and in children.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A shell's background job, nohup's, cron's and many a CI's ignore Ctrl-C, which children inherit; tests of it do not.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest
import torch
from filelock import FileLock
from PIL import Image

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported, which torch.compile does too

from resnest.data.sources import open_dataset
from resnest.exporters.capture import Interface

LARGE = 2**25  # bytes of a network whose exports are not kept
FULL = os.environ.get("RESNEST_PROMISES") == "full"  # `make promises`: as often as promised, not a tenth of it

# What trains in seconds: P1..P15's "pico" network.
PICO = [
    "model.name=resnest14",
    "model.spec={planes: [8, 16, 32, 64], stem: small, stem_width: 4}",
    "data.size=16",
    "data.eval_size=32",
    "data.workers=0",
    "train.epochs=2",
    "train.batch_size=8",
    "train.log_every=1",
    "optim.warmup_epochs=0.5",
]


def pico(*more: str) -> list[str]:
    """Settings of a run that takes seconds, as `--set` takes them."""
    return [*PICO, *more]


@pytest.fixture(autouse=True)
def no_network(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own for every test, and no downloads unless a test serves them itself."""
    monkeypatch.setenv("RESNEST_HOME", str(tmp_path_factory.getbasetemp() / "resnest-home"))
    monkeypatch.setenv("RESNEST_OFFLINE", "1")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


@pytest.fixture(autouse=True)
def _torchlib_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache: torch.onnx.export reads its table of operators anew each time, for more than a second."""
    module = sys.modules.get("torch.onnx._internal.exporter._registration")
    if module:
        read = module.ONNXRegistry.from_torchlib
        monkeypatch.setattr(module.ONNXRegistry, "from_torchlib", staticmethod(functools.partial(_torchlib, read)))


@functools.cache
def _torchlib(read: Callable[..., Any], *given: Any, **named: Any) -> Any:
    return read(*given, **named)


@pytest.fixture(scope="session", autouse=True)
def _graphs_once() -> Iterator[None]:
    """A cache: equal networks, to the last weight and attribute, are traced once, and a trace becomes ONNX once.

    All that comes after is done each time. Large networks are not kept.
    """
    from resnest.exporters import onnx, pt2

    trace, translate = onnx.capture, torch.onnx.export
    programs: dict[bytes, torch.export.ExportedProgram] = {}
    graphs: dict[int, torch.onnx.ONNXProgram] = {}

    def capture(net: torch.nn.Module, takes: Interface) -> torch.export.ExportedProgram:
        content = io.BytesIO()
        _ByValue(content).dump((net, takes))
        if content.tell() > LARGE:
            return trace(net, takes)
        key = hashlib.sha256(content.getbuffer()).digest()
        if key not in programs:
            programs[key] = trace(copy.deepcopy(net), takes)  # a test may change its own
        return programs[key]

    def export(program: Any, *arguments: Any, **options: Any) -> Any:
        if not any(program is one for one in programs.values()):
            return translate(program, *arguments, **options)
        if id(program) not in graphs:
            graphs[id(program)] = translate(program, *arguments, **options)
        graphs[id(program)].model.metadata_props.clear()  # those of the file before
        return graphs[id(program)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.onnx, "export", export)
        for module in (onnx, pt2):
            patch.setattr(module, "capture", capture)
        yield


class _ByValue(pickle.Pickler):
    """Equal tensors give equal bytes."""

    def reducer_override(self, value: object) -> Any:
        if not isinstance(value, torch.Tensor):
            return NotImplemented
        values = value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return torch.Tensor, (type(value), str(value.dtype), tuple(value.shape), value.stride(), values)


@dataclass
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """`resnest ...` in this process, through the program's own entry point."""
    from resnest.cli.app import main

    def run(*arguments: str | Path) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["resnest", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def digit_images() -> list[tuple[str, Image.Image]]:
    """The first hundred handwritten digits: (class, RGB image of 8 x 8)."""
    train = open_dataset("digits").train
    return [(train.class_names[train.labels[index]], train.decode(index)) for index in range(100)]


@pytest.fixture
def photos(tmp_path: Path, digit_images: list[tuple[str, Image.Image]]) -> Path:
    """A folder of class folders, four classes of ten or so JPEG files, enlarged to 40 x 32."""
    return write_photos(tmp_path / "photos", digit_images)


def write_photos(folder: Path, digit_images: list[tuple[str, Image.Image]], *, most: int | None = None) -> Path:
    """At most so many of each class."""
    seen: dict[str, int] = {}
    for index, (label, image) in enumerate(digit_images):
        seen[label] = seen.get(label, 0) + 1
        if label in "0123" and (most is None or seen[label] <= most):
            target = folder / f"digit-{label}" / f"{index:03d}.jpg"
            target.parent.mkdir(parents=True, exist_ok=True)
            image.resize((40, 32)).save(target, quality=92)
    return folder


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """A real HTTP server on loopback; yields its address."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    http.daemon_threads = True
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_address[1]}"
    http.shutdown()
    http.server_close()


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    """The image as a file."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def shared_data() -> Path:
    """Where the shared data sets lie: $RESNEST_DATA, or beside the checkout."""
    return Path(os.environ.get("RESNEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


@contextmanager
def small_file_system(place: Path, size: str) -> Iterator[Path]:
    """A real one, of `size` as `mount` takes it; skips the test where none can be mounted."""
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


# Files of more than fifteen seconds, longest first: then both processes of `make test` end at about the same time.
# tests/test_export.py comes late for one so long: it reads what test_p15_parity_gate.py makes.
LONG = (
    "test_docs.py",
    "test_detector.py",
    "test_p2_exact_resume.py",
    "test_scale.py",
    "test_p5_lost_worker.py",
    "test_install.py",
    "test_p15_parity_gate.py",
    "test_int8.py",
    "test_layouts.py",
    "test_export.py",
    "test_identify.py",
    "test_hub.py",
    "test_published_evaluation.py",
    "test_network_timm.py",
    "test_bench.py",
    "test_operator.py",
    "test_network_tools.py",
    "test_fuse.py",
    "test_prepared.py",
    "test_code.py",
    "test_segmenter_export.py",
    "test_training_options.py",
    "test_engines.py",
    "test_fetch.py",
    "test_p8_degenerate_inputs.py",
    "test_gpu_bench.py",
    "test_p9_no_code_on_load.py",
    "test_cost.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that fork this process come first: exporters start threads in it, with which a forked one cannot train.

    A process of `make test` takes the next whole file when it is done with one. A file that both forks and exports
    comes after all that fork; then the others, long ones first.
    """
    forks: dict[Path, int] = {}
    for item in items:
        early = 0 if _forks(getattr(item, "module", None)) else 1 if item.get_closest_marker("forks") else 2
        forks[item.path] = min(early, forks.get(item.path, 2))
    rank = {name: place for place, name in enumerate(LONG)}
    items.sort(
        key=lambda item: (
            forks[item.path],
            rank.get(item.path.name, len(LONG)),
            item.get_closest_marker("forks") is None,
        )
    )


def pytest_collection_finish() -> None:
    """What is imported by now stays: the garbage collector need not look through it again and again."""
    gc.collect()
    gc.freeze()


def _forks(module: object) -> bool:
    return any(hasattr(module, name) for name in ("in_processes", "Elastic", "get_context"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("data") and not shared_data().is_dir():
        pytest.skip(f"needs the shared data sets, which are not at {shared_data()}")


@pytest.fixture(scope="session")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with random weights, in the directory that `resnest` names take."""
    from exports import saved

    return once(tmp_path_factory, "saved", lambda folder: saved(folder / "pico")) / "pico"


@pytest.fixture(scope="session")
def real_exports(saved_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Its verified exports, a file per format that takes any size."""
    return _exports(saved_model, tmp_path_factory)


@pytest.fixture(scope="session")
def saved_segmenter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny DeepLabV3 with random weights, and painted streets beside it."""
    from exports import save_segmenter
    from streets import NAMES, write_streets

    def make(folder: Path) -> None:
        write_streets(folder / "streets", train=1, val=3)
        save_segmenter(folder / "pico", names=NAMES)

    return once(tmp_path_factory, "saved_segmenter", make) / "pico"


@pytest.fixture(scope="session")
def segmenter_exports(saved_segmenter: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Its verified exports, a file per format that takes any size."""
    return _exports(saved_segmenter, tmp_path_factory, images=saved_segmenter.with_name("streets") / "images")


def _exports(model: Path, tmp_path_factory: pytest.TempPathFactory, images: Path | None = None) -> dict[str, Path]:
    from resnest.exporters.exporting import export
    from resnest.exporters.formats import FORMATS

    names = ("onnx", "openvino", "torch")
    for package in {package for name in names for package in FORMATS[name].needs}:
        pytest.importorskip(package)

    def make(folder: Path) -> None:
        for name in names:
            (folder / name).mkdir()
            export(model, format=name, out=folder / name / f"real{FORMATS[name].suffix}", images=images)

    folder = once(tmp_path_factory, f"{model.parent.name}-exports", make)
    return {name: folder / name / f"real{FORMATS[name].suffix}" for name in names}


def once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that `make` fills, in the first of the processes of a run that needs it; the others wait for it."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # that of the whole run
    folder, done = root / name, root / f"{name}.done"
    with FileLock(root / f"{name}.lock"):
        if not done.exists():
            folder.mkdir()
            make(folder)
            done.touch()
    return folder
