"""Bad images of a run, from all processes, each listed once in bad_images.jsonl.

bad_images = BadImages(run, world, {"train": 9469, "val": 3925})
bad_images.note("train", [(key, reason), ...])      # in this process
bad_images.share()                                # all-gather over the processes
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from resnest.inference.evaluation_result import check_bad_share
from resnest.training.distributed import ProcessGroup
from resnest.training.run import RunDirectory


class BadImages:
    """The bad images of all processes, by split and key."""

    def __init__(self, run: RunDirectory, world: ProcessGroup, totals: Mapping[str, int]) -> None:
        self.run, self.world, self.totals = run, world, totals  # images of each part
        self.known: set[tuple[str, str]] = set()
        self.untold: list[tuple[str, str, str]] = []  # part, key, reason: the others have not heard of them

    def note(self, part: str, found: Iterable[tuple[str, str]]) -> None:
        """Add bad images. Raises ResnestError if there are too many."""
        for key, reason in found:
            self.untold.append((part, key, reason))
            self._record(part, key, reason)

    def share(self) -> None:
        """Exchange them between processes. Raises ResnestError, on all processes, if there are too many in total."""
        told, self.untold = self.world.gather(self.untold), []
        for part, key, reason in (entry for entries in told for entry in entries):
            self._record(part, key, reason)

    def restore(self) -> None:
        """Restore those that the run has listed already."""
        told = self.run.read_lines(self.run.bad_images)
        self.known = {(line["split"], line["image"]) for line in told if line.keys() >= {"split", "image"}}

    def _record(self, part: str, key: str, reason: str) -> None:
        if (part, key) not in self.known:
            self.known.add((part, key))
            if self.world.leads:
                self.run.append(self.run.bad_images, {"image": key, "split": part, "reason": reason})
        check_bad_share(sum(known == part for known, _ in self.known), self.totals[part], (key, reason))
