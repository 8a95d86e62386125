"""`resnest`: the program, its verbs, and how it prints errors.

Verbs import what they need when they run: `resnest --help` must not wait for torch.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import typer

import resnest
from resnest.cli.bench import bench
from resnest.cli.compare import compare
from resnest.cli.doctor import doctor
from resnest.cli.embed import embed
from resnest.cli.evaluate import evaluate
from resnest.cli.explain import explain
from resnest.cli.export import convert, export
from resnest.cli.models import models, recipes
from resnest.cli.predict import predict
from resnest.cli.serve import serve
from resnest.cli.train import demo, train
from resnest.cli.words import at_command_line, is_runtime
from resnest.errors import INTERRUPTED, ResnestError, wording
from resnest.runtime.hardware import disable_malloc_trim

app = typer.Typer(
    help="ResNeSt: train, evaluate and use split-attention networks. Add --debug to any command for a traceback.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: rich alone would take half of the time that it may
    context_settings={"help_option_names": ["-h", "--help"]},
)
VERBS = (demo, train, evaluate, compare, predict, explain, embed, export, serve, convert, bench, recipes, doctor)
for verb in VERBS:
    app.command()(verb)
app.add_typer(models, name="models")


@app.callback(invoke_without_command=True)
def _version(version: bool = typer.Option(False, "--version", help="Print the version.")) -> None:
    if version:
        typer.echo(resnest.__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line; a user error becomes one line on standard error and an exit code."""
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    disable_malloc_trim()
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files and classes that the terminal cannot show
    try:
        with wording(at_command_line), _short_warnings():
            try:
                app(args=arguments, prog_name="resnest")
            finally:
                _flush()  # what csv writes is still in it
    except ResnestError as error:
        if debug:
            raise
        _end(f"{_which_process()}: {error}", error.exit_code)
    except ModuleNotFoundError as error:
        if debug or (error.name or "").startswith("resnest"):
            raise
        _end(f": {error.name} is not installed{_where_from()}", 2)
    except BrokenPipeError:  # `resnest predict ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        if debug:
            raise
        _end(f": {_where(error)}{error.strerror or error}", 2)
    except KeyboardInterrupt:
        _end(": interrupted", INTERRUPTED)


def _where_from() -> str:
    """How to get a package that is missing."""
    if is_runtime():
        return ": this is the runtime, which predicts with exported files and serves them. For the rest: pip install ."
    return ": pip install '.[all]'"


def _open_closed_streams() -> None:
    """What a shell closed (`>&-`) goes nowhere; otherwise the next file that is opened would get its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            file = os.open(os.devnull, os.O_RDWR)  # the lowest free number
            setattr(sys, name, os.fdopen(file, "w" if number else "r", encoding="utf-8"))


def _end(message: str, code: int) -> NoReturn:
    """Say why on standard error, if that can be written, and exit."""
    with contextlib.suppress(OSError):
        typer.echo(f"resnest{message}", err=True)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # Python would try again at its end, and exit with a code of its own
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)


def _where(error: OSError) -> str:
    """The file of an error, or standard output, which has no name."""
    if error.filename:
        return f"{str(error.filename)[:200]!r}: "
    frames = [frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)]
    return "standard output cannot be written: " if frames[-1] in ("echo", "_flush") else ""


def _flush() -> None:
    sys.stdout.flush()


@contextmanager
def _short_warnings() -> Iterator[None]:
    """Warnings of this package are one line, without the place in the code."""
    before = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], filename: str, *more: Any, **named: Any) -> None:
        if issubclass(category, UserWarning) and Path(filename).is_relative_to(Path(resnest.__file__).parent):
            typer.echo(f"note: {message}", err=True)
        else:
            before(message, category, filename, *more, **named)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before


def _which_process() -> str:
    """The rank of this process, as every process may have an error of its own: from torchrun, SLURM or Fabric."""
    rank = next((os.environ[name] for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK") if name in os.environ), "0")
    return "" if rank == "0" else f" [rank {rank}]"
