"""The model card that people read: README.md of a saved model, written from its own figures.

text = model_card_text(card, "flowers", account={"train_images": 800, "val_images": 200})
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from resnest.cost import macs, parameters
from resnest.metrics import wilson_interval
from resnest.runtime.card import ModelCard

MOST_NAMES = 30  # classes that are listed by name
FIGURES = {
    "top1": "top-1",
    "top5": "top-5",
    "map": "mAP",
    "f1_micro": "F1, all labels",
    "f1_macro": "F1, mean of classes",
    "box_ap": "box AP",
    "box_ap50": "box AP50",
    "mask_ap": "mask AP",
    "mask_ap50": "mask AP50",
}

USE_DETECTOR = """\
```python
import resnest

predict = resnest.Predictor("{where}")
print(predict("photo.jpg").shown().counts())
```

```sh
resnest predict {where} photo.jpg --draw drawn
```
"""
USE = """\
```python
import resnest

predict = resnest.Predictor("{where}")
print(predict("photo.jpg").top(3))
```

```sh
resnest predict {where} photo.jpg --top 3
```
"""


def model_card_text(
    card: ModelCard, title: str, *, account: Mapping[str, object] | None = None, repo_id: str | None = None
) -> str:
    """Markdown with the hub's header.

    Args:
        account: a run's run.json: images, versions, device.
        repo_id: the hub repository, if it goes there.
    """
    account = account or {}
    where = repo_id or "path/to/this/folder"
    parts = [
        _header(card, title, account),
        f"# {title}\n",
        f"A {_network(card)} that {_does(card)}.\n",
        "## Figures\n",
        _figures(card, account),
        "## Use\n",
        (USE_DETECTOR if card.detector else USE).format(where=where),
        "## Input\n",
        _input(card),
        "## Classes\n",
        _classes(card),
    ]
    return "\n".join(parts)


def _header(card: ModelCard, title: str, account: Mapping[str, object]) -> str:
    library = "timm" if card.fits_timm else "resnest"
    tag = "image-classification"
    if card.detector:
        tag = "image-segmentation" if card.detector.masks else "object-detection"
    lines = ["---", f"library_name: {library}", f"pipeline_tag: {tag}", "tags:", f"- {tag}", "- resnest"]
    figure, kind = ("box_ap", "mAP") if card.detector else ("top1", "accuracy")
    if math.isfinite(card.figures.get(figure, math.nan)):
        lines += [
            "model-index:",
            f"- name: {title.rsplit('/', 1)[-1]}",
            "  results:",
            "  - task:",
            f"      type: {tag}",
            "    dataset:",
            f"      name: validation images ({account.get('format', 'folder')})",
            "      type: images",
            "    metrics:",
            f"    - type: {kind}",
            f"      value: {card.figures[figure]:.4f}",
        ]
    return "\n".join([*lines, "---\n"])


def _does(card: ModelCard) -> str:
    count = len(card.class_names)
    if card.detector:
        what = "boxes and masks" if card.detector.masks else "boxes"
        return (
            f"finds objects of {count} classes, with {what}"
            if count > 1
            else f"finds one class of objects, with {what}"
        )
    return f"says which of {count} classes a picture shows" if card.multi_label else f"tells {count} classes apart"


def _network(card: ModelCard) -> str:
    if card.detector:
        link = "[ResNeSt](https://arxiv.org/abs/2004.08955)"
        return f"{card.detector.title} on a {link} (`{card.architecture}`)"
    count = parameters(card.spec, num_classes=len(card.class_names), in_chans=card.in_chans) / 1e6
    cost = (
        macs(card.spec, size=card.classifier_input.size, num_classes=len(card.class_names), in_chans=card.in_chans)
        / 1e9
    )
    link = "[ResNeSt](https://arxiv.org/abs/2004.08955)"
    return f"{link} (`{card.architecture}`, {count:.2f} million parameters, {cost:.2f} GMACs)"


def _figures(card: ModelCard, account: Mapping[str, object]) -> str:
    if not card.figures:
        return "None were measured with this copy of the weights.\n"
    rows = ["| figure | value |", "|---|---|"]
    images = account.get("val_images")
    for name, value in card.figures.items():
        if math.isnan(value) or (card.detector and name not in FIGURES):
            continue  # the other figures of COCO are in config.json
        shown = f"{value:.4f}" if name == "loss" else f"{value:.2%}"
        if name in ("top1", "top5") and isinstance(images, int):
            low, high = wilson_interval(value * images, images)
            shown += f" (95 % interval {low:.1%} to {high:.1%})"
        rows.append(f"| {FIGURES.get(name, name)} | {shown} |")
    if isinstance(images, int):
        rows.append(f"| training images | {account.get('train_images')} |")
        rows.append(f"| validation images | {images} |")
    return "\n".join(rows) + "\n"


def _input(card: ModelCard) -> str:
    if card.detector:
        scaled = card.detector_input
        return (
            f"RGB; the short side is resized to {scaled.short} pixels, unless the long one would pass {scaled.long};"
            f" mean {scaled.mean}, standard deviation {scaled.std}.\n"
        )
    settings = card.classifier_input
    order = (
        "the centre is cut out and resized"
        if settings.first == "crop"
        else "the short side is resized and the centre cut out"
    )
    return (
        f"RGB, {settings.size} x {settings.size} pixels; {order} ({settings.interpolation},"
        f" {settings.crop_share:.3f} of the short side); mean {settings.mean}, standard deviation {settings.std}.\n"
    )


def _classes(card: ModelCard) -> str:
    names = ", ".join(card.class_names[:MOST_NAMES])
    more = len(card.class_names) - MOST_NAMES
    return names + (f", and {more} more, listed in config.json" if more > 0 else "") + "\n"
