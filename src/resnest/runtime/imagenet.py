"""The 1000 classes of ImageNet-1k (ILSVRC 2012) in the order of the published networks' outputs: sorted synsets.

synsets()[0], class_names()[0]           # "n01440764", "tench"
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from importlib.resources import files

COUNT = 1000
_TWICE = {"n02012849": "crane (bird)", "n03126707": "crane (machine)"}  # one name for two classes in ImageNet


@cache
def synsets() -> tuple[str, ...]:
    """WordNet ids, which name the folders of the data set."""
    return tuple(synset for synset, _ in _lines())


@cache
def class_names() -> tuple[str, ...]:
    """A short name each, all different: the first synonym, or all of them where the first is not enough."""
    first = [names.split(",")[0] for _, names in _lines()]
    shared = {name for name, count in Counter(first).items() if count > 1}
    return tuple(
        _TWICE.get(synset, names if short in shared else short)
        for (synset, names), short in zip(_lines(), first, strict=True)
    )


@cache
def _lines() -> tuple[tuple[str, str], ...]:
    text = files("resnest.runtime").joinpath("imagenet.txt").read_text(encoding="utf-8")
    pairs = [line.split(" ", 1) for line in text.splitlines()]
    return tuple((synset, names) for synset, names in pairs)
