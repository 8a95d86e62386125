"""Checkpoints of segmentation-models-pytorch (smp) on ResNeSt, with our encoder in smp's decoder.

    net = open_smp("unet.pth")                         # weights of smp.Unet("timm-resnest50d"), and nothing else
    net = open_smp("saved", encoder_output_stride=8)   # a folder of save_pretrained; a setting that is not in it

A folder has a config.json with all settings. In a file of weights, names and shapes show the kind of decoder and most
of its settings; what they do not show is smp's default, unless it is given.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from resnest.adapters import peer
from resnest.adapters.smp import Encoder, register
from resnest.checkpoints.loading import check_values
from resnest.checkpoints.reading import read_checkpoint
from resnest.checkpoints.structure import looks_like
from resnest.errors import ResnestError, one_line
from resnest.network.tools import shapes_only
from resnest.spec import PUBLISHED, find_spec, list_models

State = Mapping[str, Tensor]
HEAD = "segmentation_head.0.weight"
STEM = re.compile(r"(.*)encoder\.(?:model\.)?conv1\.0\.weight")  # and what stands before it, such as "model."
PARTS = ("encoder.", "decoder.", "segmentation_head.", "classification_head.")
# The networks that smp has, by timm, come first.
NAMES = sorted(list_models(), key=lambda name: name in PUBLISHED and not PUBLISHED[name].timm)


def open_smp(checkpoint: str | Path, architecture: str = "", **settings: Any) -> Any:
    """A network of smp in evaluation mode, with our encoder and the logits that it has in smp.

    Args:
        checkpoint: a file of weights of Unet, UnetPlusPlus, FPN, DeepLabV3 or DeepLabV3Plus, also within a training
            checkpoint; or a folder that `save_pretrained` of any network of smp wrote.
        architecture: smp's name of the network, if the weights do not show it.
        settings: arguments of smp's class, in place of what the checkpoint says; such as
            `encoder_name="resnest/resnest50_fast_2s1x64d"`, which has the tensors of resnest50.

    Raises:
        ResnestError: smp is not installed; no checkpoint of it, another encoder or decoder, weights that do not fit.
    """
    smp, path = peer("segmentation_models_pytorch"), Path(checkpoint)
    register()
    state = _without_prefix(read_checkpoint(path).state, path)
    has_config = (path / "config.json").is_file()
    known = _read_config(path) if has_config else _read_tensors(state, architecture, settings, path)
    kind = architecture or known.pop("_model_class")
    build = getattr(smp, kind, None)
    if not isinstance(build, type):
        raise ResnestError(f"{path} is a {kind}, which segmentation_models_pytorch does not have")
    kept = {name: value for name, value in (known | settings).items() if not name.startswith("_")}
    try:
        net = build(**kept)
        net.load_state_dict(dict(state))
    except (RuntimeError, TypeError, ValueError, KeyError) as error:
        wrong = " ".join(str(error).split())[:300]
        raise ResnestError(f"{path} does not fit {kind} with {kept['encoder_name']}: {wrong}") from None
    return net.eval()


def _without_prefix(state: State, path: Path) -> State:
    """The network alone, names from `encoder.` on: Lightning's modules put a word before them, and others beside."""
    prefixes = {match[1] for name in state if (match := STEM.fullmatch(name))}
    if len(prefixes) != 1:
        what = "several networks" if prefixes else f"no ResNeSt as an encoder of smp: {_encoder_like(state)}"
        raise ResnestError(f"{path} holds {what}")
    prefix = prefixes.pop()
    plain = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    own = {name: tensor for name, tensor in plain.items() if name.startswith(PARTS)}
    check_values(own)
    return own


def _encoder_like(state: State) -> str:
    return looks_like(name.removeprefix("encoder.").removeprefix("model.") for name in state if "decoder." not in name)


def _read_config(folder: Path) -> dict[str, Any]:
    """The arguments of smp's class that save_pretrained has written."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        name, kind = re.sub(r"^(timm-|tu-|resnest/)", "", config["encoder_name"]), str(config["_model_class"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResnestError(f"{folder / 'config.json'} is none that smp writes: {one_line(error)}") from None
    if "decoder_use_batchnorm" in config:  # before smp 0.5, which warns of it
        config["decoder_use_norm"] = config.pop("decoder_use_batchnorm")
    return {**config, "_model_class": kind, "encoder_name": _ours(find_spec(name)[1]), "encoder_weights": None}


def _ours(name: str) -> str:
    return f"resnest/{name}"


# --- Settings in the tensors of a decoder ---


def _unet(state: State, block: str = "{}") -> dict[str, Any]:
    first = block.format(0)
    channels = [len(tensor) for tensor in _numbered(state, f"decoder.blocks.{block}.conv2.0.weight")]
    scse = f"decoder.blocks.{first}.attention1.attention.cSE.1.weight" in state
    return {
        "encoder_depth": len(channels),
        "decoder_channels": channels,
        "decoder_attention_type": "scse" if scse else None,
        "decoder_use_norm": "batchnorm" if f"decoder.blocks.{first}.conv1.1.running_mean" in state else False,
    }


def _unetplusplus(state: State) -> dict[str, Any]:
    return _unet(state, "x_0_{}")


def _fpn(state: State) -> dict[str, Any]:
    lateral, block = state["decoder.p5.weight"], state["decoder.seg_blocks.0.block.0.block.0.weight"]
    return {
        "encoder_depth": _depth(state, int(lateral.shape[1])),
        "decoder_pyramid_channels": len(lateral),
        "decoder_segmentation_channels": len(block),
        "decoder_merge_policy": "add" if state[HEAD].shape[1] == len(block) else "cat",
    }


def _deeplab(state: State) -> dict[str, Any]:
    first = next(tensor for name, tensor in state.items() if name.endswith("convs.0.0.weight"))
    separable = any(name.endswith("convs.1.0.1.weight") for name in state)
    settings = {"decoder_channels": len(first), "decoder_aspp_separable": separable}
    return {**settings, "encoder_depth": _depth(state, int(first.shape[1]))}


def _depth(state: State, channels: int) -> int:
    """The encoder's, whose last map has so many channels."""
    planes = [256, 512, 1024, 2048]
    return planes.index(channels) + 2 if channels in planes else 5


def _numbered(state: State, form: str) -> list[Tensor]:
    found: list[Tensor] = []
    while form.format(len(found)) in state:
        found.append(state[form.format(len(found))])
    return found


# smp's name, what the names of its decoder begin with, its settings; None: it has to be given by name and settings
ARCHITECTURES: tuple[tuple[str, str, Callable[[State], dict[str, Any]] | None], ...] = (
    ("UnetPlusPlus", r"decoder\.blocks\.x_0_0\.", _unetplusplus),
    ("MAnet", r"decoder\.center\.", None),
    ("Unet", r"decoder\.blocks\.0\.conv1\.", _unet),
    ("FPN", r"decoder\.seg_blocks\.", _fpn),
    ("DeepLabV3Plus", r"decoder\.aspp\.0\.convs\.", _deeplab),
    ("DeepLabV3", r"decoder\.(aspp|0)\.convs\.", _deeplab),
    ("Linknet", r"decoder\.blocks\.0\.block\.", None),
    ("PAN", r"decoder\.fpa\.", None),
    ("UPerNet", r"decoder\.feature_norms\.", None),
    ("PSPNet", r"decoder\.psp\.", None),
    ("Segformer", r"decoder\.mlp_stage\.", None),
)


def _read_tensors(state: State, architecture: str, given: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Arguments of smp's class, by the names and shapes of its tensors."""
    found = ((kind, read) for kind, mark, read in ARCHITECTURES if any(re.match(mark, name) for name in state))
    kind, read = next(found, ("", None))
    if HEAD not in state or not kind:
        raise ResnestError(f"{path} has an encoder of smp, but no decoder that is known: {_decoder_like(state)}")
    if read is None and kind != architecture:
        raise ResnestError(
            f"{path} is a {kind}, whose settings its weights do not show: give architecture={kind!r} and its settings,"
            " or save it with smp's save_pretrained"
        )
    stem = next(tensor for name, tensor in state.items() if STEM.fullmatch(name))
    settings: dict[str, Any] = {"_model_class": kind, "classes": len(state[HEAD]), "in_channels": int(stem.shape[1])}
    settings |= {"encoder_weights": None, **(read(state) if read else {})}
    if auxiliary := [
        tensor for name, tensor in state.items() if re.fullmatch(r"classification_head\.\d+\.weight", name)
    ]:
        settings["aux_params"] = {"classes": len(auxiliary[0])}
    depth = int({**settings, **given}.get("encoder_depth", 5))
    named = "encoder_name" in given
    return settings if named else {**settings, "encoder_name": _ours(_encoder_name(state, depth, path))}


def _decoder_like(state: State) -> str:
    names = [name for name in state if not name.startswith("encoder.")]
    return f"its tensors are called {', '.join(names[:3])}" if names else "it has nothing but the encoder"


def _encoder_name(state: State, depth: int, path: Path) -> str:
    """The network whose encoder has tensors of these names and first sizes; of two, the one that timm has."""
    unused = ("fc.", *(f"layer{stage}." for stage in range(depth, 5)))
    sizes = {
        plain: len(tensor)
        for name, tensor in state.items()
        if tensor.ndim and name.startswith("encoder.")
        if not (plain := name.removeprefix("encoder.").removeprefix("model.")).startswith(unused)
    }
    blocks = {name.rsplit(".", name.count(".") - 1)[0] for name in sizes if name.startswith("layer")}
    for name in NAMES:
        depths = find_spec(name)[0].depths[: depth - 1]
        if blocks != {f"layer{stage}.{block}" for stage, count in enumerate(depths, 1) for block in range(count)}:
            continue
        with shapes_only():
            wanted = Encoder(name, depth).state_dict()
        if sizes == {key: len(tensor) for key, tensor in wanted.items() if tensor.ndim}:
            return name
    raise ResnestError(f"{path} has an encoder that is none of our networks: {_encoder_like(state)}")
