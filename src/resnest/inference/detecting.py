"""Evaluating a detector on images with objects, in one process or in several.

result = evaluate_detector(net, samples, preprocess, device=device)
result.figures["box_ap"]
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import nn

from resnest.data.batch import Batch
from resnest.data.detection import DetectionSamples
from resnest.data.loading import evaluation_batches
from resnest.detection.augmented import predict_augmented
from resnest.detection.detector import Detector
from resnest.errors import ResnestError
from resnest.inference.detection_outcome import DetectionEvaluation, collect_detections
from resnest.inference.outcome import check_bad_share
from resnest.inference.torch_engine import to_numpy
from resnest.runtime.decode import BadImage
from resnest.runtime.detections import Classes, Detections, RawDetections, Views
from resnest.runtime.preprocess import DetectionPreprocess


def evaluate_detector(
    net: nn.Module,
    samples: DetectionSamples,
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
) -> DetectionEvaluation:
    """Run `net` over all samples, each once; see `evaluate_network`, which calls this for samples with objects.

    Batches hold images of one shape, since padding changes what a detector finds. Processes exchange what they found
    once, at the end, and each works out the same figures. With `views`, each image is looked at by itself, several
    times.
    """
    started = time.perf_counter()
    found: dict[int, Detections] = {}
    bad: list[tuple[str, str]] = []
    limit = 0  # objects an image, at most
    was_training = net.training
    net.eval()
    share = {"rank": rank, "world_size": world_size}
    if views is not None:
        looks = _look_in_views(net, samples, preprocess, views, **share)
    else:
        batches = evaluation_batches(samples, preprocess, batch_size=batch_size, workers=workers, **share)
        looks = (_look(net, batch, samples, preprocess, device) for batch in batches)
    for look in looks:
        bad += look.bad
        if world_size == 1:  # else together, below: the others wait there
            check_bad_share(len(bad), len(samples), bad[-1] if bad else None)
        found |= look.found
        limit = max(limit, look.limit)
        on_batch(len(look.found) + len(look.bad))
    net.train(was_training)
    if world_size > 1:
        parts = gather((found, bad, limit))
        found = {index: one for part in parts for index, one in part[0].items()}
        bad = [entry for part in parts for entry in part[1]]
        limit = max(part[2] for part in parts)
        check_bad_share(len(bad), len(samples), bad[-1] if bad else None)
    result = collect_detections(found, samples.objects, samples.class_names, max_detections=limit, bad=bad, seconds=0.0)
    result.seconds = time.perf_counter() - started
    return result


class _Look(NamedTuple):
    """What is in some images."""

    found: dict[int, Detections]  # by index
    bad: list[tuple[str, str]]  # images that cannot be used: key, reason
    limit: int  # objects that there could have been in each


def _look(
    net: nn.Module, batch: Batch, samples: DetectionSamples, preprocess: DetectionPreprocess, device: torch.device
) -> _Look:
    """At the images of a batch."""
    bad = [(key, reason) for _, key, reason in batch.bad]
    if not len(batch.labels):
        return _Look({}, bad, 0)
    assert batch.sizes is not None
    with torch.inference_mode():
        images = batch.images.to(device).contiguous(memory_format=torch.channels_last)
        raw = to_numpy(net(images, batch.sizes.to(device)))
    found = {
        index: _of_image(raw, place, samples, index, preprocess) for place, index in enumerate(batch.indices.tolist())
    }
    return _Look(found, bad, raw.scores.shape[1])


def _look_in_views(
    net: nn.Module,
    samples: DetectionSamples,
    preprocess: DetectionPreprocess,
    views: Views,
    *,
    rank: int,
    world_size: int,
) -> Iterator[_Look]:
    """At this process's images, one by one."""
    if not isinstance(net, Detector):
        raise ResnestError("several views of an image need the model itself: an exported file takes one size")
    for index in range(rank, len(samples), world_size):
        try:
            image = samples.decode(index)
        except BadImage as error:
            yield _Look({}, [(error.name, error.reason)], 0)
            continue
        raw = predict_augmented(net, image, preprocess, scales=views.scales or (preprocess.short,), flip=views.flip)
        yield _Look({index: _of_image(raw, 0, samples, index, preprocess)}, [], raw.scores.shape[1])


def _of_image(
    raw: RawDetections, place: int, samples: DetectionSamples, index: int, preprocess: DetectionPreprocess
) -> Detections:
    width, height = map(int, samples.objects.sizes[index])
    return Detections.of(
        raw,
        place,
        name=samples.keys[index],
        size=(width, height),
        preprocess=preprocess,
        classes=Classes(samples.class_names, samples.category_ids),
    )
