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
    "miou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean accuracy of classes",
    "pq": "PQ",
    "sq": "SQ",
    "rq": "RQ",
    "pq_things": "PQ of things",
    "pq_stuff": "PQ of stuff",
}
MEASURED = {  # the figure of a task that the hub shows, and what it calls it
    "classification": ("top1", "accuracy"),
    "detection": ("box_ap", "mAP"),
    "panoptic": ("pq", "panoptic-quality"),
    "segmentation": ("miou", "mean_iou"),
}
PAPER = "[ResNeSt](https://arxiv.org/abs/2004.08955)"

USE = """\
```python
import resnest

predict = resnest.Predictor("{where}")
print(predict("photo.jpg"){result})
```

```sh
resnest predict {where} photo.jpg {options}
```
"""
SHOWS = {  # what is printed of a result, and how to see it
    "classification": (".top(3)", "--top 3"),
    "detection": (".shown().counts()", "--draw drawn"),
    "panoptic": (".counts()", "--draw drawn"),
    "segmentation": (".class_fractions()", "--draw drawn"),
}


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
    result, options = SHOWS[card.task]
    parts = [
        _header(card, title, account),
        f"# {title}\n",
        f"A {_network(card)} that {_does(card)}.\n",
        "## Figures\n",
        _figures(card, account),
        "## Use\n",
        USE.format(where=where, result=result, options=options),
        "## Input\n",
        _input(card),
        "## Classes\n",
        _classes(card),
    ]
    return "\n".join(parts)


def _header(card: ModelCard, title: str, account: Mapping[str, object]) -> str:
    library = "timm" if card.fits_timm else "resnest"
    tag = "image-classification" if card.task == "classification" else "image-segmentation"
    if card.detector and not card.detector.masks:
        tag = "object-detection"
    lines = ["---", f"library_name: {library}", f"pipeline_tag: {tag}", "tags:", f"- {tag}", "- resnest"]
    figure, kind = MEASURED[card.task]
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
    if card.segmenter:
        return f"tells which of {count} classes every pixel of a picture is"
    if card.panoptic:
        return f"parts a picture into objects of {card.things} classes and regions of {count - card.things}"
    if card.detector:
        what = "boxes and masks" if card.detector.masks else "boxes"
        return (
            f"finds objects of {count} classes, with {what}"
            if count > 1
            else f"finds one class of objects, with {what}"
        )
    return f"says which of {count} classes a picture shows" if card.multi_label else f"tells {count} classes apart"


def _network(card: ModelCard) -> str:
    if card.segmenter:
        return (
            f"{card.segmenter.title} on a {PAPER} (`{card.architecture}`, output stride {card.segmenter.output_stride})"
        )
    if card.detector:
        kind = f"Panoptic FPN with {card.detector.title}" if card.panoptic else card.detector.title
        return f"{kind} on a {PAPER} (`{card.architecture}`)"
    count = parameters(card.spec, num_classes=len(card.class_names), in_chans=card.in_chans) / 1e6
    cost = (
        macs(card.spec, size=card.classifier_input.size, num_classes=len(card.class_names), in_chans=card.in_chans)
        / 1e9
    )
    return f"{PAPER} (`{card.architecture}`, {count:.2f} million parameters, {cost:.2f} GMACs)"


def _figures(card: ModelCard, account: Mapping[str, object]) -> str:
    if not card.figures:
        return "None were measured with this copy of the weights.\n"
    rows = ["| figure | value |", "|---|---|"]
    images = account.get("val_images")
    for name, value in card.figures.items():
        if math.isnan(value) or (card.task != "classification" and name not in FIGURES):
            continue  # the others, such as more of COCO's, are in config.json
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
    if card.segmenter:
        pixels = card.segmenter_input
        size = f"the long side is resized to {pixels.long} pixels" if pixels.long else "any size"
        window = f", looked at in squares of {pixels.window} pixels" if pixels.window else ""
        return f"RGB; {size}{window}; mean {pixels.mean}, standard deviation {pixels.std}.\n"
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
