"""`resnest embed`: pictures as vectors, and those that are most alike."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resnest.cli.words import MODEL_HELP, NETWORK_HELP
from resnest.errors import ResnestError, printable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from resnest.batch.pictures import Entry
    from resnest.runtime.embedding import Embedder

PATHS_HELP = "Images, folders, globs, .tar files, lists (.txt, .csv), or - for a list on standard input."
OUT_HELP = "Write the vectors into this .parquet, .npy (with the names in a .json beside it) or .csv."
NEAREST_HELP = "Print for each picture the K of the others that are most alike, by the cosine of their vectors."
NORMALISE_HELP = "Vectors of length 1, whose products are cosines; or as the network gives them."


def embed(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    paths: Annotated[list[str], typer.Argument(help=PATHS_HELP)],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help=OUT_HELP)] = None,
    nearest: Annotated[int | None, typer.Option(metavar="K", min=1, help=NEAREST_HELP)] = None,
    normalise: Annotated[bool, typer.Option(help=NORMALISE_HELP)] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out if it exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --nearest: one JSON object per picture.")] = False,
    network: Annotated[str | None, typer.Option("--model", metavar="NAME", help=NETWORK_HELP)] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    batch_size: Annotated[int, typer.Option(min=1)] = 16,
) -> None:
    """Embed pictures: the pooled features of a network's last stage, as vectors.

    Unusable files are named on standard error and the others go on; exit code 2 then.
    """
    if out is None and nearest is None:
        raise ResnestError("embed needs --out FILE for the vectors, or --nearest K for the pictures most alike")
    from resnest.batch.vectors import check_vectors, open_vectors
    from resnest.cli.pictures import entries
    from resnest.inference.embedding import open_embedder

    if out:
        check_vectors(out, overwrite=overwrite)
    embedder = open_embedder(model, normalise=normalise, device=device, batch_size=batch_size, network=network)
    listed = list(dict.fromkeys(entries(paths, _bands_of(embedder))))
    names: list[str] = []
    rows: list[Any] = []
    bad: list[str] = []
    about = {"model": model, "normalised": normalise}
    with open_vectors(out, about) if out else nullcontext() as add:
        for name, row in _embedded(embedder, listed, bad):
            names.append(name)
            if add:
                add(name, row)
            if nearest:
                rows.append(row)
    if out:
        typer.echo(f"{len(names)} vectors in {out}", err=True)
    if nearest:
        _print_nearest(names, rows, nearest, as_json)
    if bad:
        raise ResnestError(f"{len(bad)} of {len(listed)} images could not be used")


def _bands_of(embedder: Embedder) -> Any:
    from resnest.data.listing import is_bands_start

    return None if embedder.card.bands.plain else is_bands_start


def _embedded(embedder: Embedder, listed: list[Entry], bad: list[str]) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Names and vectors of the usable pictures; the others are named on standard error, and in `bad`."""
    from resnest.batch.pictures import name_of, source
    from resnest.progress import Progress
    from resnest.runtime.decode import BadImage

    with Progress("embedding:", rate="images", lines=False) as bar:
        bar.start(len(listed))
        named = ((name_of(entry), source(entry)) for entry in listed)
        for entry, row in zip(listed, embedder.stream_named(named), strict=True):
            bar.advance()
            if isinstance(row, BadImage):
                bad.append(row.name)
                bar.say(f"skipped: {row}")
            else:
                yield name_of(entry), row  # type: ignore[misc]


def _print_nearest(names: list[str], rows: list[Any], most: int, as_json: bool) -> None:
    import numpy as np

    from resnest.runtime.embedding import nearest, unit_rows

    if len(names) < 2:
        raise ResnestError("--nearest compares pictures with each other: give two or more that can be used")
    vectors = unit_rows(np.stack(rows))
    numbers, cosines = nearest(vectors, vectors, most, same=True)
    for name, near, values in zip(names, numbers.tolist(), cosines.tolist(), strict=True):
        found = [(names[number], value) for number, value in zip(near, values, strict=True)]
        if as_json:
            content = {"image": name, "nearest": [{"image": other, "cosine": round(v, 6)} for other, v in found]}
            typer.echo(json.dumps(content))
        else:
            typer.echo(printable(name))
            for other, value in found:
                typer.echo(f"  {value:.4f}  {printable(other)}")
