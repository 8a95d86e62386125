"""The constructors of the published `resnest` package, so that code written for it runs unchanged.

    from resnest.torch import resnest50
    net = resnest50(pretrained=True)

Where the published code is wrong, this one is right: `last_gamma=True` zeroes the last batch-norm of each block,
`dropblock_prob` works. What it needed extensions for (rectified convolution) is refused. Needs torch alone.
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
