"""Several processes, one run: statistics, gradients, evaluation and files are those of one process."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from conftest import pico
from processes import in_processes
from resnest.classification.task import ClassificationTask
from resnest.data.order import step_batches
from resnest.data.sources import open_dataset
from resnest.errors import ResnestError
from resnest.network import ResNeSt
from resnest.network.tools import SyncBatchNorm2d, synchronise_norms
from resnest.spec import Spec
from resnest.training.step import Stepper
from resnest.training.train import resume, train
from runs import checkpoint, lines

SMALL = Spec(depths=(1, 1, 1, 1), planes=(8, 8, 8, 8), stem="small", stem_width=4)


@pytest.mark.parametrize("shape", [(6, 4, 5, 3), (6, 4, 1, 1)])
def test_synchronised_statistics_are_those_of_the_whole_batch(shape: tuple[int, ...]) -> None:
    """Result, input and parameter gradients, running statistics; three processes with two samples each."""
    torch.manual_seed(0)
    whole, weights = torch.randn(shape, dtype=torch.float64) * 3 + 5, torch.randn(shape, dtype=torch.float64)

    def norm_of(kind: type[nn.BatchNorm2d] | type[SyncBatchNorm2d]) -> Any:
        norm = kind(4).double()
        with torch.no_grad():
            norm.weight.copy_(torch.linspace(0.5, 2, 4))
        return norm

    def run(norm: Any, x: torch.Tensor, w: torch.Tensor) -> dict[str, torch.Tensor]:
        x = x.clone().requires_grad_()
        out = norm(x)
        (out * w).sum().backward()
        named = {
            "out": out,
            "x": x.grad,
            "weight": norm.weight.grad,
            "bias": norm.bias.grad,
            **dict(norm.named_buffers()),
        }
        return {name: tensor.detach().clone() for name, tensor in named.items()}

    expected = run(norm_of(nn.BatchNorm2d), whole, weights)
    parts = in_processes(3, lambda rank: run(norm_of(SyncBatchNorm2d), whole[2 * rank :][:2], weights[2 * rank :][:2]))
    for name in ("out", "x"):
        torch.testing.assert_close(torch.cat([part[name] for part in parts]), expected[name], rtol=1e-5, atol=1e-5)
    for name in ("weight", "bias"):
        torch.testing.assert_close(sum(part[name] for part in parts), expected[name], rtol=1e-5, atol=1e-5)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        for part in parts:
            torch.testing.assert_close(part[name], expected[name], rtol=1e-5, atol=1e-6)


def test_synchronising_keeps_the_state() -> None:
    net = ResNeSt(SMALL, num_classes=3)
    names = [name for name, module in net.named_modules() if isinstance(module, nn.BatchNorm2d)]
    before = {name: tensor.data_ptr() for name, tensor in net.state_dict().items()}
    x = torch.randn(2, 3, 16, 16)
    expected = net.eval()(x)
    assert synchronise_norms(net) == len(names)
    assert {name: tensor.data_ptr() for name, tensor in net.state_dict().items()} == before
    torch.testing.assert_close(net(x), expected)


def _two(photos: Path, out: Path, *settings: str) -> list[Any]:
    """A run on two processes with half a batch each."""
    halves = pico("train.batch_size=4", "trainer.accelerator=cpu", *settings)

    def act(rank: int) -> dict[str, float]:
        return train("imagenette", data=photos, out=out, settings=halves).figures

    return in_processes(2, act, group=False)


def test_two_processes_with_synchronised_norms_are_one(photos: Path, tmp_path: Path) -> None:
    train("imagenette", data=photos, out=tmp_path / "one", settings=pico())
    figures = _two(photos, tmp_path / "two", "train.sync_norm=true")
    assert figures[0] == figures[1]
    one, two = checkpoint(tmp_path / "one"), checkpoint(tmp_path / "two")
    assert one["step"] == two["step"] == 8
    assert one["batch"] == two["batch"] == 8
    for first, second in zip(lines(tmp_path / "one", "train"), lines(tmp_path / "two", "train"), strict=True):
        assert first["loss"] == pytest.approx(second["loss"], abs=2e-3)  # Muon amplifies the last bits of a sum
        assert first["lr"] == second["lr"]
    for name in ("bn1.running_mean", "conv1.weight"):
        torch.testing.assert_close(one["model"][name], two["model"][name], rtol=0.05, atol=5e-3)


def test_of_one_processes_statistics_all_have_a_copy(photos: Path, tmp_path: Path) -> None:
    """Without synchronised norms the leader's statistics are evaluated and saved, and the averaged ones with them."""
    figures = _two(photos, tmp_path / "two", "train.ema=0.9", "train.accumulate=2", "train.batch_size=2")
    assert figures[0] == figures[1]
    assert checkpoint(tmp_path / "two")["average"]["bn1.num_batches_tracked"] == 16
    assert len(lines(tmp_path / "two", "eval")) == 2  # one process writes


def test_shards_train_as_copies_do(photos: Path, tmp_path: Path) -> None:
    """FSDP against DDP; its checkpoint is whole, and a run resumes from it."""
    settings = ("train.sync_norm=true", "optim.name=adamw", "optim.lr=0.001", "train.ema=0.5")
    copies = _two(photos, tmp_path / "ddp", *settings)
    shards = _two(photos, tmp_path / "fsdp", *settings, "trainer.strategy=fsdp")
    assert shards[0] == shards[1]
    assert shards[0]["loss"] == pytest.approx(copies[0]["loss"], abs=1e-3)
    one, other = checkpoint(tmp_path / "ddp"), checkpoint(tmp_path / "fsdp")
    for path in (tmp_path / "fsdp" / "checkpoints").glob("*08.*"):
        path.unlink()
    resumed = in_processes(2, lambda rank: resume(tmp_path / "fsdp").figures, group=False)
    assert resumed == shards
    again = checkpoint(tmp_path / "fsdp")
    assert all(torch.equal(tensor, again["model"][name]) for name, tensor in other["model"].items())
    for part in ("model", "average"):
        for name, tensor in one[part].items():
            torch.testing.assert_close(other[part][name], tensor, rtol=1e-2, atol=2e-3)


def test_going_on_with_another_batch_is_refused(photos: Path, tmp_path: Path) -> None:
    _two(photos, tmp_path / "run", "train.epochs=1")
    with pytest.raises(ResnestError, match=r"trained with 8 images a step, here it would be 4 \(1 processes x 4 x 1"):
        resume(tmp_path / "run")


def test_a_file_that_only_the_other_process_saw_is_listed(photos: Path, tmp_path: Path) -> None:
    part = open_dataset(photos).train
    dealt = step_batches(len(part), batch_size=4, world_size=2, rank=1, seed=0, epoch=0)
    victim = photos / part.keys[dealt[0, 0, 0, 0]]
    victim.write_bytes(victim.read_bytes()[:40])
    results = _two(photos, tmp_path / "run", "train.epochs=1")
    assert results[0] == results[1]
    listed = [json.loads(line) for line in (tmp_path / "run" / "bad_images.jsonl").read_text().splitlines()]
    assert [photos / line["image"] for line in listed] == [victim]


# settings -> images in every forward pass of the step that has the file, of process 0 and of 1, where it was
AROUND_A_BAD_FILE = {
    "both leave out the micro-batch": ([], [], []),
    "and go on with the step's other one": (["train.accumulate=2"], [2], [2]),
    "one image is enough": (["train.sync_norm=true"], [2], [1]),
}


@pytest.mark.parametrize("case", AROUND_A_BAD_FILE)
def test_a_bad_file_does_not_end_a_run_of_two_processes(case: str, photos: Path, tmp_path: Path) -> None:
    """It leaves one image in its batch of two, too few for a batch-norm that sees one value an image."""
    settings, *expected = AROUND_A_BAD_FILE[case]
    settings = pico("train.batch_size=2", "train.max_steps=3", "trainer.accelerator=cpu", *settings)
    part, micro_batches = open_dataset(photos).train, 2 if "train.accumulate=2" in settings else 1
    dealt = step_batches(
        len(part), batch_size=2, accumulate=micro_batches, world_size=2, rank=1, seed=0, epoch=0
    )  # (steps, micro-batches, images, 2)
    victim = photos / part.keys[dealt[1, 0, 0, 0]]
    victim.write_bytes(victim.read_bytes()[:40])

    def act(rank: int) -> tuple[list[list[int]], dict[str, float]]:
        seen: list[list[int]] = []
        step, loss = Stepper.__call__, ClassificationTask.loss

        def stepping(self: Any, *arguments: Any, **options: Any) -> Any:
            seen.append([])
            return step(self, *arguments, **options)

        def losing(self: Any, net: Any, images: torch.Tensor, *arguments: Any, **options: Any) -> Any:
            seen[-1].append(len(images))
            return loss(self, net, images, *arguments, **options)

        Stepper.__call__, ClassificationTask.loss = stepping, losing  # type: ignore[method-assign]
        figures = train("imagenette", data=photos, out=tmp_path / "run", settings=settings).figures
        return seen, figures

    (seen0, figures0), (seen1, figures1) = in_processes(2, act, group=False)
    whole = [2] * micro_batches
    assert seen0 == [whole, expected[0], whole]
    assert seen1 == [whole, expected[1], whole]
    assert figures0 == figures1
    assert math.isfinite(figures0["loss"])
    assert checkpoint(tmp_path / "run")["step"] == 3
    assert [line["skipped"] for line in lines(tmp_path / "run", "train")] == [0, 0, 0]  # skipped as not finite
    listed = [json.loads(line) for line in (tmp_path / "run" / "bad_images.jsonl").read_text().splitlines()]
    assert [photos / line["image"] for line in listed] == [victim]


def test_the_first_process_is_asked_for_all_whether_to_stop(photos: Path, tmp_path: Path) -> None:
    """And the others of that evaluation end with it, whatever their own function would say."""

    def act(rank: int) -> tuple[list[int], dict[str, float]]:
        heard: list[int] = []

        def stop(step: int, figures: dict[str, float]) -> bool:
            heard.append(step)
            return True

        halves = pico("train.batch_size=4", "trainer.accelerator=cpu", "train.epochs=3")
        asked = stop if rank == 0 else None
        return heard, train("imagenette", data=photos, out=tmp_path, settings=halves, on_evaluation=asked).figures

    first, second = in_processes(2, act, group=False)
    assert [len(first[0]), len(second[0])] == [1, 0]
    assert first[1] == second[1]
    assert len(lines(tmp_path, "eval")) == 1


def test_one_device_is_not_for_several_processes(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ResnestError, match='`device="cpu:0"` is one device, for 2 processes: use cpu'):
        train("imagenette", data=photos, out=tmp_path / "run", settings=pico("trainer.devices=2"), device="cpu:0")


def test_processes_that_the_launcher_did_not_start(photos: Path, tmp_path: Path) -> None:
    failed = _two(photos, tmp_path / "run", "trainer.devices=3")
    assert all("torchrun started 2 processes" in str(error) for error in failed)
    assert not (tmp_path / "run").exists()
