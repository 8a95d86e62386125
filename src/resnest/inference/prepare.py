"""A network prepared for inference: the same function with less to compute.

    fast = prepare(net)                      # a copy of a network of any task; `net` stays as it is
    fast(images.contiguous(memory_format=torch.channels_last))

Exact up to rounding (1e-5 of the largest logit in float32, tests/test_prepare.py):

- every batch norm is folded into the convolution before it, the attention's own too;
- a convolution, its ReLU and the shortcut that is added to it are one step, which an engine may fuse (torch_engine.py);
- at radix 2 the softmax over two splits is the sigmoid of the difference of their logits, and the difference of two
  outputs of fc2 is one output of a layer half as large;
- weights are in channels_last, the fastest layout for the convolutions of oneDNN and cuDNN.

A deformable 3x3 stays as it is with what follows it, up to the next convolution; so does a group norm, which depends on
its input, and a block in which a caller has put other modules in the place of ours: what they compute is kept.
"""

from __future__ import annotations

import copy
from typing import Any, TypeGuard, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnest.kernels.autotune import ConvAlgorithm, Run, convolve
from resnest.kernels.fuse import pool_stride
from resnest.kernels.operators import attend, convolve_attend, takes
from resnest.kernels.reference import packed
from resnest.network.norm import FrozenStatsBatchNorm2d
from resnest.network.pyramid import ConvNorm
from resnest.network.regularize import DropBlock2d, DropPath
from resnest.network.resnest import Backbone, Bottleneck, Trunk
from resnest.network.split_attention import RadixSoftmax, SplitAttention, radix_softmax, weigh
from resnest.network.tools import SyncBatchNorm2d
from resnest.tasks import task_of_network

# --- Convolutions with batch norm folded in: the layers of networks prepared for inference ---

Norm = nn.BatchNorm2d | nn.SyncBatchNorm | FrozenStatsBatchNorm2d
FOLDED = (nn.BatchNorm2d, nn.SyncBatchNorm, SyncBatchNorm2d, FrozenStatsBatchNorm2d)  # exactly: a kind may do more
IDLE = (nn.Identity, DropBlock2d, DropPath)  # in evaluation


def foldable(conv: nn.Module, norm: nn.Module | None, *after: nn.Module | None) -> bool:
    """Whether these are a plain convolution, a norm with fixed statistics, and nothing else than ReLUs after it."""
    if type(conv) is not nn.Conv2d or type(norm) not in FOLDED or any(type(module) is not nn.ReLU for module in after):
        return False
    assert isinstance(norm, Norm)
    return norm.running_mean is not None and norm.weight is not None


class FusedConv(nn.Conv2d):
    """A convolution with bias, optionally followed by a sum and ReLU."""

    relu: bool

    def forward(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        out = super().forward(x)
        if plus is not None:
            out = out.add_(plus)
        return F.relu(out, inplace=True) if self.relu else out

    @classmethod
    def of(cls, conv: nn.Module, norm: nn.Module | None = None, *, relu: bool) -> FusedConv:
        """A convolution and the norm after it, folded for evaluation; computed in float64."""
        assert isinstance(conv, nn.Conv2d)
        weight = conv.weight.double()
        bias = torch.zeros_like(weight[:, 0, 0, 0]) if conv.bias is None else conv.bias.double()
        if norm is not None:
            assert isinstance(norm, Norm)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            scale = norm.weight.double() * torch.rsqrt(norm.running_var.double() + norm.eps)  # (O,)
            weight = weight * scale[:, None, None, None]
            bias = norm.bias.double() + (bias - norm.running_mean.double()) * scale
        return cls.like(conv, weight, bias, relu)

    @classmethod
    def like(cls, conv: nn.Conv2d, weight: Tensor, bias: Tensor, relu: bool) -> FusedConv:
        """A convolution with these weights, (O, I/groups, k, k) and (O,), and the geometry and type of `conv`."""
        fused = cls(
            conv.in_channels,
            weight.shape[0],
            conv.kernel_size,  # type: ignore[arg-type]
            conv.stride,  # type: ignore[arg-type]
            conv.padding,  # type: ignore[arg-type]
            conv.dilation,  # type: ignore[arg-type]
            conv.groups,
            device="meta",  # no random numbers are drawn for weights that are replaced
        )
        fused.relu = relu
        fused.weight = nn.Parameter(weight.to(conv.weight.dtype), requires_grad=False)
        fused.bias = nn.Parameter(bias.to(conv.weight.dtype), requires_grad=False)
        return fused.train(conv.training)

    def difference(self, cardinality: int) -> FusedConv:
        """The difference of fc2's logits, split 0 minus split 1: (N, I, 1, 1) -> (N, C, 1, 1).

        The outputs are cardinality-major, (K, R, C/K), and the channels of one split (K, C/K): the order stays.
        """
        assert self.bias is not None
        weight, bias = (values.double().unflatten(0, (cardinality, 2, -1)) for values in (self.weight, self.bias))
        weight, bias = ((values[:, 0] - values[:, 1]).flatten(0, 1) for values in (weight, bias))
        return self.like(self, weight, bias, self.relu)


class PreparedSplitAttention(nn.Module):
    """`SplitAttention` with its norms folded, and one logit per channel if there are two splits."""

    def __init__(self, block: SplitAttention) -> None:
        super().__init__()
        self.radix, self.cardinality = block.radix, block.cardinality
        self.conv = FusedConv.of(block.conv, block.bn0, relu=True)
        folds = foldable(block.fc1, block.bn1, block.relu1)  # a layer norm depends on its input
        self.fc1 = FusedConv.of(block.fc1, block.bn1 if folds else None, relu=folds)
        self.bn1 = nn.Identity() if folds else nn.Sequential(block.bn1, block.relu1)
        fc2 = FusedConv.of(block.fc2, relu=False)
        self.fc2 = fc2.difference(self.cardinality) if self.radix == 2 else fc2

    def forward(self, x: Tensor) -> Tensor:
        splits: Tensor = self.conv(x)  # U: (N, R*C, H, W)
        pooled = splits.mean((2, 3), keepdim=True)  # (N, R*C, 1, 1)
        s = pooled.unflatten(1, (self.radix, -1)).sum(1)  # (N, C, 1, 1)
        logits: Tensor = self.fc2(self.bn1(self.fc1(s)))
        if self.radix != 2:
            return weigh(splits, radix_softmax(logits, self.radix, self.cardinality), self.radix)
        first, second = splits.chunk(2, 1)
        a = logits.sigmoid()  # (N, C, 1, 1)
        if torch.compiler.is_exporting():
            return first * a + second * (1 - a)  # other engines have no lerp; exporters write it with a branch
        return torch.lerp(second, first, a)  # V: (N, C, H, W)


# --- Split attention in evaluation by the fused operators (kernels/), with prepare.py's as the fallback ---


class KernelAttention(PreparedSplitAttention):
    """A prepared split attention, and the average pool after it, in three launches and a convolution."""

    packed: Tensor

    def __init__(self, block: SplitAttention, pool: nn.Module) -> None:
        super().__init__(block)
        self.pool = pool
        self.logits = FusedConv.of(block.fc2, relu=False)  # of both splits: the softmax is the operator's
        self.register_buffer("packed", packed(self.conv.weight, self.conv.groups), persistent=False)
        self.algorithm: ConvAlgorithm = "grouped"

    def forward(self, x: Tensor) -> Tensor:
        if not self._runs_on(x):
            return self.pool(super().forward(x))  # type: ignore[no-any-return]
        return self._run(x, self.algorithm)

    def runs(self, x: Tensor) -> dict[ConvAlgorithm, Run]:
        """See `Tunable`."""
        if not self._runs_on(x):
            return {}
        dense: tuple[ConvAlgorithm, ...] = ("dense",) if self.conv.groups > 1 else ()
        algorithms: tuple[ConvAlgorithm, ...] = ("grouped", *dense, "triton")
        return {name: lambda name=name: self._run(x, name) for name in algorithms}  # type: ignore[misc]

    def _run(self, x: Tensor, algorithm: ConvAlgorithm) -> Tensor:
        assert self.conv.bias is not None
        layers = self.fc1.weight, self.fc1.bias, self.logits.weight, self.logits.bias
        numbers, stride = (self.radix, self.cardinality), pool_stride(self.pool)
        if algorithm == "triton":
            geometry = int(self.conv.stride[0]), int(self.conv.dilation[0]), stride
            v: Tensor = convolve_attend(x, self.packed, self.conv.bias, *layers, *numbers, *geometry)
        else:
            v = attend(convolve(x, self.conv, algorithm), self.conv.bias, *layers, *numbers, stride)
        return v

    def _runs_on(self, x: Tensor) -> bool:
        is_folded = isinstance(self.bn1, nn.Identity)  # a layer norm is not
        return is_folded and takes(x)


Net = TypeVar("Net", bound=nn.Module)
Bare = TypeVar("Bare", bound=Trunk)


def prepare(net: Net, *, memory_format: torch.memory_format = torch.channels_last, kernels: bool = False) -> Net:
    """A copy of a backbone or of a network of any task for inference only; arguments as for `prepared`.

    Raises:
        ResnestError: a network that no task has.
    """
    how: Any = prepared if isinstance(net, Backbone) else task_of_network(net).prepared
    return cast(Net, how(net, memory_format=memory_format, kernels=kernels))


def prepared(net: Bare, *, memory_format: torch.memory_format = torch.channels_last, kernels: bool = False) -> Bare:
    """A copy of a network for inference only; same shapes, other parameters.

    Args:
        net: a classifier or a backbone, on any device; its own parameters stay as they are.
        memory_format: of the weights; give inputs the same.
        kernels: take the fused operators where they run.
    """
    fast = copy.deepcopy(net).eval().requires_grad_(False)
    _fold_stem(fast)
    for stage in (fast.layer1, fast.layer2, fast.layer3, fast.layer4):
        for index, block in enumerate(stage):
            if PreparedBottleneck.takes(block):
                stage[index] = PreparedBottleneck(block, kernels=kernels)
    return fast.to(memory_format=memory_format)


def prepared_full_model(
    net: Net, *, memory_format: torch.memory_format = torch.channels_last, kernels: bool = False
) -> Net:
    """A copy of a multi-part network for inference only; arguments as for `prepared`."""
    backbone, done = net.get_submodule("backbone"), {}
    if isinstance(backbone, Trunk):  # in the copy's place, so that the backbone is not copied twice
        done = {id(backbone): prepared(backbone, memory_format=memory_format, kernels=kernels)}
    fast = copy.deepcopy(net, done).eval().requires_grad_(False)
    for module in fast.modules():
        if isinstance(module, ConvNorm) and foldable(module.conv, module.norm):
            module.conv = FusedConv.of(module.conv, module.norm, relu=False)
            module.norm = nn.Identity()
    return fast.to(memory_format=memory_format)


class PreparedBottleneck(nn.Module):
    """`Bottleneck` in evaluation, with its norms folded."""

    def __init__(self, block: Bottleneck, *, kernels: bool = False) -> None:
        super().__init__()
        self.conv1 = FusedConv.of(block.conv1, block.bn1, relu=True)
        self.pool_before = block.pool_before
        self.conv2, self.pool_after = _prepared_3x3(block, kernels)
        self.conv3 = FusedConv.of(block.conv3, block.bn3, relu=True)
        self.downsample: nn.Module = nn.Identity()
        if isinstance(block.downsample, nn.Sequential):
            pool, conv, norm = block.downsample
            self.downsample = nn.Sequential(pool, FusedConv.of(conv, norm, relu=False))

    @staticmethod
    def takes(block: nn.Module) -> TypeGuard[Bottleneck]:
        """Whether a block is one of ours, as it was built; its 3x3 convolution may be anything."""
        if type(block) is not Bottleneck:
            return False
        downsample = block.downsample
        return (
            foldable(block.conv1, block.bn1, block.relu1)
            and foldable(block.conv3, block.bn3, block.relu)
            and (downsample is None or (len(shortcut := [*downsample.children()]) == 3 and foldable(*shortcut[1:])))
            and all(type(drop) in IDLE for drop in (block.drop1, block.drop2, block.drop3, block.drop_path))
        )

    def forward(self, x: Tensor) -> Tensor:
        weighed = self.pool_after(self.conv2(self.pool_before(self.conv1(x))))
        out: Tensor = self.conv3(weighed, self.downsample(x))
        return out


def _prepared_3x3(block: Bottleneck, kernels: bool) -> tuple[nn.Module, nn.Module]:
    """A bottleneck's 3x3 convolution, folded if it is ours and a plain one, and the pool after it.

    With kernels the pool is inside.
    """
    conv2, pool = block.conv2, block.pool_after
    if _is_plain(conv2):
        if not kernels:
            return PreparedSplitAttention(conv2), pool
        return KernelAttention(conv2, pool), nn.Identity()
    if foldable(conv2, block.bn2, block.relu2):
        return FusedConv.of(conv2, block.bn2, relu=True), pool
    after = [module for module in (block.bn2, block.relu2) if module is not None]
    return nn.Sequential(conv2, *after) if after else conv2, pool


def _is_plain(conv2: nn.Module) -> TypeGuard[SplitAttention]:
    """Whether it is a split attention as it was built, of plain convolutions."""
    return (
        type(conv2) is SplitAttention
        and foldable(conv2.conv, conv2.bn0, conv2.relu)
        and type(conv2.fc1) is type(conv2.fc2) is nn.Conv2d
        and type(conv2.rsoftmax) is RadixSoftmax
    )


def _fold_stem(net: Trunk) -> None:
    """Fold the stem, with the ReLU after its last convolution; one in which a module was replaced stays."""
    stem = [*net.conv1] if isinstance(net.conv1, nn.Sequential) else [net.conv1]
    stem += [net.bn1, net.relu]  # one or three times: convolution, norm, ReLU
    triples = [stem[start : start + 3] for start in range(0, len(stem), 3)]
    if len(stem) % 3 or not all(foldable(*triple) for triple in triples):
        return
    folded = [FusedConv.of(conv, norm, relu=True) for conv, norm, _ in triples]
    net.conv1 = nn.Sequential(*folded) if len(folded) > 1 else folded[0]
    net.bn1 = net.relu = nn.Identity()  # type: ignore[assignment]
