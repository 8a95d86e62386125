"""Networks to benchmark, with random weights that give normal numbers: no zeros, infinities or denormals.

    net = build("timm:resnest50d", "timm")        # in eval mode
    export("resnest50", "ours", Path("m.onnx"), size=224)

Speed does not depend on the weights as long as all numbers are in float32's normal range; denormals are computed a
hundred times slower. Random weights of a deep network can lead there, so their norms are set from data.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from resnest.bench.contenders import Kind
from resnest.errors import ResnestError
from resnest.inference.prepare import prepared
from resnest.network import ResNeSt
from resnest.runtime.card import ModelCard
from resnest.runtime.preprocess import Preprocess
from resnest.spec import PUBLISHED, find_spec


def build(reference: str, kind: Kind, size: int = 224) -> nn.Module:
    """A network on the CPU, in eval mode; `saved` with its own weights, others with random ones."""
    name = reference.partition(":")[2]
    if kind == "saved":
        from resnest.inference.model import Model

        net: nn.Module = Model.from_pretrained(reference).net
        return net.eval()
    torch.manual_seed(0)
    if kind == "timm":
        import timm

        return calibrate_norms(timm.create_model(name), size)
    if kind == "torchvision":
        from torchvision import models

        return calibrate_norms(cast(nn.Module, models.get_model(name, weights=None)), size)
    from resnest.checkpoints.loading import create_model

    return calibrate_norms(create_model(reference, zero_gamma=False), size)


def calibrate_norms(net: nn.Module, size: int) -> nn.Module:
    """Set the statistics of every batch norm from random images, and no scale to zero; then eval mode."""
    norms = [module for module in net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    net.eval()  # but the norms: dropout and heads for training alone stay out of it
    for norm in norms:
        norm.train().momentum = 1.0  # the last batch's statistics are the running ones
        if norm.weight is not None and not norm.weight.detach().any():
            nn.init.ones_(norm.weight)
    if norms:
        try:
            _run(net, 64)  # what is small is quick
        except (RuntimeError, ValueError, AssertionError):  # a network that takes one size alone
            _run(net, size)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return net.eval()


def _run(net: nn.Module, size: int) -> None:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # eight samples are few, for training
        net(torch.randn(8, 3, size, size))


def export(reference: str, kind: Kind, path: Path, size: int, *, traced: bool = False) -> None:
    """The ONNX file of a network: ours as by `resnest export`, others traced."""
    net = build(reference, kind, size)
    if not isinstance(net, ResNeSt):
        write_onnx(net, path, size)
    elif traced:
        write_onnx(prepared(net, memory_format=torch.contiguous_format), path, size)
    else:
        write_ours(net, path, _card(reference, kind))


def write_ours(net: ResNeSt, path: Path, card: ModelCard) -> None:
    """As by `resnest export`, without its comparison, which random weights do not need."""
    from resnest.exporters import onnx
    from resnest.exporters.capture import Interface
    from resnest.exporters.writing import origin
    from resnest.runtime.engines.exported import CARD_KEY, ORIGIN_KEY

    fast = prepared(net, memory_format=torch.contiguous_format)
    provenance = origin("resnest bench", weights_sha256=None, precision="float32", sizes={})
    strings = {CARD_KEY: card.to_json(), ORIGIN_KEY: provenance}
    onnx.write(fast, path, strings, Interface(card.in_chans))


def write_onnx(net: nn.Module, path: Path, size: int, *, dynamo: bool = False) -> None:
    """Export by one of torch's two exporters, with a dynamic batch and a fixed size.

    The older one traces and takes a tenth of the time; onnxruntime runs what either wrote equally fast (docs/bench.md).
    """
    images = torch.randn(2, 3, size, size)
    names: dict[str, Any] = {"input_names": ["images"], "output_names": ["logits"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the older exporter is deprecated, and traces what it may not understand
        if dynamo:
            shapes = ({0: torch.export.Dim.DYNAMIC},)
            names |= {"dynamic_shapes": shapes, "external_data": False, "verbose": False}
            torch.onnx.export(net, (images,), path, dynamo=True, **names)
        else:
            axes = {"images": {0: "batch"}, "logits": {0: "batch"}}
            torch.onnx.export(net, (images,), path, dynamo=False, dynamic_axes=axes, opset_version=17, **names)


def _card(reference: str, kind: Kind) -> ModelCard:
    from resnest.inference.model import Model, published_card

    if kind == "saved":
        return Model.from_pretrained(reference).card
    _, network = find_spec(reference)
    crop = PUBLISHED[network].crop if network in PUBLISHED else 224
    card: ModelCard = published_card(network, Preprocess(size=crop))
    return card


def check_output(values: object, name: str) -> None:
    """Raises ResnestError for logits that are not finite or nearly zero: such numbers are computed slowly."""
    logits = torch.as_tensor(values).float()
    largest = logits.abs().max().item()
    if not 1e-20 < largest < 1e20:
        raise ResnestError(f"{name} gives logits of up to {largest:g}: its speed says nothing of a trained network")
