"""P7, evaluation invariance: given the predictions, figures depend neither on processes nor on batches."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from painted import Finder, paint, real_model
from painted_segments import SegmentFinder, paint_segments, panoptic_card
from processes import in_processes
from resnest.classification.card import ClassificationCard
from resnest.classification.metrics import ClassificationMetrics
from resnest.data.samples import Samples
from resnest.data.sources import open_dataset
from resnest.detection.evaluation import DetectionEvaluation
from resnest.inference.evaluation import Evaluation, evaluate_network
from resnest.network import ResNeSt
from resnest.panoptic.evaluation import PanopticEvaluation
from resnest.runtime.card import ModelCard
from resnest.runtime.preprocess import Preprocess
from resnest.segmentation.card import SegmentationCard, SegmentationPreprocess
from resnest.segmentation.evaluation import PixelEvaluation
from resnest.segmentation.spec import SegmenterSpec
from resnest.spec import Spec
from resnest.training.distributed import ProcessGroup
from streets import COLOURS, write_streets

TINY = Spec(depths=(1, 1, 1, 1), planes=(8, 8, 8, 8), stem="small", stem_width=4)


@pytest.mark.parametrize("count", [1, 101, 359])
def test_however_the_predictions_are_cut(count: int) -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(count, 10)).astype(np.float32), rng.integers(0, 10, count)
    logits[::5] = logits[::5].round()  # ties

    def figures(pieces: list[np.ndarray]) -> dict[str, float]:
        parts = [ClassificationMetrics(10) for _ in range(3)]
        for place, piece in enumerate(pieces):
            parts[place % 3].update(logits[piece], labels[piece])
        parts[0].merge(parts[1])
        parts[0].merge(parts[2])
        return parts[0].compute()

    expected = figures([np.arange(count)])
    for size in (1, 7, 32):
        order = rng.permutation(count)
        cuts = [*range(0, count, size), count]
        assert figures([order[start:end] for start, end in pairwise(cuts)]) == expected  # to the last bit


def evaluate_in(net: Any, images: Samples, card: ModelCard, batch: int, count: int) -> list[Evaluation]:
    """What each of `count` processes comes to."""

    def act(rank: int) -> Evaluation:
        class Fabric:
            global_rank, world_size, device = rank, count, torch.device("cpu")

        world = ProcessGroup(Fabric())  # type: ignore[arg-type]
        share = {"rank": rank, "world_size": count, "gather": world.all_gather}
        return evaluate_network(net, images, card, device=world.device, batch_size=batch, workers=0, **share)

    return in_processes(count, act)


def test_however_many_processes_and_whatever_the_batch(photos: Path) -> None:
    """Real images, odd numbers of them; the network's own last bits may differ with the batch, figures may not."""
    images = open_dataset(photos, val_fraction=0.7).val.subset(np.arange(23))
    torch.manual_seed(0)
    net = ResNeSt(TINY, num_classes=4).eval()
    card = ClassificationCard(
        architecture="resnest", spec=TINY, class_names=images.class_names, preprocess=Preprocess(size=16)
    )
    evaluated = partial(evaluate_in, net, images, card)

    expected = evaluated(32, 1)[0]
    for batch, count in [(1, 1), (7, 1), (32, 2), (7, 3), (1, 3)]:
        for found in evaluated(batch, count):
            assert found.count == 23  # none twice, none missing
            assert found.figures == pytest.approx(expected.figures, abs=1e-6)
            assert np.array_equal(found.confusion, expected.confusion)
            assert np.array_equal(found.indices, expected.indices)
            assert np.array_equal(found.predicted, expected.predicted)


def test_detectors_too(tmp_path: Path) -> None:
    """Pictures of three shapes, crowds, ties, nothing on some; 23 of them, in one, two or three processes."""
    images = open_dataset(paint(tmp_path / "data", 23)).val
    evaluated = partial(evaluate_in, Finder(), images, real_model().card)

    expected = evaluated(32, 1)[0]
    assert isinstance(expected, DetectionEvaluation)
    assert all(0.1 < expected.figures[name] < 0.9 for name in ("box_ap", "mask_ap"))
    assert sum(map(len, expected.mistakes))
    for batch, count in [(1, 1), (7, 1), (7, 2), (1, 3)]:
        for found in evaluated(batch, count):
            assert isinstance(found, DetectionEvaluation)
            assert np.array_equal(found.indices, np.arange(23))  # none twice, none missing
            assert found.figures == pytest.approx(expected.figures, abs=1e-6, nan_ok=True)
            assert np.array_equal(found.class_ap["mask"], expected.class_ap["mask"])
            assert list(found.worst(9)) == list(expected.worst(9))


def test_segmenters_too(tmp_path: Path) -> None:
    """Pictures of three sizes, whole and in windows; 23 of them, in one, two or three processes."""
    images = open_dataset(_streets(tmp_path / "data", 23), task="segmentation").val

    class ByColour(torch.nn.Module):
        """The class whose colour is nearest, by a 3x3 mean: right for the most part, the same for the same picture."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            colours = torch.tensor(COLOURS, dtype=torch.float32)[:, :, None, None] / 255  # (K, 3, 1, 1)
            smooth = torch.nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
            return -10 * (smooth[:, None] - colours).square().sum(2)

    whole = SegmentationPreprocess(mean=(0, 0, 0), std=(1, 1, 1), long=80)

    for preprocess in (whole, replace(whole, window=48)):
        card = SegmentationCard(
            architecture="resnest",
            spec=TINY,
            class_names=images.class_names,
            category_ids=images.classes.ids,
            segmenter=SegmenterSpec(),
            preprocess=preprocess,
        )
        expected = evaluate_in(ByColour(), images, card, 32, 1)[0]
        assert isinstance(expected, PixelEvaluation)
        assert 0.5 < expected.figures["miou"] < 0.99
        for batch, count in [(1, 1), (7, 1), (7, 2), (1, 3)]:
            for found in evaluate_in(ByColour(), images, card, batch, count):
                assert isinstance(found, PixelEvaluation)
                assert np.array_equal(found.indices, np.arange(23))  # none twice, none missing
                assert np.array_equal(found.confusion, expected.confusion)
                assert found.figures == expected.figures
                assert list(found.worst(9)) == list(expected.worst(9))
                assert found.worst_maps.keys() == expected.worst_maps.keys()


def test_panoptic_detectors_too(tmp_path: Path) -> None:
    """Pictures of three shapes, crowds, void, ties, nothing on some; 23 of them, in one, two or three processes."""
    images = open_dataset(paint_segments(tmp_path / "data", 23), task="panoptic").val
    evaluated = partial(evaluate_in, SegmentFinder(), images, panoptic_card())

    expected = evaluated(32, 1)[0]
    assert isinstance(expected, PanopticEvaluation)
    assert all(0.1 < expected.figures[name] < 0.95 for name in ("pq_things", "pq_stuff"))
    for batch, count in [(1, 1), (7, 1), (7, 2), (1, 3)]:
        for found in evaluated(batch, count):
            assert isinstance(found, PanopticEvaluation)
            assert np.array_equal(found.indices, np.arange(23))  # none twice, none missing
            assert found.figures == expected.figures
            assert np.array_equal(found.segments, expected.segments)
            assert list(found.worst(9)) == list(expected.worst(9))
            assert found.worst_maps.keys() == expected.worst_maps.keys()


def _streets(root: Path, count: int) -> Path:
    """Pictures of three sizes in turn."""
    write_streets(root, train=2, val=count)
    for number, path in enumerate(sorted((root / "images" / "val").iterdir())):
        size = ((96, 64), (64, 96), (70, 61))[number % 3]
        mask = root / "masks" / "val" / path.name
        Image.open(path).resize(size, Image.Resampling.BILINEAR).save(path)
        Image.open(mask).resize(size, Image.Resampling.NEAREST).save(mask)
    return root
