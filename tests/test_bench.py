"""`resnest bench`: real processes on tiny networks, tables that survive the disk, slow-downs told from noise."""

from __future__ import annotations

import json
import random
import resource
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

import resnest
from conftest import Outcome
from resnest.bench import Case, Table, base_of, bench, plan, ratio_of, read_table, write_table
from resnest.bench.networks import calibrate_norms, check_output, write_onnx, write_ours
from resnest.bench.plot import FIGURES, draw, figure_of, points
from resnest.bench.table import compare, differences, environment, facts, paired, sign_interval
from resnest.classification.card import ClassificationCard
from resnest.errors import ResnestError
from resnest.inference.model import Model
from resnest.runtime.preprocess import Preprocess
from resnest.spec import PUBLISHED, Spec

TINY = Spec(depths=(1, 1, 1, 1), planes=(8, 16, 32, 64), stem="small", stem_width=4)
RUN = ("--size", "32", "--batch", "1", "--threads", "1")
TIMM = "timm:resnest50d"
ENVIRONMENT = environment(threads=1)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model, as a run directory holds it, and its exported file beside it."""
    folder = tmp_path_factory.mktemp("bench") / "tiny"
    net = calibrate_norms(resnest.create_model(TINY, num_classes=3), 32)
    card = ClassificationCard(
        architecture="resnest", spec=TINY, class_names=("a", "b", "c"), preprocess=Preprocess(size=32)
    )
    Model(net, card, "tiny").save_pretrained(folder)
    write_ours(net, folder / "model.onnx", card)
    return folder


@pytest.fixture(scope="module")
def measured(saved: Path) -> Table:
    """The saved model in torch and by the engine that `Predictor` takes, the file in onnxruntime; two batches."""
    planned = plan(
        [str(saved), str(saved / "model.onnx")],
        engines=["torch", "onnxruntime", "predictor"],
        batches=[1, 2],
        rounds=2,
        threads=1,
    )
    for heat in planned.heats:  # torch takes seconds to start: once is enough
        heat[:] = [one for one in heat if (one.engine == "torch" and one.batch == 1) or one.entrant.kind == "file"]
    return bench(planned, notes=["note: kept"])


def test_what_is_measured(measured: Table, saved: Path) -> None:
    file = str(saved / "model.onnx")
    expected = [(str(saved), "torch", "channels_last"), (file, "onnxruntime", "nchw"), (file, "predictor", "nchw")]
    keys = [(*own, "float32", 1, 32) for own in expected] + [(*own, "float32", 2, 32) for own in expected[1:]]
    assert [case.key for case in measured.cases] == keys
    for case in measured.cases:
        assert len(case.seconds) == 2
        assert case.calls > 1  # they take milliseconds
        assert all(1e-5 < seconds < 1 for seconds in case.seconds)
        assert ratio_of(measured.cases, case)[0] > 0
    told = facts(measured.environment)
    assert {"cpu", "instruction sets", "threads", "versions", "date", "command", "note"} <= told.keys()
    assert told["threads"] == "1"
    assert f"torch {torch.__version__}" in told["versions"]


def test_memory_is_of_the_contender_alone(measured: Table) -> None:
    peaks = {case.engine: case.peak_mib or 0 for case in measured.cases}
    parent = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # torch, pytest and all that they hold
    assert 20 < peaks["onnxruntime"] < min(parent, 200)  # it imports no torch
    assert peaks["torch"] > peaks["onnxruntime"]


def test_round_trip(measured: Table, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "speed.csv"
    write_table(path, measured)
    again = read_table(path)
    assert again.environment == measured.environment
    assert [(case.key, case.calls) for case in again.cases] == [(case.key, case.calls) for case in measured.cases]
    for own, other in zip(measured.cases, again.cases, strict=True):
        assert other.seconds == pytest.approx(own.seconds, abs=1e-7)
        assert other.peak_mib == pytest.approx(own.peak_mib, abs=1)


def test_command(cli: Callable[..., Outcome], saved: Path, tmp_path: Path) -> None:
    out, file = tmp_path / "new.csv", saved / "model.onnx"
    arguments = ("bench", file, *RUN, "--engine", "onnxruntime", "--rounds", "6")
    first = cli(*arguments, "--out", out, "--json")
    assert first.code == 0, first.err
    (case,) = json.loads(first.out)["cases"]
    assert case["seconds"] == pytest.approx(read_table(out).cases[0].seconds, abs=1e-7)
    assert case["coverage"] == pytest.approx(1 - 2 / 2**6)

    old = read_table(out)
    old.cases[0].seconds = [seconds / 20 for seconds in old.cases[0].seconds]  # now it takes 20 times as long
    old.environment = [line.replace("threads: 1", "threads: 64") for line in old.environment]
    write_table(tmp_path / "old.csv", old)
    told = cli(*arguments, "--compare", tmp_path / "old.csv")
    assert told.code == 0
    assert "the environments differ in threads: 64 -> 1" in told.err
    assert "1 of 1 cases are slower beyond noise" in told.err
    assert "95 % interval" in told.out
    assert cli(*arguments, "--compare", tmp_path / "old.csv", "--fail").code == 1


def test_a_network_of_others_is_the_base(cli: Callable[..., Outcome]) -> None:
    outcome = cli(
        "bench", "resnest14", "torchvision:resnet18", *RUN, "--engine", "eager", "--layout", "nchw", "--rounds", "1"
    )
    assert outcome.code == 0, outcome.err
    row = next(line for line in outcome.out.splitlines() if line.startswith("torchvision:resnet18"))
    assert "1.00x  -" in row


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["resnet50"], "'resnet50' is not a known model. Did you mean 'resnet50d'?"),
        (["timm:mobilenetv3_large_10"], "is not a network of timm. Did you mean 'timm:mobilenetv3_large_100'?"),
        (["torchvision:resnet5"], "is not a network of torchvision. Did you mean 'torchvision:resnet50'?"),
        (["missing.onnx"], "there is no file missing.onnx"),
        (["16"], "16 is no network; several batches are given as --batch 1,16"),
        (["resnest14", "--engine", "onnxruntme"], "is not a known engine. Did you mean 'onnxruntime'?"),
        (["resnest14", "--layout", "nhwc"], "is not a known layout"),
        (["resnest14", "--size", "8"], "--size 8: these networks halve an image five times, 32 is the least"),
        (["resnest14", "--batch", "0"], "--batch 0: there must be 1 or more"),
        (["resnest14", "--batch", "one"], "--batch one: integers with commas"),
        (["resnest14", "--rounds", "0"], "--rounds 0: there must be 1 or more"),
        (
            ["timm:resnest14d", "--engine", "prepared"],
            "runs in eager, eager-kept, compiled, onnxruntime and openvino, not in prepared",
        ),
        (["resnest14", "--device", "tpu"], "'tpu' is not a known device"),
        (["resnest14", "--precision", "float8"], "'float8' is not a known precision"),
        (["resnest14", "--compare", "missing.csv"], "missing.csv cannot be read"),
        (["resnest14", "--compare", "foreign.csv"], "foreign.csv is not a table of `resnest bench`"),
        (["resnest14", "--compare", "torn.csv"], "torn.csv: row 1 of the table cannot be understood"),
        (["resnest14", "--compare", "empty.csv"], "empty.csv holds no measurements"),
        (["resnest14", "--fail"], "--fail needs --compare OLD.csv"),
        (["torn.onnx", "--engine", "onnxruntime", *RUN], "torn.onnx cannot be read as an ONNX file"),
        (["fixed.onnx", "--engine", "onnxruntime", *RUN], "fixed.onnx takes a batch of 2 alone, not 1"),
    ],
)
def test_bad_input(
    arguments: Sequence[str],
    said: str,
    cli: Callable[..., Outcome],
    saved: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    header = "model,engine,layout,precision,batch,size,round,calls,seconds,peak_mib,joules\n"
    Path("foreign.csv").write_text("# torch\nwhat,seconds\ninference,1\n")
    Path("torn.csv").write_text(f"{header}resnest14,eager,nchw,float32,1,")
    Path("empty.csv").write_text(header)
    Path("torn.onnx").write_bytes((saved / "model.onnx").read_bytes()[:5000])
    if "fixed.onnx" in arguments:
        torch.onnx.export(
            resnest.create_model(TINY, num_classes=3).eval(),
            (torch.zeros(2, 3, 32, 32),),
            "fixed.onnx",
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    outcome = cli("bench", *arguments)
    assert outcome.code == 2
    assert said in outcome.err
    assert outcome.err.count("resnest: ") == 1


def _case(median: float, *, seed: int, model: str = "resnest50", rounds: int = 9, noise: float = 0.05) -> Case:
    """Times as a busy machine gives them: a few per cent, and now and then a long one."""
    draw = random.Random(seed)
    times = [median * (1 + abs(draw.gauss(0, noise)) + (0.5 if draw.random() < 0.05 else 0)) for _ in range(rounds)]
    return Case(model, "eager", "nchw", "float32", 1, 224, seconds=times, is_peer=":" in model)


def _table(*cases: Case) -> Table:
    return Table(ENVIRONMENT, list(cases))


def test_a_planted_slow_down_is_found() -> None:
    old = _table(_case(0.1, seed=1), _case(0.2, seed=2, model=TIMM))
    new = _table(_case(0.125, seed=3), _case(0.2, seed=4, model=TIMM))
    slower, same = compare(old, new)
    assert (slower.verdict, same.verdict) == ("slower", "same")
    assert slower.factor == pytest.approx(1.25, rel=0.1)
    assert "timm:resnest50d" in str(slower)
    assert [change.verdict for change in compare(new, old)] == ["faster", "same"]
    assert not list(differences(old, new))


def test_noise_is_not() -> None:
    found = [compare(_table(_case(0.1, seed=2 * k)), _table(_case(0.1, seed=2 * k + 1)))[0].verdict for k in range(500)]
    assert found.count("same") >= 495


def test_a_slower_machine_is_not_slower_code() -> None:
    old = _table(_case(0.1, seed=1), _case(0.2, seed=2, model=TIMM))
    new = _table(_case(0.14, seed=3), _case(0.28, seed=4, model=TIMM))
    assert compare(old, new)[0].verdict == "same"


def test_base_is_the_peer_in_its_best_layout() -> None:
    ours, slow, fast = _case(0.1, seed=1), _case(0.3, seed=2, model=TIMM), _case(0.2, seed=3, model=TIMM)
    fast.layout = "channels_last"
    assert base_of([ours, slow, fast], ours) is fast
    assert base_of([ours], ours) is ours


def test_intervals_hold_what_they_promise() -> None:
    draw = random.Random(0)
    for count in (6, 9, 15):
        hits = 0
        for _ in range(2000):
            low, high, coverage = sign_interval([draw.lognormvariate(0, 0.2) for _ in range(count)])
            hits += low <= 1 <= high
        assert coverage >= 0.95
        assert hits / 2000 == pytest.approx(coverage, abs=0.015)
    assert paired([2.0, 3.0, 8.0], [1.0, 2.0, 2.0]) == (2.0, (1.5, 4.0, 0.75))


def _figure_table() -> Table:
    cases = [
        Case(name, "onnxruntime", "nchw", "float32", 1, figure.size, seconds=[0.01 * (1 + index)] * 3)
        for index, (name, figure) in enumerate(FIGURES.items())
    ]
    return Table(["cpu: a processor", "threads: 2"], cases)


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_plot(suffix: str, tmp_path: Path) -> None:
    first, second = (tmp_path / f"{name}{suffix}" for name in ("first", "second"))
    draw(first, _figure_table())
    draw(second, _figure_table())
    assert first.read_bytes() == second.read_bytes()
    assert first.stat().st_size > 10_000


def test_a_plot_without_matplotlib_is_refused_before_measuring(
    monkeypatch: pytest.MonkeyPatch, cli: Callable[..., Outcome]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    told = cli("bench", "resnest50", "--plot", "figure.svg")
    assert (told.code, told.out) == (2, "")
    assert "a plot needs matplotlib: pip install 'resnest[bench]'" in told.err


def test_plot_takes_published_accuracy_alone(tmp_path: Path) -> None:
    table = _figure_table()
    assert {point.figure.label for point in points(table)} == {figure.label for figure in FIGURES.values()}
    table.cases = [
        _case(0.1, seed=1, model="timm:vgg16"),
        Case("resnest50", "eager", "nchw", "float32", 1, 64, seconds=[1.0]),
    ]
    with pytest.raises(ResnestError, match="nothing to plot"):
        draw(tmp_path / "no.svg", table)
    with pytest.raises(ResnestError, match="cannot be written"):
        draw(tmp_path / "no.docx", _figure_table())


def test_published_figures_belong_to_the_sizes_of_their_weights() -> None:
    import timm

    tags = {"EfficientNet": "aa_in1k", "ResNet-D": "gluon_in1k", "ConvNeXt": "fb_in1k"}
    for name, figure in FIGURES.items():
        if figure.family == "ResNeSt":
            assert (figure.size, figure.top1) == (PUBLISHED[name].crop, PUBLISHED[name].top1)
        else:
            weights = timm.get_pretrained_cfg(f"{name.removeprefix('timm:')}.{tags[figure.family]}")
            assert weights.input_size[-1] == figure.size
    assert figure_of("timm:resnest101e") == figure_of("resnest101") == FIGURES["resnest101"]
    assert figure_of("timm:resnet18") is None


def test_networks_compute_with_normal_numbers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = calibrate_norms(resnest.create_model(TINY, num_classes=3, zero_gamma=True), 32)
    assert not net.training
    assert all(module.weight.detach().any() for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d))
    logits = net(torch.randn(2, 3, 32, 32)).detach()
    check_output(logits, "tiny")
    for bad in (logits * float("nan"), logits * 0, logits * 1e-30):
        with pytest.raises(ResnestError, match="tiny gives logits"):
            check_output(bad, "tiny")
    write_onnx(net, tmp_path / "traced.onnx", 32)
    import onnxruntime

    session = onnxruntime.InferenceSession(tmp_path / "traced.onnx", providers=["CPUExecutionProvider"])
    images = torch.randn(3, 3, 32, 32)  # another batch than it was traced with
    expected, (found,) = net(images).detach(), session.run(None, {"images": images.numpy()})
    assert (torch.from_numpy(found) - expected).abs().max() <= 1e-4 * expected.abs().max()
