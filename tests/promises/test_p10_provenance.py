"""P10, provenance and parity: what the manifest says of every published file.

The parts with files of their own: hashes before parsing in test_fetch.py, round trips and equal logits in
test_layouts.py and test_hub.py. Accuracy on ImageNet needs ImageNet and the files: not measured here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Outcome
from resnest.checkpoints.layouts import LAYOUTS, refusal
from resnest.checkpoints.manifest import MANIFEST, Weights, find_by_hash, find_weights
from resnest.errors import ResnestError
from resnest.spec import ALIASES, PUBLISHED

ROOT = Path(__file__).parents[2]
NAMES = [row.name for row in MANIFEST]


@pytest.mark.parametrize("row", MANIFEST, ids=NAMES)
def test_every_row_is_whole(row: Weights) -> None:
    assert row.licence == "Apache-2.0"
    assert row.mirrors
    assert row.network in PUBLISHED
    assert refusal(LAYOUTS[row.layout], PUBLISHED[row.network].spec) is None
    assert re.fullmatch(r"([0-9a-f]{8})?", row.sha256)
    assert re.fullmatch(r"([0-9a-f]{40})?", row.sha1)
    assert row.sha256 or row.sha1 or row.mirrors[0].hub  # of the hub's rows no hash is published beforehand
    for digits in filter(None, (row.sha256, row.sha1[:8])):
        assert digits in row.file
        assert all(digits in mirror.url for mirror in row.mirrors)
    states = [mirror.status for mirror in row.mirrors]
    assert states == sorted(states, reverse=True)  # "unchecked" before "dead"
    assert row.preprocess().size == row.crop
    published = PUBLISHED[row.network].top1
    assert row.top1 is None or abs(row.top1 - published) < 0.3  # files of one network differ by tenths


def test_the_counts() -> None:
    """Eleven official, thirteen Gluon, eight of timm on the hub, two older of timm, four PyTorch-Encoding, three d2."""
    tags = [name.split(".", 1)[1] for name in NAMES]
    counted = {tag: tags.count(tag) for tag in dict.fromkeys(tags)}
    assert counted == {
        "official": 11,
        "gluon_in1k": 2,
        "in1k": 6,
        "gluon": 13,
        "converted": 2,
        "encoding": 4,
        "detectron2": 3,
    }
    assert len(set(NAMES)) == len(set(row.file for row in MANIFEST)) == len(MANIFEST)


def test_a_second_living_mirror_where_one_is_known() -> None:
    """P10 wants two; these have one or none that is not known to be dead, and docs/weights.md says so."""
    fewer = [row.name for row in MANIFEST if sum(mirror.status != "dead" for mirror in row.mirrors) < 2]
    page = (ROOT / "docs" / "weights.md").read_text(encoding="utf-8")
    told = re.search(r"(\d+) of (\d+) files have a second", page)
    assert told
    assert (int(told[1]), int(told[2])) == (len(MANIFEST) - len(fewer), len(MANIFEST))


ROWS_BY_NAME = {
    "resnest50": "resnest50.official",
    "resnest50d": "resnest50d.in1k",
    "resnest50d.in1k": "resnest50d.in1k",
    "resnest50.in1k": "resnest50d.in1k",
    "resnest50d.gluon": "resnest50.gluon",
    "resnest14": "resnest14d.gluon_in1k",
    "resnest14d": "resnest14d.gluon_in1k",
    "resnest269e": "resnest269e.in1k",
    "resnest50_fast_4s2x40d": "resnest50_fast_4s2x40d.official",
    "resnest50d_4s2x40d": "resnest50d_4s2x40d.in1k",
}


@pytest.mark.parametrize("name", ROWS_BY_NAME)
def test_what_a_name_means(name: str) -> None:
    assert find_weights(name).name == ROWS_BY_NAME[name]


def test_every_name_means_something() -> None:
    for name in [*PUBLISHED, *ALIASES]:
        assert find_weights(name).head


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnest50.v2", "'resnest50.v2' is not a known row of weights. Did you mean 'resnest50.gluon'"),
        ("resnet50d", "resnet50d is a baseline to train yourself"),
        ("resnest51", "Did you mean 'resnest50'"),
    ],
)
def test_what_names_mean_nothing(name: str, message: str) -> None:
    with pytest.raises(ResnestError) as caught:
        find_weights(name)
    assert message.split("Did")[0].strip() in str(caught.value)


def test_a_hash_finds_its_row() -> None:
    row = find_by_hash("44938639" + "0" * 56, "")
    assert row
    assert row.network == "resnest50_fast_2s1x64d"
    row = find_by_hash("", "bcfefe1dd1dd1ef5cfed5563123c1490ea37b42e")
    assert row
    assert row.name == "resnest50.gluon"
    assert find_by_hash("0" * 64, "0" * 40) is None


def test_show_tells_all_of_it(cli: Callable[..., Outcome]) -> None:
    shown = cli("models", "show", "resnest50").out
    for row in MANIFEST:
        if row.network == "resnest50":
            assert all(str(mirror) in shown for mirror in row.mirrors)
    assert shown.count("(known to be dead)") == sum(
        mirror.status == "dead" for row in MANIFEST if row.network == "resnest50" for mirror in row.mirrors
    )
    told = json.loads(cli("models", "show", "resnest101.gluon", "--json").out)
    assert [row["name"] for row in told] == ["resnest101.gluon"]
    assert told[0]["sha1"] == "5da943b3230f071525a98639945a6b3b3a45ac95"
    assert told[0]["top1"] == 0.8281
    assert "baseline" in cli("models", "show", "resnet50d").out
