"""Scores of masks that can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from engine.train import metrics
from engine.train.metrics import Counts


def test_counts_and_scores_of_masks_that_overlap_in_part() -> None:
    predicted, true = np.array([[1, 1, 1, 0]]), np.array([[0, 255, 255, 255]])
    counts = metrics.count(predicted, true)
    assert counts == Counts(both=2, predicted=1, true=1)
    assert counts.dice == pytest.approx(2 * 2 / (3 + 3))
    assert counts.iou == pytest.approx(2 / 4)


def test_two_empty_masks_agree_and_one_empty_mask_does_not() -> None:
    empty, full = np.zeros((2, 2)), np.ones((2, 2))
    assert metrics.count(empty, empty).dice == metrics.count(empty, empty).iou == 1
    assert metrics.count(full, empty).dice == metrics.count(empty, full).iou == 0


def test_dice_and_iou_are_means_over_images_and_f1_pools_the_pixels() -> None:
    result = metrics.summarize([Counts(1, 0, 0), Counts(0, 3, 0)])
    assert (result.images, result.dice, result.iou) == (2, 0.5, 0.5)
    assert result.f1 == pytest.approx(2 / (2 + 3))


def test_no_images_have_no_score() -> None:
    with pytest.raises(ValueError, match="no images"):
        metrics.summarize([])


@pytest.mark.parametrize(("background", "foreground"), [(30, 200), (220, 40)])
def test_otsu_finds_the_smaller_class_bright_or_dark(background: int, foreground: int) -> None:
    image = np.full((20, 20, 3), background, np.uint8)
    image[3:9, 4:10] = foreground
    image[::2] += 3
    expected = np.zeros((20, 20), bool)
    expected[3:9, 4:10] = True
    np.testing.assert_array_equal(metrics.otsu(image), expected)


def test_otsu_of_a_flat_image_calls_nothing_foreground() -> None:
    assert not metrics.otsu(np.full((8, 8, 3), 77, np.uint8)).any()


def test_objects_match_above_half_of_their_union() -> None:
    true = np.array([[1, 1, 1, 0, 2, 2, 0, 3]], np.int32)
    found = np.array([[1, 1, 0, 2, 3, 3, 3, 0]], np.int32)
    counts = metrics.match_objects(found, true)  # 2/3 of the first, 2/3 of the second, none of the third
    assert counts == metrics.ObjectCounts(2, 3, 3)
    assert counts.f1 == pytest.approx(2 / 3)
    half = metrics.match_objects(np.array([[1, 1]], np.int32), np.array([[1, 0]], np.int32))
    assert (half.matched, half.f1) == (0, 0.0)  # exactly a half is no match
    assert metrics.sum_objects([counts, half]) == metrics.ObjectCounts(2, 4, 4)
    empty = np.zeros((2, 2), np.int32)
    assert metrics.match_objects(empty, empty).f1 == 1.0
