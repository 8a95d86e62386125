"""Explaining what a model says of pictures.

explanation = explain("runs/a", "rose.jpg")            # opens the model for one picture
explainer = Explainer("runs/a", check=True)             # for several
explainer.learn_average("photos")
explainer("rose.jpg").save("rose.html")
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from resnest.errors import ResnestError, parameter
from resnest.explanation import faithfulness
from resnest.explanation.attention import Average, Recorded, average_of, blocks_of, recorded
from resnest.explanation.maps import EXACT, HIRES_CAM, METHODS, check_layers, check_method, explain_value, watched
from resnest.explanation.result import Explained, Explanation
from resnest.explanation.targets import Asked, Target, TargetFinder, numbers_of
from resnest.exporters.calibration import usable_pictures
from resnest.inference.model import Model
from resnest.inference.torch_engine import choose_device
from resnest.runtime.bands import to_picture
from resnest.runtime.decode import BadImage
from resnest.runtime.engines.choosing import is_exported
from resnest.runtime.engines.exported import Prepared
from resnest.runtime.inputs import ImageInput, name_of
from resnest.runtime.predictor import NotFinite
from resnest.runtime.shown import shown
from resnest.tasks import TASKS, load_object, task_info

SAMPLE = 64  # pictures of a data set, for its average


class Explainer:
    """Explains pictures with one model.

    Args:
        model: a reference, as `Predictor` takes it, or a `Model`. An exported file has no maps to look at.
        classes: names of classes to explain, in place of those that the model predicts.
        top: at most so many targets of a picture.
        method: exact, grad-cam or hires-cam; by default exact where the network has a linear head, else hires-cam.
        layers: whose maps are explained, of layer1 to layer4; by default the task's.
        check: also measure whether each map is better than random ones.
        network: name of the network in a checkpoint file that does not identify it.

    Raises:
        ResnestError: an exported file; an unknown class, method or layer; `exact` without a linear head.
    """

    def __init__(
        self,
        model: str | Path | Model,
        *,
        classes: Sequence[str] = (),
        top: int | None = None,
        method: str | None = None,
        layers: Sequence[str] = (),
        check: bool = False,
        network: str | None = None,
        device: str = "auto",
    ) -> None:
        if top is not None and top < 1:
            raise ResnestError(f"{parameter('top', top)}: expected 1 or more")
        self.device = choose_device(device)
        self.model = model if isinstance(model, Model) else _open(model, network)
        self.card: Any = self.model.card
        net: Any = self.model.net
        self.net: Any = net if self.device.type == "cpu" else copy.deepcopy(net).to(self.device)
        self.finder = _finder(self.net, self.card)
        names = [classes] if isinstance(classes, str) else classes
        self.asked = Asked(numbers_of(names, self.card), top)
        self.method = check_method(method or self.finder.method)
        self.layers = check_layers(layers) or self.finder.layers
        self.check = check
        self.average: Average | None = None
        self._check_exact(method)

    def _check_exact(self, given: str | None) -> None:
        """`exact` is the default alone where it is possible."""
        if self.method != EXACT:
            return
        obstacle = self.finder.why_not_exact(self.layers)
        if obstacle and given is None:
            self.method = HIRES_CAM
        elif obstacle:
            others = " or ".join(METHODS[1:])
            raise ResnestError(f"{parameter('method', given)}: {obstacle}: take {others}")

    def learn_average(self, data: str | Path, count: int = SAMPLE) -> Average:
        """The split attention of some pictures of a folder or data set, which later explanations compare with.

        Raises:
            ResnestError: nothing there, no usable picture.
        """
        images, there = usable_pictures(data, count, self.card.bands)
        if not images:
            raise ResnestError(f"{parameter('data', data)}: none of its {there} images can be used")
        self.average = average_of(self._attention(images))
        return self.average

    def _attention(self, images: Sequence[Any]) -> Iterator[list[Recorded]]:
        """Of each picture that the model takes."""
        _, trunk = self.finder.trunk
        with torch.no_grad():
            for image in images:
                with contextlib.suppress(BadImage), recorded(trunk) as blocks:
                    trunk.forward_features(self._tensor(self.card.preprocess(image)))  # type: ignore[operator]
                    yield blocks

    def _tensor(self, pixels: Any) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(pixels))[None].to(self.device)

    def __call__(self, image: ImageInput, name: str = "") -> Explanation:
        """The explanation of one picture, of any kind that a predictor takes.

        Raises:
            BadImage, WrongInput: as a predictor.
            NotFinite: the network gives NaN or infinity.
        """
        name = name or name_of(image, "image")
        picture = to_picture(image, self.card.bands, name)
        try:
            pixels = self.card.preprocess(picture)
        except BadImage as error:
            raise BadImage(name, error.reason) from None
        prepared = Prepared(name, pixels, picture.size, picture)
        prefix, trunk = self.finder.trunk
        own = [f"{prefix}{layer}" for layer in self.layers]
        tensor = self._tensor(pixels)
        with watched(self.net, own) as maps, recorded(trunk) as blocks:
            outputs = self.finder.run(tensor, prepared)
            targets = self.finder.targets(outputs, prepared, self.asked)
            most = self.asked.top or self.finder.most
            kept = targets if self.asked.classes and self.asked.top is None else targets[:most]
            found = [(target, explain_value(target.value, maps, self.method, target.linear)) for target in kept]
        explained = tuple(self._explained(target, plane, tensor, prepared) for target, plane in found)
        seen = shown(self.card.preprocess.pixels(picture))
        return Explanation(
            name=name,
            picture=seen,
            input_size=(tensor.shape[2], tensor.shape[3]),
            method=self.method,
            layers=self.layers,
            targets=explained,
            blocks=blocks_of(blocks, self.average),
            averaged=self.average.count if self.average else 0,
            notes=tuple(self._notes(len(targets) - len(kept), targets)),
        )

    def _explained(self, target: Target, plane: Tensor, pixels: Tensor, image: Prepared) -> Explained:
        values = plane.detach().float().cpu().numpy()
        if not np.isfinite(values).all() or not np.isfinite(target.score):
            raise NotFinite(f"{image.name}: the network gives values that are not finite: its weights are damaged")
        measured = None
        if self.check:

            def likelihoods(variants: Tensor) -> Tensor:
                return self.finder.likelihoods(self.finder.run(variants, image), target)

            measured = faithfulness.check(pixels, values, self.finder.inner(image), likelihoods)
        return Explained(
            label=target.label,
            score=target.score,
            value=float(target.value.detach()),
            what=target.what,
            map=values,
            bias=target.linear.bias if target.linear and self.method == EXACT else None,
            box=target.box,
            region=target.region,
            check=measured,
        )

    def _notes(self, left_out: int, targets: Sequence[Target]) -> Iterator[str]:
        yield from self.finder.notes()
        there = {target.index for target in targets}
        if missing := [self.card.class_names[k] for k in self.asked.classes if k not in there]:
            yield f"not found in this picture: {', '.join(missing)}"
        if left_out:
            yield f"{left_out} more found and not explained: {parameter('top')} sets how many are"


def explain(
    model: str | Path | Model, image: ImageInput, *, data: str | Path | None = None, **options: Any
) -> Explanation:
    """What a model says of a picture, and which of its pixels, channels and splits say it.

        explanation = resnest.explain("runs/a", "rose.jpg")
        explanation.save("rose.html")

    Args:
        model: a reference, as `Predictor` takes it, or a `Model`.
        image: as `Predictor` takes it.
        data: a folder or data set whose average the split attention is compared with.
        options: of `Explainer`, which is quicker for several pictures.

    Raises:
        ResnestError: as `Explainer`; a picture or data that cannot be used.
    """
    explainer = Explainer(model, **options)
    if data is not None:
        explainer.learn_average(data)
    return explainer(image)


def _open(reference: str | Path, network: str | None) -> Model:
    if is_exported(reference):
        raise ResnestError(
            f"{reference} is an exported file, which gives no maps: explain the run or checkpoint that it was made from"
        )
    return Model.from_pretrained(reference, network=network)


def _finder(net: Any, card: Any) -> TargetFinder:
    info = task_info(card.task)
    if not info.explained:
        able = ", ".join(known.noun for known in map(task_info, TASKS) if known.explained)
        raise ResnestError(f"this model is {info.noun}, and explanations are for {able}")
    finder: TargetFinder = load_object(info.explained)(net, card)
    return finder
