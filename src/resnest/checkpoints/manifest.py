"""Manifest of all published weight files: links, hashes, preprocessing (facts, sections 1.6, 1.7, 2.3).

    find_weights("resnest50").file              # "resnest50-528c19ca.pth"
    find_weights("resnest50d.in1k").mirrors     # the hub
    [row.name for row in MANIFEST]

A row is one file of weights for a network, with the preprocessing that its published accuracy was measured with.
Nothing here imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from resnest.errors import ResnestError, unknown
from resnest.spec import ALIASES, PUBLISHED, find_spec

if TYPE_CHECKING:
    from resnest.runtime.preprocess import Preprocess

LICENCE = "Apache-2.0"  # of all of them: official repository, GluonCV, timm's hub rows
Status = Literal["unchecked", "dead"]

_OFFICIAL = "https://github.com/zhanghang1989/ResNeSt/releases/download"
_TIMM = "https://github.com/rwightman/pytorch-image-models/releases/download"
_GLUONCV = "https://apache-mxnet.s3-accelerate.dualstack.amazonaws.com/gluon/models"
_S3 = "https://hangzh.s3.amazonaws.com"  # dead since 2021-05 (ResNeSt issues 94, 131, 152)
_WASABI = "https://s3.us-west-1.wasabisys.com"  # answers 403 (ResNeSt issues 152, 153, 159)


@dataclass(frozen=True)
class Mirror:
    """A download location: an address, or a repository of the hub."""

    url: str = ""
    hub: str = ""  # such as "timm/resnest50d.in1k"
    status: Status = "unchecked"  # "dead": reported by users; the others are not checked

    def __str__(self) -> str:
        return self.url or f"hf-hub:{self.hub}"


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A published weight file."""

    name: str  # network and tag, such as "resnest50.official" or "resnest50d.in1k"
    network: str  # key of PUBLISHED
    layout: str  # key of checkpoints.layouts.LAYOUTS
    file: str  # its name in our cache
    mirrors: tuple[Mirror, ...]  # in the order of trust: who made the weights, who copied them, dead links
    sha256: str = ""  # the first 8 digits, as published; all 64 are pinned at the first download
    sha1: str = ""  # all 40 digits; of the file inside the zip
    licence: str = LICENCE
    crop: int = 224  # evaluation crop, pixels
    resize: int | None = None  # short side before the crop; None: crop first, crop / (crop + 32) of the short side
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    top1: float | None = None  # ImageNet, percent, as published for this file
    top5: float | None = None
    head: bool = True

    @property
    def hash_known(self) -> str:
        """Which hash was published, in words."""
        if self.sha1:
            return "full sha1"
        return f"sha256, first {len(self.sha256)} digits" if self.sha256 else "none"

    @property
    def dead(self) -> bool:
        return all(mirror.status == "dead" for mirror in self.mirrors)

    def preprocess(self) -> Preprocess:
        """The preprocessing of the published accuracy."""
        from resnest.runtime.preprocess import Preprocess

        fraction = self.crop / self.resize if self.resize else None
        first: Literal["resize", "crop"] = "resize" if self.resize else "crop"
        return Preprocess(size=self.crop, crop=fraction, interpolation=self.interpolation, first=first)


# first 8 digits of the file's sha256 (official resnest.py and ablation.py)
_TORCH_HASHES = {
    "resnest50": "528c19ca",
    "resnest101": "22405ba7",
    "resnest200": "75117900",
    "resnest269": "0cc87c48",
    "resnest50_fast_1s1x64d": "d8fbf808",
    "resnest50_fast_2s1x64d": "44938639",
    "resnest50_fast_4s1x64d": "f74f3fc3",
    "resnest50_fast_1s2x40d": "32830b84",
    "resnest50_fast_2s2x40d": "9d126481",
    "resnest50_fast_4s2x40d": "41d14ed0",
    "resnest50_fast_1s4x24d": "d4a4f76f",
}
# sha1 of the .params file inside the zip (official gluon/model_store.py; 14 and 26: GluonCV's), accuracy (README)
_GLUON = {
    "resnest14": ("7e0b0cae2fd7e9084d1e498b858af1429a6eb1cb", 75.75, 92.70),
    "resnest26": ("364590740605b6a2b95f5bb77436d781a817436f", 78.68, 94.38),
    "resnest50": ("bcfefe1dd1dd1ef5cfed5563123c1490ea37b42e", 81.04, 95.42),
    "resnest101": ("5da943b3230f071525a98639945a6b3b3a45ac95", 82.81, 96.42),
    "resnest200": ("0c5d117df664ace220aa6fc2922c094bb079d381", 83.88, 96.86),
    "resnest269": ("11ae7f5da2bcdbad05ba7e84f9b74383e717f3e3", 84.53, 96.98),
    "resnest50_fast_1s1x64d": ("5e16dbe56f1fba8e1bc2faddd91f874bfbd74193", 80.35, None),
    "resnest50_fast_2s1x64d": ("85eb779a5e313d74b5e5390dae02aa8082a0f469", 80.65, None),
    "resnest50_fast_4s1x64d": ("3f215532c6d8e07a10df116309993d4479fc3e4b", 80.90, None),
    "resnest50_fast_1s2x40d": ("af3514c2ec757a3a9666a75b82f142ed47d55bee", 80.72, None),
    "resnest50_fast_2s2x40d": ("2db13245aa4967cf5e8617cb4911880dd41628a4", 80.84, None),
    "resnest50_fast_4s2x40d": ("b24d515797832e02da4da9c8a15effd5e44cfb56", 81.17, None),
    "resnest50_fast_1s4x24d": ("7318153ddb5e542a20cc6c58192f3c6209cff9ed", 80.97, None),
}
# timm's rows of the hub: tag, crop share, interpolation, top-1, top-5 (timm resnest.py, results-imagenet.csv)
_HUB = {
    "resnest14": ("gluon_in1k", 0.875, "bilinear", 75.516, 92.512),
    "resnest26": ("gluon_in1k", 0.875, "bilinear", 78.476, 94.300),
    "resnest50": ("in1k", 0.875, "bilinear", 80.958, 95.372),
    "resnest101": ("in1k", 0.875, "bilinear", 82.916, 96.310),
    "resnest200": ("in1k", 0.909, "bicubic", 83.880, 96.880),
    "resnest269": ("in1k", 0.928, "bicubic", 84.542, 96.988),
    "resnest50_fast_4s2x40d": ("in1k", 0.875, "bicubic", 81.146, 95.566),
    "resnest50_fast_1s4x24d": ("in1k", 0.875, "bicubic", 81.024, 95.338),
}
# sha1 of the .pth file inside the zip (PyTorch-Encoding model_store.py)
_ENCODING = {
    "resnest50": "fb9de5b360976e3e8bd3679d3e93c5409a5eff3c",
    "resnest101": "966fb78c22323b0c68097c5c1242bd16d3e07fd5",
    "resnest200": "d7fd712f5a1fcee5b3ce176026fbb6d0d278454a",
    "resnest269": "51ae5f19032e22af4ec08e695496547acdba5ce5",
}
# first 8 digits, in the file's name (official d2/configs)
_DETECTRON = {"resnest50": "255b5649", "resnest101": "486f69a8", "resnest200": "02644020"}
# copies that timm made of the Gluon weights of 14 and 26, older than its hub (timm resnest.py before 0.9)
_CONVERTED = {"resnest14": "gluon_resnest14-9c8fe254.pth", "resnest26": "gluon_resnest26-50eb607c.pth"}


def _official() -> Iterator[Weights]:
    for network, digits in _TORCH_HASHES.items():
        file = f"{network}-{digits}.pth"
        copies = [Mirror(f"{_TIMM}/v0.1-resnest/{file}")] if network in _HUB else []
        yield Weights(
            name=f"{network}.official",
            network=network,
            layout="official",
            file=file,
            mirrors=(
                Mirror(f"{_OFFICIAL}/weights_step1/{file}"),
                *copies,
                Mirror(f"{_WASABI}/resnest/torch/{file}", status="dead"),
                Mirror(f"{_S3}/encoding/models/{file}", status="dead"),
            ),
            sha256=digits,
            crop=PUBLISHED[network].crop,
            top1=PUBLISHED[network].top1,
        )


def _hub() -> Iterator[Weights]:
    for network, (tag, fraction, interpolation, top1, top5) in _HUB.items():
        alias = PUBLISHED[network].timm
        crop = PUBLISHED[network].crop
        yield Weights(
            name=f"{alias}.{tag}",
            network=network,
            layout="timm",
            file=f"{alias}.{tag}.safetensors",
            mirrors=(Mirror(hub=f"timm/{alias}.{tag}"),),
            crop=crop,
            resize=math.floor(crop / fraction),
            interpolation="bicubic" if interpolation == "bicubic" else "bilinear",
            top1=top1,
            top5=top5,
        )


def _gluon() -> Iterator[Weights]:
    for network, (digest, top1, top5) in _GLUON.items():
        crop, stem = PUBLISHED[network].crop, f"{network}-{digest[:8]}"
        copies = [Mirror(f"{_GLUONCV}/{stem}.zip")] if "fast" not in network else []
        own = [] if network in _CONVERTED else [Mirror(f"{_OFFICIAL}/weights_step2/{stem}.zip")]
        yield Weights(
            name=f"{network}.gluon",
            network=network,
            layout="gluon",
            file=f"{stem}.params",
            mirrors=(*own, *copies, Mirror(f"{_WASABI}/resnest/gluon/{stem}.zip", status="dead")),
            sha1=digest,
            crop=crop,
            # Gluon's verify.py: below 320 the short side to ceil(crop / 0.875), bilinear; from 320 on crop first
            resize=math.ceil(crop / 0.875) if crop < 320 else None,
            interpolation="bilinear" if crop < 320 else "bicubic",
            top1=top1,
            top5=top5,
        )


def _others() -> Iterator[Weights]:
    for network, file in _CONVERTED.items():
        yield Weights(
            name=f"{network}.converted",
            network=network,
            layout="timm",
            file=file,
            mirrors=(Mirror(f"{_TIMM}/v0.1-weights/{file}"),),
            sha256=file[-12:-4],
            resize=256,
            interpolation="bilinear",
            top1=_HUB[network][3],
            top5=_HUB[network][4],
        )
    for network, digest in _ENCODING.items():
        file = f"{network}-{digest[:8]}"
        yield Weights(
            name=f"{network}.encoding",
            network=network,
            layout="encoding",
            file=f"{file}.pth",
            mirrors=(
                Mirror(f"{_WASABI}/encoding/models/{file}.zip", status="dead"),
                Mirror(f"{_S3}/encoding/models/{file}.zip", status="dead"),
            ),
            sha1=digest,
            crop=PUBLISHED[network].crop,
        )
    for network, digits in _DETECTRON.items():
        file = f"{network}_detectron-{digits}.pth"
        yield Weights(
            name=f"{network}.detectron2",
            network=network,
            layout="detectron2",
            file=file,
            mirrors=(Mirror(f"{_WASABI}/resnest/detectron/{file}", status="dead"),),
            sha256=digits,
            head=False,
        )


MANIFEST: tuple[Weights, ...] = (*_official(), *_hub(), *_gluon(), *_others())


def find_weights(name: str) -> Weights:
    """The row of a name.

    A row's own name means that row; an official name the official file (14 and 26 have none: the hub's), one of
    timm's names the hub's. A tag works with either name of the network: `resnest50.in1k`.

    Raises:
        ResnestError: an unknown name or tag, or a network without published weights.
    """
    for row in MANIFEST:
        if row.name == name:
            return row
    base, _, tag = name.partition(".")
    _, network = find_spec(base)  # an unknown network ends here, with the nearest one
    rows = [row for row in MANIFEST if row.network == network]
    if not rows:
        raise ResnestError(f"{network} is a baseline to train yourself: no weights of it are listed here")
    if tag:
        chosen = [row for row in rows if row.name.split(".", 1)[1] == tag]
        if not chosen:
            raise unknown("row of weights", name, [row.name for row in rows])
        return chosen[0]
    if base in ALIASES:
        return next(row for row in rows if row.layout == "timm" and row.mirrors[0].hub)
    return rows[0]


def find_by_hash(sha256: str, sha1: str) -> Weights | None:
    """The row with this published hash."""
    for row in MANIFEST:
        if (row.sha256 and sha256.startswith(row.sha256)) or (row.sha1 and row.sha1 == sha1):
            return row
    return None
