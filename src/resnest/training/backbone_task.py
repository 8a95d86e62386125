"""Base class of tasks whose network is a backbone with heads.

class DetectionTask(BackboneTask): ...
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, cast

from torch import nn

from resnest.checkpoints.class_rows import Classes
from resnest.checkpoints.loading import LoadReport
from resnest.checkpoints.multipart import Parts
from resnest.errors import ResnestError
from resnest.inference.prepare import prepared_full_model
from resnest.network.resnest import initialise_as_gluon
from resnest.network.tools import freeze, freeze_bn_statistics
from resnest.recipes.schema import PUBLISHED_WEIGHTS
from resnest.spec import Spec
from resnest.tasks import Task, load_object


class BackboneTask(Task):
    """Base class: the network has a submodule `backbone`, and the package has a `weights.py`."""

    @abstractmethod
    def network(self) -> nn.Module:
        """The network without wrappers."""

    @classmethod
    def card_fields(cls, net: Any) -> dict[str, Any]:
        spec = getattr(net.backbone, "spec", None)
        if not isinstance(spec, Spec):
            raise ResnestError(f"the backbone is a {type(net.backbone).__name__}: expected one of `create_backbone`")
        stem = next(module for module in net.backbone.modules() if isinstance(module, nn.Conv2d))
        return {"spec": spec, "in_chans": stem.in_channels}

    @property
    def stem(self) -> dict[str, Any]:
        """How the recipe's backbone is built."""
        return {"in_chans": self.recipe.data.in_chans, "zero_gamma": self.recipe.model.zero_gamma}

    @property
    def min_batch_size(self) -> int:
        """Two if the norm inside split attention takes its statistics from the batch."""
        return 2 if self.recipe.attention_needs_batch else 1

    def build(self) -> Any:
        settings, net = self.recipe.model, self.network()
        backbone: Any = net.get_submodule("backbone")
        if settings.init == "gluon":
            initialise_as_gluon(backbone)
        freeze(backbone, settings.freeze)
        if self.recipe.frozen_backbone_norm:
            freeze_bn_statistics(backbone)
        return net

    def load_pretrained(self, net: Any) -> LoadReport | None:
        """Weights of the same kind of network are loaded into all parts, a classifier's into the backbone.

        Class predictors take the rows of the classes that the file knows, as `model.pretrained_head` says.
        """
        settings = self.recipe.model
        parts: Parts = load_object(self.info.weights)
        if settings.pretrained is None:
            return None
        classes = Classes(self.class_names, settings.pretrained_head)
        if settings.pretrained == PUBLISHED_WEIGHTS:
            return parts.load(net, settings.name, network=settings.name, classes=classes)
        return parts.load(net, settings.pretrained, classes=classes)

    @classmethod
    def prepared(cls, net: Any, **options: Any) -> nn.Module:
        return cast(nn.Module, prepared_full_model(net, **options))
