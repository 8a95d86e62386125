"""Fused GPU operators for split attention in Triton, with a fallback to plain torch. All else works without them.

    from resnest.kernels.fuse import fuse
    fuse(net)                            # a network for training: in place, same parameters, same results

| file | holds |
|---|---|
| backend.py | the choice between Triton and torch |
| operators.py | `torch.ops.resnest.*`: autograd, autocast, fake tensors |
| block.py | the block forward and backward, from parts |
| reference.py | the parts in plain torch: the oracle of tests, and what runs without Triton |
| triton_backend.py | the parts in Triton: forward.py (with its tiles), layers.py, gradients.py |
| fuse.py | the operators inside a network |
| autotune.py | the fastest algorithm for each 3x3 convolution, by measurement |
"""
