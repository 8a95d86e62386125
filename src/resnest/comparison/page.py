"""The page of a comparison: figures, differences with intervals, curves, settings, and the pictures that differ.

write_comparison(Path("compared.html"), compare(["runs/a", "runs/b"]))
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup

from resnest.comparison.comparing import Comparison, Contender, short_p
from resnest.comparison.significance import Difference, Indices
from resnest.errors import ResnestError
from resnest.inference.model import run_folders
from resnest.report.charts import MAX_LINES, Series, folds_chart, read_history, series
from resnest.report.page import Section, render, write_html
from resnest.report.parts import Caption, Chart, Column, Key, Picture, pictures_of, readable, table
from resnest.runtime.shown import shown

MOST = 24  # pictures of each kind


def check_page(path: Path) -> None:
    """Raises ResnestError, before anything is computed, if the page cannot be written there."""
    if path.is_dir() or not path.resolve().parent.is_dir():
        raise ResnestError(f"the page {path} cannot be written: expected a file in a folder that exists")


def write_comparison(path: Path, comparison: Comparison) -> None:
    """Write the page atomically."""
    first = comparison.contenders[0]
    sections = [_figures(comparison), _differences(comparison)]
    if chart := _curves(comparison):
        sections.append(chart)
    if comparison.settings:
        sections.append(_settings(comparison))
    for contender, difference in comparison.pairs():
        for title, places in (("better", difference.better), ("worse", difference.worse)):
            sections.append(_pictures(first, contender, f"{contender.name}: {title}", places))
    write_html(
        path,
        "data.html",
        kind="Comparison",
        title=" and ".join(one.name for one in comparison.contenders),
        description=" ".join(f"{comparison.verdict(*pair)}." for pair in comparison.pairs()),
        facts={"Data": comparison.data, "Pictures": comparison.where},
        sections=sections,
        footnote=". ".join(note[0].upper() + note[1:] for note in comparison.notes) + ".",
    )


def _figures(comparison: Comparison) -> Section:
    contenders, main = comparison.contenders, comparison.main
    others = [  # at most four, so that the table keeps its width
        figure
        for figure in contenders[0].evaluation.table[1:]
        if figure.key != "loss" and all(figure.key in one.evaluation.figures for one in contenders)
    ][:4]
    columns = [
        Column("Model", "name", [one.name for one in contenders]),
        *(Column(each.title, "percent", [one.evaluation.figures[each.key] for one in contenders]) for each in others),
        Column(main.title, "share", [one.evaluation.figures[main.key] for one in contenders]),
        Column("ms", "name", [f"{one.speed.ms:.1f}" if one.speed else "-" for one in contenders]),
        Column("MB", "name", [f"{one.megabytes:.1f}" if one.megabytes else "-" for one in contenders]),
    ]
    return Section("Figures", table(columns, range(len(contenders))), ["All models predicted the same pictures."])


def _differences(comparison: Comparison) -> Section:
    rows: Sequence[Difference] = comparison.differences
    columns = [
        Column("Model", "name", [one.name for one in comparison.contenders[1:]]),
        Column("Points", "name", [f"{100 * each.value:+.2f}" for each in rows]),
        Column("Interval", "name", [f"{100 * each.low:+.2f} to {100 * each.high:+.2f}" for each in rows]),
        Column("p", "name", [short_p(each.p) for each in rows]),
        Column("Verdict", "name", ["resolved" if each.resolved else "not resolved" for each in rows]),
    ]
    note = f"Of {comparison.main.title}, to {comparison.contenders[0].name}. Test: {rows[0].test}."
    return Section("Differences", table(columns, range(len(rows))), [note])


def _curves(comparison: Comparison) -> Section | None:
    """The main figure of the runs over epochs, if two or more have logged it."""
    key = comparison.main.key
    curves = {one.name: curve for one in comparison.contenders if (curve := _curve(one.name, key)).finite}
    if len(curves) < 2 or len(curves) > MAX_LINES:
        return None
    keys = [Key(name, "line", f"var(--line-{place})") for place, name in enumerate(curves)]
    label = f"{comparison.main.title} of each run over epochs"
    chart = Chart(f"{comparison.main.title}, %", keys, folds_chart(list(curves.values()), label=label))
    return Section("Curves", render("charts.html", charts=[chart], large=False), ["As logged in training."])


def _curve(model: str, key: str) -> Series:
    for folder in run_folders(Path(model)):
        log = folder / "metrics.jsonl"
        if log.is_file():
            lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
            return series(read_history(lines, key).evals, key)
    return series([], key)


def _settings(comparison: Comparison) -> Section:
    names = [one.name for one in comparison.contenders]
    columns = [Column("Setting", "name", [row[0] for row in comparison.settings])]
    columns += [
        Column(name, "name", [row[place] for row in comparison.settings]) for place, name in enumerate(names, start=1)
    ]
    return Section("Settings", table(columns, range(len(comparison.settings))), ["What is not the same in all runs."])


def _pictures(first: Contender, other: Contender, title: str, places: Indices) -> Section:
    if not len(places):
        return Section(title, Markup('<p class="empty">No picture.</p>'))
    pictures = readable(places[:MOST].tolist(), lambda place: _picture(first, other, place))
    rest = f"; {MOST} are shown" if len(places) > MOST else ""
    note = f"{len(places):,} pictures, the largest difference first{rest}."
    return Section(title, pictures_of(pictures, "small"), [note])


def _picture(first: Contender, other: Contender, place: int) -> Picture:
    index = int(np.asarray(first.evaluation.indices)[place])
    captions = [
        Caption(f"{name}: {one.evaluation.answer(place)}", strong=strong)
        for name, one, strong in (("was", first, False), ("is", other, True))
    ]
    image = shown(first.samples.decode(index))
    return Picture(name=first.samples.keys[index], images=[image], captions=captions)
