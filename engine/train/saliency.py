"""How good maps of probabilities are, by the measures of salient object detection: MAE, maximum F-beta. numpy only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.train.data.dataset import VOID

BETA2 = 0.3  # beta squared: precision counts for more than recall
LEVELS = 256  # maps are cut at every level of 8 bits


@dataclass(frozen=True)
class Curve:
    """One image: the mean absolute error of its map, and precision and recall by the level that it is cut at, [LEVELS].

    Both are nan where the mask is empty; precision is 0 where nothing is as high as a level.
    """

    error: float
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]


@dataclass(frozen=True)
class Saliency:
    """Over all images: `mae`, the mean of their errors; `max_f`, the highest F-beta, at the probability `threshold`.

    Precision and recall are means over the images that show something, level by level, before F-beta is taken of them.
    Maps are not stretched to their own range before. nan where there is nothing to say.
    """

    mae: float
    max_f: float
    threshold: float

    def __str__(self) -> str:
        return (
            f"MAE {self.mae:.4f}, maximum F-beta {self.max_f:.4f} (beta squared {BETA2}, from {self.threshold:.2f} on)"
        )


def curve(probabilities: NDArray[np.float64], mask: NDArray[np.generic]) -> Curve:
    """Of probabilities [h, w] and a mask [h, w], non-zero being foreground; pixels that are VOID do not count."""
    known = mask != VOID
    claimed, true = probabilities[known], mask[known] != 0
    error = float(np.abs(claimed - true).mean()) if claimed.size else np.nan
    levels = np.rint(claimed * (LEVELS - 1)).astype(np.intp)
    predicted, both = (_reaching(levels[chosen]) for chosen in (slice(None), true))
    if not true.any():
        return Curve(error, np.full(LEVELS, np.nan), np.full(LEVELS, np.nan))
    return Curve(error, both / np.maximum(predicted, 1), both / true.sum())


def summarize(curves: Iterable[Curve]) -> Saliency:
    """Of all images; raises ValueError when there are none."""
    found = list(curves)
    if not found:
        raise ValueError("no images to score")
    shown = [one for one in found if not np.isnan(one.recall[0])]
    mae = float(np.nanmean([one.error for one in found]))
    if not shown:
        return Saliency(mae, np.nan, np.nan)
    precision, recall = (np.mean([getattr(one, name) for one in shown], axis=0) for name in ("precision", "recall"))
    scores = (1 + BETA2) * precision * recall / np.maximum(BETA2 * precision + recall, 1e-12)
    best = int(scores.argmax())
    return Saliency(mae, float(scores[best]), best / (LEVELS - 1))


def _reaching(levels: NDArray[np.intp]) -> NDArray[np.intp]:
    """How many of `levels` reach each level, [LEVELS]."""
    return np.cumsum(np.bincount(levels, minlength=LEVELS)[::-1])[::-1]
