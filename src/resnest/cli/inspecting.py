"""Description of a checkpoint file, for `resnest models show FILE`."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def describe_file(path: Path) -> dict[str, Any]:
    """Kind, network, classes and origin of a checkpoint, and the layouts that can represent it.

    Raises:
        ResnestError: unreadable, or no ResNeSt.
    """
    from resnest.checkpoints.identify import identify
    from resnest.checkpoints.layouts import LAYOUTS, refusal
    from resnest.checkpoints.reading import read_checkpoint
    from resnest.files import digest_of

    raw = read_checkpoint(path)
    identity = identify(raw)
    seen = identity.seen
    spec = identity.sure or seen.spec
    refusals = {name: refusal(layout, spec, in_chans=seen.in_chans) for name, layout in LAYOUTS.items()}
    return {
        "file": str(raw.path),
        "sha256": digest_of(raw.path, "sha256"),
        "published": identity.row.name if identity.row else None,
        "network": list(identity.candidates) or ["a free structure"],
        "layout": identity.layout,
        "wrapper": raw.wrapper or None,
        "tensors": len(identity.state),
        "classes": seen.num_classes or None,
        "input_channels": seen.in_chans,
        "depths": list(spec.depths),
        "radix": spec.radix,
        "cardinality": spec.cardinality,
        "width": spec.width,
        "other_parts": list(identity.aside),
        "fits_layouts": [name for name, text in refusals.items() if text is None],
    }


def to_text(told: dict[str, Any]) -> str:
    """One line per known fact."""
    others = told["other_parts"]
    lines = {
        "file": told["file"],
        "network": " or ".join(told["network"]),
        "structure": f"depths {told['depths']}, {told['radix']}s{told['cardinality']}x{told['width']}d",
        "classes": told["classes"] or "none, a backbone",
        "input": f"{told['input_channels']} channels",
        "layout": f"{told['layout']}, in {told['wrapper']}" if told["wrapper"] else told["layout"],
        "tensors": told["tensors"],
        "published": told["published"] or "not known by its hash",
        "other parts": f"{len(others)} tensors, such as {others[0]}" if others else "",
        "fits": ", ".join(told["fits_layouts"]),
        "sha256": told["sha256"],
    }
    return "\n".join(f"{key:<12} {text}" for key, text in lines.items() if text != "")
