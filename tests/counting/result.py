"""How many dots a picture shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from PIL import Image, ImageDraw

from resnest.errors import ResnestError
from resnest.runtime.results import ALL, LIKELY, Result, Show


@dataclass(frozen=True)
class Count(Result):
    """Of one image."""

    COLUMNS: ClassVar = {"image": "", "count": "d", "value": ".3f"}

    name: str
    value: float  # what the network gave

    @property
    def count(self) -> int:
        return max(0, round(self.value))

    def rows(self, show: Show = ALL) -> list[dict[str, Any]]:
        return [self.to_dict()]

    def text(self, show: Show = LIKELY) -> str:
        return f"{self.name}: {self.count} dots"

    def to_dict(self, show: Show = ALL) -> dict[str, Any]:
        return {"image": self.name, "count": self.count, "value": self.value}

    def to_supervision(self, show: Show = ALL) -> Any:
        raise ResnestError("supervision has nothing for counts")

    def _drawn(self, picture: Image.Image, show: Show) -> Image.Image:
        picture = picture.resize((320, 320))
        ImageDraw.Draw(picture).text((8, 8), f"{self.count} dots", font_size=32)
        return picture
