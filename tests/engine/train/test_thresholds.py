"""The probability from which a pixel is foreground, chosen by what it scores."""

from __future__ import annotations

import numpy as np
import pytest

from engine.train import metrics, thresholds
from engine.train.data.dataset import VOID


def test_every_threshold_scores_as_its_masks_do() -> None:
    rng = np.random.default_rng(0)
    labeled = [(rng.integers(0, 41, (9, 11)) / 40, rng.integers(0, 2, (9, 11)).astype(np.uint8)) for _ in range(3)]
    labeled.append((np.zeros((9, 11)), np.zeros((9, 11), np.uint8)))  # nothing to find, nothing found: left out
    labeled[0][1][0] = VOID
    scores = thresholds.dice(labeled)
    for threshold, score in scores.items():
        counts = [metrics.count(p >= threshold, mask, mask != VOID) for p, mask in labeled]
        assert score == pytest.approx(metrics.summarize(counts).dice)


def test_the_best_is_taken_where_it_is_worth_it() -> None:
    flat = dict.fromkeys(thresholds.THRESHOLDS, 0.8)
    assert thresholds.best(flat) == 0.5
    assert thresholds.best(flat | {0.3: 0.801}) == 0.5
    assert thresholds.best(flat | {0.3: 0.81, 0.1: 0.81}) == 0.3
