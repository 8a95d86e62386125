"""Our networks in other packages: one module each, and each imports its package when it is called.

    from resnest.adapters.smp import register            # smp.Unet("resnest/resnest50", ...)
    from resnest.adapters.torchvision import backbone_with_fpn

docs/backbone.md has a complete example of each. Dilated stages are as in timm here (`dilation="timm"`), since that is
what those packages have; our own heads keep the published code's.
"""

from __future__ import annotations

import importlib
from typing import Any

from resnest.errors import ResnestError

INSTALL = {
    "segmentation_models_pytorch": "pip install segmentation-models-pytorch",
    "timm": "pip install timm",
    "transformers": "pip install transformers",
    "detectron2": "pip install git+https://github.com/facebookresearch/detectron2",  # it is in no index
}


def peer(module: str) -> Any:
    """Another package's module.

    Raises:
        ResnestError: with what to install, if it is not there.
    """
    package = module.split(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != package:
            raise
        what = (
            "is not installed"
            if error.name == package
            else f"has no {error.name}: it is another version than this needs"
        )
        raise ResnestError(f"{package} {what}: {INSTALL[package]}") from None
