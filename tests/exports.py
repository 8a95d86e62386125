"""What tests of exports share: a tiny saved model, its real exports made once, and ways to break one file's layer."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from resnest.classification.card import ClassificationCard
from resnest.exporters.formats import FORMATS, Format
from resnest.inference.model import Model
from resnest.network.resnest import ResNeSt
from resnest.runtime.preprocess import Preprocess
from resnest.segmentation.card import SegmentationCard, SegmentationPreprocess
from resnest.segmentation.segmenter import build_segmenter
from resnest.segmentation.spec import SegmenterSpec
from resnest.spec import Spec

PICO = Spec(depths=(1, 1, 1, 1), planes=(8, 16, 32, 64), stem="small", stem_width=4)
Net = TypeVar("Net", bound=torch.nn.Module)
CLASSES = ("cat", "dog", "h\u00e9ron", "yak")


def saved(folder: Path, spec: Spec = PICO, *, multi_label: bool = False, size: int = 40) -> Path:
    """A saved model with lively random weights."""
    torch.manual_seed(0)
    net = lively(ResNeSt(spec, num_classes=len(CLASSES), zero_gamma=False))
    card = ClassificationCard(
        architecture="resnest",
        spec=spec,
        class_names=CLASSES,
        preprocess=Preprocess(size=size),
        multi_label=multi_label,
    )
    return Model(net, card, str(folder)).save_pretrained(folder)


def save_segmenter(folder: Path, names: tuple[str, ...] = CLASSES, **changes: Any) -> Path:
    """A saved segmenter with lively random weights; `changes` are fields of its `SegmenterSpec`."""
    torch.manual_seed(0)
    spec, segmenter = replace(PICO, stem="deep", planes=(8, 8, 16, 16)), SegmenterSpec(**changes)
    net = lively(build_segmenter(spec, segmenter, len(CLASSES), zero_gamma=False))
    last = net.head.predict.logits
    with torch.no_grad():  # every class somewhere
        logits = net(torch.rand(4, 3, 64, 96) * 4 - 2)
        spread = logits.std((0, 2, 3))
        last.weight /= spread[:, None, None, None]
        last.bias.copy_((last.bias - logits.mean((0, 2, 3))) / spread)
    card = SegmentationCard(
        architecture="resnest",
        spec=spec,
        class_names=names,
        category_ids=(0, 1, 2, 3),
        preprocess=SegmentationPreprocess(),
        segmenter=segmenter,
    )
    return Model(net, card, str(folder)).save_pretrained(folder)


def lively(net: Net) -> Net:
    """In eval mode, with norms that all do something."""
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    return net.eval()


def broken(form: Format, real: Path, layer: str) -> Format:
    """The format, with a writer that delivers a copy of the real file with one layer's weights disturbed."""

    def write(net: Any, path: Path, strings: Any, takes: Any) -> None:
        for file in real.parent.glob(f"{real.stem}.*"):
            if file.suffix in (form.suffix, form.companion):
                shutil.copy(file, path.with_suffix(file.suffix))
        DISTURB[form.name](path, layer)

    return replace(form, write=write)


def _disturbed(values: np.ndarray) -> np.ndarray:
    return (values * 1.05 + 0.02).astype(np.float32)


def _in_onnx(path: Path, layer: str) -> None:
    import onnx
    from onnx import numpy_helper

    model = onnx.load(path)
    [weights] = [tensor for tensor in model.graph.initializer if tensor.name == f"{layer}.weight"]
    weights.CopyFrom(numpy_helper.from_array(_disturbed(numpy_helper.to_array(weights)), weights.name))
    onnx.save(model, path)


def _in_openvino(path: Path, layer: str) -> None:
    import openvino
    from openvino import opset16

    model = openvino.Core().read_model(path)
    steps = [step for step in model.get_ordered_ops() if step.get_type_name() != "Result"]
    [step] = [step for step in steps if step.get_friendly_name() == layer]
    while step.get_type_name() not in ("Convolution", "GroupConvolution", "MatMul"):  # the bias comes after it
        step = step.input_value(0).get_node()
    weights = step.input_value(1).get_node()
    while weights.get_type_name() != "Constant":
        weights = weights.input_value(0).get_node()
    weights.output(0).replace(opset16.constant(_disturbed(weights.data)).output(0))
    kept = path.with_name("disturbed.xml")
    openvino.save_model(model, kept, compress_to_fp16=False)
    del model
    for suffix in (".xml", ".bin"):
        kept.with_suffix(suffix).replace(path.with_suffix(suffix))


def _in_torch(path: Path, layer: str) -> None:
    program = torch.export.load(path)
    weights = program.state_dict[f"{layer}.weight"]
    weights.data.copy_(torch.from_numpy(_disturbed(weights.detach().numpy())))
    torch.export.save(program, path)


DISTURB: dict[str, Callable[[Path, str], None]] = {"onnx": _in_onnx, "openvino": _in_openvino, "torch": _in_torch}


def use(monkeypatch: Any, form: Format) -> None:
    """From now on, exports of the format's name are made by this one."""
    monkeypatch.setitem(FORMATS, form.name, form)
