"""Fused GPU operators for the split attention, in Triton, with plain torch beside them. Nothing else needs this room.

    from resnest.kernels.fuse import fuse
    fuse(net)                            # a network for training: in place, same parameters, same results

| file | holds |
|---|---|
| backend.py | which implementation runs, and how to choose it |
| operators.py | `torch.ops.resnest.*`: autograd, autocast, fake tensors |
| attention.py | the block forward and backward, from parts |
| plain.py | the parts in plain torch |
| triton_parts.py | the parts in Triton: moments, pool, layers, weigh, gradients, convolution |
| fuse.py | the operators inside a network |
"""
