"""Identification of the network in a checkpoint file, by the most reliable evidence in it.

    identity = identify(read_checkpoint(path))
    identity.spec, identity.name, identity.row

In this order: the name given by the user, its metadata, its published hash, the shapes of its tensors. Shapes do not
distinguish `resnest50` from `resnest50_fast_2s1x64d`; such a file gets an error that names both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from resnest.checkpoints.loading import translate
from resnest.checkpoints.manifest import Weights, find_by_hash, find_weights
from resnest.checkpoints.reading import RawCheckpoint
from resnest.checkpoints.structure import Structure, published_as, read_structure, same_tensors
from resnest.errors import ResnestError, parameter
from resnest.files import digest_of
from resnest.spec import PUBLISHED, Spec, find_spec

METADATA_KEY = "resnest"  # of a safetensors file: {"name": ..., "spec": {...}} as JSON


@dataclass(frozen=True)
class Identity:
    """A checkpoint under official names, and its network."""

    path: Path
    state: Mapping[str, Tensor]
    seen: Structure
    layout: str
    aside: tuple[str, ...]  # tensors of other parts, such as detection heads
    candidates: tuple[str, ...]  # possible names; several if they cannot be distinguished
    sure: Spec | None  # the structure, if more than shapes spoke for it
    row: Weights | None = None

    @property
    def spec(self) -> Spec:
        """Raises ResnestError if several networks are possible."""
        if self.sure is not None:
            return self.sure
        if len(self.candidates) == 1:
            return find_spec(self.candidates[0])[0]
        raise ResnestError(f"{self.path} {self.doubt()}: name it with {parameter('network', 'NAME')}")

    @property
    def name(self) -> str:
        """Official name, or "resnest" for a free structure."""
        return self.candidates[0] if len(self.candidates) == 1 else "resnest"

    def doubt(self) -> str:
        if self.candidates:
            return f"can be {' or '.join(self.candidates)}, which have the same tensors"
        return "is a free structure, and whether it pools before or after its 3x3 is not in its tensors"


def identify(raw: RawCheckpoint, network: str | None = None) -> Identity:
    """Identify the network of a checkpoint.

    Args:
        network: name of the network, given by the user.

    Raises:
        ResnestError: no ResNeSt (with what it looks like), or not the network that the user named.
    """
    translated = translate(raw)
    seen = read_structure(translated.state, str(raw.path))
    named, row, sure = _named(raw, seen, network)
    candidates = (named,) if named else tuple(published_as(seen.spec))
    if named and sure is None:
        sure = find_spec(named)[0]
    return Identity(raw.path, translated.state, seen, translated.layout, tuple(translated.aside), candidates, sure, row)


def _named(raw: RawCheckpoint, seen: Structure, network: str | None) -> tuple[str | None, Weights | None, Spec | None]:
    if network is not None:
        spec, official = find_spec(network)
        if official not in published_as(seen.spec):
            others = published_as(seen.spec)
            what = f"its tensors are those of {' or '.join(others)}" if others else _describe(seen.spec)
            raise ResnestError(f"{raw.path} is not a {network}: {what}")
        return official, find_weights(network) if official in PUBLISHED and "." in network else None, spec
    if METADATA_KEY in raw.metadata:
        return _from_metadata(raw, seen)
    hashes = raw.hashes or (digest_of(raw.path, "sha256"), digest_of(raw.path, "sha1"))
    row = find_by_hash(*hashes)
    return (row.network, row, None) if row else (None, None, None)


def _from_metadata(raw: RawCheckpoint, seen: Structure) -> tuple[str, None, Spec]:
    """The network in the file's metadata, if its tensors agree."""
    try:
        said = json.loads(raw.metadata[METADATA_KEY])
        name, spec = said["name"], Spec(**said["spec"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ResnestError(f"{raw.path} has metadata that cannot be understood: {error}") from None
    if not isinstance(name, str) or not same_tensors(spec, seen.spec):
        raise ResnestError(f"{raw.path} has metadata of another network: {_describe(seen.spec)}")
    if name in PUBLISHED and (PUBLISHED[name].spec.avd_first, name in published_as(spec)) != (spec.avd_first, True):
        raise ResnestError(f"{raw.path} has metadata that call it {name[:40]}, which its structure is not")
    return name, None, spec


def _describe(spec: Spec) -> str:
    return f"it has depths {spec.depths}, radix {spec.radix}, cardinality {spec.cardinality}, width {spec.width}"
