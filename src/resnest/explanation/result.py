"""The explanation of one picture.

explanation = resnest.explain("runs/a", "rose.jpg")
explanation.targets[0].label, explanation.targets[0].map       # "rose", (7, 7)
explanation.blocks[3].shares                                   # which split the channels of the fourth block used
explanation.save("rose.png")                                   # or .json, or .html
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.errors import ResnestError, printable
from resnest.explanation.attention import BlockAttention
from resnest.explanation.drawing import overlay, panel_size, sheet
from resnest.explanation.faithfulness import Faithfulness, resized
from resnest.explanation.targets import Box
from resnest.files import check_is_not, replacing, write_errors
from resnest.runtime.outputs import save_marked
from resnest.runtime.results import DRAWINGS, QUALITY
from resnest.tasks import load_object


@dataclass(frozen=True, kw_only=True)
class Explained:
    """A label, object or class of pixels, and where in the picture it comes from."""

    label: str
    score: float  # as `predict` gives it, 0..1
    value: float  # the number that the map explains
    what: str  # of that number: "logit"
    map: NDArray[np.float32]  # (h, w): of a layer's map, which covers the network's input with its padding
    bias: float | None = None  # of `exact`: the map's sum and this are `value`
    box: Box | None = None  # x1, y1, x2, y2 in pixels of `Explanation.picture`
    region: NDArray[np.bool_] | None = field(default=None, repr=False)  # (H, W) of that picture
    check: Faithfulness | None = field(default=None, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        content: dict[str, Any] = {"label": self.label, "score": self.score, self.what.replace(" ", "_"): self.value}
        if self.bias is not None:
            content["bias"] = self.bias
        if self.box is not None:
            content["box"] = [round(side, 2) for side in self.box]
        if self.region is not None:
            content["pixels"] = int(self.region.sum())
        content["map"] = [[float(f"{value:.6g}") for value in row] for row in self.map]
        return content if self.check is None else {**content, "check": self.check.to_dict()}


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What a model says of a picture, and why."""

    name: str  # the picture's path as it was given
    picture: Image.Image = field(repr=False)  # RGB, as the network sees it, without padding
    input_size: tuple[int, int]  # height and width of the network's input, with padding
    method: str
    layers: tuple[str, ...]
    targets: tuple[Explained, ...]
    blocks: tuple[BlockAttention, ...] = field(repr=False)  # of split attention, in the network's order
    averaged: int = 0  # pictures in the blocks' average
    notes: tuple[str, ...] = ()

    def heat(self, target: Explained) -> NDArray[np.float32]:
        """A target's map in pixels of the picture, (H, W)."""
        return resized(target.map, self.input_size)[: self.picture.height, : self.picture.width]

    def overlay(self, target: Explained) -> Image.Image:
        """A target's map over the picture; small pictures are enlarged."""
        wide, high = panel_size(self.picture.size)
        factor = wide / self.picture.width
        heat = self.heat(target)
        if factor > 1:
            full = (round(self.input_size[0] * factor), round(self.input_size[1] * factor))
            heat = resized(target.map, full)[:high, :wide]
            heat = np.pad(heat, ((0, high - heat.shape[0]), (0, wide - heat.shape[1])), mode="edge")
        box = None if target.box is None else [side * factor for side in target.box]
        return overlay(self.picture.resize((wide, high), Image.Resampling.BICUBIC), heat, box)

    def draw(self) -> Image.Image:
        """The picture, and beside it a panel for each target."""
        plain = self.picture.resize(panel_size(self.picture.size), Image.Resampling.BICUBIC)
        panels = [(plain, "as the network sees it", self.how)]
        panels += [(self.overlay(one), f"{one.label}  {one.score:.1%}", line_of(one)) for one in self.targets]
        return sheet(panels)

    @property
    def how(self) -> str:
        """exact, layer4."""
        return f"{self.method}, {' + '.join(self.layers)}"

    def text(self) -> str:
        """x.jpg: rose 91.2%  tulip 6.0%  (exact, layer4)."""
        found = "  ".join(f"{target.label} {target.score:.1%}" for target in self.targets)
        return f"{self.name}: {found or '-'}  ({self.how})"

    def __str__(self) -> str:
        return printable(self.text())

    def to_dict(self) -> dict[str, Any]:
        """For JSON; scores are fractions 0..1."""
        return {
            "image": self.name,
            "method": self.method,
            "layers": list(self.layers),
            "width": self.picture.width,
            "height": self.picture.height,
            "input": list(self.input_size),
            "targets": [target.to_dict() for target in self.targets],
            "split_attention": [block.to_dict() for block in self.blocks],
            "averaged": self.averaged,
            "notes": list(self.notes),
        }

    def save(self, path: str | Path) -> None:
        """Write a file, by its suffix: the drawing, .json, or .html; one that is there is replaced.

        Raises:
            ResnestError: an unknown suffix, the picture itself, a file that cannot be written.
        """
        path = Path(path)
        check_is_not(path, os.fspath(self.name), "the picture that is explained")
        suffix = path.suffix.lower()
        with write_errors(path):
            if suffix in DRAWINGS:
                save_marked(self.draw(), path, quality=QUALITY)
            elif suffix == ".json":
                with replacing(path) as temporary:
                    text = json.dumps(self.to_dict(), ensure_ascii=False)
                    temporary.write_text(text + "\n", encoding="utf-8", errors="backslashreplace", newline="")
            elif suffix == ".html":
                load_object("resnest.explanation.page:write_explanations")(path, [self], title=Path(self.name).name)
            else:
                raise ResnestError(f"{path}: expected {', '.join(DRAWINGS)}, .json or .html")


def line_of(target: Explained) -> str:
    """logit 6.12 = map 5.90 + bias 0.22."""
    if target.bias is None:
        return f"{target.what} {target.value:.2f}"
    sign = "-" if target.bias < 0 else "+"
    return f"{target.what} {target.value:.2f} = map {target.map.sum():.2f} {sign} bias {abs(target.bias):.2f}"


def describe(explanations: Sequence[Explanation]) -> dict[str, str]:
    """What all of them have in common, short label -> value."""
    first = explanations[0]
    grids = {f"{target.map.shape[0]} x {target.map.shape[1]}" for one in explanations for target in one.targets}
    facts = {"Pictures": f"{len(explanations):,}", "Method": first.method, "Layers": ", ".join(first.layers)}
    if len(grids) == 1:
        facts["Map"] = grids.pop()
    radix = {block.radix for one in explanations for block in one.blocks}
    facts["Split attention"] = f"{len(first.blocks)} blocks, radix {max(radix)}" if radix else "none"
    if first.averaged:
        facts["Average of"] = f"{first.averaged:,} pictures"
    return facts
