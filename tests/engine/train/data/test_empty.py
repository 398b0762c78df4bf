"""Empty parts: no object in them nor beside them, of every size."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from engine.train.data import empty
from engine.train.data.dataset import VOID
from engine.train.data.empty import LEAST, MARGIN, EmptyParts

SIDE = 160


def scene() -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.uint8]], empty.Mask]:
    """An image whose first two channels say where a pixel is, and a mask of three things, one without a name."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.uint8)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[20:40, 30:50], mask[100, 40], mask[60:90, 150:] = 1, 2, VOID
    return np.stack([y, x, mask], axis=2), mask


def test_parts_hold_no_object_and_lie_away_from_all() -> None:
    image, mask = scene()
    full = np.ones((SIDE, SIDE), np.uint8)
    parts = EmptyParts([(image + 1, full), (image, mask)], np.array([1000.0, 1.0]))
    rng = np.random.default_rng(0)
    near = ndimage.binary_dilation(mask != 0, np.ones((3, 3)), MARGIN)
    sides: list[int] = []
    for _ in range(300):
        part = parts(rng)
        (top, left, _), (bottom, right, _) = part[0, 0], part[-1, -1]
        assert not near[top : bottom + 1, left : right + 1].any()
        sides += part.shape[:2]
    assert min(sides) == 1
    assert max(sides) > 2 * LEAST
    assert np.median(sides) > LEAST


def test_images_are_drawn_as_they_weigh() -> None:
    flat = [np.full((50, 50, 3), k, np.uint8) for k in range(2)]
    parts = EmptyParts([(image, np.zeros((50, 50), np.uint8)) for image in flat], np.array([1.0, 3.0]))
    rng = np.random.default_rng(0)
    assert 0.65 < np.mean([parts(rng)[0, 0, 0] for _ in range(400)]) < 0.85


def test_the_largest_square_is_found_and_small_ones_are_none() -> None:
    _, mask = scene()
    square = empty.largest(mask)
    assert square is not None
    rows, columns = square
    assert rows.stop - rows.start == columns.stop - columns.start > 60
    assert not mask[square].any()
    least = 2 * (LEAST + MARGIN) + 1
    assert empty.largest(np.zeros((least, least), np.uint8)) == (slice(MARGIN, least - MARGIN),) * 2
    small = np.zeros((least - 1, 300), np.uint8)
    assert empty.largest(small) is None
    assert not EmptyParts([(np.zeros((*small.shape, 3), np.uint8), small)], np.ones(1))
