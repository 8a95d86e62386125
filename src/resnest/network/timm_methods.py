"""What code written for timm asks of a network: descriptions of its maps, maps by index, groups of parameters.

    net.feature_info.channels()                                                 # [64, 256, 512, 1024, 2048]
    net.forward_intermediates(images, indices=2, intermediates_only=True)       # the last two maps
    timm.optim.create_optimizer_v2(net, "sgd", lr=0.1, layer_decay=0.8)         # by `group_matcher`

Names, arguments and results are timm's. Nothing here imports it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

from torch import Tensor, nn

from resnest.errors import ResnestError
from resnest.network.recompute import recompute_activations

MAPS = 5  # the stem's and one per stage


class FeatureInfo(list[dict[str, Any]]):
    """A dict for each map that the network has; asked without an index, it answers for those in `out_indices`."""

    def __init__(self, infos: Iterable[dict[str, Any]], out_indices: Sequence[int] | None = None) -> None:
        super().__init__({**info, "index": index} for index, info in enumerate(infos))
        self.out_indices = tuple(range(len(self)) if out_indices is None else out_indices)

    def get(self, key: str, idx: int | Sequence[int] | None = None) -> Any:
        """The entries called `key`: of one map, of several, or of those that the network gives."""
        if isinstance(idx, int):
            return self[idx][key]
        return [self[index][key] for index in (self.out_indices if idx is None else idx)]

    def channels(self, idx: int | Sequence[int] | None = None) -> Any:
        return self.get("num_chs", idx)

    def reduction(self, idx: int | Sequence[int] | None = None) -> Any:
        """The strides."""
        return self.get("reduction", idx)

    def module_name(self, idx: int | Sequence[int] | None = None) -> Any:
        """The modules whose outputs the maps are."""
        return self.get("module", idx)

    def get_dicts(self, keys: Sequence[str] | None = None, idx: Sequence[int] | None = None) -> list[dict[str, Any]]:
        chosen = [self[index] for index in (self.out_indices if idx is None else idx)]
        return [info if keys is None else {key: info[key] for key in keys} for info in chosen]

    @property
    def info(self) -> list[dict[str, Any]]:
        return self


def map_indices(indices: int | Sequence[int] | None, name: str = "indices") -> list[int]:
    """The maps that timm means: all for None, the last n for an integer, from the end for negative indices.

    >>> map_indices(2), map_indices((0, -1))
    ([3, 4], [0, 4])
    """
    if indices is None or isinstance(indices, int):
        count = MAPS if indices is None else indices
        if not 1 <= count <= MAPS:
            raise ResnestError(f"{name}={count} asks for the last {count} of {MAPS} maps: from 1 to {MAPS}")
        return list(range(MAPS - count, MAPS))
    if not len(indices) or any(index not in range(-MAPS, MAPS) for index in indices):
        raise ResnestError(
            f"{name}={tuple(indices)} must name maps from 0 (stem) to {MAPS - 1} (last stage), or from the end, -1 to"
            f" -{MAPS}"
        )
    return [index % MAPS for index in indices]


class TimmMethods:
    """timm's methods of a network that has `forward_stages`."""

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """The last map and a list of those that were asked for, in the network's order; or the list alone.

        Args:
            x: (N, in_chans, H, W).
            indices: the last n maps for an integer, all for None; negative indices count from the end.
            norm: without effect: every map is the output of a block, behind its norms.
            stop_early: compute no further than the last of them, which then is the first result, too.
        """
        if output_fmt != "NCHW":
            raise ResnestError(f"output_fmt={output_fmt!r} is not 'NCHW', the only one that a ResNeSt has")
        chosen = map_indices(indices)
        maps: list[Tensor] = cast(Any, self).forward_stages(x, max(chosen) if stop_early else MAPS - 1)
        kept = [maps[index] for index in sorted(set(chosen))]
        return kept if intermediates_only else (maps[-1], kept)

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Regular expressions on names of parameters: the stem, then a group for each block, or stage if `coarse`."""
        return {"stem": r"^(?:conv1|bn1)\.", "blocks": r"^layer(\d+)" if coarse else r"^layer(\d+)\.(\d+)"}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations in the backward pass, or store them."""
        recompute_activations(cast(nn.Module, self), enable)
