"""The probability from which a pixel is foreground: the scores of many of them, and the best. numpy only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from engine.train.data.dataset import VOID

THRESHOLDS = tuple(round(k / 20, 2) for k in range(1, 20))
WORTH = 0.002  # Dice that another threshold must gain over 1/2 to be taken


def levels(probabilities: NDArray[np.float64]) -> NDArray[np.uint8]:
    """How many of THRESHOLDS each probability reaches, uint8 of the same shape."""
    return np.searchsorted(THRESHOLDS, probabilities, side="right").astype(np.uint8)


def reaches(of_pixels: NDArray[np.uint8], threshold: float) -> NDArray[np.bool_]:
    """The mask of pixels of these levels by one of THRESHOLDS."""
    mask: NDArray[np.bool_] = of_pixels > THRESHOLDS.index(threshold)
    return mask


def dice(labeled: Iterable[tuple[NDArray[np.float64], NDArray[np.uint8]]]) -> dict[float, float]:
    """Mean Dice over images by THRESHOLDS of pairs (probabilities [h, w], mask [h, w]).

    Images without foreground in mask and prediction are left out, and pixels that are VOID, as everywhere.
    """
    return dice_of_levels((levels(probabilities), mask) for probabilities, mask in labeled)


def dice_of_levels(labeled: Iterable[tuple[NDArray[np.uint8], NDArray[np.uint8]]]) -> dict[float, float]:
    """The same of pairs (levels [h, w], mask [h, w])."""
    scores = []
    for of_pixels, mask in labeled:
        known = mask != VOID
        level = of_pixels[known]
        reached = [np.cumsum(_counts(level[chosen])[::-1])[::-1][1:] for chosen in (mask[known] != 0, slice(None))]
        both, predicted, true = reached[0], reached[1], int((mask[known] != 0).sum())
        with np.errstate(invalid="ignore"):
            scores.append(2 * both / (predicted + true))
    if not scores:
        raise ValueError("there are no images to score")
    with np.errstate(invalid="ignore"):
        means = np.nanmean(np.array(scores), axis=0)
    return dict(zip(THRESHOLDS, means.tolist(), strict=True))


def _counts(some: NDArray[np.uint8]) -> NDArray[np.intp]:
    return np.bincount(some, minlength=len(THRESHOLDS) + 1)


def best(scores: Mapping[float, float]) -> float:
    """The threshold of the highest score; 1/2 where no other is WORTH more."""
    top = max(scores, key=lambda threshold: (scores[threshold], -abs(threshold - 0.5)))
    return top if scores[top] - scores[0.5] > WORTH else 0.5


def table(scores: Mapping[float, float], mark: float) -> str:
    """The curve as text: a bar for every threshold, `mark` marked."""
    low = min(scores.values())
    span = max(max(scores.values()) - low, 1e-9)
    lines = []
    for threshold, score in scores.items():
        bar = "#" * round(40 * (score - low) / span)
        lines.append(f"{threshold:4.2f}  {score:.4f}  {bar:<40}{'  <' if threshold == mark else ''}".rstrip())
    return "\n".join(["threshold  mean Dice", *lines])
