"""ResNeSt: deep stem, four stages of split-attention bottlenecks, head (arXiv 2004.08955, section 3 and table 3).

The skeleton is ResNet-D (arXiv 1812.01187): three 3x3 convolutions as stem, average pooling on the shortcuts.

    net = ResNeSt(Spec(), num_classes=10)
    net(torch.randn(2, 3, 224, 224)).shape                        # (2, 10)
    [c.shape for c in Backbone(Spec())(torch.randn(2, 3, 224, 224))]   # C2..C5: strides 4, 8, 16, 32

Parameter names are those of the official code, so official and timm weights load with `strict=True`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnest.errors import ResnestError
from resnest.network.norm import too_few_values
from resnest.network.regularize import DropBlock2d, DropPath
from resnest.network.split_attention import SplitAttention
from resnest.network.timm_methods import FeatureInfo, TimmMethods, map_indices
from resnest.spec import EXPANSION, Spec

if TYPE_CHECKING:
    from resnest.runtime.preprocess import Preprocess

Dilation = Literal["official", "timm"]
ConvFactory = Callable[..., nn.Conv2d]  # takes the arguments of torch.nn.Conv2d


@dataclass(frozen=True)
class BlockPosition:
    """The position of a bottleneck: what differs between blocks."""

    stride: int = 1
    dilation: int = 1
    pools: bool = False  # the average pool of `avd` is here
    drop_path: float = 0.0
    drop_block: bool = False
    conv: ConvFactory = nn.Conv2d  # makes the 3x3


class Bottleneck(nn.Module):
    """1x1, split attention 3x3, 1x1, with a shortcut around them (figure 2, right; table 3).

    Shapes: (N, in_chans, H, W) -> (N, 4 * planes, H/stride, W/stride).
    """

    checkpointable = True  # by recompute.recompute_activations

    def __init__(
        self, in_chans: int, planes: int, spec: Spec, position: BlockPosition, downsample: nn.Module | None = None
    ) -> None:
        super().__init__()
        channels, out_chans = spec.group_width(planes), planes * EXPANSION
        # Zero padding counts in the mean (count_include_pad): the official default, and the weights depend on it.
        pool = nn.AvgPool2d(3, position.stride, padding=1) if position.pools else nn.Identity()
        # DropBlock where the released weights had it: after bn1, after the split attention, after bn3 (Gluon code).
        drops = (DropBlock2d(spec.drop_block_rate) if position.drop_block else nn.Identity() for _ in range(3))
        self.conv1 = nn.Conv2d(in_chans, channels, kernel_size=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.drop1 = next(drops)
        self.relu1 = nn.ReLU(inplace=True)
        self.pool_before = pool if spec.avd_first else nn.Identity()
        self.conv2 = _conv_3x3(channels, spec, position)
        self.bn2: nn.Module | None = None if spec.radix else nn.BatchNorm2d(channels)
        self.relu2: nn.Module | None = None if spec.radix else nn.ReLU(inplace=True)
        self.drop2 = next(drops)
        self.pool_after = nn.Identity() if spec.avd_first else pool
        self.conv3 = nn.Conv2d(channels, out_chans, kernel_size=1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_chans)
        self.drop3 = next(drops)
        self.drop_path = DropPath(position.drop_path) if position.drop_path else nn.Identity()
        self.relu = nn.ReLU(inplace=True)  # of the block's output
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        out = self.pool_before(self.relu1(self.drop1(self.bn1(self.conv1(x)))))
        out = self.conv2(out)
        if self.bn2 is not None and self.relu2 is not None:
            out = self.relu2(self.bn2(out))
        out = self.pool_after(self.drop2(out))
        out = self.drop_path(self.drop3(self.bn3(self.conv3(out))))
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(out.add_(shortcut))  # type: ignore[no-any-return]


def _conv_3x3(channels: int, spec: Spec, position: BlockPosition) -> nn.Module:
    """The 3x3 convolution of a bottleneck: split attention, or a plain one at radix 0."""
    stride = 1 if position.pools else position.stride
    if spec.radix:
        return SplitAttention(
            channels,
            radix=spec.radix,
            cardinality=spec.cardinality,
            stride=stride,
            dilation=position.dilation,
            attention_norm=spec.attention_norm,
            conv=position.conv,
        )
    return position.conv(
        channels,
        channels,
        kernel_size=3,
        stride=stride,
        padding=position.dilation,
        dilation=position.dilation,
        groups=spec.cardinality,
        bias=False,
    )


class Trunk(TimmMethods, nn.Module):
    """Stem and four stages: what a classifier and a backbone share.

    Args:
        spec: the structure.
        output_stride: 32, 16 or 8; below 32 the last stages dilate instead of striding.
        dilation: what a dilated stage does in its first block. "official" keeps the 3x3 average pool, at stride 1,
            as the released segmentation weights need; "timm" leaves it out and pads the shortcut's pool, as timm.
        convs: for each of the four stages, what makes its 3x3 convolutions; plain ones by default
            (`resnest.network.deform.stage_convs` has deformable ones).
    """

    preprocess: Preprocess | None = None  # of published weights; `create_model(..., pretrained=True)` sets it

    def __init__(
        self,
        spec: Spec,
        *,
        in_chans: int = 3,
        output_stride: int = 32,
        dilation: Dilation = "official",
        convs: Sequence[ConvFactory] | None = None,
    ) -> None:
        super().__init__()
        if output_stride not in (8, 16, 32):
            raise ResnestError(f"output_stride={output_stride} is not one of 8, 16, 32")
        if dilation not in ("official", "timm"):
            raise ResnestError(f"dilation={dilation!r} is not one of 'official', 'timm'")
        _check_count("in_chans", in_chans, 1)
        self.spec = spec
        stem_chans = spec.stem_width * 2
        self.conv1 = _stem(spec, in_chans)
        self.bn1 = nn.BatchNorm2d(stem_chans)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if spec.stem == "small" else nn.MaxPool2d(3, stride=2, padding=1)
        stages = _build_stages(spec, stem_chans, output_stride, dilation, convs or [nn.Conv2d] * 4)
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.feature_info = _feature_info(spec, output_stride)
        self.num_features = spec.planes[-1] * EXPANSION

    def forward_stages(self, x: Tensor, last: int = 4) -> list[Tensor]:
        """Five maps, (N, C_i, H_i, W_i) as `feature_info` lists them: the stem's and one per stage, up to `last`."""
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            self._check_values(x, last)
        maps = [self.relu(self.bn1(self.conv1(x)))]
        if last >= 1:
            maps.append(self.layer1(self.maxpool(maps[0])))
        if last >= 2:
            maps.append(self.layer2(maps[1]))
        if last >= 3:
            maps.append(self.layer3(maps[2]))
        if last >= 4:
            maps.append(self.layer4(maps[3]))
        return maps

    def _check_values(self, x: Tensor, last: int) -> None:
        """Raises ResnestError if a batch norm of the last stage would see one value per channel in training."""
        if self.training and last == 4 and isinstance(x, Tensor) and len(x) == 1:  # not a Proxy of torch.fx
            learning = any(type(module) is nn.BatchNorm2d and module.training for module in self.layer4.modules())
            if learning and max(x.shape[2:]) <= self.feature_info[-1]["reduction"]:
                raise too_few_values()

    def forward_features(self, x: Tensor) -> Tensor:
        """The last stage's map: (N, in_chans, H, W) -> (N, num_features, H/32, W/32)."""
        return self.forward_stages(x)[-1]


class ResNeSt(Trunk):
    """The classifier: (N, in_chans, H, W) -> logits (N, num_classes); pooled features if `num_classes` is 0.

    Args:
        zero_gamma: start every residual branch at zero (Goyal et al., arXiv 1706.02677, section 5.1).
        arguments: of `Trunk`.
    """

    def __init__(self, spec: Spec, *, num_classes: int = 1000, zero_gamma: bool = True, **arguments: Any) -> None:
        super().__init__(spec, **arguments)
        _check_count("num_classes", num_classes, 0)
        self.num_classes = num_classes
        self.global_pool = "avg"
        self.avgpool: nn.Module = GlobalAvgPool2d()
        self.drop: nn.Module | None = nn.Dropout(spec.drop_rate) if spec.drop_rate else None
        self.fc: nn.Module = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        _initialise(self, zero_gamma)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(N, num_features, H, W) -> logits (N, num_classes), or the pooled features if `pre_logits`."""
        pooled = self.avgpool(x)
        if self.global_pool != "":  # TorchScript knows no truth of a string
            pooled = pooled.flatten(1)  # (N, num_features); a pool put in its place may give (N, C, 1, 1)
        if self.drop is not None:
            pooled = self.drop(pooled)
        return pooled if pre_logits else self.fc(pooled)  # type: ignore[no-any-return]

    def get_classifier(self, name_only: bool = False) -> nn.Module | str:
        return "fc" if name_only else self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier by an untrained one of another size; 0 removes it.

        Args:
            global_pool: "avg", "max", or "" for none, which leaves the last map; it stays as it is if not given.

        Raises:
            ResnestError: another pool, or a classifier without one.
        """
        _check_count("num_classes", num_classes, 0)
        pool = self.global_pool if global_pool is None else global_pool
        if pool not in POOLS:
            raise ResnestError(f"global_pool={pool!r} is not one of 'avg', 'max', '': put your own into `net.avgpool`")
        if num_classes and not pool:
            raise ResnestError(f"a classifier of {num_classes} classes needs a pool: global_pool='avg' or 'max'")
        if global_pool is not None:
            self.global_pool, self.avgpool = pool, POOLS[pool]()
        self.num_classes = num_classes
        weight = next(self.parameters())
        head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        self.fc = head.to(device=weight.device, dtype=weight.dtype)


class Backbone(Trunk):
    """A trunk that gives its maps: (N, in_chans, H, W) -> a list, C2..C5 by default.

    `channels` and `strides` describe the maps. `out_indices` counts as timm does: 0 is the stem, 1 to 4 the stages,
    negative ones from the end, an integer is the last so many. Stages behind the last of them are not computed.
    `zero_gamma` as of `ResNeSt`, and `arguments` of `Trunk`.
    """

    def __init__(
        self, spec: Spec, *, out_indices: int | Sequence[int] = (1, 2, 3, 4), zero_gamma: bool = True, **arguments: Any
    ) -> None:
        super().__init__(spec, **arguments)
        self.out_indices = self.feature_info.out_indices = tuple(map_indices(out_indices, "out_indices"))
        self.channels = [int(count) for count in self.feature_info.channels()]
        self.strides = [int(stride) for stride in self.feature_info.reduction()]
        _initialise(self, zero_gamma)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps, chosen = self.forward_stages(x, max(self.out_indices)), []
        for index in self.out_indices:  # no comprehension: TorchScript has none over tuples
            chosen.append(maps[index])
        return chosen


class GlobalAvgPool2d(nn.Module):
    """The mean over all pixels, flattened as in the official code: (N, C, H, W) -> (N, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


class GlobalMaxPool2d(nn.Module):
    """The maximum over all pixels: (N, C, H, W) -> (N, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.amax((2, 3))


POOLS: dict[str, Callable[[], nn.Module]] = {"avg": GlobalAvgPool2d, "max": GlobalMaxPool2d, "": nn.Identity}


class PadRight(nn.Module):
    """One zero column right and one zero row below: the padding of timm's stride-1 shortcut pool."""

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, 1, 0, 1))


def _check_count(name: str, count: object, least: int) -> None:
    if type(count) is not int or count < least:
        raise ResnestError(f"{name}={count!r} must be an integer, {least} or more")


def _stem(spec: Spec, in_chans: int) -> nn.Module:
    width = spec.stem_width
    if spec.stem == "conv7":
        return nn.Conv2d(in_chans, 2 * width, kernel_size=7, stride=2, padding=3, bias=False)
    if spec.stem == "small":
        return nn.Conv2d(in_chans, 2 * width, kernel_size=3, padding=1, bias=False)
    return nn.Sequential(
        nn.Conv2d(in_chans, width, kernel_size=3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, 2 * width, kernel_size=3, padding=1, bias=False),
    )


def _stage_strides(output_stride: int) -> list[tuple[int, int, int]]:
    """Per stage: stride, dilation of the first block's 3x3, dilation of the others'.

    A stage that may not stride any more dilates by its stride instead; its first block keeps the dilation of the
    stage before. At output stride 8 that gives 1, 2 in stage 3 and 2, 4 in stage 4, as in the official code.
    """
    plan, reached, dilation = [], 4, 1
    for stride in (1, 2, 2, 2):
        previous = dilation
        if reached * stride > output_stride:
            dilation *= stride
            stride = 1
        reached *= stride
        plan.append((stride, previous, dilation))
    return plan


def _build_stages(
    spec: Spec, in_chans: int, output_stride: int, dilation: Dilation, convs: Sequence[ConvFactory]
) -> list[nn.Sequential]:
    stages, total, count = [], sum(spec.depths), 0
    for index, (stride, first, rest) in enumerate(_stage_strides(output_stride)):
        planes, blocks = spec.planes[index], []
        out_chans = planes * EXPANSION
        for block in range(spec.depths[index]):
            is_first = block == 0
            position = BlockPosition(
                stride=stride if is_first else 1,
                dilation=first if is_first else rest,
                pools=spec.avd and is_first and index > 0 and (stride > 1 or dilation == "official"),
                drop_path=spec.drop_path_rate * count / max(total - 1, 1),  # linear, arXiv 1603.09382
                drop_block=index >= 2 and spec.radix > 0,
                conv=convs[index],
            )
            shortcut = _shortcut(in_chans, out_chans, stride, rest, dilation) if is_first else None
            blocks.append(Bottleneck(in_chans, planes, spec, position, shortcut))
            in_chans, count = out_chans, count + 1
        stages.append(nn.Sequential(*blocks))
    return stages


def _feature_info(spec: Spec, output_stride: int) -> FeatureInfo:
    """Channels, stride and module of the five maps, in timm's form: the stem, then the stages."""
    before, reduction = (1, 1) if spec.stem == "small" else (2, 4)  # the small stem neither strides nor pools
    infos: list[dict[str, Any]] = [{"num_chs": spec.stem_width * 2, "reduction": before, "module": "relu"}]
    for index, (stride, _, _) in enumerate(_stage_strides(output_stride)):
        reduction *= stride
        infos.append({"num_chs": spec.planes[index] * EXPANSION, "reduction": reduction, "module": f"layer{index + 1}"})
    return FeatureInfo(infos)


def _shortcut(in_chans: int, out_chans: int, stride: int, dilation: int, semantics: Dilation) -> nn.Sequential:
    """Average pool, 1x1 convolution, norm (ResNet-D); an idle pool keeps its name."""
    pool: nn.Module = nn.Identity()
    if stride > 1:
        pool = nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)
    elif dilation > 1 and semantics == "timm":
        pool = nn.Sequential(PadRight(), nn.AvgPool2d(2, stride=1))
    convolution = nn.Conv2d(in_chans, out_chans, kernel_size=1, bias=False)
    return nn.Sequential(pool, convolution, nn.BatchNorm2d(out_chans))


def _initialise(net: Trunk, zero_gamma: bool) -> None:
    """He normal, fan-out, for convolutions (official code); norms at 1 and 0; then bn3 at 0 if `zero_gamma`.

    The order matters: the official code resets the zeros to 1 afterwards, so that its option does nothing.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            # The official fan-out ignores groups: sqrt(2 / (k * k * out_channels)).
            fan_out = module.out_channels * module.kernel_size[0] * module.kernel_size[1]
            nn.init.normal_(module.weight, std=(2 / fan_out) ** 0.5)
    if zero_gamma:
        for module in net.modules():
            if isinstance(module, Bottleneck):
                nn.init.zeros_(module.bn3.weight)


def initialise_as_gluon(net: nn.Module) -> None:
    """He normal, fan-in, in convolutions and linear layers, all biases 0 (Gluon train.py: Xavier, "in", magnitude 2).

    Norms stay as they are. The official PyTorch code takes fan-out and leaves classifier and biases to torch.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()  # of one group
            nn.init.normal_(module.weight, std=(2 / fan_in) ** 0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
