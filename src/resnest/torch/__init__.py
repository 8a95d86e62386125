"""The constructors of the published `resnest` package, so that code written for it runs unchanged.

    from resnest.torch import resnest50
    net = resnest50(pretrained=True)

Errors of the published code are corrected: `last_gamma=True` zeroes the last batch norm of each block, and
`dropblock_prob` works. Rectified convolution, which needed an extension, is refused. Needs only torch.
"""

from resnest.torch.constructors import (
    resnest50,
    resnest50_fast_1s1x64d,
    resnest50_fast_1s2x40d,
    resnest50_fast_1s4x24d,
    resnest50_fast_2s1x64d,
    resnest50_fast_2s2x40d,
    resnest50_fast_4s1x64d,
    resnest50_fast_4s2x40d,
    resnest101,
    resnest200,
    resnest269,
)

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
