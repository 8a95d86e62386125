"""Evaluating a segmenter on pictures with masks, in one process or in several.

result = evaluate_pixels(net, samples, preprocess, device=device)
result.figures["miou"]

Every picture is labelled in its own size, by the function that prediction uses, and compared with its mask there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from resnest.data.batch import Batch
from resnest.data.loading import evaluation_batches
from resnest.data.pixels import PixelSamples
from resnest.inference.outcome import check_bad_share
from resnest.inference.pixel_outcome import PixelEvaluation, Seen, collect_pixels, keep_worst
from resnest.metrics.pixels import PixelMetrics, intersection_over_union, mean_of_known
from resnest.runtime.decode import BadImage
from resnest.runtime.label_map import LabelMap
from resnest.runtime.preprocess import SegmentationPreprocess
from resnest.runtime.segmenting import SegmentViews, label_map, segment


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
    started = time.perf_counter()
    metrics = PixelMetrics(len(samples.class_names))
    seen: dict[int, Seen] = {}
    bad: list[tuple[str, str]] = []
    was_training = net.training
    net.eval()
    share = {"rank": rank, "world_size": world_size}
    engine = _Engine(net, device)
    if views is not None or preprocess.window is not None:
        looks = _look_one_by_one(engine, samples, preprocess, views, **share)
    else:
        batches = evaluation_batches(samples, preprocess, batch_size=batch_size, workers=workers, **share)
        looks = (look for batch in batches for look in _look(engine, batch, samples))
    for look in looks:
        if isinstance(look, BadImage):
            bad.append((look.name, look.reason))
            if world_size == 1:  # else together, below: the others wait there
                check_bad_share(len(bad), len(samples), bad[-1])
        else:
            table = metrics.update(look.labels.labels, look.truth)
            seen[look.place] = Seen(mean_of_known(intersection_over_union(table)), look.labels)
            keep_worst(seen)
        on_batch(1)
    net.train(was_training)
    if world_size > 1:
        parts = gather((metrics.confusion, seen, bad))
        metrics.confusion = np.sum([part[0] for part in parts], 0)
        seen = {index: one for part in parts for index, one in part[1].items()}
        bad = [entry for part in parts for entry in part[2]]
        keep_worst(seen)
        check_bad_share(len(bad), len(samples), bad[-1] if bad else None)
    seconds = time.perf_counter() - started
    return collect_pixels(metrics, seen, samples.class_names, bad=bad, seconds=seconds)


class _Engine:
    """A network as `runtime` calls it."""

    name = "the network itself"

    def __init__(self, net: nn.Module, device: torch.device) -> None:
        self.net, self.device = net, device

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        inputs = torch.from_numpy(images).to(self.device).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            logits: NDArray[np.float32] = self.net(inputs).float().cpu().numpy()
        return logits


class _Look(NamedTuple):
    """What one picture shows, and what it should."""

    place: int  # in the samples
    labels: LabelMap
    truth: NDArray[np.uint8]  # (H, W)


def _look(engine: _Engine, batch: Batch, samples: PixelSamples) -> Iterator[_Look | BadImage]:
    """At pictures of one shape."""
    yield from (BadImage(key, reason) for _, key, reason in batch.bad)
    if not len(batch.labels):
        return
    assert batch.sizes is not None
    logits = engine(batch.images.numpy())
    for index, scores, inner, truth in zip(
        batch.indices.tolist(), logits, batch.sizes.tolist(), batch.labels, strict=True
    ):
        size = (truth.shape[1], truth.shape[0])
        labels = label_map(scores, inner=tuple(inner), size=size, classes=samples.classes, name=samples.keys[index])
        yield _Look(index, labels, truth)


def _look_one_by_one(
    engine: _Engine,
    samples: PixelSamples,
    preprocess: SegmentationPreprocess,
    views: SegmentViews | None,
    *,
    rank: int,
    world_size: int,
) -> Iterator[_Look | BadImage]:
    """At this process's pictures in windows, or in several views."""
    for index in range(rank, len(samples), world_size):
        try:
            image, truth = samples.pair(index)
        except BadImage as error:
            yield error
            continue
        yield _Look(index, segment(engine, image, preprocess, samples.classes, samples.keys[index], views), truth)
