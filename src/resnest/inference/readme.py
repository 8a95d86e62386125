"""The README.md of a saved model (the hub's model card), with its figures.

text = model_card_text(card, "flowers", account={"train_images": 800, "val_images": 200})
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from resnest.figures import wilson_interval
from resnest.runtime.card import ModelCard

MOST_NAMES = 30  # classes that are listed by name
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


def model_card_text(
    card: ModelCard, title: str, *, account: Mapping[str, object] | None = None, repo_id: str | None = None
) -> str:
    """The README in Markdown, with the hub's header.

    Args:
        account: a run's run.json: images, versions, device.
        repo_id: the hub repository, if it is uploaded.
    """
    account = account or {}
    where = repo_id or "path/to/this/folder"
    result, options = card.usage
    parts = [
        _header(card, title, account),
        f"# {title}\n",
        f"A {card.describe_network(PAPER)} that {card.describe_purpose()}.\n",
        "## Figures\n",
        _figures(card, account),
        "## Use\n",
        USE.format(where=where, result=result, options=options),
        "## Input\n",
        f"{card.describe_input()}\n",
        "## Classes\n",
        _classes(card),
    ]
    return "\n".join(parts)


def _header(card: ModelCard, title: str, account: Mapping[str, object]) -> str:
    """The hub's YAML header; a name may be any folder name."""
    from huggingface_hub import EvalResult, ModelCardData

    library = "timm" if card.fits_timm else "resnest"
    tag = card.pipeline_tag
    figure, kind = card.hub_metric
    name = title.rsplit("/", 1)[-1] or card.architecture
    results = []
    if math.isfinite(card.figures.get(figure, math.nan)):
        results.append(
            EvalResult(
                task_type=tag,
                dataset_type="images",
                dataset_name=f"validation images ({account.get('format', 'folder')})",
                metric_type=kind,
                metric_value=round(float(card.figures[figure]), 4),
            )
        )
    data = ModelCardData(
        library_name=library,
        pipeline_tag=tag,
        tags=[tag, "resnest"],
        model_name=name if results else None,
        eval_results=results or None,
    )
    return f"---\n{data.to_yaml()}\n---\n"


def _figures(card: ModelCard, account: Mapping[str, object]) -> str:
    if not card.figures:
        return "None were measured with this copy of the weights.\n"
    titles, rows = card.figure_titles, ["| figure | value |", "|---|---|"]
    images = account.get("val_images")
    for name, value in card.figures.items():
        if math.isnan(value) or (name not in titles and name != "loss"):
            continue  # the others, such as more of COCO's, are in config.json
        shown = f"{value:.4f}" if name == "loss" else f"{value:.2%}"
        if name in ("top1", "top5") and isinstance(images, int):
            low, high = wilson_interval(value * images, images)
            shown += f" (95 % interval {low:.1%} to {high:.1%})"
        rows.append(f"| {titles.get(name, name)} | {shown} |")
    if isinstance(images, int):
        rows.append(f"| training images | {account.get('train_images')} |")
        rows.append(f"| validation images | {images} |")
    return "\n".join(rows) + "\n"


def _classes(card: ModelCard) -> str:
    names = ", ".join(card.class_names[:MOST_NAMES])
    more = len(card.class_names) - MOST_NAMES
    return names + (f", and {more} more, listed in config.json" if more > 0 else "") + "\n"
