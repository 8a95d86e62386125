"""SimpleBaseline: a backbone, three deconvolutions, and a heatmap for each point (arXiv 1804.06208).

net = build_pose_net(find_spec("resnest50")[0], HeadSpec(), num_classes=17)
net.eval()(images)                                 # (N, 3, 256, 192) -> heatmaps (N, 17, 64, 48)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from resnest.checkpoints.loading import find_pretrained, find_structure
from resnest.keypoints.card import HeadSpec
from resnest.keypoints.weights import WEIGHTS
from resnest.network.resnest import Backbone
from resnest.spec import Spec

INITIAL = 0.001  # standard deviation of the head's first weights (SimpleBaseline, pose_resnet.py: init_weights)


class PoseNet(nn.Module):
    """Heatmaps of K points at a quarter of the input's sides."""

    def __init__(self, backbone: Backbone, spec: HeadSpec, num_classes: int) -> None:
        super().__init__()
        self.spec, self.num_classes = spec, num_classes
        self.backbone = backbone
        layers: list[nn.Module] = []
        channels = backbone.channels[-1]
        for _ in range(spec.deconvs):
            layers += [
                nn.ConvTranspose2d(channels, spec.channels, kernel_size=4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(spec.channels),
                nn.ReLU(inplace=True),
            ]
            channels = spec.channels
        self.deconvs = nn.Sequential(*layers)
        self.heatmaps = nn.Conv2d(channels, num_classes, kernel_size=1)
        for module in (*self.deconvs, self.heatmaps):
            if isinstance(module, nn.ConvTranspose2d | nn.Conv2d):
                nn.init.normal_(module.weight, std=INITIAL)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W), sides multiples of 32 -> (N, K, H / 4, W / 4)."""
        maps: Tensor = self.heatmaps(self.deconvs(self.backbone(images)[-1]))
        return maps


def build_pose_net(
    spec: Spec, head: HeadSpec, num_classes: int, *, in_chans: int = 3, zero_gamma: bool = True
) -> PoseNet:
    """A network with random weights."""
    backbone = Backbone(spec, in_chans=in_chans, out_indices=(4,), zero_gamma=zero_gamma)
    return PoseNet(backbone, head, num_classes)


def create_pose_net(
    backbone: Spec | str = "resnest50",
    head: HeadSpec | None = None,
    *,
    num_classes: int = 17,
    in_chans: int = 3,
    pretrained: bool | str | Path = False,
    **spec: Any,
) -> PoseNet:
    """A keypoint network on any ResNeSt.

    Args:
        backbone: a name of `list_models()`, one of timm's names, or a `Spec`.
        num_classes: points of an object.
        pretrained: True for the published classifier's weights in the backbone; or whatever `create_model` takes.
        spec: fields of `Spec` to change.

    Raises:
        ResnestError: an unknown name or field, weights that cannot be had or do not fit.
    """
    net = build_pose_net(find_structure(backbone, spec), head or HeadSpec(), num_classes, in_chans=in_chans)
    if pretrained is not False:
        WEIGHTS.load(net, find_pretrained(pretrained, backbone))
    return net
