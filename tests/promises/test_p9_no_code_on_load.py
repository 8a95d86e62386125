"""P9, no code on load: seventeen hostile files, each refused within a second and 200 MB, and none of them acts."""

from __future__ import annotations

import argparse
import collections
import gc
import io
import json
import multiprocessing
import pickle
import re
import resource
import struct
import tarfile
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save

from resnest.checkpoints.loading import read_weights
from resnest.checkpoints.reading import read_checkpoint, write_params
from resnest.data.sources import open_dataset
from resnest.errors import ResnestError

SOURCE = Path(__file__).parents[2] / "src"
SECONDS, MEGABYTES = 1.0, 200


class Act:
    """Does `function(*arguments)` when it is unpickled."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.reduced = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.reduced


def _saved(content: object, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def _header(entries: str, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(entries)) + entries.encode() + data


def _repack(content: bytes, compress: int = zipfile.ZIP_STORED, **extra: bytes) -> bytes:
    """A torch file with members replaced or added."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(buffer, "w", compress) as target:
        for info in source.infolist():
            target.writestr(info.filename, extra.pop(info.filename, source.read(info.filename)))
        for name, value in extra.items():
            target.writestr(name, value)
    return buffer.getvalue()


def _opcodes(*parts: bytes) -> bytes:
    return b"\x80\x02" + b"".join(parts) + b"."


def _plain() -> bytes:
    return _saved({"conv1.0.weight": torch.ones(4, 4)})


def _overlapping() -> bytes:
    entries = {name: {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]} for name in "ab"}
    return _header(json.dumps(entries), bytes(16))


def _duplicate() -> bytes:
    entry = '{"dtype":"F32","shape":[4],"data_offsets":[0,16]}'
    return _header(f'{{"a":{entry},"a":{entry}}}', bytes(16))


def _negative() -> bytes:
    return _header('{"a":{"dtype":"F32","shape":[4],"data_offsets":[-16,0]}}', bytes(16))


def _billion() -> bytes:
    return _saved({"conv1.0.weight": torch.ones(1).expand(1_000_000_000)})


def _huge_bytearray() -> bytes:
    return b"\x80\x05" + b"\x96" + struct.pack("<Q", 8 * 2**30) + b"."


def _huge_memo() -> bytes:
    return _opcodes(b"}", b"r" + struct.pack("<I", 2**31 - 1))  # LONG_BINPUT: the memo in C would grow to fit


def _dir_of(raw: bytes) -> str:
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        return archive.namelist()[0].split("/")[0]


def _bomb() -> bytes:
    raw = _plain()
    return _repack(raw, zipfile.ZIP_DEFLATED, **{f"{_dir_of(raw)}/data/9": bytes(2**30)})


def _nested() -> bytes:
    raw = _plain()
    return _repack(raw, **{f"{_dir_of(raw)}/data/0": _bomb()})


# file name, its bytes, made when they are needed; `canary` is what code would touch
HOSTILE: dict[str, tuple[str, Callable[[Path], bytes]]] = {
    "a call of os.system": (
        "a.pth",
        lambda canary: _saved({"state_dict": Act(__import__("os").system, f"touch {canary}")}),
    ),
    "a call of eval in a bare pickle": ("b.pkl", lambda canary: pickle.dumps(Act(eval, f"open({str(canary)!r}, 'w')"))),
    "a method in protocol 2": ("c2.pkl", lambda canary: pickle.dumps({"model": Act(Path.touch, canary)}, protocol=2)),
    "a method of a list, by getattr": (
        "c3.pkl",
        lambda canary: _opcodes(b"c__builtin__\ngetattr\n(c__builtin__\nlist\nX\x05\x00\x00\x00clear", b"tR."),
    ),
    "a method in protocol 4": ("c.pkl", lambda canary: pickle.dumps({"model": Act(Path.touch, canary)}, protocol=4)),
    "a call in torch's old format": (
        "d.pth",
        lambda canary: _saved({"a": Act(exec, f"open({str(canary)!r}, 'w')")}, _use_new_zipfile_serialization=False),
    ),
    "a zip inside the zip": (
        "e.pth",
        lambda canary: _repack(_plain(), **{f"{_dir_of(_plain())}/data/0": _bomb()[:9999]}),
    ),
    "a torch zip cut in half": ("f.pth", lambda canary: _plain()[: len(_plain()) // 2]),
    "a compressed member of 1 GB": ("g.pth", lambda canary: _bomb()),
    "a header of 2 GB": ("h.safetensors", lambda canary: struct.pack("<Q", 2**31) + b"{" + bytes(100)),
    "overlapping offsets": ("i.safetensors", lambda canary: _overlapping()),
    "negative offsets": ("j.safetensors", lambda canary: _negative()),
    "duplicate keys": ("k.safetensors", lambda canary: _duplicate()),
    "a view of 1e9 elements": ("l.pth", lambda canary: _billion()),
    "a bytearray of 8 GB": ("m.pkl", lambda canary: _huge_bytearray()),
    "a memo of 2^31 entries": ("n.pkl", lambda canary: _huge_memo()),
    "an array of 4 TB": (
        "o.pkl",
        lambda canary: _opcodes(
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(J\x00\x00\x00\x7ftU\x01bt",
            b"R.",
        ),
    ),
}


def _measure(path: Path, pipe: Any) -> None:
    """In a process of its own: what reading a file costs and says. Processor time, and without a collection of
    the objects that were inherited: what else the machine and the test run do is not the file's cost."""
    gc.freeze()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    try:
        read_weights(path)
        said = "accepted"
    except ResnestError as error:
        said = f"refused: {error}"
    except BaseException as error:
        said = f"raised {type(error).__name__}: {error}"
    seconds = time.process_time() - started
    pipe.send((said, seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024))


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_refused(case: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    name, make = HOSTILE[case]
    path = tmp_path / name
    path.write_bytes(make(canary))
    said, seconds, megabytes = _in_a_process(path)
    assert said.startswith("refused"), said
    assert name in said
    assert "\n" not in said
    assert seconds < SECONDS
    assert megabytes < MEGABYTES
    assert not canary.exists()


def _in_a_process(path: Path) -> tuple[str, float, float]:
    ours, theirs = multiprocessing.Pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking a process that has threads
        process = multiprocessing.get_context("fork").Process(target=_measure, args=(path, theirs))
        process.start()
    assert ours.poll(20), "still reading after 20 seconds"
    result: tuple[str, float, float] = ours.recv()
    process.join()
    return result


# --- found by attacking the reader: small files that want much time, much memory, or to be misread ---


def _text(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()


def _name(module: str, name: str) -> bytes:
    return _text(module) + _text(name) + b"\x93"


def _number(value: int) -> bytes:
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


_F4 = _name("numpy", "dtype") + _text("f4") + b"\x85R"
_ARRAY = _name("numpy.core.multiarray", "_reconstruct") + b")R"
_LIST = b"](" + b"K\x01" * 100_000 + b"e\x94"  # remembered as number 0


def _modules(levels: int, parts: int, *, in_itself: bool = False) -> bytes:
    """Objects with the state of a torch.nn.Module; the parts of each level are all the one of the level below."""
    made = b""
    for level in range(levels):
        part = b"h" + bytes([level if in_itself else level - 1]) if level or in_itself else b"N"
        inner = b"}(" + b"".join(_text(f"p{index}") + part for index in range(parts)) + b"u"
        state = b"}(" + _text("_parameters") + b"}" + _text("_buffers") + b"}" + _text("_modules") + inner + b"u"
        made += b"0" * (level > 0) + _name("m", "Net") + b")\x81\x94" + state + b"b"
    return made + b"."


ATTACKS: dict[str, bytes] = {
    "a nested tuple as key, which overflows the stack": b"}" + b"K\x01" + b"\x85" * 300_000 + b"K\x01s.",
    "a key that takes 2^60 steps to hash": b"}K\x01\x85" + b"2\x86" * 60 + b"K\x01s.",
    "a set member of that kind": b"\x8f(K\x01\x85" + b"2\x86" * 60 + b"\x90.",
    "a type of that kind": _name("numpy", "dtype") + b"K\x01\x85" + b"2\x86" * 60 + b"\x85R.",
    "a number for the bytes of an array": b"}"
    + _text("a")
    + _ARRAY
    + b"(K\x01K\x01\x85"
    + _F4
    + b"\x89"
    + _number(2**31)
    + b"tbs.",
    "a list copied a thousand times": _LIST + (_name("builtins", "list") + b"h\x00\x85R") * 1000 + b".",
    "a text encoded a thousand times": b"\x8d"
    + struct.pack("<Q", 2**20)
    + b"x" * 2**20
    + b"\x940"
    + (_name("_codecs", "encode") + b"h\x00\x85R") * 1000
    + b".",
    "two million sets": b"\x8f" * 2_000_000 + b".",
    "a hundred thousand classes": b"".join(_name("m", f"C{index}") for index in range(100_000)) + b".",
    "six thousand dimensions": _name("torch._utils", "_rebuild_tensor_v2")
    + b"(N"
    + b"K\x00"
    + b"("
    + _number(2**60) * 6000
    + b"t"
    + b"("
    + b"K\x01" * 6000
    + b"t"
    + b"\x89Nt"
    + b"R.",
    "a network of the same part twice, fifty levels deep": _modules(50, 2),
    "a network of a thousand times the same part": _modules(4, 1000),
    "a network in itself": _modules(1, 1, in_itself=True),
    "names with line breaks": _name("a\nb", "C\n\x1b[31m") + b")\x81.",
}


@pytest.mark.parametrize("case", ATTACKS)
def test_small_files_cost_little(case: str, tmp_path: Path) -> None:
    (tmp_path / "net.pkl").write_bytes(b"\x80\x04" + ATTACKS[case])
    said, seconds, megabytes = _in_a_process(tmp_path / "net.pkl")
    assert said.startswith("refused"), said
    assert said.isprintable()
    assert len(said) < 500
    assert seconds < 2 * SECONDS
    assert megabytes < MEGABYTES


def _zip(content: bytes, name: str = "x.pth") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def _legacy() -> bytes:
    return _saved({"a": torch.arange(100.0)}, _use_new_zipfile_serialization=False)


def _deeply_packed() -> bytes:
    content = _plain()
    for _ in range(700):
        content = _zip(content)
    return content


MISREAD: dict[str, bytes] = {
    "zips in zips": _zip(_zip(_plain())),
    "an old file with a byte too many": _legacy()[:-8] + b"\x07" + _legacy()[-8:],
    "an old file with more behind it": _legacy() + bytes(100),
    "a negated view": _saved({"a": torch._neg_view(torch.ones(3))}),
    "a sparse tensor": _saved({"fc.weight": torch.eye(3).to_sparse(), "fc.bias": torch.ones(3)}),
    "a complex tensor": _saved({"fc.weight": torch.ones(3, dtype=torch.complex64), "fc.bias": torch.ones(3)}),
    "a damaged directory of a zip": _plain()[:-40] + b"\xff" * 8 + _plain()[-32:],
}


@pytest.mark.parametrize("case", MISREAD)
def test_nothing_is_misread(case: str, tmp_path: Path) -> None:
    (tmp_path / "net.pth").write_bytes(MISREAD[case])
    with pytest.raises(ResnestError, match=r"net\.pth"):
        read_checkpoint(tmp_path / "net.pth")


def test_seven_hundred_zips_one_in_the_other(tmp_path: Path) -> None:
    (tmp_path / "net.zip").write_bytes(_deeply_packed())
    with pytest.raises(ResnestError, match=r"net\.zip"):
        read_checkpoint(tmp_path / "net.zip")


@pytest.mark.parametrize("kind", ["zip", "old", "params", "safetensors", "numpy"])
def test_damage_is_refused_or_harmless(kind: str, tmp_path: Path) -> None:
    """Three hundred random damages each: an error of ours or tensors, never anything else; zips notice every one."""
    state = {f"layer{index}": torch.randn(7, 5) for index in range(6)}
    whole = {
        "zip": lambda: _saved(state),
        "old": lambda: _saved(state, _use_new_zipfile_serialization=False),
        "safetensors": lambda: save(state),
        "numpy": lambda: pickle.dumps({name: tensor.numpy() for name, tensor in state.items()}),
        "params": lambda: _params(state, tmp_path),
    }[kind]()
    random = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(whole)
        place, count = int(random.integers(len(whole))), int(random.integers(1, 5))
        how = random.integers(3)
        if how == 0:
            damaged[place : place + count] = random.bytes(count)
        elif how == 1:
            del damaged[place : place + count]
        else:
            damaged[place:place] = random.bytes(count)
        (tmp_path / "net.bin").write_bytes(damaged)
        try:
            read = read_checkpoint(tmp_path / "net.bin").state
        except ResnestError:
            continue
        if kind == "zip":
            assert all(torch.equal(tensor, state[name]) for name, tensor in read.items() if name in state)


def _params(state: dict[str, torch.Tensor], folder: Path) -> bytes:
    write_params(folder / "net.params", state)
    return (folder / "net.params").read_bytes()


def test_there_are_seventeen() -> None:
    assert len(HOSTILE) == 17


def test_names_in_archives_lead_nowhere(tmp_path: Path) -> None:
    """`..`, absolute names and links in zips: members are read in place, nothing is ever written by their names."""
    outside = tmp_path / "outside.txt"
    outside.write_text("secret")
    inside = tmp_path / "inside"
    inside.mkdir()
    with zipfile.ZipFile(inside / "net.zip", "w") as archive:
        archive.writestr("../../escaped.params", b"not weights")
    with pytest.raises(ResnestError):
        read_checkpoint(inside / "net.zip")
    with zipfile.ZipFile(inside / "photos.zip", "w") as archive:
        for label in ("../a", "/b", "c"):
            link = zipfile.ZipInfo(f"{label}/1.jpg")
            link.external_attr = 0o120777 << 16  # a symbolic link
            archive.writestr(link, "../outside.txt")
            archive.writestr(f"{label}/2.jpg", b"x")
    splits = open_dataset(inside / "photos.zip")
    contents = {splits.train.store.read(key) for key in splits.train.keys}
    assert contents <= {b"../outside.txt", b"x"}  # the link's own text, never what it points to
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["inside", "net.zip", "outside.txt", "photos.zip"]
    with tarfile.open(inside / "net.tar", "w") as tar:
        tar.add(outside, "../escaped.pth")
    with pytest.raises(ResnestError, match=r"no checkpoint of a kind known here"):
        read_checkpoint(inside / "net.tar")


def test_nothing_in_the_package_asks_for_the_unsafe_way() -> None:
    for path in SOURCE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"weights_only\s*=\s*False|pickle\.loads?\(|allow_pickle\s*=\s*True|extractall", text), (
            path
        )
        for call in re.findall(r"torch\.load\(.*", text):
            assert "weights_only=True" in call


# --- what real checkpoints hold besides tensors, and torch's own safe loading refuses ---


class CfgNode(dict):  # type: ignore[type-arg]
    """As yacs and mmcv keep their settings: a class that the reader does not have."""


def _research() -> dict[str, Any]:
    return {
        "args": argparse.Namespace(lr=0.1, model="resnest50"),
        "best_acc": np.float64(81.03),
        "cfg": CfgNode(lr=0.1),
        "history": collections.defaultdict(list, {"loss": [1.0]}),
        "numpy": np.arange(6, dtype=np.float32).reshape(2, 3),
        "optimizer": {"state": {0: {"momentum": torch.ones(3)}}},
        "state_dict": collections.OrderedDict(_tensors()),
    }


def _tensors() -> dict[str, torch.Tensor]:
    """Every type and form of tensor that weights come in."""
    base = torch.arange(24.0).reshape(4, 6)
    kinds = (
        torch.float64,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.int8,
        torch.uint8,
        torch.bool,
    )
    return {
        "transposed": base.t(),
        "slice": base[1:3, ::2],
        "shared": base,
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(7),
        "parameter": torch.nn.Parameter(torch.randn(3)),
        "channels_last": torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last),
        **{str(kind): torch.arange(5).to(kind) for kind in kinds},
    }


@pytest.mark.parametrize("old_format", [False, True])
def test_a_research_checkpoint_is_read_all_the_same(old_format: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    content = _research()
    torch.save(content, tmp_path / "net.pth", _use_new_zipfile_serialization=not old_format)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "net.pth", weights_only=True)
    raw = read_checkpoint(tmp_path / "net.pth")
    assert raw.wrapper == "state_dict"
    for name, tensor in content["state_dict"].items():
        assert raw.state[name].dtype == tensor.dtype
        assert raw.state[name].stride() == tensor.stride() or not tensor.numel()
        assert torch.equal(raw.state[name], tensor), name


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_numpy_arrays_in_a_pickle(protocol: int, tmp_path: Path) -> None:
    arrays = {
        "f": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
        "i": np.arange(4),
        "h": np.ones((2, 1, 2), np.float16),
        "s": np.float32(3),
    }
    (tmp_path / "net.pkl").write_bytes(pickle.dumps({"model": arrays, "__author__": "x"}, protocol=protocol))
    state = read_checkpoint(tmp_path / "net.pkl").state
    for name, values in arrays.items():
        assert np.array_equal(state[name].numpy(), values)


def test_a_pickle_of_python_2(tmp_path: Path) -> None:
    """Its strings are bytes, and so are the contents of its arrays."""
    raw = np.arange(2, dtype="<f4").tobytes()
    body = (
        b"\x80\x02}q\x00U\x05modelq\x01}q\x02U\x01aq\x03cnumpy.core.multiarray\n_reconstruct\nq\x04cnumpy\nndarray\nq\x05"
        b"K\x00\x85q\x06U\x01bq\x07\x87q\x08Rq\t(K\x01K\x02\x85q\ncnumpy\ndtype\nq\x0bU\x02f4q\x0cK\x00K\x01\x87q\rRq\x0e"
        b"(K\x03U\x01<q\x0fNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x10b\x89U"
        + bytes([len(raw)])
        + raw
        + b"q\x11tq\x12bss."
    )
    (tmp_path / "net.pkl").write_bytes(body)
    assert read_checkpoint(tmp_path / "net.pkl").state["a"].tolist() == [0.0, 1.0]


def test_only_the_weights_are_read_from_the_disk(tmp_path: Path) -> None:
    """The optimiser's state, twice as large as the weights, stays where it is."""
    torch.save({"state_dict": {"a": torch.ones(3)}, "optimizer": torch.ones(20_000_000)}, tmp_path / "net.pth")
    said, _, megabytes = _in_a_process(tmp_path / "net.pth")
    assert "is not a ResNeSt" in said
    assert megabytes < 40  # the optimiser's state has 80


DAMAGED: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "half": (lambda raw: raw[: len(raw) // 2], "damaged"),
    "one flipped byte of a tensor": (
        lambda raw: raw.replace(struct.pack("<f", 1.5), struct.pack("<f", 1.6), 1),
        "damaged",
    ),
    "an HTML page": (lambda raw: b"<!DOCTYPE html>\n<html>404</html>", "is an HTML page, not weights"),
    "a Git LFS pointer": (lambda raw: b"version https://git-lfs.github.com/spec/v1\noid x", "git lfs pull"),
    "a JSON error": (lambda raw: b'{"error": "Access denied"}', r"is JSON, not weights: .*Access denied"),
    "nothing": (lambda raw: b"", "is empty: the download broke off"),
    "noise": (lambda raw: bytes(range(100, 200)), "no checkpoint of a kind known here"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_downloads(case: str, tmp_path: Path) -> None:
    change, message = DAMAGED[case]
    (tmp_path / "net.pth").write_bytes(change(_saved({"a": torch.full((1000,), 1.5)})))
    with pytest.raises(ResnestError, match=message) as caught:
        read_checkpoint(tmp_path / "net.pth")
    assert "\n" not in str(caught.value)


def test_half_of_a_safetensors_file(tmp_path: Path) -> None:
    raw = save({"a": torch.ones(1000), "b": torch.ones(1000)})
    for share in (0.5, 0.005):
        (tmp_path / "net.safetensors").write_bytes(raw[: int(len(raw) * share)])
        with pytest.raises(ResnestError, match="cut short"):
            read_checkpoint(tmp_path / "net.safetensors")


def test_a_torchscript_program_is_told_apart(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), tmp_path / "net.pt")
    with pytest.raises(ResnestError, match="a TorchScript program"):
        read_checkpoint(tmp_path / "net.pt")
