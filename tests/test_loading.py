"""Batches (P2, P11): order and augmentation depend on the seed alone, unusable files are left out and named."""

from __future__ import annotations

import dataclasses
import errno
import functools
import hashlib
import multiprocessing
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.multiprocessing import reductions
from torch.utils.data import DataLoader

from conftest import pico
from processes import Workers
from resnest.classification.transforms import ClassificationDataset
from resnest.data import loading as loading_module
from resnest.data import sharing
from resnest.data.loading import EvaluationDataset, Load, TrainingDataset, evaluation_batches, loading, training_batches
from resnest.data.order import seeded
from resnest.data.settings import DataSettings
from resnest.data.sources import open_dataset
from resnest.errors import Preempted, ResnestError
from resnest.runtime.preprocess import Preprocess
from resnest.training.loop import Loop
from resnest.training.train import train

VARIED = DataSettings(size=16, augment="trivial", jitter=0.3, shift=0.1)


def _dataset(samples: Any, settings: DataSettings) -> ClassificationDataset:
    return ClassificationDataset(samples, settings, seed=0, epochs=1)


def _hashes(
    photos: Path, *, workers: int, epoch: int = 0, seed: int = 0, skip: int = 0, load: Load | None = None
) -> list[str]:
    samples = open_dataset(photos).train
    settings = DataSettings(size=16, augment="trivial", jitter=0.3, shift=0.1, workers=workers)
    batches = training_batches(
        ClassificationDataset(samples, settings, seed=seed, epochs=2),
        settings,
        batch_size=8,
        seed=seed,
        epoch=epoch,
        skip=skip,
        load=load,
    )
    return [
        hashlib.sha256(batch.images.numpy().tobytes() + batch.labels.numpy().tobytes()).hexdigest() for batch in batches
    ]


def test_workers_change_nothing(photos: Path) -> None:
    alone = _hashes(photos, workers=0)
    assert alone == _hashes(photos, workers=2)
    assert len(alone) == 4


def test_epochs_and_seeds_differ(photos: Path) -> None:
    runs = [_hashes(photos, workers=0, epoch=epoch, seed=seed) for epoch, seed in ((0, 0), (1, 0), (0, 1))]
    assert len({tuple(run) for run in runs}) == 3


def test_skipping_gives_the_rest(photos: Path) -> None:
    assert _hashes(photos, workers=0, skip=2) == _hashes(photos, workers=0)[2:]


def test_ranks_share_a_batch(photos: Path) -> None:
    samples = open_dataset(photos).train
    together = next(training_batches(_dataset(samples, VARIED), VARIED, batch_size=8, seed=0, epoch=0))
    parts = [
        next(
            training_batches(_dataset(samples, VARIED), VARIED, batch_size=4, seed=0, epoch=0, rank=rank, world_size=2)
        )
        for rank in (0, 1)
    ]
    assert sorted(torch.cat([part.indices for part in parts]).tolist()) == sorted(together.indices.tolist())


def test_accumulated_batches_are_a_step_of_one(photos: Path) -> None:
    samples = open_dataset(photos).train
    whole = list(training_batches(_dataset(samples, VARIED), VARIED, batch_size=8, seed=0, epoch=0, skip=1))
    parts = list(
        training_batches(_dataset(samples, VARIED), VARIED, batch_size=2, accumulate=4, seed=0, epoch=0, skip=1)
    )
    assert [len(part.labels) for part in parts] == [2] * 4 * len(whole)
    for number, batch in enumerate(whole):
        assert torch.equal(torch.cat([part.images for part in parts[4 * number : 4 * number + 4]]), batch.images)


def test_repeats_are_augmented_anew_and_the_first_as_before(photos: Path) -> None:
    samples = open_dataset(photos).train
    data = dataclasses.replace(VARIED, repeats=4)
    once, often = (
        {
            (int(index), number): image
            for batch in training_batches(_dataset(samples, settings), settings, batch_size=8, seed=0, epoch=0)
            for number, (index, image) in enumerate(zip(batch.indices, batch.images, strict=True))
        }
        for settings in (VARIED, data)
    )
    first = {index: image for (index, _), image in once.items()}
    for index in {index for index, _ in often}:
        copies = [image for (other, _), image in often.items() if other == index]
        assert len({image.numpy().tobytes() for image in copies}) == 4
        assert index not in first or torch.equal(copies[0], first[index])


def test_evaluation_sees_every_sample_once_in_order(photos: Path) -> None:
    samples = open_dataset(photos).train
    batches = list(evaluation_batches(samples, Preprocess(size=16), batch_size=7, workers=0))
    assert [index for batch in batches for index in batch.indices] == list(range(len(samples)))
    expected = Preprocess(size=16)(samples.decode(0))
    assert np.array_equal(batches[0].pixels[0].numpy(), expected)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_file_shortens_its_batch(photos: Path, workers: int) -> None:
    samples = open_dataset(photos).train
    (photos / samples.keys[3]).write_bytes(b"")
    batches = list(evaluation_batches(samples, Preprocess(size=16), batch_size=8, workers=workers))
    assert batches[0].bad == [(samples.keys[3], "empty file")]
    assert 3 not in batches[0].indices
    assert len(batches[0].truths) == 7


def test_a_bad_file_shortens_a_training_batch_too(photos: Path) -> None:
    samples = open_dataset(photos).train
    path = photos / samples.keys[3]
    path.write_bytes(path.read_bytes()[:200])
    batches = list(training_batches(_dataset(samples, VARIED), VARIED, batch_size=len(samples), seed=0, epoch=0))
    assert [(index, key) for index, key, _ in batches[0].bad] == [(3, samples.keys[3])]
    assert sorted(batches[0].indices.tolist()) == [index for index in range(len(samples)) if index != 3]


def test_a_batch_without_any_usable_file(photos: Path) -> None:
    samples = open_dataset(photos).train
    (photos / samples.keys[0]).write_bytes(b"x")
    first = next(evaluation_batches(samples, Preprocess(size=16), batch_size=1, workers=0))
    assert len(first.truths) == 0
    assert len(first.bad) == 1


def test_seeded_leaves_the_generator_as_it_was() -> None:
    before = torch.get_rng_state()
    with seeded(1, 2):
        inside = torch.rand(3)
    with seeded(1, 2):
        assert torch.equal(torch.rand(3), inside)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_pass_that_was_left_shifts_nothing(photos: Path) -> None:
    """What its workers had prepared beyond is not seen by the next one, be it resumed within an epoch."""
    samples = open_dataset(photos).train
    dataset = ClassificationDataset(samples, VARIED, seed=0, epochs=2)
    with loading(2, 4, train=dataset, val=EvaluationDataset(samples, Preprocess(size=16))) as load:
        for epoch, skip in ((0, 0), (1, 0), (1, 2), (0, 3)):
            left = training_batches(dataset, VARIED, batch_size=8, seed=0, epoch=0, load=load)
            assert len(next(left).images) == 8
            kept = _hashes(photos, workers=2, epoch=epoch, skip=skip, load=load)
            assert kept == _hashes(photos, workers=0, epoch=epoch, skip=skip)
            seen = evaluation_batches(samples, Preprocess(size=16), batch_size=3, workers=load)
            assert [index for batch in seen for index in batch.indices] == list(range(len(samples)))


def _leave(load: Load) -> None:
    next(load("train", [[0]] * 9))


def _fail(load: Load) -> None:
    list(load("val", [[0], [1], [-1]]))


def _interrupt(load: Load) -> None:
    next(load("train", [[0]] * 9))
    raise KeyboardInterrupt


def _kill(load: Load) -> None:
    os.kill(next(load("train", [[0]] * 9))[0], signal.SIGKILL)
    for number in count():
        list(load("val", [[number]] * 9))


DIED = "a data-loading worker died, perhaps out of memory .*: use fewer of them"
ENDS: dict[str, tuple[str, Callable[[Load], object], type[BaseException] | None, str | None]] = {
    "done": ("fork", lambda load: None, None, None),
    "within a pass": ("fork", _leave, None, None),
    "error in a worker": ("fork", _fail, RuntimeError, "-1 is no index"),
    "Ctrl-C": ("fork", _interrupt, KeyboardInterrupt, None),
    "death": ("fork", _kill, ResnestError, DIED),
    "death, not forked": ("forkserver", _kill, ResnestError, DIED),  # as by default from Python 3.14 on
}


@pytest.mark.parametrize("end", ENDS)
def test_workers_stay_until_the_end_and_no_longer(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    method, act, error, said = ENDS[end]
    monkeypatch.setattr(loading_module, "DataLoader", functools.partial(DataLoader, multiprocessing_context=method))

    def passes() -> None:
        with loading(2, 9, train=Workers(), val=Workers()) as load:
            seen = [{pid for batch in load(name, [[0], [1]]) for pid in batch} for name in ("train", "val") * 3]
            assert len(seen[0]) == 2
            assert seen == [seen[0]] * 6
            assert seen[0] == {process.pid for process in multiprocessing.active_children()}
            act(load)

    if error is None:
        passes()
    else:
        with pytest.raises(error, match=said) as caught:  # and a traceback that holds everything
            passes()
        assert caught.type is error
    assert not multiprocessing.active_children()


def _pids(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    """Every item that is loaded adds a line to the file: kind, epoch, process."""

    def noting(kind: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def get(self: Any, key: Any) -> Any:
            with file.open("a") as lines:
                lines.write(f"{kind} {key[0] if kind == 'train' else ''} {os.getpid()}\n")
            return original(self, key)

        return get

    for kind, dataset in (("train", TrainingDataset), ("val", EvaluationDataset)):
        monkeypatch.setattr(dataset, "__getitem__", noting(kind, dataset.__getitem__))


def test_a_run_has_the_same_workers_from_start_to_end(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _pids(monkeypatch, tmp_path / "pids")
    settings = pico("data.workers=2", "train.epochs=3", "train.eval_batch_size=2")
    train("imagenette", data=photos, out=tmp_path / "run", settings=settings, device="cpu")
    assert not multiprocessing.active_children()
    seen: dict[str, set[str]] = {}
    for line in (tmp_path / "pids").read_text().splitlines():
        what, pid = line.rsplit(" ", 1)
        seen.setdefault(what, set()).add(pid)
    assert list(seen) == ["train 0", "val ", "train 1", "train 2"]
    assert [len(pids) for pids in seen.values()] == [2] * 4
    assert all(pids == seen["train 0"] for pids in seen.values()), seen


def _stop(loop: Loop) -> None:
    os.kill(os.getpid(), signal.SIGINT)


def _raise(error: BaseException, loop: Loop) -> None:
    raise error


RUN_ENDS: dict[str, tuple[Callable[[Loop], None], type[BaseException]]] = {
    "asked to stop": (_stop, Preempted),
    "Ctrl-C": (functools.partial(_raise, KeyboardInterrupt()), KeyboardInterrupt),
    "error": (functools.partial(_raise, RuntimeError("out of memory")), RuntimeError),
}


@pytest.mark.parametrize("end", RUN_ENDS)
def test_a_run_leaves_no_worker(end: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    act, error = RUN_ENDS[end]
    original = Loop._train_step

    def stepping(self: Loop, *arguments: Any) -> Any:
        if self.step == 5:
            assert len(multiprocessing.active_children()) == 2
            act(self)
        return original(self, *arguments)

    monkeypatch.setattr(Loop, "_train_step", stepping)
    with pytest.raises(error) as caught:  # and a traceback that holds everything
        train("imagenette", data=photos, out=tmp_path / "run", settings=pico("data.workers=2"), device="cpu")
    assert caught.type is error
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("ends", ["left", "by an unexpected error"])
def test_batches_that_nobody_takes_do_not_keep_the_program(ends: str, photos: Path) -> None:
    code = (
        "from pathlib import Path\n"
        "from resnest.data.loading import evaluation_batches\n"
        "from resnest.data.sources import open_dataset\n"
        "from resnest.runtime.preprocess import Preprocess\n"
        f"samples = open_dataset(Path({str(photos)!r})).train\n"
        "batches = evaluation_batches(samples, Preprocess(size=16), batch_size=2, workers=1)\n"
        "assert next(batches).truths\n"
    )
    if ends != "left":
        code += "for batch in batches:\n    raise TypeError('of another library')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=90)
    assert (done.returncode, done.stderr.strip().split("\n")[-1]) == (
        (0, "") if ends == "left" else (1, "TypeError: of another library")
    )


# --- Little shared memory ---


def _no_memory(*_: object) -> None:
    raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1_2_3>: No space left on device (28)")


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_batches_that_cannot_be_shared_are_sent(
    method: str, photos: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As in a container of 64 MB, where torch's thread fails in silence and the batch never comes."""
    expected = _hashes(photos, workers=0)
    if method == "fork":
        monkeypatch.setattr(reductions, "reduce_storage", _no_memory)
    monkeypatch.setattr(loading_module, "DataLoader", functools.partial(DataLoader, multiprocessing_context=method))
    monkeypatch.setattr(sharing, "_said", False)
    for _ in range(2):
        assert _hashes(photos, workers=2) == expected
    assert not multiprocessing.active_children()
    said = capfd.readouterr().err.splitlines()
    if method == "fork":
        assert len(said) == 1
        assert re.match(
            r"warning: batches do not fit into the shared memory \(/dev/shm, \d+ MB\) and go through pipes, which is"
            r" slower: give the container more \(docker run --shm-size=8g\), or load with fewer workers",
            said[0],
        )
    else:
        assert said == []


def test_what_is_sent_is_what_was_there() -> None:
    tensors = [torch.randn(3, 5).T, torch.arange(7)[2:], torch.zeros(0), torch.tensor(True), torch.randn(2).bfloat16()]
    for tensor in tensors:
        rebuild, arguments = sharing._sent(tensor.untyped_storage(), "full")
        storage = rebuild(*arguments)
        again = torch.empty(0, dtype=tensor.dtype).set_(storage, tensor.storage_offset(), tensor.shape, tensor.stride())
        assert torch.equal(again, tensor)
        again.fill_(1)  # of its own


def test_workers_that_cannot_be_started(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    expected = _hashes(photos, workers=0)

    def refuse() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(multiprocessing, "Queue", refuse)
    assert _hashes(photos, workers=2) == expected
    [said] = capfd.readouterr().err.splitlines()
    assert said.startswith("warning: data-loading workers cannot be started (No space left on device; their locks are")
    assert "this process loads, which is slower" in said
