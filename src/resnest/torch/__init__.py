"""The constructors of the published `resnest` package, so that code written for it runs unchanged.

    from resnest.torch import resnest50
    net = resnest50(pretrained=True)

Errors of the published code are corrected: `last_gamma=True` zeroes the last batch norm of each block, and
`dropblock_prob` works. Rectified convolution, which needed an extension, is refused. Needs only torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from torch import nn

from resnest.checkpoints.fetch import fetch
from resnest.checkpoints.loading import load_file
from resnest.checkpoints.manifest import find_weights
from resnest.errors import ResnestError
from resnest.network.resnest import ResNeSt
from resnest.spec import PUBLISHED

__all__ = [
    "resnest50",
    "resnest50_fast_1s1x64d",
    "resnest50_fast_1s2x40d",
    "resnest50_fast_1s4x24d",
    "resnest50_fast_2s1x64d",
    "resnest50_fast_2s2x40d",
    "resnest50_fast_4s1x64d",
    "resnest50_fast_4s2x40d",
    "resnest101",
    "resnest200",
    "resnest269",
]

OUTPUT_STRIDES = {1: 32, 2: 16, 4: 8}  # official `dilation`: of the last stage


def _build(
    name: str,
    pretrained: bool,
    root: str | Path | None,
    *,
    num_classes: int = 1000,
    dilated: bool = False,
    dilation: int = 1,
    rectified_conv: bool = False,
    rectify_avg: bool = False,
    final_drop: float = 0.0,
    dropblock_prob: float = 0.0,
    last_gamma: bool = False,
    norm_layer: Callable[..., nn.Module] = nn.BatchNorm2d,
) -> ResNeSt:
    if rectified_conv or rectify_avg:
        raise ResnestError("rectified_conv and rectify_avg: rectified convolution is not part of any published weights")
    if dilation not in OUTPUT_STRIDES:
        raise ResnestError(f"dilation={dilation} is not one of {', '.join(map(str, OUTPUT_STRIDES))}")
    if norm_layer not in (nn.BatchNorm2d, nn.SyncBatchNorm):
        raise ResnestError("norm_layer: expected torch.nn.BatchNorm2d or torch.nn.SyncBatchNorm")
    spec = dataclasses.replace(PUBLISHED[name].spec, drop_rate=final_drop, drop_block_rate=dropblock_prob)
    net = ResNeSt(
        spec,
        num_classes=num_classes,
        output_stride=8 if dilated else OUTPUT_STRIDES[dilation],
        zero_gamma=last_gamma,
    )
    if pretrained:
        folder = Path(root).expanduser() if root is not None else None
        load_file(net, fetch(find_weights(f"{name}.official"), folder), replace_head=True)
    if norm_layer is nn.SyncBatchNorm:
        return nn.SyncBatchNorm.convert_sync_batchnorm(net)  # type: ignore[no-any-return]
    return net


def _constructor(name: str) -> Callable[..., ResNeSt]:
    def construct(pretrained: bool = False, root: str | Path | None = None, **kwargs: object) -> ResNeSt:
        return _build(name, pretrained, root, **kwargs)  # type: ignore[arg-type]

    construct.__name__ = construct.__qualname__ = name
    construct.__doc__ = f"""{name} as the published package builds it.

    Args:
        pretrained: load the published weights; a head for another `num_classes` starts untrained.
        root: where to save them; by default the cache (RESNEST_HOME).
        kwargs: num_classes, dilated, dilation (1, 2, 4), final_drop, dropblock_prob, last_gamma, norm_layer.

    Raises:
        ResnestError: weights that cannot be fetched, an argument that has no meaning here.
        TypeError: an unknown argument.
    """
    return construct


resnest50 = _constructor("resnest50")
resnest101 = _constructor("resnest101")
resnest200 = _constructor("resnest200")
resnest269 = _constructor("resnest269")
resnest50_fast_1s1x64d = _constructor("resnest50_fast_1s1x64d")
resnest50_fast_2s1x64d = _constructor("resnest50_fast_2s1x64d")
resnest50_fast_4s1x64d = _constructor("resnest50_fast_4s1x64d")
resnest50_fast_1s2x40d = _constructor("resnest50_fast_1s2x40d")
resnest50_fast_2s2x40d = _constructor("resnest50_fast_2s2x40d")
resnest50_fast_4s2x40d = _constructor("resnest50_fast_4s2x40d")
resnest50_fast_1s4x24d = _constructor("resnest50_fast_1s4x24d")
