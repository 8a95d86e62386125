"""The card of a counter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from resnest.runtime.card import ModelCard
from resnest.runtime.preprocess import Preprocess


@dataclass(frozen=True, kw_only=True)
class CountingCard(ModelCard):
    """Of a counter; its one class is what is counted."""

    task = "counting"
    pipeline_tag = "other"
    hub_metric = ("exact", "accuracy")
    usage = (".count", "--json")
    figure_titles: ClassVar = {"exact": "exact", "near": "off by one at most"}

    preprocess: Preprocess

    @classmethod
    def preprocess_type(cls) -> type[Preprocess]:
        return Preprocess

    def describe_network(self, paper: str) -> str:
        return f"{paper} with one output (`{self.architecture}`)"

    def describe_purpose(self) -> str:
        return f"counts {self.class_names[0]}"

    def describe_input(self) -> str:
        return f"RGB, {self.preprocess.size} x {self.preprocess.size} pixels."
