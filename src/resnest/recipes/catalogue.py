"""The recipes that come with the house. Each docstring says what it is for, the command, and what it was seen to reach.

find_recipe("imagenette")
find_recipe("my-recipe.yaml")
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from resnest.data.settings import DataSettings
from resnest.errors import unknown
from resnest.recipes.detection import DETECTION
from resnest.recipes.few_images import FEW_IMAGES
from resnest.recipes.few_pixels import FEW_PIXELS
from resnest.recipes.finetune import finetune
from resnest.recipes.imagenet import IMAGENET
from resnest.recipes.modern import MODERN
from resnest.recipes.panoptic import PANOPTIC
from resnest.recipes.reading import read_recipe
from resnest.recipes.schema import Expect, ModelSettings, OptimSettings, Recipe, TrainSettings
from resnest.recipes.segmentation import SEGMENTATION


def digits() -> Recipe:
    """Handwritten digits on a CPU in a minute: what `resnest demo` runs.

    resnest train digits --data digits --out runs/digits
    """
    return Recipe(
        name="digits",
        summary="handwritten digits (8 x 8 pixels) from scratch, a minute on a CPU",
        model=ModelSettings(
            name="resnest14",
            spec={"planes": [16, 32, 64, 128], "stem": "small", "stem_width": 8},
        ),
        data=DataSettings(size=16, eval_crop=1.0, min_area=1.0, flip=False, shift=0.1),
        optim=OptimSettings(lr=0.1, weight_decay=5e-4, warmup_epochs=1.0),
        train=TrainSettings(epochs=6, batch_size=32),
    )


def imagenette() -> Recipe:
    """Small photographs from scratch on a CPU.

    resnest train imagenette --data DIR --out runs/a
    """
    return Recipe(
        name="imagenette",
        summary="photographs of 128 pixels from scratch, on a CPU",
        model=ModelSettings(name="resnest14", spec={"planes": [32, 64, 128, 256], "stem_width": 16}),
        data=DataSettings(size=112, eval_size=128, eval_crop=1.0, min_area=0.35),
        optim=OptimSettings(name="muon", lr=4e-3, momentum=0.95, weight_decay=0.05, warmup_epochs=1.0),
        train=TrainSettings(epochs=5, batch_size=32),
        expect=Expect(
            top1=0.835, within=0.02, note="imagenette128, seed 0, 17 minutes on two cores; results/imagenette128.csv"
        ),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "digits": digits,
    "imagenette": imagenette,
    "finetune": finetune,
    **MODERN,
    **IMAGENET,
    **FEW_IMAGES,
    **DETECTION,
    **FEW_PIXELS,
    **SEGMENTATION,
    **PANOPTIC,
}


def find_recipe(name: str) -> Recipe:
    """A recipe by name, or from a YAML file.

    Raises:
        ResnestError: for an unknown name, with the nearest known one.
    """
    if name in RECIPES:
        return RECIPES[name]()
    if name.endswith((".yaml", ".yml")):
        return read_recipe(Path(name))
    raise unknown("recipe", name, RECIPES, hint="`resnest recipes` lists them; a file must end in .yaml.")
