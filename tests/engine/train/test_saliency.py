"""Maps of probabilities that can be scored by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from engine.train import saliency
from engine.train.data.dataset import VOID


def test_one_map_by_hand() -> None:
    found = saliency.summarize([saliency.curve(np.array([[1.0, 0.6, 0.6, 0.2]]), np.array([[1, 1, 0, 0]]))])
    assert found.mae == pytest.approx((0 + 0.4 + 0.6 + 0.2) / 4)
    # cut at .6: precision 2/3, recall 1, F = 1.3 * 2/3 / (.3 * 2/3 + 1); cut at 1: 1, 1/2, F = 1.3 / 2 / (.3 + 1/2)
    assert found.max_f == pytest.approx(max(1.3 * 2 / 3 / 1.2, 1.3 * 0.5 / 0.8))
    assert found.threshold == pytest.approx(154 / 255)  # the first level above .6


def test_precision_and_recall_are_means_over_images_before_f_is_taken() -> None:
    sure, wrong = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    mask = np.array([[1, 0]])
    found = saliency.summarize([saliency.curve(sure, mask), saliency.curve(wrong, mask)])
    assert found.mae == pytest.approx(0.5)
    # cut above 0: precision (1 + 0) / 2, recall (1 + 0) / 2; at 0 all is foreground: 1/2 and 1
    assert found.max_f == pytest.approx(max(1.3 * 0.25 / (0.3 * 0.5 + 0.5), 1.3 * 0.5 / (0.3 * 0.5 + 1)))


def test_an_empty_mask_has_an_error_and_no_curve() -> None:
    shown = saliency.curve(np.array([[1.0, 0.0]]), np.array([[1, 0]]))
    empty = saliency.curve(np.array([[0.5, 0.5]]), np.array([[0, 0]]))
    found = saliency.summarize([shown, empty])
    assert (found.mae, found.max_f) == (0.25, 1.0)
    assert math.isnan(saliency.summarize([empty]).max_f)
    with pytest.raises(ValueError, match="no images"):
        saliency.summarize([])


def test_pixels_without_a_name_do_not_count() -> None:
    found = saliency.summarize([saliency.curve(np.array([[1.0, 1.0, 0.0]]), np.array([[1, VOID, 0]]))])
    assert (found.mae, found.max_f) == (0.0, 1.0)
