"""A backbone of Hugging Face transformers: `out_features`, `feature_maps`, `save_pretrained`, AutoBackbone.

net = backbone("resnest50", pretrained=True, out_features=["stage3", "stage4"])
maps = net(pixel_values).feature_maps
net.save_pretrained("saved")
net = from_pretrained("saved")

register()                                         # then DETR and others take its configuration
DetrForObjectDetection(DetrConfig(backbone_config=net.config))
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from resnest.adapters import peer
from resnest.checkpoints.loading import create_backbone, find_structure
from resnest.errors import ResnestError
from resnest.network.resnest import Backbone
from resnest.spec import Spec

STAGES = ["stem", "stage1", "stage2", "stage3", "stage4"]


def backbone(
    name: Spec | str,
    *,
    out_features: Sequence[str] | None = None,
    out_indices: Sequence[int] | None = None,
    pretrained: Any = False,
    in_chans: int = 3,
    output_stride: int = 32,
    dilation: str = "timm",
    **spec: Any,
) -> Any:
    """A transformers' backbone: `net(pixel_values).feature_maps` is a tuple of maps (N, C, H, W).

    Args:
        name: of `list_models()`, timm's, or a `Spec`.
        out_features: of "stem" and "stage1" to "stage4", in order; the last if nothing is given.
        out_indices: the same by number.
        pretrained, in_chans, output_stride, dilation, spec: as of `create_backbone`.

    Raises:
        ResnestError: transformers is not installed, an unknown name or map, weights that do not fit.
    """
    config_class, model_class = _classes()
    structure = dataclasses.asdict(find_structure(name, spec))
    arguments = {"num_channels": in_chans, "output_stride": output_stride, "dilation": dilation}
    try:
        config = config_class(
            structure=structure,
            out_features=None if out_features is None else list(out_features),
            out_indices=None if out_indices is None else list(out_indices),
            **arguments,
        )
    except ValueError as error:
        raise ResnestError(str(error)) from None
    net = model_class(config)
    whole = create_backbone(name, in_chans=in_chans, pretrained=pretrained, **spec)
    net.backbone.load_state_dict(whole.state_dict())
    return net


def from_pretrained(reference: str | Path, **settings: Any) -> Any:
    """A backbone from a folder of its `save_pretrained`, or from the hub, in evaluation mode.

    Args:
        settings: of transformers' `from_pretrained`, such as other `out_features`.
    """
    return _classes()[1].from_pretrained(reference, **settings)


def register() -> None:
    """Make transformers' AutoConfig, AutoModel and AutoBackbone know the model type "resnest".

    AutoBackbone.from_pretrained of transformers 5 takes names of the hub only; AutoModel's takes folders, too.
    """
    transformers, (config_class, model_class) = peer("transformers"), _classes()
    transformers.AutoConfig.register("resnest", config_class, exist_ok=True)
    for auto in (transformers.AutoBackbone, transformers.AutoModel):
        auto.register(config_class, model_class, exist_ok=True)


@functools.cache
def _classes() -> tuple[Any, Any]:
    transformers, utils = peer("transformers"), peer("transformers.backbone_utils")
    output = peer("transformers.modeling_outputs").BackboneOutput

    class ResnestConfig(utils.BackboneConfigMixin, transformers.PreTrainedConfig):  # type: ignore[misc, name-defined]
        model_type = "resnest"

        def __init__(
            self,
            structure: dict[str, Any] | None = None,
            num_channels: int = 3,
            output_stride: int = 32,
            dilation: str = "timm",
            out_features: list[str] | None = None,
            out_indices: list[int] | None = None,
            **more: Any,
        ) -> None:
            self.structure = structure or dataclasses.asdict(Spec())
            self.num_channels, self.output_stride, self.dilation = num_channels, output_stride, dilation
            self.stage_names = STAGES
            self.set_output_features_output_indices(out_features=out_features, out_indices=out_indices)
            super().__init__(**more)

    class ResnestBackbone(utils.BackboneMixin, transformers.PreTrainedModel):  # type: ignore[misc, name-defined]
        config_class = ResnestConfig
        main_input_name, base_model_prefix, has_attentions = "pixel_values", "backbone", False

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.backbone = Backbone(
                Spec(**config.structure),
                in_chans=config.num_channels,
                output_stride=config.output_stride,
                dilation=config.dilation,
                out_indices=range(len(STAGES)),
            )
            self.num_features = self.backbone.channels
            self.post_init()

        def _init_weights(self, module: Any) -> None:
            """The network has initialised itself."""

        @peer("transformers.utils.generic").can_return_tuple  # type: ignore[untyped-decorator]
        def forward(self, pixel_values: Tensor, output_hidden_states: bool | None = None, **_: Any) -> Any:
            maps = self.backbone(pixel_values)
            chosen = tuple(maps[STAGES.index(name)] for name in self.out_features)
            return output(feature_maps=chosen, hidden_states=tuple(maps) if output_hidden_states else None)

    for kind in (ResnestConfig, ResnestBackbone):
        kind.__qualname__ = kind.__name__  # where pickle finds them: `__getattr__`
    return ResnestConfig, ResnestBackbone


def __getattr__(name: str) -> Any:
    """`ResnestConfig` and `ResnestBackbone`, made when they are first asked for."""
    if name not in ("ResnestConfig", "ResnestBackbone"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _classes()[name == "ResnestBackbone"]
