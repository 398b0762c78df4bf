"""Scores of masks that can be counted by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from engine.train import metrics
from engine.train.data.dataset import VOID
from engine.train.metrics import Counts


def test_counts_and_scores_of_masks_that_overlap_in_part() -> None:
    predicted, true = np.array([[1, 1, 1, 0]]), np.array([[0, 255, 255, 255]])
    counts = metrics.count(predicted, true)
    assert counts == Counts(both=2, predicted=1, true=1, neither=0, near_predicted=3, near_true=3)
    assert counts.dice == pytest.approx(2 * 2 / (3 + 3))
    assert counts.iou == pytest.approx(2 / 4)


def test_two_empty_masks_say_nothing_and_one_empty_mask_is_wrong() -> None:
    empty, full = np.zeros((2, 2)), np.ones((2, 2))
    assert math.isnan(metrics.count(empty, empty).dice)
    assert math.isnan(metrics.count(empty, empty).iou)
    assert math.isnan(metrics.count(empty, empty).near_f1)
    assert metrics.count(full, empty).dice == metrics.count(empty, full).iou == 0


def test_dice_and_iou_are_means_over_images_and_f1_pools_the_pixels() -> None:
    result = metrics.summarize([Counts(1, 0, 0), Counts(0, 3, 0)])
    assert (result.images, result.dice, result.iou) == (2, 0.5, 0.5)
    assert result.f1 == pytest.approx(2 / (2 + 3))


def test_an_image_without_the_class_is_left_out_of_the_mean_unless_it_is_found_there() -> None:
    half, absent, wrong = Counts(1, 1, 1), Counts(0, 0, 0, 4), Counts(0, 3, 0, 1)
    assert metrics.summarize([half, absent]).dice == 0.5
    assert metrics.summarize([half, wrong]).dice == 0.25
    assert math.isnan(metrics.summarize([absent]).dice)


def test_precision_recall_and_the_constant_mask_by_hand() -> None:
    result = metrics.summarize([Counts(2, 1, 3, 4), Counts(1, 0, 1, 8)])
    assert (result.precision, result.recall) == (3 / 4, 3 / 7)
    assert result.pooled_iou == pytest.approx(3 / 8)
    assert result.constant == pytest.approx((2 * 5 / (5 + 10) + 2 * 2 / (2 + 10)) / 2)
    assert result.remarks == []
    assert metrics.summarize([Counts(1, 5, 2, 0)]).remarks == ["no better than a constant mask, which has 0.545"]


def test_a_line_beside_the_true_one_counts_within_two_pixels() -> None:
    true = np.zeros((9, 20), bool)
    true[2] = True
    for offset, expected in ((1, 1.0), (2, 1.0), (3, 0.0)):
        beside = metrics.count(np.roll(true, offset, axis=0), true)
        assert (beside.dice, beside.near_f1) == (0, expected)
    half = true.copy()
    half[:, 10:] = False
    found = metrics.count(half, true)
    assert (found.near_precision, found.near_recall) == (1, 0.6)
    assert found.near_f1 == pytest.approx(2 * 0.6 / 1.6)
    corner, point = np.zeros((5, 5), bool), np.zeros((5, 5), bool)
    corner[0, 0] = point[2, 2] = True
    assert metrics.count(corner, point).near_f1 == 0  # 2.8 pixels away


def test_several_classes_are_pooled_each_and_never_drowned_by_those_that_are_absent() -> None:
    found = [("pothole", Counts(9, 1, 1, 89)), ("crack", Counts(0, 0, 4, 96)), ("sign", Counts(0, 0, 0, 100))]
    empty = [("pothole", Counts(0, 0, 0, 100)), ("crack", Counts(0, 0, 0, 100)), ("sign", Counts(0, 0, 0, 100))]
    result = metrics.summarize_classes(found + empty * 9)
    assert result.images == 10
    assert result.headline == result.f1 == pytest.approx((0.9 + 0) / 2)
    assert result.never_found == ("crack",)
    assert result.constant == pytest.approx(2 * 10 / (10 + 1000) / 2)
    assert math.isnan(result.by_class["sign"].f1)
    assert "never found: crack" in str(result)


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


def test_pixels_without_a_name_do_not_count() -> None:
    true = np.array([[0, 1, 2, VOID, VOID]], np.uint8)
    predicted = np.array([[0, 1, 1, 1, 2]], np.uint8)
    found = dict(metrics.by_class(predicted, true, ("background", "a", "b")))
    assert (found["a"].both, found["a"].predicted, found["a"].neither) == (1, 1, 1)
    assert (found["b"].true, found["b"].predicted) == (1, 0)
    ((_, whole),) = metrics.by_class(predicted != 0, np.array([[0, 1, 1, VOID, VOID]], np.uint8))
    assert (whole.both, whole.predicted, whole.true, whole.neither) == (2, 0, 0, 1)
    certain = np.ones((1, 5, 1))
    assert metrics.reliability(certain, true)[0].sum() == 3


def test_mean_iou_is_of_all_pixels_by_class_and_void_counts_for_nobody() -> None:
    true = np.array([[0, 0, 1, 1, 2, VOID]], np.uint8)
    predicted = np.array([[0, 1, 1, 1, 1, 2]], np.uint8)
    found = metrics.summarize_classes(metrics.by_class(predicted, true, ("sky", "road", "car")))
    ious = {name: own.pooled_iou for name, own in found.by_class.items()}
    assert ious == {"sky": 1 / 2, "road": 2 / 4, "car": 0}
    assert found.pooled_iou == pytest.approx((1 / 2 + 1 / 2 + 0) / 3)
    assert f"mIoU {1 / 3:.4f}" in str(found)
    mistaken = metrics.confusion(predicted, true, 3)
    assert mistaken.tolist() == [[1, 1, 0], [0, 2, 0], [0, 1, 0]]


def test_a_first_class_is_scored_unless_it_is_the_background() -> None:
    assert metrics.scored(("background", "road", "car")) == {1: "road", 2: "car"}
    assert metrics.scored(("sky", "road", "background")) == {0: "sky", 1: "road", 2: "background"}
    assert metrics.scored(()) == {1: ""}


def test_confusion_says_what_every_class_was_taken_for() -> None:
    true = np.array([[0, 1, 1, 2, VOID]], np.uint8)
    predicted = np.array([[0, 1, 2, 0, 1]], np.uint8)
    assert metrics.confusion(predicted, true, 3).tolist() == [[1, 0, 0], [0, 1, 1], [1, 0, 0]]
