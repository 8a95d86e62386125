"""A Dockerfile, built and run without Docker: its steps, as they stand, in a root file system of each stage's own.

A stage's root has this machine's /usr, /bin, /lib and /etc, read-only, in place of its base image, and what its steps
write. Needs Linux's mount namespaces.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

BASE = ("bin", "etc", "lib", "lib64", "sbin", "usr", "dev", "proc", "sys")  # of this machine
INTERPRETER = "python"  # as the base image calls it
# What any build is given: how this machine reaches its registry
PASSED = re.compile(r"(PIP|UV|SSL)_\w*CERT\w*|REQUESTS_CA_BUNDLE|\w+_(proxy|PROXY)|PIP_\w*INDEX\w*|UV_\w*INDEX\w*")
CACHE = Path(os.environ.get("UV_CACHE_DIR", Path.home() / ".cache" / "uv"))
NAMESPACE = ("unshare", "--mount") if os.getuid() == 0 else ("unshare", "--mount", "--map-root-user")

# $1: the root; $2: ro or rw; $3: working directory; $4: user; $5: Python's prefix; $6: uv's cache; then the command
ENTER = """
set -e
root=$1; mode=$2; place=$3; user=$4; python=$5; cache=$6; shift 6
mount --make-rprivate /
mount --bind "$root" "$root"
for name in BASE; do
    [ -e "/$name" ] || continue
    mkdir -p "$root/$name"
    mount --rbind "/$name" "$root/$name"
done
for name in bin etc lib lib64 sbin usr; do
    [ ! -e "$root/$name" ] || mount -o remount,bind,ro "$root/$name"
done
mkdir -p "$root/tmp" "$root$place" "$root$python" "$root/build-cache"
case $python in /usr*) ;; *) mount --bind "$python" "$root$python"; mount -o remount,bind,ro "$root$python" ;; esac
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
[ "$mode" = ro ] || [ -z "$cache" ] || mount --bind "$cache" "$root/build-cache"
[ "$mode" = rw ] || { mount -o remount,bind,ro "$root"; ip link set lo up; }
if [ "$user" = 0 ]; then as=; else as="setpriv --reuid $user --regid $user --clear-groups"; fi
exec chroot "$root" $as sh -c 'cd "$0" && exec "$@"' "$place" "$@"
""".replace("BASE", " ".join(BASE))


@dataclass
class Stage:
    """FROM and what follows it."""

    name: str
    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class Image:
    """What a stage has become."""

    root: Path
    environment: dict[str, str]
    place: str = "/"
    user: str = "0"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)

    def enter(self, command: Sequence[str], *, read_only: bool) -> list[str]:
        """The command line on this machine that runs a command there; read-only, it has no network but loopback."""
        given = {name: value for name, value in os.environ.items() if PASSED.fullmatch(name)}
        if not read_only:
            given |= {"UV_CACHE_DIR": "/build-cache", "UV_LINK_MODE": "copy"}
        variables = [f"{name}={value}" for name, value in {**given, **self.environment}.items()]
        who = self.user.partition(":")[0] if os.getuid() == 0 else "0"  # of the namespace: on the outside, this user
        inside = [
            str(self.root),
            "ro" if read_only else "rw",
            self.place,
            who,
            sys.base_prefix,
            str(CACHE) if CACHE.is_dir() else "",
        ]
        network = ["--net"] if read_only else []
        return [*NAMESPACE, *network, "sh", "-c", ENTER, "sh", *inside, "env", "-i", *variables, *command]

    def run(self, command: Sequence[str], *, read_only: bool = True) -> subprocess.CompletedProcess[str]:
        """A command in a container of it."""
        return subprocess.run(
            self.enter(command, read_only=read_only), text=True, encoding="utf-8", capture_output=True, timeout=300
        )


def read(dockerfile: Path) -> list[Stage]:
    """Its stages. Another instruction than those below is an error: nothing is passed over."""
    text = re.sub(r"^#.*\n", "", dockerfile.read_text(encoding="utf-8"), flags=re.MULTILINE)
    stages: list[Stage] = []
    values: dict[str, str] = {}
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        instruction, _, rest = line.strip().partition(" ")
        if instruction == "ARG" and not stages:
            name, _, values[name] = rest.partition("=")
        elif instruction == "FROM":
            base, _, name = _expanded(rest, values).partition(" AS ")
            stages.append(Stage(name, base))
        elif instruction:
            stages[-1].steps.append((instruction, rest))
    return stages


def context(source: Path, target: Path) -> Path:
    """What the build may copy: the files that .dockerignore, a list of exceptions, leaves."""
    lines = [line for line in (source / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert lines[0] == "*"
    for line in lines[1:]:
        name = line.removeprefix("!")
        assert line[0] == "!" or line == "**/__pycache__", f"what is {line}?"
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif line[0] == "!":
            target.mkdir(exist_ok=True)
            shutil.copy(source / name, target / name)
    return target


class Builder:
    """Builds images of a Dockerfile, each stage once."""

    def __init__(self, stages: Sequence[Stage], files: Path, folder: Path) -> None:
        self.stages = {stage.name: stage for stage in stages}
        self.files, self.folder = files, folder
        self.built: dict[str, Image] = {}

    def image(self, name: str) -> Image:
        """Of a stage, after those that it needs."""
        if name not in self.built:
            stage = self.stages[name]
            image = Image(self.folder / name, {"PATH": f"{_interpreter()}:/usr/sbin:/usr/bin:/bin"})
            if stage.base in self.stages:
                before = self.image(stage.base)
                shutil.copytree(before.root, image.root, symlinks=True)
                image.environment, image.place = dict(before.environment), before.place
            image.root.mkdir(parents=True, exist_ok=True)
            for instruction, rest in stage.steps:
                STEPS[instruction](image, rest, self)
            self.built[name] = image
        return self.built[name]


def _run(image: Image, rest: str, _: Builder) -> None:
    done = image.run(["sh", "-c", rest], read_only=False)
    assert done.returncode == 0, f"RUN {rest}\n{done.stdout}{done.stderr}"


def _copy(image: Image, rest: str, builder: Builder) -> None:
    *words, target = shlex.split(rest)
    options = [word for word in words if word.startswith("--")]
    origin = builder.image(options[0].removeprefix("--from=")).root if options else builder.files
    place = image.root / os.path.join(image.place, target).lstrip("/")
    for source in words[len(options) :]:
        taken = origin / source.lstrip("/")
        if taken.is_dir():
            shutil.copytree(taken, place, symlinks=True, dirs_exist_ok=True)
        else:
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(taken, place)


def _env(image: Image, rest: str, _: Builder) -> None:
    for pair in shlex.split(rest):
        name, _, value = pair.partition("=")
        image.environment[name] = _expanded(value, image.environment)


def _workdir(image: Image, rest: str, _: Builder) -> None:
    image.place = rest
    (image.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)


def _user(image: Image, rest: str, _: Builder) -> None:
    image.user = rest


def _entrypoint(image: Image, rest: str, _: Builder) -> None:
    image.entrypoint = json.loads(rest)


def _command(image: Image, rest: str, _: Builder) -> None:
    image.command = json.loads(rest)


def _health(image: Image, rest: str, _: Builder) -> None:
    image.health = json.loads(rest[rest.index("CMD ") + 4 :])


STEPS = {
    "RUN": _run,
    "COPY": _copy,
    "ENV": _env,
    "WORKDIR": _workdir,
    "USER": _user,
    "ENTRYPOINT": _entrypoint,
    "CMD": _command,
    "HEALTHCHECK": _health,
    "EXPOSE": lambda *_: None,
}


def _expanded(text: str, values: dict[str, str]) -> str:
    return re.sub(r"\$\{?(\w+)\}?", lambda match: values[match[1]], text)


@cache
def _interpreter() -> str:
    """The folder of this Python, as far as it is called as in the base image; skips the test otherwise."""
    folder = Path(sys.base_prefix) / "bin"
    if not (folder / INTERPRETER).exists():
        pytest.skip(f"no {folder / INTERPRETER}, as a base image has it")
    return str(folder)


def needs_namespaces() -> None:
    """Skips a test where a root file system of its own cannot be made."""
    probe = [*NAMESPACE, "--net", "sh", "-c", "mount --make-rprivate / && mount --bind /usr /usr"]
    if missing := [tool for tool in ("unshare", "chroot", "setpriv", "ip") if not shutil.which(tool)]:
        pytest.skip(f"a root file system of its own needs {', '.join(missing)}")
    done = subprocess.run(probe, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no mount namespace of its own here: {done.stderr.strip()}")
