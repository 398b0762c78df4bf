"""The objects of a mask: what hangs together by the sides of its pixels, and where that is asked for, cut at its necks.

An object that touches another has a peak of its own in the distance to the background, and between two peaks there is
a neck. The basins of all peaks are found by a watershed, and then joined again, the widest neck first, unless the neck
is narrower than NECK of the thinner of the two: so large and small objects are treated alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.images.bands import row_bands

MOST_OBJECTS = 65535
"""So that each has a number of 16 bits."""
MOST_PARTS = 2**20
"""Components that are looked at, however small."""
MOST_PEAKS = 2**19
"""Basins that are looked at for a split."""
PAIRS = 2**14  # of basins that become Python's numbers at a time
NECK = 0.75

Floats = NDArray[np.float64]
Labels = NDArray[np.int32]
"""[h, w]: the number of the object of every pixel, from 1 on; 0 is background."""


class TooManyObjectsError(ValueError):
    """A mask falls into more parts than can be told apart."""


@dataclass(frozen=True)
class ObjectParams:
    """Whether touching objects are split, and how many pixels an object has at least."""

    split: bool = False
    min_area: int = 1


WHOLE_COMPONENTS = ObjectParams()


def label(mask: NDArray[np.uint8], params: ObjectParams = WHOLE_COMPONENTS) -> tuple[Labels, NDArray[np.uint8]]:
    """The objects of `mask`, class indices [h, w] with 0 for background, and the class of each in order of its number.

    Raises TooManyObjectsError.
    """
    from scipy import ndimage  # a third of a second, and only for who wants objects

    labels = np.zeros(mask.shape, np.int32)
    counts: list[int] = []
    classes = np.flatnonzero(_areas(mask, 255)[1:]) + 1
    for index in classes:
        found, count = ndimage.label(mask == index, output=np.int32)
        _require_few_parts(count)
        if params.split:
            _renumber(found, _areas(found, count) >= params.min_area)
            found, count = _split(found)
        offset = sum(counts)
        for rows in row_bands(found):
            np.add(found[rows], offset, out=labels[rows], where=found[rows] != 0)
        counts.append(count)
        _require_few_parts(offset + count)
    kept = _areas(labels, sum(counts)) >= params.min_area
    owners = np.repeat(classes.astype(np.uint8), counts)[kept[1:]]
    if len(owners) > MOST_OBJECTS:
        raise TooManyObjectsError(f"the mask has more than {MOST_OBJECTS} objects")
    _renumber(labels, kept)
    return labels, owners


def _require_few_parts(count: int) -> None:
    if count > MOST_PARTS:
        raise TooManyObjectsError(f"the mask falls into more than {MOST_PARTS} parts")


def _areas(labels: NDArray[Any], most: int) -> NDArray[np.int64]:
    """Pixels of every number from 0 to `most`."""
    areas = np.zeros(most + 1, np.int64)
    for rows in row_bands(labels):
        areas += np.bincount(labels[rows].ravel(), minlength=most + 1)
    return areas


def _renumber(labels: Labels, kept: NDArray[np.bool_]) -> None:
    """Number those that are kept anew, in the same order; the others are background."""
    kept[0] = False
    numbers = (np.cumsum(kept) * kept).astype(np.int32)
    for rows in row_bands(labels):
        labels[rows] = numbers[labels[rows]]


def _split(labels: Labels) -> tuple[Labels, int]:
    """The same objects, cut at their necks, and how many there are then."""
    foreground = labels != 0
    distance = _distances(foreground)
    summit = _summits(distance)
    tops = np.flatnonzero((summit == np.arange(summit.size, dtype=np.int32)) & foreground.ravel())
    if len(tops) > MOST_PEAKS:
        raise TooManyObjectsError(f"the mask is too ragged to be split: {len(tops)} peaks, {MOST_PEAKS} are taken")
    number = np.zeros(summit.size, np.int32)
    number[tops] = np.arange(1, len(tops) + 1)
    basins = np.where(foreground, number[summit].reshape(labels.shape), 0)
    peaks = np.append(0.0, distance.ravel()[tops])
    joined = _joined(*_necks(basins, distance, peaks), peaks)
    return joined[basins], int(joined.max())


def _distances(foreground: NDArray[np.bool_]) -> NDArray[np.float32]:
    """From the centre of every pixel to that of the nearest one of the background, which surrounds the image."""
    from scipy import ndimage

    nearest = ndimage.distance_transform_edt(np.pad(foreground, 1), return_distances=False, return_indices=True)
    nearest = nearest[:, 1:-1, 1:-1]
    distances = np.empty(foreground.shape, np.float32)
    columns = np.arange(1, foreground.shape[1] + 1, dtype=np.int32)
    for rows in row_bands(foreground):
        down = nearest[0, rows] - np.arange(len(foreground), dtype=np.int32)[rows, None] - 1
        right = nearest[1, rows] - columns
        distances[rows] = np.sqrt((down * down + right * right).astype(np.float64))
    return distances


def _summits(distance: NDArray[np.float32]) -> NDArray[np.int32]:
    """The watershed: where the steepest way up from every pixel ends, as an index of the flattened image.

    (`scipy.ndimage.watershed_ift` floods by the largest step of a way and not by its height: one of two equal discs
    takes all of the other but its middle.)
    """
    best, start = distance.copy(), np.arange(distance.size, dtype=np.int32).reshape(distance.shape)
    row = distance.shape[1]
    sides = ((np.s_[:, :-1], np.s_[:, 1:], 1), (np.s_[:, 1:], np.s_[:, :-1], -1))
    ends = ((np.s_[:-1], np.s_[1:], row), (np.s_[1:], np.s_[:-1], -row))
    up = start.copy()
    for here, there, step in (*sides, *ends):
        higher = distance[there] > best[here]
        np.copyto(best[here], distance[there], where=higher)
        np.copyto(up[here], start[here] + step, where=higher)
    way = up.ravel()
    while not np.array_equal(further := way[way], way):
        way = further
    return way


def _necks(basins: Labels, distance: NDArray[np.float32], peaks: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Pairs of basins that touch, [n, 2], and half the width of the neck between them, the widest first.

    Without those that are too narrow whatever is joined before: no object becomes thinner by that.
    """
    count = len(peaks)
    pair, width = np.zeros(0, np.int64), np.zeros(0)
    for here, there in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        sides = (basins[here], basins[there], distance[here], distance[there])
        for rows in row_bands(sides[0]):
            a, b, *heights = (side[rows] for side in sides)
            touch = (a != b) & (a != 0) & (b != 0)
            first, second = a[touch].astype(np.int64), b[touch].astype(np.int64)
            widths = np.minimum(*(height[touch] for height in heights)).astype(np.float64)
            pairs = np.minimum(first, second) * count + np.maximum(first, second)
            wide = widths >= NECK * np.minimum(peaks[first], peaks[second])
            pairs, widths = _widest(pairs[wide], widths[wide])
            pair, width = np.append(pair, pairs), np.append(width, widths)
    pair, width = _widest(pair, width)
    order = np.argsort(-width, kind="stable")
    return np.stack(np.divmod(pair[order], count), axis=1), width[order]


def _widest(pair: NDArray[np.int64], width: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Every pair once, with its greatest width."""
    order = np.lexsort((-width, pair))
    pair, width = pair[order], width[order]
    first = np.diff(pair, prepend=-1) != 0
    return pair[first], width[first]


def _joined(pairs: NDArray[np.int64], widths: Floats, peaks: Floats) -> NDArray[np.int32]:
    """The number of the object that each basin belongs to; 0 stays 0."""
    parent, height = list(range(len(peaks))), peaks.tolist()

    def root(basin: int) -> int:
        while parent[basin] != basin:
            parent[basin] = parent[parent[basin]]
            basin = parent[basin]
        return basin

    for start in range(0, len(pairs), PAIRS):
        some = slice(start, start + PAIRS)
        for (a, b), width in zip(pairs[some].tolist(), widths[some].tolist(), strict=True):
            a, b = root(a), root(b)
            if a != b and width >= NECK * min(height[a], height[b]):
                parent[max(a, b)] = min(a, b)
                height[min(a, b)] = max(height[a], height[b])
    return np.unique([root(basin) for basin in parent], return_inverse=True)[1].astype(np.int32)
