"""The objects of a mask: what hangs together by the sides of its pixels, and where that is asked for, cut at its necks.

An object that touches another has a peak of its own in the distance to the background, and between two peaks there is
a neck. The basins of all peaks are found by a watershed, and then joined again, the widest neck first, unless the neck
is narrower than NECK of the thinner of the two: so large and small objects are treated alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_OBJECTS = 65535
"""So that each has a number of 16 bits."""
MOST_PEAKS = 2**20
"""Basins that are looked at for a split."""
NECK = 0.75

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

    labels, classes = np.zeros(mask.shape, np.int32), np.zeros(0, np.uint8)
    for index in np.flatnonzero(np.bincount(mask.ravel())):
        if index == 0:
            continue
        found = _large(ndimage.label(mask == index, output=np.int32)[0], params.min_area)
        if params.split:
            found = _large(_split(found), params.min_area)
        count = int(found.max())
        np.add(found, len(classes), out=labels, where=found != 0)
        classes = np.append(classes, np.full(count, index, np.uint8))
        if len(classes) > MOST_OBJECTS:
            raise TooManyObjectsError(f"the mask has more than {MOST_OBJECTS} objects")
    return labels, classes


def _large(labels: Labels, min_area: int) -> Labels:
    """Those of at least `min_area` pixels, numbered anew."""
    kept = np.bincount(labels.ravel()) >= max(1, min_area)
    kept[0] = False
    return (np.cumsum(kept) * kept).astype(np.int32)[labels]


def _split(labels: Labels) -> Labels:
    """The same objects, cut at their necks."""
    from scipy import ndimage

    foreground = labels != 0
    distance = ndimage.distance_transform_edt(np.pad(foreground, 1))[1:-1, 1:-1].astype(np.float32)
    summit = _summits(distance)
    tops = np.flatnonzero((summit == np.arange(summit.size, dtype=np.int32)) & foreground.ravel())
    if len(tops) > MOST_PEAKS:
        raise TooManyObjectsError(f"the mask is too ragged to be split: {len(tops)} peaks, {MOST_PEAKS} are taken")
    number = np.zeros(summit.size, np.int32)
    number[tops] = np.arange(1, len(tops) + 1)
    basins = np.where(foreground, number[summit].reshape(labels.shape), 0)
    peaks = np.append(np.float32(0), distance.ravel()[tops])
    return _joined(*_necks(basins, distance), peaks)[basins]


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


def _necks(basins: Labels, distance: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Pairs of basins that touch, [n, 2], and half the width of the neck between them, the widest first."""
    count = int(basins.max()) + 1
    pairs, widths = [], []
    for here, there in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        touch = (basins[here] != basins[there]) & (basins[here] != 0) & (basins[there] != 0)
        first, second = basins[here][touch].astype(np.int64), basins[there][touch].astype(np.int64)
        pairs.append(np.minimum(first, second) * count + np.maximum(first, second))
        widths.append(np.minimum(distance[here][touch], distance[there][touch]))
    pair, width = np.concatenate(pairs), np.concatenate(widths)
    order = np.lexsort((-width, pair))
    widest = order[np.unique(pair[order], return_index=True)[1]]  # of every pair
    widest = widest[np.argsort(-width[widest], kind="stable")]
    return np.stack(np.divmod(pair[widest], count), axis=1), width[widest]


def _joined(pairs: NDArray[np.int64], widths: NDArray[np.float32], peaks: NDArray[np.float32]) -> NDArray[np.int32]:
    """The number of the object that each basin belongs to; 0 stays 0."""
    parent, height = list(range(len(peaks))), peaks.tolist()

    def root(basin: int) -> int:
        while parent[basin] != basin:
            parent[basin] = parent[parent[basin]]
            basin = parent[basin]
        return basin

    for (a, b), width in zip(pairs.tolist(), widths.tolist(), strict=True):
        a, b = root(a), root(b)
        if a != b and width >= NECK * min(height[a], height[b]):
            parent[max(a, b)] = min(a, b)
            height[min(a, b)] = max(height[a], height[b])
    return np.unique([root(basin) for basin in parent], return_inverse=True)[1].astype(np.int32)
