"""Evaluating a segmenter on pictures with masks, in one process or in several.

result = evaluate_pixels(net, samples, preprocess, device=device)
result.figures["miou"]

Every picture is labelled in its own size, by the function that prediction uses, and compared with its mask there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from resnest.data.batch import Batch
from resnest.data.loading import evaluation_batches
from resnest.data.pixels import PixelSamples
from resnest.inference.counting import Look, count_pictures
from resnest.inference.pixel_outcome import PixelEvaluation, collect_pixels
from resnest.inference.torch_engine import run_on
from resnest.metrics.pixels import PixelMetrics, intersection_over_union, mean_of_known
from resnest.runtime.decode import BadImage
from resnest.runtime.preprocess import SegmentationPreprocess
from resnest.runtime.segmenting import LooksAtImages, SegmentViews, label_map, segment


def evaluate_pixels(
    net: nn.Module,
    samples: PixelSamples,
    preprocess: SegmentationPreprocess,
    *,
    device: torch.device,
    batch_size: int = 4,
    workers: int | None = None,
    on_batch: Callable[[int], None] = lambda seen: None,
    rank: int = 0,
    world_size: int = 1,
    gather: Callable[[Any], list[Any]] = lambda mine: [mine],
    views: SegmentViews | None = None,
) -> PixelEvaluation:
    """Run `net` over all samples, each once; see `evaluate_network`, which calls this for samples with masks.

    Processes exchange what they counted once, at the end, in whole numbers, and each works out the same figures.
    """
    share = {"rank": rank, "world_size": world_size}
    engine = partial(run_on, device, net)
    if views is not None or preprocess.window is not None:
        looks = _look_one_by_one(engine, samples, preprocess, views, **share)
    else:
        looks = _look_in_batches(engine, samples, preprocess, batch_size=batch_size, workers=workers, **share)
    counted = count_pictures(
        net,
        looks,
        PixelMetrics(len(samples.class_names)),
        _count,
        total=len(samples),
        on_batch=on_batch,
        world_size=world_size,
        gather=gather,
    )
    return collect_pixels(counted, samples.class_names)


def _count(metrics: PixelMetrics, look: Look) -> float:
    """Mean IoU over the classes that are there or given; NaN if nothing counts."""
    return mean_of_known(intersection_over_union(metrics.update(look.found.labels, look.truth)))


def _look_in_batches(
    engine: LooksAtImages, samples: PixelSamples, preprocess: SegmentationPreprocess, **how: Any
) -> Iterator[Look | BadImage]:
    """At this process's pictures, those of one shape together; `how` is that of `evaluation_batches`."""
    for batch in evaluation_batches(samples, preprocess, **how):
        yield from (BadImage(key, reason) for _, key, reason in batch.bad)
        if len(batch.labels):
            yield from _look(engine, batch, samples)


def _look(engine: LooksAtImages, batch: Batch, samples: PixelSamples) -> Iterator[Look]:
    """At pictures of one shape."""
    assert batch.sizes is not None
    logits = engine(batch.images.numpy())
    for index, scores, inner, truth in zip(
        batch.indices.tolist(), logits, batch.sizes.tolist(), batch.labels, strict=True
    ):
        size = (truth.shape[1], truth.shape[0])
        labels = label_map(scores, inner=tuple(inner), size=size, classes=samples.classes, name=samples.keys[index])
        yield Look(index, labels, truth)


def _look_one_by_one(
    engine: LooksAtImages,
    samples: PixelSamples,
    preprocess: SegmentationPreprocess,
    views: SegmentViews | None,
    *,
    rank: int,
    world_size: int,
) -> Iterator[Look | BadImage]:
    """At this process's pictures in windows, or in several views."""
    for index in range(rank, len(samples), world_size):
        try:
            image, truth = samples.pair(index)
        except BadImage as error:
            yield error
            continue
        yield Look(index, segment(engine, image, preprocess, samples.classes, samples.keys[index], views), truth)
