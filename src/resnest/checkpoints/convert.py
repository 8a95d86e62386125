"""Conversion of a checkpoint to another layout, refused where something would be lost.

done = convert(Path("resnest50.pth"), to="gluon", out=Path("resnest50.params"))
print(done)          # resnest50, official to gluon: 268 tensors written, 53 batch counters left out

A detector or segmenter is converted completely, between the layouts of its task's `weights.py`, or with `drop_head`
only its backbone.
"""

from __future__ import annotations

import dataclasses
import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from resnest.checkpoints.layouts import COUNTER, LAYOUTS, Layout, Translated, find_layout, from_official, refusal
from resnest.checkpoints.loading import METADATA_KEY, Identity, identify, listed
from resnest.checkpoints.multipart import Parts, all_parts
from resnest.checkpoints.reading import RawCheckpoint, read_checkpoint, write_params
from resnest.errors import ResnestError, parameter
from resnest.files import check_is_not, replacing, write_errors
from resnest.network.resnest import ResNeSt
from resnest.network.tools import shapes_only
from resnest.spec import Spec, find_spec

HEAD = ("fc.weight", "fc.bias")
OFFSET = ".offset_"  # in the names of a deformable convolution's distances


@dataclass(frozen=True)
class Converted:
    """Summary of a conversion."""

    out: Path
    name: str
    source_layout: str
    layout: str
    written: int  # tensors
    counters: int  # batch counters that the layout does not keep
    left_out: tuple[str, ...]  # by request

    def to_dict(self) -> dict[str, object]:
        return {**dataclasses.asdict(self), "out": str(self.out), "left_out": list(self.left_out)}

    def __str__(self) -> str:
        parts = [f"{self.name}, {self.source_layout} to {self.layout}: {self.written} tensors written to {self.out}"]
        if self.counters:
            parts.append(f"{self.counters} batch counters left out, which no computation uses")
        if self.left_out:
            parts.append(f"left out on request: {', '.join(self.left_out)}")
        return "; ".join(parts)


def convert(
    source: str | Path,
    *,
    to: str,
    out: str | Path,
    network: str | None = None,
    drop_head: bool = False,
    bare: bool = False,
    overwrite: bool = False,
) -> Converted:
    """Read a checkpoint of any known layout and write it in another.

    Args:
        to: key of `LAYOUTS` or an alias; "torchvision" for complete detectors.
        network: name of the network in a checkpoint that does not identify it.
        drop_head: leave out the classifier, and heads of other tasks around the backbone.
        bare: without the prefix of a backbone inside a detector or segmenter.

    Raises:
        ResnestError: unreadable, not a complete ResNeSt, something that the layout cannot hold, a suffix of another
            format, or `out` exists.
    """
    source, out = Path(source), Path(out)
    # a layout that is not in LAYOUTS holds only complete networks of its owner
    owner = next((parts for parts in all_parts() if to in parts.layouts and to not in LAYOUTS), None)
    layout = owner.layouts[to] if owner else find_layout(to)
    _check_target(layout, out, overwrite)
    check_is_not(out, source, "the checkpoint that is converted")
    raw = read_checkpoint(source)
    model = None if drop_head else _read_model(raw, layout)
    if model is not None:
        if bare:
            raise ResnestError(
                f"{parameter('bare', True)} is for a backbone alone, and {source} is a whole {model.parts.what}:"
                f" add {parameter('drop_head', True)}"
            )
        return _convert_model(raw, model, layout, out, network)
    if owner:
        raise ResnestError(f"the {layout.name} layout is for whole {owner.what}s, and {source} is none")
    identity = identify(raw, network)
    left_out = _check_parts(identity, layout, drop_head)
    _check_structure(identity, layout, head="fc.weight" in identity.state and not left_out)
    state = {name: tensor for name, tensor in _complete(identity).items() if name not in left_out}
    renamed = from_official(state, layout, bare=bare)
    with write_errors(out), replacing(out) as temporary:
        write_checkpoint(temporary, renamed, layout, suffix=out.suffix, metadata=_metadata(identity))
    counters = 0 if layout.counters else sum(name.endswith(COUNTER) for name in state)
    what = " or ".join(identity.candidates) or "a free structure"
    return Converted(out, what, identity.layout, layout.name, len(renamed), counters, left_out)


@dataclass(frozen=True)
class FullModel:
    """A complete model with backbone and heads, under our names; aside are parts such as keypoints."""

    parts: Parts
    whole: Translated


def _read_model(raw: RawCheckpoint, layout: Layout) -> FullModel | None:
    """The complete model; None for a classifier or a backbone, and for layouts without such models."""
    for parts in all_parts():
        if layout.name in parts.layouts and (whole := parts.read(raw)):
            return FullModel(parts, whole)
    return None


def _convert_model(raw: RawCheckpoint, model: FullModel, layout: Layout, out: Path, network: str | None) -> Converted:
    """Convert all tensors; refused if some belong to no known part and would be lost."""
    if model.whole.aside:
        raise ResnestError(
            f"the {layout.name} layout cannot hold everything in {raw.path}: {listed(model.whole.aside, 4)} would be"
            f" lost; {parameter('drop_head', True)} takes the backbone alone"
        )
    offsets = {name: tensor for name, tensor in model.whole.state.items() if OFFSET in name}
    body = {name: t for name, t in model.whole.state.items() if name.startswith("backbone.") and name not in offsets}
    identity = identify(dataclasses.replace(raw, state=body), network)
    if layout.name in ("detectron2", "encoding"):  # the others' stand on any backbone
        _check_structure(identity, layout, head=False)
    state = {f"backbone.{name}": tensor for name, tensor in _complete(identity).items()}
    state |= offsets | {name: tensor for name, tensor in model.whole.state.items() if name not in body}
    for name in list(state):
        if name.endswith(".running_var"):
            state.setdefault(f"{name.removesuffix('running_var')}{COUNTER}", torch.tensor(0))
    renamed = model.parts.from_ours(state, layout.name)
    with write_errors(out), replacing(out) as temporary:
        write_checkpoint(temporary, renamed, layout, suffix=out.suffix, metadata=_metadata(identity))
    counters = 0 if layout.counters else sum(name.endswith(COUNTER) for name in state)
    what = f"a {model.parts.what} on {' or '.join(identity.candidates) or 'a free structure'}"
    return Converted(out, what, model.whole.layout, layout.name, len(renamed), counters, ())


def write_checkpoint(
    path: Path, state: Mapping[str, Tensor], layout: Layout, *, suffix: str, metadata: Mapping[str, str]
) -> None:
    """Write named tensors in the file format of a suffix, wrapped as by the layout's own code."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    if suffix == ".params":
        write_params(path, plain)
    elif suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file({name: tensor.clone() for name, tensor in plain.items()}, path, {"format": "pt", **metadata})
        path.chmod(0o644)  # safetensors writes for the owner alone
    elif suffix == ".pkl":
        if any(tensor.dtype == torch.bfloat16 for tensor in plain.values()):
            raise ResnestError("bfloat16 cannot be stored in a .pkl of numpy arrays: write .pth instead")
        arrays = {name: tensor.numpy() for name, tensor in plain.items()}
        with path.open("wb") as file:
            # detectron2 matches names of a whole model exactly unless the file asks for its heuristics
            pickle.dump({"model": arrays, "__author__": "resnest", "matching_heuristics": True}, file, protocol=2)
    else:
        wrapped = {
            "detectron2": {"model": plain},
            "mmpretrain": {"state_dict": plain},
            "mmdetection": {"state_dict": plain},
        }
        torch.save(wrapped.get(layout.name, plain), path)


def _check_target(layout: Layout, out: Path, overwrite: bool) -> None:
    option = parameter("out", out)
    if out.suffix not in layout.suffixes:
        raise ResnestError(f"{option}: the {layout.name} layout is written as {' or '.join(layout.suffixes)}")
    if out.exists() and not overwrite:
        anew = parameter("overwrite", True)
        raise ResnestError(f"{out} exists: choose another {parameter('out')}, or replace it with {anew}")
    if not out.parent.is_dir():
        raise ResnestError(f"{option}: there is no folder {out.parent}")


def _check_parts(identity: Identity, layout: Layout, drop_head: bool) -> tuple[str, ...]:
    """Tensors to leave out; raises for anything that would be lost without a request."""
    lost = list(identity.aside)
    if drop_head:
        lost += [name for name in HEAD if name in identity.state]
    elif lost or (layout.head is None and "fc.weight" in identity.state):
        names = lost or [name for name in HEAD if name in identity.state]
        raise ResnestError(
            f"the {layout.name} layout cannot hold everything in {identity.path}: {listed(names, 4)} would be lost;"
            f" leave them out with {parameter('drop_head', True)}"
        )
    return tuple(lost)


def _check_structure(identity: Identity, layout: Layout, *, head: bool) -> None:
    specs = [identity.sure] if identity.sure else _possible(identity)
    refusals = [refusal(layout, spec, in_chans=identity.seen.in_chans, head=head) for spec in specs]
    met = [text for text in refusals if text]
    if len(met) == len(specs):
        raise ResnestError(f"{identity.path}: {met[0]}")
    if met:
        named = parameter("network", "NAME")
        raise ResnestError(f"{identity.path} {identity.doubt()}, and {met[0]}: name it with {named}")


def _possible(identity: Identity) -> list[Spec]:
    """The structures that the tensors allow: pooling before or after the 3x3 does not show in them."""
    if identity.candidates:
        return [find_spec(name)[0] for name in identity.candidates]
    return [identity.seen.spec, dataclasses.replace(identity.seen.spec, avd_first=True)]


def _complete(identity: Identity) -> dict[str, Tensor]:
    """The state in the network's own order, with batch counters of 0 where the source does not keep them.

    Raises:
        ResnestError: a tensor is missing, misshapen or unknown.
    """
    spec = identity.sure or _possible(identity)[0]
    with shapes_only():
        net = ResNeSt(spec, num_classes=identity.seen.num_classes, in_chans=identity.seen.in_chans)
    wanted = {name: tensor.shape for name, tensor in net.state_dict().items()}
    missing = [name for name in wanted if name not in identity.state and not name.endswith(COUNTER)]
    strange = [name for name in identity.state if name not in wanted]
    misshapen = [
        name for name, shape in wanted.items() if name in identity.state and identity.state[name].shape != shape
    ]
    for what, names in (("lacks", missing), ("has the unknown", strange), ("has misshapen", misshapen)):
        if names:
            more = f" and {len(names) - 4} more" if len(names) > 4 else ""
            raise ResnestError(f"{identity.path} is not a complete ResNeSt: it {what} {', '.join(names[:4])}{more}")
    zero = torch.tensor(0)
    return {name: identity.state.get(name, zero) for name in wanted}


def _metadata(identity: Identity) -> dict[str, str]:
    """Metadata that identifies the network; empty if it is not known."""
    if identity.sure is None and len(identity.candidates) != 1:
        return {}
    return {METADATA_KEY: json.dumps({"name": identity.name, "spec": dataclasses.asdict(identity.spec)})}
