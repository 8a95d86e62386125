"""The page of explanations: one self-contained HTML file.

write_explanations(Path("explain.html"), [explanation], title="runs/a")
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from resnest.explanation.attention import BlockAttention
from resnest.explanation.drawing import SPLITS, activations, channel_order, panel_size, strip
from resnest.explanation.faithfulness import STEPS
from resnest.explanation.maps import EXACT
from resnest.explanation.result import Explained, Explanation, describe, line_of
from resnest.report.charts import MUTED, Line, Series, percent_chart
from resnest.report.page import Section, percent, render, write_html
from resnest.report.parts import Chart, Key, css_colour, data_uri

UNFOLDED = 3  # pictures whose blocks are shown without a click
SIDE = 480  # pixels of a panel's longer side
SIGNED = "Warm pixels speak for the class, blue ones against it; the scale is each map's own."
POSITIVE = "Warm pixels speak for the class; the scale is each map's own."
FOOTNOTE = (
    "A map says which pixels of the network's last maps a number comes from, not why. Each of them sees a wide region"
    " of the picture, so that edges of a map are no outlines."
)


def write_explanations(path: Path, explanations: Sequence[Explanation], *, title: str) -> None:
    """Write the page atomically; there must be one explanation or more."""
    exact = any(explanation.method == EXACT for explanation in explanations)
    words = "The map adds up to the class's logit, less its bias. " if exact else ""
    signed = any((target.map < 0).any() for one in explanations for target in one.targets)
    write_html(
        path,
        "explain.html",
        kind="Explanation",
        title=title,
        description=words + (SIGNED if signed else POSITIVE),
        facts=describe(explanations),
        sections=[_section(one, number < UNFOLDED) for number, one in enumerate(explanations)],
        footnote=FOOTNOTE,
    )


def _section(explanation: Explanation, unfolded: bool) -> Section:
    first = _panel(explanation.picture.resize(panel_size(explanation.picture.size)), "as the network sees it", "")
    panels = [first, *(_target(explanation, target) for target in explanation.targets)]
    blocks, compared = explanation.blocks, explanation.averaged > 0
    radix = max((block.radix for block in blocks), default=0)
    body = render(
        "explained.html",
        panels=panels,
        charts=_checks(explanation.targets),
        blocks=[_block(block) for block in blocks],
        unfolded=unfolded,
        summary=f"Split attention of {len(blocks)} blocks",
        reading=_reading(radix, compared),
        depth=_depth(blocks, compared) if radix > 1 else "",
        compared=compared,
        choice=radix > 1,
        columns=_legend(radix),
        maps_title="Splits' own maps" if radix > 1 else "Map",
        shares_title="Channels by split" if radix > 1 else "Mean gate",
    )
    notes = list(explanation.notes)
    if not blocks:
        notes.append("Radix 0: this network has no split attention to show.")
    elif radix == 1:
        notes.append("Radix 1: there is one split, so that attention is a gate for each channel, 0 to 1.")
    return Section(PurePath(explanation.name).name or explanation.name, body, notes)


def _panel(picture: Image.Image, title: str, line: str, score: float | None = None) -> dict[str, Any]:
    uri = data_uri(picture, SIDE)
    wide, high = picture.size
    return {"uri": uri, "title": title, "line": line, "score": score, "alt": title, "width": wide, "height": high}


def _target(explanation: Explanation, target: Explained) -> dict[str, Any]:
    return _panel(explanation.overlay(target), target.label, line_of(target), target.score)


def _checks(targets: Sequence[Explained]) -> Markup:
    """Deletion and insertion of each target."""
    steps = np.arange(STEPS + 1) / STEPS
    charts = []
    for target in targets:
        if target.check is None:
            continue
        areas = target.check.areas
        for name in ("deletion", "insertion"):
            own = Series(epochs=steps, values=getattr(target.check, name))
            random = Series(epochs=steps, values=getattr(target.check, f"random_{name}"))
            keys = [Key(f"map {areas[name]:.3f}", "main"), Key(f"random {areas[f'random_{name}']:.3f}")]
            svg = percent_chart([Line(random, MUTED, 1.0), Line(own)], label=f"{name}: score over pixels, in percent")
            charts.append(Chart(f"{target.label}: {name}", keys, svg))
    return render("charts.html", charts=charts, large=False) if charts else Markup()


def _depth(blocks: Sequence[BlockAttention], compared: bool) -> Markup:
    """Entropy over the blocks."""
    numbers = np.arange(1, len(blocks) + 1, dtype=np.float64)
    own = Series(epochs=numbers, values=np.array([block.entropy for block in blocks]))
    lines, keys = [Line(own)], [Key("this picture", "main")]
    if compared:
        values = np.array([math.nan if one.average_entropy is None else one.average_entropy for one in blocks])
        lines.insert(0, Line(Series(epochs=numbers, values=values), MUTED, 1.0))
        keys.append(Key("average"))
    svg = percent_chart(lines, label="Entropy of the attention over blocks, in percent", last=len(blocks))
    return render("charts.html", charts=[Chart("Undecided, % by block", keys, svg)], large=False)


def _reading(radix: int, compared: bool) -> str:
    """How to read the table of blocks."""
    words = f"Channels are sorted by {'the average' if compared else 'their weights'}."
    if radix > 1:
        words += " Undecided is their mean entropy: at 0 % each uses one split, at 100 % all of them alike."
    if compared:
        words += " Unusual is the distance to the average, in that of a usual picture: 1."
    return words


def _legend(radix: int) -> Markup:
    """What a strip's colours mean."""
    if radix != 2:
        return Markup(
            "Weight of each channel, a row for each split; dark is 1" if radix > 2 else "Gate of each channel"
        )
    second, _, first = (css_colour(colour) for colour in SPLITS)
    keys = [Key("split 1", "band line", first), Key("split 2", "band line", second)]
    words = Markup("").join(
        Markup('<span class="key {}" style="--line: {}">{}</span>').format(key.mark, key.colour, key.name)
        for key in keys
    )
    return Markup("A channel uses ") + words


def _block(block: BlockAttention) -> dict[str, Any]:
    """Channels are sorted by the average, or without one by the picture's own weights."""
    basis = block.weights if block.average is None else block.average
    order = channel_order(basis, block.cardinality)
    strips = [{"what": "picture", "uri": _strip_uri(block.weights, order)}]
    if block.average is not None:
        strips.append({"what": "average", "uri": _strip_uri(block.average, order)})
    groups = f", {block.cardinality} groups" if block.cardinality > 1 else ""
    return {
        "name": block.name,
        "size": f"{block.weights.shape[1]} channels{groups}",
        "strips": strips,
        "maps": [_png_uri(plane) for plane in activations(block.maps)],
        "shares": " / ".join(percent(share, 0) for share in block.shares),
        "entropy": "" if math.isnan(block.entropy) else percent(block.entropy, 0),
        "unusual": "" if block.unusual is None else f"{block.unusual:.2f}",
    }


def _strip_uri(weights: NDArray[np.float32], order: NDArray[np.int64]) -> str:
    return _png_uri(strip(weights, order))


def _png_uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
