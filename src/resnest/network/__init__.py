"""The network of the paper. Imports torch, and of this package only `spec` and `errors`."""

from resnest.network.regularize import DropBlock2d, DropPath, decay_groups, set_drop_block
from resnest.network.resnest import Backbone, Bottleneck, ResNeSt
from resnest.network.split_attention import SplitAttention

__all__ = [
    "Backbone",
    "Bottleneck",
    "DropBlock2d",
    "DropPath",
    "ResNeSt",
    "SplitAttention",
    "decay_groups",
    "set_drop_block",
]
