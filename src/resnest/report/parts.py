"""Parts that the pages of several tasks share: header, curves, mistakes, the recipe.

    curves(history, "Accuracy", ("top1", "top-1, %"), ("top5", "top-5, %"))

All functions return HTML.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence

from PIL import Image

from resnest.report import page
from resnest.report.history import History, series
from resnest.report.page import clip, clip_path, count, escape, section
from resnest.report.plots import accuracy_plot, loss_plot, rate_plot

Keyed = tuple[str, str]  # a figure's name in metrics.jsonl, and its caption
Shares = tuple[str, Keyed, Keyed]  # a plot's title, its main line, the other one

THUMBNAIL = 160  # pixels of the longer side
ACCENT, MUTED = '<span class="key main">', '<span class="key">'
TINY = 64  # below this a picture is enlarged with visible pixels instead of blurred


def header(kind: str, title: str, headline: str, *, facts: Mapping[str, str], bad_images: int) -> str:
    """The top of the page; `headline` is HTML."""
    skipped = (
        f'<p class="warning">{count(bad_images, "image was", "images were")} skipped'
        " because they could not be read.</p>"
        if bad_images
        else ""
    )
    return f"""<header>
<p class="eyebrow">{escape(kind)}</p>
<h1>{clip(title, 200)}</h1>
<div class="summary"><div>{headline}{skipped}</div>{page.facts(facts.items())}</div>
</header>
"""


def figure_line(figure: str, lines: Sequence[str]) -> str:
    """One large figure, as `percent` writes it, and lines of HTML below."""
    number, unit = figure.split("&nbsp;")
    return f'<p class="figure">{number}<small>&thinsp;{unit}</small></p>' + "".join(f"<p>{line}</p>" for line in lines)


def figures_table(columns: Sequence[str], rows: Iterable[tuple[str, Sequence[str], str]]) -> str:
    """Figures with what they are: name, values and meaning of each; all but the columns is HTML."""
    heads = "".join(f'<th class="num">{column}</th>' for column in columns)
    body = "".join(
        f'<tr><th scope="row">{name}</th>'
        + "".join(f'<td class="num">{value}</td>' for value in values)
        + f'<td class="meaning">{meaning}</td></tr>\n'
        for name, values, meaning in rows
    )
    return f"""<table class="list twelve">
<thead><tr><th>Figure</th>{heads}<th>What it is</th></tr></thead>
<tbody>{body}</tbody></table>"""


def curves(
    history: History, title: str, main: tuple[str, str], other: tuple[str, str], *, also: Sequence[Shares] = ()
) -> str:
    """The section of curves: losses, two shares as (key, caption), perhaps others alike, the learning rate."""
    train, validation = series(history.train, "loss"), series(history.evals, "loss")
    validated = f"{ACCENT}validation</span>" if validation.finite or not train.finite else ""  # a detector has none
    shares = [(title, main, other), *also]
    plots = [
        ("Loss", f"{validated}{MUTED}training</span>", loss_plot(train, validation)),
        *(_shares(history, place, *share) for place, share in enumerate(shares)),
        ("Learning rate", "", rate_plot(series(history.train, "lr"))),
    ]
    figures = "".join(
        f"<figure><figcaption><strong>{name}</strong> {text}</figcaption>{svg}</figure>"
        for name, text, svg in plots
        if svg
    )
    known = any(series(history.evals, first[0]).finite for _, first, _ in shares)
    note = "Over epochs." + (" The dot is the best evaluation." if known else "")
    if lost := len(train.values) + len(validation.values) - train.finite - validation.finite:
        note += f" {count(lost, 'loss is', 'losses are')} not finite and not drawn."
    if not figures:
        return section("Curves", note if lost else "", '<p class="empty">Nothing to draw was logged.</p>')
    return section("Curves", note, f'<div class="plots">{figures}</div>')


def _shares(history: History, place: int, title: str, main: Keyed, other: Keyed) -> tuple[str, str, str]:
    """Title, keys and plot of two shares over epochs."""
    first, second = series(history.evals, main[0]), series(history.evals, other[0])
    text = f"{ACCENT}{main[1]}</span>" + (f"{MUTED}{other[1]}</span>" if second.finite else "")
    name = f"accuracy{place or ''}"  # of a plot's parts, which must differ within the page
    return title, text, accuracy_plot(first, second, label=f"{title} in percent over epochs", name=name)


def keys(names: Sequence[str], *, mean: bool) -> str:
    """What the lines of a plot with one a class are, in their colours; the mean is the accent's."""
    lines = [f'<span class="key line" style="--line: var(--line-{k})">{clip(name, 30)}</span>'
             for k, name in enumerate(names)]  # fmt: skip
    return " ".join([*([f"{ACCENT}mean</span>"] if mean else []), *lines])


def picture(image: Image.Image, name: str, caption: str) -> str:
    """One thumbnail with its file's name; `caption` is HTML."""
    kind = ' class="tiny"' if max(image.size) < TINY else ""
    return f"""<figure>
<img{kind} src="{data_uri(image)}" alt="{clip(name, 200)}">
<figcaption>{caption}<div class="file cut" title="{clip_path(name)}"><bdi>{clip_path(name)}</bdi></div></figcaption>
</figure>
"""


def mistakes_section(
    images: int, errors: int, note: str, shown: str, pictures: Sequence[str], *, kind: str = "", above: str = ""
) -> str:
    """The worst of them; `note` counts all, `shown` says what the pictures are. `kind`: large or compared."""
    title = "Worst mistakes"
    if not errors and not pictures:
        text = f"No mistakes on {count(images, 'image')}." if images else "No image was evaluated."
        return section(title, "", f'<p class="empty">{text}</p>')
    if not pictures:
        return section(title, note, '<p class="empty">No picture was kept.</p>')
    classes = " ".join(["mistakes", kind]).strip()
    return section(title, f"{note} {shown}", f'{above}<div class="{classes}">{"".join(pictures)}</div>')


def recipe_section(recipe: str) -> str:
    body = f"<details><summary>Show the recipe</summary><pre><code>{escape(recipe)}</code></pre></details>"
    return section("Recipe", "The complete settings of this run.", body)


def data_uri(image: Image.Image, side: int = THUMBNAIL) -> str:
    """A JPEG thumbnail inside a URI; small pictures keep their size and their full colour resolution."""
    thumbnail = image.convert("RGB")
    thumbnail.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    thumbnail.save(buffer, "JPEG", quality=85, optimize=True, subsampling=0 if max(image.size) < TINY else 2)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
