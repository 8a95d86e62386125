"""Long-tailed classes: how few images show them, and how often those images are drawn.

factors = repeat_factors(*samples.marks(), len(samples), threshold=0.001)      # (N,), for `step_batches`
describe_tail(samples.counts())         # "1,203 of 1,203 classes have training images: 337 under 10 ..."
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]
Floats = NDArray[np.float64]

FEW, SOME = 10, 100  # images: LVIS's rare, common and frequent classes (lvis-api, eval.py)
USUAL_THRESHOLD = 1e-3  # that of the LVIS paper, detectron2's and mmdet's configurations


def repeat_factors(images: Numbers, classes: Numbers, count: int, threshold: float) -> Floats:
    """Repeat factors of images for the classes that few of them show (Gupta et al., arXiv 1908.03195, appendix B.2).

    A class that a share f of the images shows has the factor max(1, sqrt(threshold / f)); an image has the largest of
    its classes, or 1 without any.

    Args:
        images, classes: (M,) each; which image shows which class.
        count: of images.

    >>> images, classes = np.arange(1000), np.zeros(1000, int)  # all show class 0; number 7 alone shows class 1, too
    >>> repeat_factors(np.append(images, 7), np.append(classes, 1), 1000, 0.1)[6:9]
    array([ 1., 10.,  1.])
    """
    pairs = np.unique(np.stack([images, classes]), axis=1)  # a class counts once in an image
    shares = np.bincount(pairs[1]) / count
    factors = np.ones(count)
    np.maximum.at(factors, pairs[0], np.sqrt(threshold / shares[pairs[1]]))
    return factors


def describe_tail(images: Numbers) -> str:
    """How long the tail is, from the training images of each class, (K,).

    >>> describe_tail(np.array([0, 9, 10, 100, 2500]))
    '4 of 5 classes have training images: 1 under 10, 1 under 100, 2 more; the median is 55, the most 2,500'
    """
    shown = images[images > 0]
    if not len(shown):
        return f"none of {len(images):,} classes has a training image"
    few, some = int((shown < FEW).sum()), int(((shown >= FEW) & (shown < SOME)).sum())
    return (
        f"{len(shown):,} of {len(images):,} classes have training images: {few:,} under {FEW}, {some:,} under {SOME},"
        f" {len(shown) - few - some:,} more; the median is {np.median(shown):g}, the most {shown.max():,}"
    )
