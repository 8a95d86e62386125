"""What a detector gives: its card, its results, and pictures of them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from resnest.detector_spec import DetectorSpec
from resnest.errors import ResnestError
from resnest.runtime.card import ModelCard
from resnest.runtime.preprocess import DetectionPreprocess, Preprocess
from resnest.spec import Spec

CARD = ModelCard(
    architecture="resnest14",
    spec=Spec(depths=(1, 1, 1, 1)),
    class_names=("RBC", "WBC", "Platelets"),
    preprocess=DetectionPreprocess(short=480, long=640, canvas=(480, 640)),
    task="detection",
    detector=DetectorSpec(cascade=True, masks=True, max_detections=300),
    category_ids=(1, 2, 90),
    figures={"box_ap": 0.5},
)


def test_a_detectors_card_comes_back() -> None:
    for card in (CARD, replace(CARD, preprocess=DetectionPreprocess())):
        assert ModelCard.from_json(card.to_json(), where="") == card
    assert set(json.loads(CARD.to_json())) == {"label_names", "resnest"}  # nothing that timm would build
    assert not CARD.fits_timm
    told = json.loads(ModelCard.of_imagenet("resnest14", Preprocess()).to_json())["resnest"]
    assert not {"detector", "category_ids"} & told.keys()


WRONG_CARDS: dict[str, tuple[dict[str, Any], str]] = {
    "no detector": ({"detector": None}, "model card"),
    "an unknown setting": ({"detector": {"heads": 3}}, "heads"),
    "one that cannot be built": ({"detector": {"nms": 2}}, r"detector.nms=2 must lie in \(0, 1\]"),
    "an id too few": ({"category_ids": [1, 2]}, "3 different numbers"),
    "an id twice": ({"category_ids": [1, 2, 2]}, "3 different numbers"),
    "an id of text": ({"category_ids": [1, 2, "3"]}, "not whole numbers"),
    "another task": ({"task": "classification"}, "RESULT.json cannot be understood as a model card"),
    "a classifier's size": ({"preprocess": {"size": 224, "mean": [0, 0, 0], "std": [1, 1, 1]}}, "canvas"),
    "a size of text": (
        {"preprocess": {"short": "a", "long": 5, "canvas": None, "mean": [0], "std": [1]}},
        "not whole numbers",
    ),
}


@pytest.mark.parametrize(("change", "message"), WRONG_CARDS.values(), ids=WRONG_CARDS)
def test_a_card_that_makes_no_sense(change: dict[str, Any], message: str) -> None:
    content = json.loads(CARD.to_json())
    content["resnest"] |= change
    with pytest.raises(ResnestError, match=message):
        ModelCard.from_json(json.dumps(content), where="RESULT.json")


def test_what_is_for_the_other_task_says_so() -> None:
    with pytest.raises(ResnestError, match="is a detector, and a classifier is needed"):
        _ = CARD.classifier_input
    with pytest.raises(ResnestError, match="is a classifier, and a detector is needed"):
        _ = ModelCard.of_imagenet("resnest14", Preprocess()).detector_input
