"""Evaluating a panoptic detector on pictures with segments, in one process or in several.

result = evaluate_panoptic(net, samples, preprocess, device=device)
result.figures["pq"]

Objects and stuff are joined in each picture's own size, by the function that prediction uses, and compared there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from resnest.data.batch import Batch
from resnest.data.loading import evaluation_batches
from resnest.data.panoptic import PanopticSamples
from resnest.errors import ResnestError
from resnest.inference.outcome import check_bad_share
from resnest.inference.panoptic_outcome import PanopticEvaluation, Seen, collect_panoptic, keep_worst
from resnest.inference.torch_engine import panoptic_to_numpy
from resnest.metrics.panoptic import PanopticMetrics
from resnest.panoptic.panoptic import DetectedPanoptic
from resnest.runtime.decode import BadImage
from resnest.runtime.detections import Views
from resnest.runtime.panoptic_map import PanopticMap
from resnest.runtime.panoptic_merge import panoptic_map
from resnest.runtime.preprocess import DetectionPreprocess
from resnest.segmenter_spec import PanopticSpec


class Panoptic(Protocol):
    """A panoptic detector, ours or one that an engine runs."""

    panoptic: PanopticSpec
    training: bool

    def __call__(self, images: Tensor, sizes: Tensor, /) -> DetectedPanoptic: ...

    def train(self, mode: bool = True) -> object: ...


def evaluate_panoptic(
    net: Panoptic,
    samples: PanopticSamples,
    preprocess: DetectionPreprocess,
    *,
    device: torch.device,
    batch_size: int = 4,
    workers: int | None = None,
    on_batch: Callable[[int], None] = lambda seen: None,
    rank: int = 0,
    world_size: int = 1,
    gather: Callable[[Any], list[Any]] = lambda mine: [mine],
    views: Views | None = None,
) -> PanopticEvaluation:
    """Run `net` over all samples, each once; see `evaluate_network`, which calls this for samples with segments.

    Batches hold images of one shape, since padding changes what a detector finds. Processes exchange what they counted
    once, at the end, and each works out the same figures.

    Raises:
        ResnestError: for views, which are for detectors without stuff; more than 5 % of the images are unusable.
    """
    if views is not None:
        raise ResnestError("a panoptic detector looks at one view: several scales and mirrored views are for others")
    started = time.perf_counter()
    metrics = PanopticMetrics(len(samples.class_names), samples.classes.things)
    seen: dict[int, Seen] = {}
    bad: list[tuple[str, str]] = []
    was_training = net.training
    net.train(False)
    share = {"rank": rank, "world_size": world_size}
    for batch in evaluation_batches(samples, preprocess, batch_size=batch_size, workers=workers, **share):
        for look in _look(net, batch, samples, preprocess, device):
            if isinstance(look, BadImage):
                bad.append((look.name, look.reason))
                if world_size == 1:  # else together, below: the others wait there
                    check_bad_share(len(bad), len(samples), bad[-1])
            else:
                one = PanopticMetrics(len(samples.class_names), samples.classes.things)
                one.update(look.found, look.truth)
                metrics.merge(one)
                seen[look.number] = Seen(one.compute().figures["pq"], look.found)
                keep_worst(seen)
            on_batch(1)
    net.train(was_training)
    if world_size > 1:
        metrics, seen, bad = _together(gather((metrics, seen, bad)))
        check_bad_share(len(bad), len(samples), bad[-1] if bad else None)
    seconds = time.perf_counter() - started
    return collect_panoptic(metrics, seen, samples.class_names, bad=bad, seconds=seconds)


class _Look(NamedTuple):
    """What one picture shows, and what it should."""

    number: int  # among the samples
    found: PanopticMap
    truth: PanopticMap


def _look(
    net: Panoptic, batch: Batch, samples: PanopticSamples, preprocess: DetectionPreprocess, device: torch.device
) -> Iterator[_Look | BadImage]:
    """At pictures of one shape."""
    yield from (BadImage(key, reason) for _, key, reason in batch.bad)
    if not len(batch.labels):
        return
    assert batch.sizes is not None
    with torch.inference_mode():
        images = batch.images.to(device).contiguous(memory_format=torch.channels_last)
        raw = panoptic_to_numpy(net(images, batch.sizes.to(device)))
    for place, index in enumerate(batch.indices.tolist()):
        try:
            truth = samples.truth(index)
        except BadImage as error:
            yield error
            continue
        width, height = map(int, samples.objects.sizes[index])
        found = panoptic_map(
            raw,
            place,
            name=samples.keys[index],
            size=(width, height),
            preprocess=preprocess,
            classes=samples.classes,
            spec=net.panoptic,
        )
        yield _Look(index, found, truth)


def _together(
    parts: list[tuple[PanopticMetrics, dict[int, Seen], list[tuple[str, str]]]],
) -> tuple[PanopticMetrics, dict[int, Seen], list[tuple[str, str]]]:
    """What all processes counted, saw and could not use."""
    (metrics, *_), *others = parts
    for other, *_ in others:
        metrics.merge(other)
    seen = {index: one for part in parts for index, one in part[1].items()}
    keep_worst(seen)
    return metrics, seen, [entry for part in parts for entry in part[2]]
