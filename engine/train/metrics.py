"""Dice, IoU and F1 of masks, and Otsu's threshold to beat. numpy only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.preprocess import Image, is_8_bits, stretch

BINS = 15
"""Equal bins of probability for the expected calibration error."""


@dataclass(frozen=True)
class Metrics:
    """Means over `images`: Dice and IoU per image, F1 over all pixels pooled (per image it would equal Dice)."""

    images: int
    dice: float
    iou: float
    f1: float


@dataclass(frozen=True)
class Counts:
    """Pixels of one image: in both masks, only predicted, only true."""

    both: int
    predicted: int
    true: int

    @property
    def dice(self) -> float:
        """2 |A and B| / (|A| + |B|); 1 when both masks are empty."""
        total = 2 * self.both + self.predicted + self.true
        return 2 * self.both / total if total else 1.0

    @property
    def iou(self) -> float:
        """|A and B| / |A or B|; 1 when both masks are empty."""
        union = self.both + self.predicted + self.true
        return self.both / union if union else 1.0


def count(predicted: NDArray[np.generic], true: NDArray[np.generic]) -> Counts:
    """Counts of two masks of one shape; non-zero is foreground."""
    a, b = predicted != 0, true != 0
    return Counts(int((a & b).sum()), int((a & ~b).sum()), int((b & ~a).sum()))


def by_class(predicted: NDArray[np.generic], true: NDArray[np.generic], classes: int = 0) -> list[Counts]:
    """Counts of every class but the background (0); of binary masks, `classes` being 0, of the foreground."""
    return [count(predicted == k, true == k) for k in range(1, classes)] if classes else [count(predicted, true)]


@dataclass(frozen=True)
class ObjectCounts:
    """Objects of one or more images: found, true, and found ones that match a true one."""

    matched: int
    found: int
    true: int

    @property
    def f1(self) -> float:
        """2 matched / (found + true); 1 where there are neither."""
        total = self.found + self.true
        return 2 * self.matched / total if total else 1.0


def match_objects(found: NDArray[np.int32], true: NDArray[np.int32]) -> ObjectCounts:
    """Counts of two label images of one shape, 0 being background: objects match where their IoU is above .5.

    Above a half an object has one match at most, so there is nothing to choose.
    """
    count = int(found.max(initial=0)) + 1
    pairs, both = np.unique(true.astype(np.int64) * count + found, return_counts=True)
    of_true, of_found = np.divmod(pairs, count)
    areas_true, areas_found = np.bincount(true.ravel()), np.bincount(found.ravel())
    matched = (of_true > 0) & (of_found > 0) & (3 * both > areas_true[of_true] + areas_found[of_found])
    return ObjectCounts(int(matched.sum()), count - 1, int(true.max(initial=0)))


def sum_objects(counts: Iterable[ObjectCounts]) -> ObjectCounts:
    """Counts over all images."""
    items = list(counts)
    return ObjectCounts(sum(c.matched for c in items), sum(c.found for c in items), sum(c.true for c in items))


def summarize(counts: Iterable[Counts]) -> Metrics:
    """Metrics over the images behind `counts`; raises ValueError when there are none.

    With several classes there are counts for each image and class: Dice and IoU are then also means over the classes.
    """
    items = list(counts)
    if not items:
        raise ValueError("no images to score")
    pooled = Counts(sum(c.both for c in items), sum(c.predicted for c in items), sum(c.true for c in items))
    return Metrics(
        len(items), float(np.mean([c.dice for c in items])), float(np.mean([c.iou for c in items])), pooled.dice
    )


def reliability(probabilities: NDArray[np.float64], true: NDArray[np.generic]) -> NDArray[np.float64]:
    """A reliability diagram of one image, float64 [3, BINS]: pixels, sum of probabilities, pixels it holds of.

    `probabilities` [h, w, classes] are the foreground's with one class; with several, the largest one counts, and it
    holds where its class is the true one.
    """
    if probabilities.shape[2] == 1:
        claimed, holds = probabilities[..., 0].ravel(), (true != 0).ravel()
    else:
        claimed, holds = probabilities.max(2).ravel(), (probabilities.argmax(2) == true).ravel()
    bins = np.minimum((claimed * BINS).astype(np.intp), BINS - 1)
    return np.stack([np.bincount(bins, w, minlength=BINS) for w in (np.ones_like(claimed), claimed, holds)])


def calibration_error(total: NDArray[np.float64]) -> float:
    """Expected calibration error of summed `reliability`: mean |claimed - true| share over bins, by their pixels."""
    count, claimed, holds = total
    return float(np.abs(claimed - holds).sum() / count.sum())


def otsu(image: Image) -> NDArray[np.bool_]:
    """Foreground of [h, w, 3] by Otsu's threshold on luma, the smaller of the two classes being foreground.

    Images of 16 bits are stretched to 8 before.
    """
    grey = np.rint((image if is_8_bits(image) else stretch(image)) @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    share = np.bincount(grey.ravel(), minlength=256) / grey.size
    below = np.cumsum(share)
    mean_below = np.cumsum(share * np.arange(256))
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (mean_below[-1] * below - mean_below) ** 2 / (below * (1 - below))
    bright: NDArray[np.bool_] = grey > int(np.argmax(np.nan_to_num(between, posinf=0)))
    return bright if bright.mean() <= 0.5 else ~bright
