"""Evaluating a model: a classifier on labelled images, a detector on objects, a segmenter on masks.

result = evaluate("runs/a", data="flowers")
result.figures["top1"], result.headline         # of others: figures["map"], ["box_ap"], ["miou"], ["pq"]
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from resnest.data.batch import Batch
from resnest.data.loading import evaluation_batches
from resnest.data.panoptic import PanopticSamples
from resnest.data.real import RealLabels
from resnest.data.samples import Samples
from resnest.data.sources import open_part
from resnest.errors import ResnestError
from resnest.inference.aligning import align, views_for
from resnest.inference.exported import ExportedModel
from resnest.inference.model import Model
from resnest.inference.outcome import Evaluation as Evaluation
from resnest.inference.outcome import check_bad_share as check_bad_share
from resnest.inference.outcome import collect
from resnest.inference.torch_engine import choose_device
from resnest.runtime.detections import Views
from resnest.runtime.engines.choosing import is_exported
from resnest.runtime.predictor import DETECTOR_BATCH
from resnest.runtime.preprocess import AnyPreprocess, Preprocess, SegmentationPreprocess
from resnest.runtime.segmenting import SegmentViews

BATCH = 64  # images

Row = tuple[NDArray[np.int64], NDArray[Any], NDArray[np.float32]]  # indices, labels, logits of a batch


def evaluate_network(
    net: nn.Module,
    samples: Samples,
    preprocess: AnyPreprocess,
    *,
    device: torch.device,
    batch_size: int = 64,
    workers: int | None = None,
    real: RealLabels | None = None,
    on_batch: Callable[[int], None] = lambda seen: None,
    rank: int = 0,
    world_size: int = 1,
    gather: Callable[[Any], list[Any]] = lambda mine: [mine],
    views: Views | SegmentViews | None = None,
) -> Evaluation:
    """Run `net` over all samples, each once; `on_batch` hears how many were seen.

    Args:
        rank, world_size: of the process; each takes every `world_size`-th sample, and all come to the same result.
        gather: the processes' way to a list of what each of them found.
        real: several right answers an image, in place of the samples' labels.
        views: what to look at beside the image as it is, of a detector or a segmenter.

    Raises:
        ResnestError: more than 5 % of the images are unusable.
    """
    share = {"rank": rank, "world_size": world_size}
    if not isinstance(preprocess, Preprocess):
        common = {"device": device, "batch_size": batch_size, "workers": workers, "on_batch": on_batch, **share}
        run = _evaluation_of_places(samples, preprocess)
        return run(net, samples, preprocess, gather=gather, views=views, **common)
    started = time.perf_counter()
    batches = evaluation_batches(samples, preprocess, batch_size=batch_size, workers=workers, **share)
    rows, bad = _look(net, batches, samples, device, real, on_batch, alone=world_size == 1)
    if world_size > 1:
        parts = gather((rows, bad))
        rows, bad = ([row for part in parts for row in part[0]], [row for part in parts for row in part[1]])
        check_bad_share(len(bad), len(samples), bad[-1] if bad else None)
    seconds = time.perf_counter() - started
    result = collect(rows, samples.class_names, multi_label=samples.multi_label, bad=bad, seconds=seconds)
    if real is not None:
        del result.figures["loss"]  # which of several right answers should have been likely is not defined
    return result


def _evaluation_of_places(samples: Samples, preprocess: AnyPreprocess) -> Callable[..., Evaluation]:
    """Of what says where things are in a picture; imports torchvision, which classifiers can do without."""
    if isinstance(preprocess, SegmentationPreprocess):
        from resnest.inference.pixels import evaluate_pixels

        return evaluate_pixels
    if isinstance(samples, PanopticSamples):
        from resnest.inference.panoptic import evaluate_panoptic

        return evaluate_panoptic
    from resnest.inference.detecting import evaluate_detector

    return evaluate_detector


def _look(
    net: nn.Module,
    batches: Iterator[Batch],
    samples: Samples,
    device: torch.device,
    real: RealLabels | None,
    on_batch: Callable[[int], None],
    *,
    alone: bool,
) -> tuple[list[Row], list[tuple[str, str]]]:
    """What the network says of batches, and the images that cannot be used: too many of them end it, if `alone`."""
    rows: list[Row] = []
    bad: list[tuple[str, str]] = []
    was_training = net.training
    net.eval()
    for batch in batches:
        bad += [(key, reason) for _, key, reason in batch.bad]
        if alone:  # else together, afterwards: the other processes wait there
            check_bad_share(len(bad), len(samples), bad[-1] if bad else None)
        if len(batch.labels):
            with torch.inference_mode():
                images = batch.images.to(device).contiguous(memory_format=torch.channels_last)
                logits = net(images).float().cpu().numpy()
            labels = batch.labels.numpy()
            if real is not None:
                labels = real.best([samples.keys[index] for index in batch.indices], logits)
            rows.append((batch.indices.numpy(), labels, logits))
        on_batch(len(batch.labels) + len(batch.bad))
    net.train(was_training)
    return rows, bad


def evaluate(
    model: str | Path,
    data: str | Path,
    *,
    split: str = "auto",
    format: str = "auto",
    network: str | None = None,
    labels: str | Path | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    workers: int | None = None,
    views: Views | SegmentViews | None = None,
    window: int | None = None,
    on_batch: Callable[[int], None] = lambda seen: None,
    on_open: Callable[[Samples, str], None] = lambda samples, where: None,
) -> Evaluation:
    """Evaluate any model reference on a data set, with the preprocessing that belongs to its weights.

    Args:
        split: "auto", the validation part; of data without parts what training held back, or everything if the model
            was not trained here. Or "val", "train", "all".
        network: what a checkpoint file is, where it does not say so itself.
        labels: ImageNet-ReaL's real.json, several right answers an image.
        batch_size: by default 64 images, of all but classifiers 4.
        views: test-time augmentation, of a detector or a segmenter.
        window: of a segmenter, side of the squares that a picture is looked at in, pixels.

    Raises:
        ResnestError: no such model or data, classes that the model does not know, several labels an image for a model
            that gives one, too many unusable images.
    """
    opened: Model | ExportedModel
    if is_exported(model):
        opened = ExportedModel.open(Path(model), device=device, batch_size=batch_size or BATCH)
    else:
        opened = Model.from_pretrained(model, network=network)
    card = opened.card.with_window(window) if window else opened.card
    views = views_for(views, card.task)
    real = RealLabels.read(Path(labels), len(card.class_names)) if labels else None
    part = open_part(data, split, format=format, held_back=opened.held_back, task=card.task)
    chosen = align(part.samples, card, str(data))
    if real is not None:
        if chosen.multi_label:
            raise ResnestError("--labels replaces one label an image: leave it out for a multi-label model")
        chosen = real.choose(chosen)
    on_open(
        chosen, part.describe if len(chosen) == len(part.samples) else f"{part.describe}; {len(chosen)} with labels"
    )
    place = choose_device("cpu" if isinstance(opened, ExportedModel) else device)
    net = opened.net.to(device=place, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return evaluate_network(
        net,
        chosen,
        card.preprocess,
        device=place,
        batch_size=batch_size or (BATCH if card.task == "classification" else DETECTOR_BATCH),
        workers=workers,
        real=real,
        on_batch=on_batch,
        views=views,
    )
