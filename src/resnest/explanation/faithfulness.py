"""Whether a map means something: pixels that it calls important are taken away, or given back, in its order.

Deletion and insertion (Petsiuk, Das and Saenko, arXiv 1806.07421): the area under the network's score while pixels
become the mean colour, the important ones first (low is good), and while they return to a blurred picture (high is
good). Maps of random values on the same grid are the measure of both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

STEPS = 16
RANDOM = 3  # maps
BLUR = 5 / 224  # sigma as a part of the side: the authors' 5 pixels of 224
BATCH = 16
SEED = 0

Floats = NDArray[np.float64]
Likelihoods = Callable[[Tensor], Tensor]  # images (N, C, H, W) -> (N,)


@dataclass(frozen=True, kw_only=True)
class Faithfulness:
    """Scores over the part of the pixels that was deleted or inserted, (STEPS + 1,) from 0 to 1."""

    deletion: Floats
    insertion: Floats
    random_deletion: Floats  # mean of the random maps
    random_insertion: Floats

    @property
    def better(self) -> bool:
        """Whether the map is better than random ones in both."""
        areas = self.areas
        return areas["deletion"] < areas["random_deletion"] and areas["insertion"] > areas["random_insertion"]

    @property
    def areas(self) -> dict[str, float]:
        """Areas under the curves, by name."""
        names = ("deletion", "insertion", "random_deletion", "random_insertion")
        return {name: float(np.trapezoid(getattr(self, name), dx=1 / STEPS)) for name in names}

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        curves = {name: [round(float(value), 5) for value in getattr(self, name)] for name in ("deletion", "insertion")}
        areas = {f"{name}_area": round(area, 5) for name, area in self.areas.items()}
        return {**areas, **curves, "better": self.better}


def resized(plane: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float32]:
    """(h, w) -> (H, W) bilinearly; `size` is height and width."""
    image = Image.fromarray(np.asarray(plane, np.float32))
    return np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR), np.float32)


@torch.no_grad()
def check(pixels: Tensor, found: NDArray[np.float32], inner: tuple[int, int], likelihoods: Likelihoods) -> Faithfulness:
    """Both curves of a map, and of random ones.

    Args:
        pixels: (1, C, H, W), normalised: 0 is the mean colour.
        found: (h, w), the map, which covers all of them.
        inner: height and width of what is no padding.
    """
    sigma = BLUR * max(inner)
    side = 2 * round(3 * sigma) + 1
    side = min(side, 2 * ((min(pixels.shape[2:]) - 1) // 2) + 1)  # no more than the picture
    blurred = gaussian_blur(pixels, [side, side], [sigma, sigma]) if side > 1 else pixels.clone()
    for padding in (np.s_[..., inner[0] :, :], np.s_[..., inner[1] :]):
        blurred[padding] = pixels[padding]
    blank = torch.zeros_like(pixels)

    def both(plane: NDArray[Any]) -> tuple[Floats, Floats]:
        order = _order(plane, (pixels.shape[2], pixels.shape[3]), inner)
        deleted = _curve(pixels, blank, order, likelihoods)
        return deleted, _curve(blurred, pixels, order, likelihoods)

    rng = np.random.default_rng(SEED)
    random = [both(rng.random(found.shape)) for _ in range(RANDOM)]
    deletion, insertion = both(found)
    return Faithfulness(
        deletion=deletion,
        insertion=insertion,
        random_deletion=np.mean([one for one, _ in random], axis=0),
        random_insertion=np.mean([one for _, one in random], axis=0),
    )


def _order(plane: NDArray[Any], size: tuple[int, int], inner: tuple[int, int]) -> NDArray[np.float64]:
    """(H, W): the part of the pixels that come before each, 0 to 1; of padding 2, which never comes."""
    heat = resized(plane, size)[: inner[0], : inner[1]]
    ranks = np.empty(heat.size, np.float64)
    ranks[np.argsort(-heat, axis=None, kind="stable")] = np.arange(heat.size) / heat.size
    order = np.full(size, 2.0)
    order[: inner[0], : inner[1]] = ranks.reshape(heat.shape)
    return order


def _curve(start: Tensor, end: Tensor, order: NDArray[np.float64], likelihoods: Likelihoods) -> Floats:
    """Scores while the pixels of `start` become those of `end`, (STEPS + 1,)."""
    parts = torch.arange(STEPS + 1, device=start.device) / STEPS
    turned = torch.from_numpy(order).to(start.device)[None, None] < parts[:, None, None, None]
    scores = [likelihoods(torch.where(own, end, start)) for own in turned.split(BATCH)]
    return torch.cat(scores).double().cpu().numpy()
