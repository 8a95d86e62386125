"""The doctor's look at pictures: flaws and copies while they are decoded, then what a model finds.

survey = Survey()
report = check_dataset("photos", on_picture=survey.add)
review = survey.review(report.splits, model="runs/a")
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from resnest.data.sources import Splits
from resnest.errors import parameter
from resnest.health.copies import Copies
from resnest.health.findings import Finding, Place, Review, groups_of
from resnest.health.quality import Looks


class Survey:
    """Collects what is measured of every picture that can be decoded."""

    def __init__(self) -> None:
        self.places: list[Place] = []
        self.looks, self.copies = Looks(), Copies()

    def add(self, part: str, index: int, image: Image.Image) -> None:
        """Add a decoded picture of "train" or "val"."""
        number = len(self.places)
        self.places.append(Place(part, index))
        self.looks.add(number, image)
        self.copies.add(number, image)

    def review(
        self,
        splits: Splits,
        *,
        model: str | Path | None = None,
        device: str = "auto",
        out_of_sample: str = "auto",
        on_start: Callable[[int, str], None] = lambda total, title: None,
        on_batch: Callable[[int], None] = lambda seen: None,
    ) -> Review:
        """All findings.

        Args:
            model: finds label errors, outliers, and annotations that disagree with it.
            out_of_sample: where predictions of pictures that were not trained on come from, as `label_scores`.

        Raises:
            ResnestError: no such model, one of another task or without a class of the data.
        """
        review = Review()
        pairs = self.copies.pairs()
        for copy in pairs:
            first, second = self.places[copy.first], self.places[copy.second]
            kind = "copy" if first.part == second.part else "leak"
            review.findings.append(Finding(kind, second, copy.likeness, other=first))
        for flaw in self.looks.findings():
            review.findings.append(Finding(flaw.kind, self.places[flaw.number], flaw.score))
        if model is None:
            review.notes.append(f"label errors and outliers are looked for with a model: {parameter('model')}")
            review.sort()
            return review
        from resnest.health.by_model import look

        groups = groups_of([(copy.first, copy.second) for copy in pairs], len(self.places))
        by_place: dict[Any, int] = dict(zip(self.places, groups, strict=True))
        found = look(
            splits, by_place, model, device=device, out_of_sample=out_of_sample, on_start=on_start, on_batch=on_batch
        )
        copied = {frozenset((finding.place, finding.other)) for finding in review.findings if finding.other}
        review.findings += [one for one in found.findings if frozenset((one.place, one.other)) not in copied]
        review.notes += found.notes
        review.sort()
        return review
