"""From a segmenter's logits, of a whole picture or of sliding windows, to the class of every pixel, or to masks.

predict(engine, card, [Prepared("x.jpg", card.preprocess(image), image.size)])         # [LabelMap(...)]

A multi-label segmenter gives a `MaskStack`: where a class's probability (sigmoid) reaches the card's threshold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.errors import ResnestError
from resnest.runtime.engines.exported import Engine, Prepared, Shape, Views, stack_pixels
from resnest.segmentation.activation import SOFTMAX, Activation, sigmoid
from resnest.segmentation.card import SegmentationCard, SegmentationPreprocess
from resnest.segmentation.mask_stack import MaskStack
from resnest.segmentation.result import LabelMap, PixelClasses

# --- Sliding-window inference and test-time augmentation of a segmenter; numpy and Pillow only ---
# A picture is segmented at once or, with `preprocess.window`, in squares that overlap by a third (PyTorch-Encoding), so
# that only the scores need memory that grows with the picture. Classes are enlarged to the picture one by one, so that
# there are never as many full-size maps as classes.

Map = NDArray[np.float32]
Labels = NDArray[np.uint8]

ROUNDING = 0.01  # of probabilities that are resized, at most

Logits = Callable[[Map], Map]  # what runs the network: images (N, 3, H, W) -> (N, K, H, W)


def segment(
    engine: Logits,
    image: Image.Image,
    preprocess: SegmentationPreprocess,
    classes: PixelClasses,
    name: str,
    views: Views | None = None,
) -> LabelMap:
    """The label map of an RGB picture."""
    logits = predict_logits(engine, image, preprocess, views)
    return label_map(logits, inner=logits.shape[1:], size=image.size, classes=classes, name=name)


def label_map(
    logits: Map, *, inner: tuple[int, ...], size: tuple[int, int], classes: PixelClasses, name: str
) -> LabelMap:
    """The label map of a picture from logits (K, h, w); see `pixel_labels`."""
    labels, best = pixel_labels(logits, inner, size)
    count = len(classes.names)
    pixels = np.bincount(labels.reshape(-1), minlength=count)
    sums = np.bincount(labels.reshape(-1), weights=best.reshape(-1), minlength=count)
    return LabelMap(name, classes, labels, (sums / np.maximum(pixels, 1)).astype(np.float32))


def mask_stack(
    logits: Map, *, inner: tuple[int, ...], size: tuple[int, int], classes: PixelClasses, threshold: float, name: str
) -> MaskStack:
    """The masks of a picture from logits (K, h, w), cut to `inner`; probabilities are resized where `size` differs."""
    masks, scores = np.zeros((len(logits), *size[::-1]), bool), np.zeros(len(logits), np.float32)
    for k, plane in enumerate(logits[:, : inner[0], : inner[1]]):
        likely = sigmoid(plane)
        likely = likely if tuple(inner) == size[::-1] else _resized(likely, size)
        np.greater_equal(likely, threshold, out=masks[k])
        scores[k] = likely[masks[k]].mean(dtype=np.float64) if masks[k].any() else 0
    return MaskStack(name, classes, masks, scores)


def pixel_labels(logits: Map, inner: tuple[int, ...], size: tuple[int, int]) -> tuple[Labels, Map]:
    """The most likely class of every pixel of a picture, and its probability, both (H, W).

    Args:
        logits: (K, h, w).
        inner: height and width of what is no padding in them.
        size: width and height of the picture. Where it differs, probabilities are resized bilinearly.
    """
    logits = logits[:, : inner[0], : inner[1]]
    labels, top = _largest(enumerate(logits), logits.shape[1:])
    total = np.zeros_like(top)
    for plane in logits:
        total += np.exp(plane - top)
    if tuple(inner) == size[::-1]:
        return labels, np.reciprocal(total, out=total)
    likely = ((number, _resized(plane, size)) for number, plane in _candidate_classes(logits, top, total))
    return _largest(likely, size[::-1])


def _candidate_classes(logits: Map, top: Map, total: Map) -> Iterator[tuple[int, Map]]:
    """Numbers and probabilities of the classes that can be the most likely one of a pixel (1 / K or more somewhere)."""
    for number, plane in enumerate(logits):
        probabilities = np.exp(plane - top) / total
        if probabilities.max() * len(logits) > 1 - ROUNDING:
            yield number, probabilities


def predict_logits(
    engine: Logits,
    image: Image.Image,
    preprocess: SegmentationPreprocess,
    views: Views | None = None,
    activation: Activation = SOFTMAX,
) -> Map:
    """Logits (K, h, w) of an RGB picture at the network's input size, without padding.

    Of several windows or views they are those of the mean of the probabilities. (The authors sum exp(logits),
    which gives a view of large logits more weight.)

    Raises:
        ResnestError: test-time augmentation with an exported file of a fixed size.
    """
    if views is None:
        wide, high = preprocess.scaled_size(*image.size)
        found = next(logits_of(engine, preprocess(image)[None], preprocess, [(high, wide)], activation))
        return found[:, :high, :wide]
    if preprocess.canvas:
        raise ResnestError("several views of a picture need the model itself: an exported file takes one size")
    scales, flip = views.scales or (1.0,), views.flip
    mean = _predict_at_scale(engine, image, preprocess, scales[0], flip, activation)
    for scale in scales[1:]:
        mean += _predict_at_scale(engine, image, preprocess, scale, flip, activation)
    mean /= len(scales)
    return activation.logits(mean)


def logits_of(
    engine: Logits,
    images: Map,
    preprocess: SegmentationPreprocess,
    inner: Sequence[tuple[int, int]],
    activation: Activation = SOFTMAX,
) -> Iterator[Map]:
    """Logits of each of some images (N, 3, H, W): at once (K, H, W), or in sliding windows (K, h, w).

    Args:
        inner: height and width of what is no padding in each image.
    """
    if preprocess.window is None or preprocess.canvas:
        yield from engine(images)
    else:
        for pixels, size in zip(images, inner, strict=True):
            found = _predict_in_windows(engine, pixels, preprocess.window, size, flip=False, activation=activation)
            yield activation.logits(found)


def _predict_at_scale(
    engine: Logits,
    image: Image.Image,
    preprocess: SegmentationPreprocess,
    scale: float,
    flip: bool,
    activation: Activation,
) -> Map:
    """Mean probabilities (K, h, w) at the base size, from a picture at another scale."""
    pixels = preprocess(image, scale)  # (3, H, W), padded
    wide, high = preprocess.scaled_size(*image.size, scale)
    found = _predict_in_windows(engine, pixels, preprocess.window, (high, wide), flip, activation)
    probabilities = found[:, :high, :wide]
    size = preprocess.scaled_size(*image.size)
    if size == (wide, high):
        return probabilities
    base = np.empty((len(probabilities), *size[::-1]), np.float32)
    for label, plane in enumerate(probabilities):
        base[label] = _resized(plane, size)
    return base


def _predict_in_windows(
    engine: Logits, pixels: Map, window: int | None, inner: tuple[int, int], flip: bool, activation: Activation
) -> Map:
    """Mean probabilities over all windows with a pixel, (K, h, w) of `inner`; without windows (K, H, W)."""
    if window is None:
        return _predict_with_flip(engine, pixels, flip, activation)
    height, width = pixels.shape[1:]
    total, times = np.zeros((0, *inner), np.float32), np.zeros(inner, np.float32)
    for top in window_starts(height, window):
        for left in window_starts(width, window):
            region = np.s_[..., top : top + window, left : left + window]
            probabilities = _predict_with_flip(engine, pixels[region], flip, activation)
            if not len(total):
                total = np.zeros((len(probabilities), *inner), np.float32)
            part = total[region]  # of a strip, most of a window is padding
            part += probabilities[:, : part.shape[1], : part.shape[2]]
            times[region] += 1
    total /= times
    return total


def window_starts(length: int, side: int) -> list[int]:
    """Starts of the windows along one axis: every two thirds of a side, the last one flush with the end."""
    return [*range(0, length - side, max(1, side * 2 // 3)), length - side]


def _predict_with_flip(engine: Logits, pixels: Map, flip: bool, activation: Activation) -> Map:
    """Probabilities (K, H, W); with `flip` averaged with those of the flipped image."""
    probabilities = activation.probabilities(engine(np.ascontiguousarray(pixels[None]))[0])
    if flip:
        probabilities += activation.probabilities(engine(np.ascontiguousarray(pixels[None, ..., ::-1]))[0])[..., ::-1]
        probabilities /= 2
    return probabilities


def _largest(planes: Iterable[tuple[int, Map]], shape: tuple[int, ...]) -> tuple[Labels, Map]:
    """Number and value of the largest of some numbered maps at each pixel, the first of equal ones."""
    top, labels = np.full(shape, -np.inf, np.float32), np.zeros(shape, np.uint8)
    for number, plane in planes:
        labels[plane > top] = number
        np.maximum(top, plane, out=top)
    return labels, top


def _resized(plane: Map, size: tuple[int, int]) -> Map:
    """(h, w) -> (H, W), bilinearly; `size` is width and height."""
    return np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BILINEAR))


FACTORS = (0.1, 8.0)  # of a segmenter's own size, that a view may have


def predict(
    engine: Engine, card: SegmentationCard, images: Sequence[Prepared], views: Views | None = None
) -> list[LabelMap | MaskStack]:
    """A class for every pixel of the picture, or a mask of each class, for images of one padded shape."""
    return [_result(card, image, scores) for image, scores in _inner_logits(engine, card, images, views)]


def _result(card: SegmentationCard, image: Prepared, logits: Map) -> LabelMap | MaskStack:
    """From logits without padding."""
    how: dict[str, Any] = {"inner": logits.shape[1:], "size": image.size, "classes": card.classes, "name": image.name}
    if card.segmenter.multi_label:
        return mask_stack(logits, threshold=card.threshold, **how)
    return label_map(logits, **how)


def probabilities(
    engine: Engine, card: SegmentationCard, images: Sequence[Prepared], views: Views | None = None
) -> Iterator[Map]:
    """The probabilities (K, H, W) of each of some images of one padded shape, in pixels of the picture."""
    for image, scores in _inner_logits(engine, card, images, views):
        planes = card.activation.probabilities(scores)
        same = planes.shape[:0:-1] == image.size
        yield planes if same else np.stack([_resized(plane, image.size) for plane in planes])


def _inner_logits(
    engine: Engine, card: SegmentationCard, images: Sequence[Prepared], views: Views | None
) -> Iterator[tuple[Prepared, Map]]:
    """Each image with its logits (K, h, w), without padding."""
    run = partial(_logits, engine)
    if views is not None:
        for image in images:
            assert image.image is not None
            yield image, predict_logits(run, image.image, card.preprocess, views, card.activation)
        return
    inner = [card.preprocess.scaled_size(*image.size)[::-1] for image in images]
    logits = logits_of(run, stack_pixels(images), card.preprocess, inner, card.activation)
    for image, (high, wide), scores in zip(images, inner, logits, strict=True):
        yield image, scores[:, :high, :wide]


def _logits(engine: Engine, images: Map) -> Map:
    """(N, 3, H, W) -> (N, K, H, W), without the padding of the engine's input."""
    logits: Map = engine(images, np.array([images.shape[2:]] * len(images)))["logits"]
    return logits


def check_views(views: Views) -> None:
    """Raises ResnestError for scales that are no factors."""
    if not all(FACTORS[0] <= scale <= FACTORS[1] for scale in views.scales):
        scales = ",".join(f"{scale:g}" for scale in views.scales)
        raise ResnestError(f"scales {scales}: those of a segmenter are factors of its own size, such as 0.75,1,1.25")


def takes(card: SegmentationCard) -> Shape:
    """Inputs of exported files: images of the card's size, or of any."""
    return None, card.in_chans, *(card.preprocess.canvas or (None, None))


def gives(card: SegmentationCard) -> dict[str, Shape]:
    """Outputs of exported files."""
    return {"logits": (None, len(card.class_names), *(card.preprocess.canvas or (None, None)))}
