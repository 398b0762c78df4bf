"""The objects of a mask: what hangs together, what is split, what is too small, what is too much."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.images import ObjectParams, TooManyObjectsError, bands, components
from engine.images.components import label

SPLIT = ObjectParams(split=True)


def discs(*placed: tuple[int, int, int], scale: int = 1) -> NDArray[np.uint8]:
    """Discs of (x, y, radius)."""
    y, x = np.mgrid[: 80 * scale, : 160 * scale] / scale
    inside = [(x - cx) ** 2 + (y - cy) ** 2 < radius**2 for cx, cy, radius in placed]
    mask: NDArray[np.uint8] = np.any(inside, axis=0).astype(np.uint8)
    return mask


def flooded(mask: NDArray[np.uint8]) -> set[tuple[int, bytes]]:
    """Class and pixels of everything that hangs together by the sides of its pixels, found pixel by pixel."""
    left, found = mask.copy(), set()
    for start in map(tuple, np.argwhere(mask)):
        index, region, spots = left[start], np.zeros(mask.shape, bool), deque([start])
        while spots:
            y, x = spots.popleft()
            if 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1] and index and left[y, x] == index:
                left[y, x], region[y, x] = 0, True
                spots += [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
        if region.any():
            found.add((int(index), region.tobytes()))
    return found


@pytest.mark.parametrize("classes", [2, 4])
def test_every_component_of_every_class_is_an_object(classes: int) -> None:
    rng = np.random.default_rng(classes)
    for _ in range(40):
        mask = rng.integers(0, classes, rng.integers(1, 12, 2)).astype(np.uint8)
        labels, owners = label(mask)
        assert {(int(k), (labels == n).tobytes()) for n, k in enumerate(owners, 1)} == flooded(mask)
        assert labels.max(initial=0) == len(owners)


def test_small_objects_are_left_out_and_the_others_numbered_anew() -> None:
    mask = np.zeros((3, 9), np.uint8)
    mask[0, 0] = mask[0, 2:4] = mask[:, 5:8] = 1
    labels, owners = label(mask, ObjectParams(min_area=2))
    assert np.bincount(labels.ravel()).tolist() == [16, 2, 9]
    assert owners.tolist() == [1, 1]


@pytest.mark.parametrize("scale", [1, 3])
def test_discs_that_touch_are_split_at_their_neck_whatever_their_size(scale: int) -> None:
    mask = discs((30, 40, 12), (52, 40, 12), scale=scale)
    assert len(label(mask)[1]) == 1
    labels, owners = label(mask, SPLIT)
    first, second = map(int, np.bincount(labels.ravel())[1:])
    assert len(owners) == 2
    assert abs(first - second) < 0.05 * first
    assert ((labels != 0) == (mask != 0)).all()


def test_a_chain_of_unequal_discs_is_split_into_its_links() -> None:
    labels, owners = label(discs((20, 40, 10), (43, 40, 16), (66, 40, 10), (84, 40, 10)), SPLIT)
    assert {int(labels[40, x]) for x in (20, 43, 66, 84)} == {1, 2, 3, 4}
    assert len(owners) == 4


@pytest.mark.parametrize(
    "mask",
    [
        discs((40, 40, 20)),
        discs((40, 40, 20), (48, 40, 20)),  # hardly a neck
        np.pad(np.ones((6, 70), np.uint8), 5),
        np.ones((9, 30), np.uint8),  # no background at all
    ],
    ids=["disc", "overlap", "bar", "everything"],
)
def test_what_has_no_neck_stays_whole(mask: NDArray[np.uint8]) -> None:
    assert len(label(mask, SPLIT)[1]) == 1


def test_splitting_only_cuts() -> None:
    rng = np.random.default_rng(0)
    for density in (0.3, 0.6, 0.9):
        mask = (rng.random((40, 50)) < density).astype(np.uint8)
        whole, parts = label(mask)[0], label(mask, SPLIT)[0]
        assert ((whole != 0) == (parts != 0)).all()
        pairs = np.unique(np.stack([parts.ravel(), whole.ravel()]), axis=1)
        assert len(np.unique(pairs[0])) == pairs.shape[1]


def test_in_bands_objects_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    drawn = [discs((20, 40, 10), (43, 40, 16)), (rng.random((40, 50)) < 0.7).astype(np.uint8)]
    expected = [label(mask, SPLIT) for mask in drawn]
    for module, bound in ((bands, "BAND"), (components, "PAIRS")):
        monkeypatch.setattr(module, bound, 7)
    for mask, (labels, owners) in zip(drawn, expected, strict=True):
        found = label(mask, SPLIT)
        np.testing.assert_array_equal(found[0], labels)
        np.testing.assert_array_equal(found[1], owners)


def test_an_empty_mask_has_no_objects() -> None:
    for params in (ObjectParams(), SPLIT):
        labels, owners = label(np.zeros((4, 5), np.uint8), params)
        assert (labels.max(), len(owners)) == (0, 0)


def test_too_many_objects_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    checkers = (np.indices((400, 400)).sum(axis=0) % 2).astype(np.uint8)
    with pytest.raises(TooManyObjectsError, match="more than 65535 objects"):
        label(checkers)
    monkeypatch.setattr(components, "MOST_PARTS", 79_999)
    with pytest.raises(TooManyObjectsError, match="more than 79999 parts"):
        label(checkers, ObjectParams(min_area=2))
    monkeypatch.undo()
    monkeypatch.setattr(components, "MOST_PEAKS", 10)
    with pytest.raises(TooManyObjectsError, match="too ragged"):
        label(checkers, SPLIT)
