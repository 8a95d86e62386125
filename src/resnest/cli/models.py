"""`resnest models` and `resnest recipes`: what comes with the package; published weights, hub, checkpoint files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resnest.checkpoints.manifest import MANIFEST, Weights, find_weights
from resnest.cli.words import MODEL_HELP, NETWORK_HELP
from resnest.errors import ResnestError, unknown
from resnest.files import CARD_NAME, WEIGHTS_NAME
from resnest.spec import BASELINES, PUBLISHED, find_spec, macs, parameters

if TYPE_CHECKING:
    from resnest.recipes import Recipe


# --- Description of a checkpoint file, for `resnest models show FILE` ---


def describe_file(path: Path) -> dict[str, Any]:
    """Kind, network, classes and origin of a checkpoint, and the layouts that can represent it.

    Raises:
        ResnestError: unreadable, or no ResNeSt.
    """
    from resnest.checkpoints.layouts import LAYOUTS, refusal
    from resnest.checkpoints.loading import identify
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


def to_text(facts: dict[str, Any]) -> str:
    """One line per known fact."""
    others = facts["other_parts"]
    lines = {
        "file": facts["file"],
        "network": " or ".join(facts["network"]),
        "structure": f"depths {facts['depths']}, {facts['radix']}s{facts['cardinality']}x{facts['width']}d",
        "classes": facts["classes"] or "none, a backbone",
        "input": f"{facts['input_channels']} channels",
        "layout": f"{facts['layout']}, in {facts['wrapper']}" if facts["wrapper"] else facts["layout"],
        "tensors": facts["tensors"],
        "published": facts["published"] or "not known by its hash",
        "other parts": f"{len(others)} tensors, such as {others[0]}" if others else "",
        "fits": ", ".join(facts["fits_layouts"]),
        "sha256": facts["sha256"],
    }
    return "\n".join(f"{key:<12} {text}" for key, text in lines.items() if text != "")


# --- `resnest models show` and `resnest models fetch`: published weights, without loading torch ---

AsJson = Annotated[bool, typer.Option("--json", help="As JSON; accuracies are fractions.")]


def show(
    name: Annotated[str, typer.Argument(help="A network, a row such as resnest50.gluon, or a checkpoint file.")],
    as_json: AsJson = False,
) -> None:
    """Show what is known about published weights (mirrors, hashes, accuracy), or describe a checkpoint file."""
    if Path(name).exists():
        facts = describe_file(Path(name))
        typer.echo(json.dumps(facts, indent=2) if as_json else to_text(facts))
        return
    _, network = find_spec(name)
    rows = [find_weights(name)] if "." in name else [row for row in MANIFEST if row.network == network]
    if as_json:
        typer.echo(json.dumps([_to_dict(row) for row in rows], indent=2))
    elif not rows:
        typer.echo(f"{network} has no published weights here: it is a baseline to train yourself")
    else:
        typer.echo("\n\n".join(map(_describe, rows)))


def fetch(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Networks, or rows of weights.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every row whose links are not all dead.")] = False,
    to: Annotated[Path | None, typer.Option(metavar="DIR", help="Into this folder instead of the cache.")] = None,
) -> None:
    """Download published weights, verified, into the cache or a folder.

    A later `pretrained=DIR`, or RESNEST_HOME, uses them without a network.
    """
    from resnest.checkpoints import fetch as fetching

    if bool(names) == everything:
        raise ResnestError("name the weights to fetch, or say --all")
    rows = [row for row in MANIFEST if not row.dead] if everything else [find_weights(name) for name in names or ()]
    failed = []
    for row in rows:
        try:
            typer.echo(f"{row.name}: {fetching.fetch(row, to)}")
        except ResnestError as error:
            if len(rows) == 1:
                raise
            failed.append(row.name)
            typer.echo(f"resnest: {error}", err=True)
    if failed:
        raise ResnestError(f"{len(failed)} of {len(rows)} could not be fetched: {', '.join(failed)}")


def _describe(row: Weights) -> str:
    order = f"centre {row.crop / (row.crop + 32):.3f} of the short side, resized to {row.crop}"
    if row.resize:
        order = f"short side resized to {row.resize}, centre {row.crop}"
    accuracy = f"{row.top1:.2f} % top-1" if row.top1 else "not published for this file"
    if row.top5:
        accuracy += f", {row.top5:.2f} % top-5"
    lines = {
        "network": row.network if row.head else f"{row.network}, backbone without classifier",
        "layout": row.layout,
        "ImageNet": accuracy,
        "preprocessing": f"{order}, {row.interpolation}",
        "hash": f"published: {row.hash_known}; the full sha256 is pinned at the first download",
        "licence": row.licence,
    }
    mirrors = [f"{mirror}{'   (known to be dead)' if mirror.status == 'dead' else ''}" for mirror in row.mirrors]
    texts = [f"  {key:<14} {text}" for key, text in lines.items()]
    return "\n".join([row.name, *texts, *(f"  {'mirror':<14} {mirror}" for mirror in mirrors)])


def _to_dict(row: Weights) -> dict[str, Any]:
    return {
        "name": row.name,
        "network": row.network,
        "layout": row.layout,
        "file": row.file,
        "sha256_prefix": row.sha256 or None,
        "sha1": row.sha1 or None,
        "licence": row.licence,
        "crop": row.crop,
        "resize": row.resize,
        "interpolation": row.interpolation,
        "top1": round(row.top1 / 100, 6) if row.top1 else None,
        "top5": round(row.top5 / 100, 6) if row.top5 else None,
        "head": row.head,
        "mirrors": [{"where": str(mirror), "status": mirror.status} for mirror in row.mirrors],
    }


# --- `resnest models save` and `resnest models push`: a model in the hub's form, on disk or on the hub ---


def push(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    repo: Annotated[str, typer.Argument(metavar="USER/NAME", help="Repository of the hub; created if missing.")],
    private: Annotated[bool, typer.Option("--private")] = False,
) -> None:
    """Upload a model to the Hugging Face hub, with a model card of its figures."""
    from resnest.inference.model import Model

    typer.echo(Model.from_pretrained(model).push_to_hub(repo, private=private))


def save(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    directory: Annotated[Path, typer.Argument(metavar="DIR")],
    network: Annotated[str | None, typer.Option("--model", metavar="NAME", help=NETWORK_HELP)] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace these files if they are there.")] = False,
) -> None:
    """Write a model in the hub's format: config.json, model.safetensors, README.md. timm's local-dir: reads it too."""
    from resnest.inference.model import Model

    there = [name for name in (CARD_NAME, WEIGHTS_NAME, "README.md") if (directory / name).exists()]
    if there and not overwrite:
        raise ResnestError(f"{directory} has {' and '.join(there)} already: take another folder, or --overwrite")
    typer.echo(f"saved in {Model.from_pretrained(model, network=network).save_pretrained(directory)}")


# --- `resnest recipes`: the recipes of the package ---


def recipes(
    action: Annotated[str | None, typer.Argument(help="show: print one recipe as YAML.")] = None,
    name: Annotated[str | None, typer.Argument(help="Name of the recipe.")] = None,
) -> None:
    """List the recipes by task, or print one as YAML.

    `resnest recipes show NAME > mine.yaml` gives a file to edit and to train with.
    """
    from resnest.recipes import all_recipes, find_recipe, to_yaml

    if action is None:
        _list([recipe() for recipe in all_recipes().values()])
    elif action in all_recipes() and name is None:
        raise ResnestError(f"`resnest recipes show {action}` prints this recipe")
    elif action != "show":
        raise unknown("action", action, ["show"])
    elif name is None:
        raise ResnestError("resnest recipes show: name a recipe; `resnest recipes` lists them")
    else:
        typer.echo(to_yaml(find_recipe(name)), nl=False)


def _list(known: Sequence[Recipe]) -> None:
    """One block per task; figures in percent, published ones marked."""
    blocks: dict[str, tuple[dict[str, str], list[Recipe]]] = {}
    for recipe in known:
        title, figures = recipe.listing()
        blocks.setdefault(title, (figures, []))[1].append(recipe)
    for title, (figures, recipes) in blocks.items():
        _block(title, figures, recipes)
    typer.echo("Figures are percent. * published elsewhere, not repeated here")
    typer.echo("\nresnest recipes show NAME prints all settings; train takes such a file, or --set a.b=c.")


def _block(title: str, figures: Mapping[str, str], known: Sequence[Recipe]) -> None:
    width = max(len(recipe.name) for recipe in known) + 2
    typer.echo(f"{title:<{width}}" + "".join(f"  {column:>7}" for column in figures))
    for recipe in known:
        cells = "".join(f"  {_figure(recipe, key):>7}" for key in figures.values())
        typer.echo(f"  {recipe.name:<{width - 2}}{cells}  {recipe.summary}")
    typer.echo("")


def _figure(recipe: Recipe, key: str) -> str:
    value = getattr(recipe.expect, key, None)
    if recipe.expect is None or value is None:
        return ""
    return f"{100 * value:.2f}{'*' if recipe.expect.published else ' '}"


# --- `resnest models`: the networks, without loading torch ---

models = typer.Typer(
    help="List the networks; show and fetch their published weights; save and share a model.",
    rich_markup_mode=None,
)
for verb in (show, fetch, save, push):
    models.command()(verb)


@models.callback(invoke_without_command=True)
def listing(context: typer.Context, as_json: AsJson = False) -> None:
    """List the networks: cost, crop, published accuracy, available weights."""
    if context.invoked_subcommand:
        return
    rows = [*map(_published, PUBLISHED), *map(_baseline, BASELINES)]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    typer.echo(f"{'name':<24} {'timm name':<20} {'params':>8} {'GMACs':>7} {'crop':>5} {'top-1':>7}  weights")
    for row in rows:
        top1 = f"{row['top1']:.2%}" if row["top1"] else "-"
        typer.echo(
            f"{row['name']:<24} {row['timm'] or '-':<20} {row['parameters'] / 1e6:>7.2f}M {row['macs'] / 1e9:>7.3f}"
            f" {row['crop']:>5} {top1:>7}  {', '.join(row['weights']) or '-'}"
        )
    typer.echo("\nGMACs: convolutions and fully connected layers at the crop. top-1: ImageNet, as published.")
    typer.echo("Weights: NAME.TAG, as in resnest50.official. `resnest models show NAME` shows their links,")
    typer.echo("`resnest models fetch NAME` gets them, create_model(NAME, pretrained=True) too.")


def _published(name: str) -> dict[str, Any]:
    net = PUBLISHED[name]
    return {
        "name": name,
        "timm": net.timm,
        "parameters": parameters(net.spec),
        "macs": macs(net.spec, size=net.crop),
        "crop": net.crop,
        "top1": round(net.top1 / 100, 6),
        "weights": [row.name.split(".", 1)[1] for row in MANIFEST if row.network == name and not row.dead],
    }


def _baseline(name: str) -> dict[str, Any]:
    spec = BASELINES[name]
    cost = {"parameters": parameters(spec), "macs": macs(spec, size=224)}
    return {"name": name, "timm": name, **cost, "crop": 224, "top1": None, "weights": []}
