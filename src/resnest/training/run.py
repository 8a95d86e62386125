"""The run directory: the files of a training run, written so that a crash loses nothing.

runs/a/recipe.yaml        complete settings            runs/a/model.safetensors   best weights
runs/a/run.json           data, versions, classes      runs/a/config.json         how to use them
runs/a/metrics.jsonl      one line a log step          runs/a/report.html         curves, mistakes
runs/a/checkpoints/       to resume from, with hashes  runs/a/bad_images.jsonl    unusable files
                                                       runs/a/non_finite.jsonl    steps that were skipped
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from resnest.checkpoints.reading import read_torch_file
from resnest.errors import NoValidCheckpoint, ResnestError, call, parameter
from resnest.files import CARD_NAME, WEIGHTS_NAME, is_full, replacing, sha256_of, write_errors
from resnest.runtime.card import ModelCard

# --- The lock of a run directory, released when its process dies, by kill -9 too ---
# A POSIX record lock (fcntl(2)): unlike flock's, forked data-loading workers do not hold it. On a file system without
# locks there is none.

NAME = ".lock"
TAKEN = (errno.EACCES, errno.EAGAIN)  # which of them is up to the system: fcntl(2)


class Lock:
    """The lock of a run directory, for the duration of a run."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._file: int | None = None

    def acquire(self) -> None:
        """Raises ResnestError if another process holds it, with that process; OSError for an unwritable folder."""
        self.release()
        while self._file is None:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                who = os.read(file, 200).decode(errors="replace").strip()
                os.close(file)
                if error.errno not in TAKEN:
                    return
                raise ResnestError(
                    f"{self.path.parent} is in use by another run ({who or 'process unknown'}): wait for its end or"
                    " stop it, or choose another directory"
                ) from None
            if self._is_current(file):
                self._file = file
            else:  # its last holder has removed it since it was opened
                os.close(file)
        with contextlib.suppress(OSError):  # a full disk: the name is a courtesy
            os.ftruncate(self._file, 0)
            os.write(self._file, f"process {os.getpid()} on {socket.gethostname()}\n".encode())

    def release(self) -> None:
        if self._file is None:
            return
        with contextlib.suppress(OSError):
            if self._is_current(self._file):
                self.path.unlink()
        os.close(self._file)
        self._file = None

    def _is_current(self, file: int) -> bool:
        try:
            return os.path.samestat(os.fstat(file), self.path.stat())
        except OSError:
            return False


KEPT = 2  # checkpoints: should the newest turn out damaged, there is one before it
GROWING = ("metrics.jsonl", "bad_images.jsonl", "non_finite.jsonl")
LOGS = ("tensorboard", "wandb")  # folders of theirs
DATA_PAGE = "data.html"
# there before the first step: nothing is lost with them
AT_ONCE = ("recipe.yaml", "run.json", "bad_images.jsonl", DATA_PAGE, *LOGS)
FILES = ("recipe.yaml", "run.json", *GROWING, WEIGHTS_NAME, CARD_NAME, DATA_PAGE, "report.html", *LOGS)


class RunDirectory:
    """The files of one run. All except the growing .jsonl files are replaced atomically."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.metrics = path / "metrics.jsonl"
        self.bad_images = path / "bad_images.jsonl"
        self.non_finite = path / "non_finite.jsonl"
        self.lock = Lock(path)

    def hold(self) -> None:
        """Create and lock the directory until `release`.

        Raises:
            ResnestError: one is at work here, or nothing can be written.
        """
        with write_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            self.lock.acquire()

    def release(self) -> None:
        self.lock.release()

    def create(self, *, overwrite: bool = False) -> None:
        """Create the directory; files of another run are deleted only if `overwrite`, and those of no run never.

        Raises:
            ResnestError: it holds a run already, or somebody else's files of these names, or cannot be written.
        """
        held = [name for name in FILES if os.path.lexists(self.path / name)]
        if os.path.lexists(self.checkpoints) and (not self.checkpoints.is_dir() or any(self.checkpoints.iterdir())):
            held.append("checkpoints/")
        if held and not self.is_run():
            raise ResnestError(
                f"{self.path} is no run, and has {', '.join(held)}, which a run would replace: choose another"
                f" {parameter('out')}"
            )
        begun = any(self.checkpoints.glob("*.pt")) or any(name in held for name in FILES if name not in AT_ONCE)
        if begun and not overwrite:
            raise ResnestError(
                f"{self.path} already holds a run ({', '.join(held)}): choose another {parameter('out')},"
                f" resume it with `{call('resume', self.path)}`, or replace it with {parameter('overwrite', True)}"
            )
        with write_errors(self.path):
            for name in held:
                target = self.path / name
                shutil.rmtree(target) if target.is_dir() else target.unlink()
            self.checkpoints.mkdir(parents=True, exist_ok=True)

    def is_run(self) -> bool:
        """Whether it has checkpoints, or a run.json that is that of a run."""
        if any(self.checkpoints.glob("step-*.pt")):
            return True
        try:
            self.read_provenance()
        except ResnestError:
            return False
        return True

    def write_text(self, name: str, text: str) -> None:
        with self.replacing(self.path / name) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def append(self, path: Path, line: dict[str, Any]) -> None:
        with explain_write_errors(path, self.path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def read_lines(self, path: Path) -> list[dict[str, Any]]:
        """The complete lines of a .jsonl file, without a truncated or invalid one."""
        if not path.exists():
            return []
        lines = []
        for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                lines.append(json.loads(text))
        return [line for line in lines if isinstance(line, dict)]

    def read_provenance(self) -> dict[str, Any]:
        """run.json. Raises ResnestError if it does not name the run's data."""
        if not self.path.is_dir():
            raise ResnestError(f"there is no run at {self.path}: expected the directory that a training run wrote")
        kinds = {"data": str, "class_names": list, "train_images": int}
        try:
            account = json.loads((self.path / "run.json").read_bytes())
            good = all(isinstance(account[name], kind) for name, kind in kinds.items())
        except (OSError, ValueError, KeyError, TypeError):
            good = False
        if not good:
            raise ResnestError(f"{self.path} is not a run that can be resumed: it has no readable run.json")
        return cast(dict[str, Any], account)

    def note(self, **facts: Any) -> None:
        """Add facts to run.json, or replace them."""
        self.write_text("run.json", json.dumps({**self.read_provenance(), **facts}, indent=2) + "\n")

    def truncate_logs_after(self, step: int) -> None:
        """Drop the lines of steps that a resumed run will repeat."""
        for path in (self.metrics, self.non_finite):
            if path.exists():
                lines = [line for line in self.read_lines(path) if line.get("step", step + 1) <= step]
                self.write_text(path.name, "".join(json.dumps(line) + "\n" for line in lines))

    def save_weights(self, state: dict[str, Tensor], card: ModelCard) -> None:
        """The best weights so far, with their card."""
        from safetensors.torch import save_file

        plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
        with self.replacing(self.path / WEIGHTS_NAME) as temporary:
            save_file(plain, temporary, metadata={"format": "pt"})
            temporary.chmod(0o644)  # safetensors writes for the owner alone
        self.write_text(CARD_NAME, card.to_json())

    def save_checkpoint(self, content: dict[str, Any]) -> None:
        """Save everything needed to resume, with its hash; older checkpoints are deleted once this one is on disk."""
        target = self.checkpoints / f"step-{content['step']:08d}.pt"
        with self.replacing(target) as temporary:
            torch.save(content, temporary)
            # before the checkpoint takes its place: a hash without file is harmless, a file without hash is not used
            _write_hash(target, sha256_of(temporary))
        for old in self._all()[KEPT:]:
            old.unlink(missing_ok=True)
            _hash_file(old).unlink(missing_ok=True)

    def remove_partial_files(self) -> None:
        """Remove half-written files of a killed process."""
        for folder in (self.path, self.checkpoints):
            for stray in folder.glob(".*.tmp"):
                stray.unlink(missing_ok=True)

    def load_checkpoint(self) -> tuple[dict[str, Any], list[str]]:
        """The newest valid checkpoint, and a warning for each newer one that is damaged.

        Raises:
            NoValidCheckpoint: there is none.
        """
        damaged: list[str] = []
        for path in self._all():
            try:
                _check_hash(path)
                content = read_torch_file(path)
                if not isinstance(content, dict) or "step" not in content:
                    raise ResnestError(f"{path} is no checkpoint of a run")
                return content, [f"{text}; going back to {path}" for text in damaged]
            except ResnestError as error:
                damaged.append(str(error))
        damage = f"{len(damaged)} damaged ones" if damaged else "none"
        anew = f"the run must start anew ({parameter('overwrite', True)})"
        raise NoValidCheckpoint(f"{self.checkpoints} has no usable checkpoint ({damage}): {anew}")

    def _all(self) -> list[Path]:
        """Checkpoints, newest first."""
        return sorted(self.checkpoints.glob("step-*.pt"), reverse=True)

    @contextmanager
    def replacing(self, target: Path) -> Iterator[Path]:
        """A temporary file beside `target` that replaces it once synced to disk (promise P1)."""
        with explain_write_errors(target, self.path):
            with replacing(target) as temporary:
                yield temporary
            _sync_directory(target.parent)


def _hash_file(checkpoint: Path) -> Path:
    return checkpoint.with_suffix(".sha256")


def _write_hash(checkpoint: Path, digest: str) -> None:
    """Written in place: a truncated hash is no worse than none, and needs no second temporary file."""
    path = _hash_file(checkpoint)
    with path.open("w", encoding="utf-8") as file:
        file.write(f"{digest}  {checkpoint.name}\n")
        file.flush()
        os.fsync(file.fileno())
    _sync_directory(path.parent)


def _check_hash(checkpoint: Path) -> None:
    """Raises ResnestError for a checkpoint that is not, byte for byte, as saved (promise P3)."""
    try:
        saved = _hash_file(checkpoint).read_text(encoding="utf-8").split()[0]
    except (OSError, UnicodeDecodeError, IndexError):
        raise ResnestError(f"{checkpoint} has no readable hash beside it ({_hash_file(checkpoint).name})") from None
    if sha256_of(checkpoint) != saved:
        raise ResnestError(f"{checkpoint} is damaged: its bytes are not those that were saved")


@contextmanager
def explain_write_errors(target: Path, run: Path) -> Iterator[None]:
    """Turns a failed write of a run's file into one clear line."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error) or is_full(target.parent):
            raise ResnestError(
                f"the disk is full: {target} could not be written; what was saved before is intact."
                f" Free some space, then resume with `{call('resume', run)}`"
            ) from error
        if isinstance(error, OSError):
            raise ResnestError(f"{target} cannot be written: {error.strerror or error}") from error
        raise


def _sync_directory(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
