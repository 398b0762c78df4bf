"""Masks as polygons whose corners are pixel corners: filling them gives the mask back, pixel for pixel.

At a corner of the outline one horizontal and one vertical stretch of it meet. So along every row line the corners,
taken in order, are the ends of the horizontal stretches, two by two; along every column line those of the vertical
ones. Following both pairings in turn walks round the rings. Where two pixels touch only diagonally the corner counts
twice, once for each pixel: foreground hangs together by its sides (four neighbours), background also by its corners.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Indices = NDArray[np.int64]
Ring = list[list[int]]
"""Corners [x, y], x to the right and y down, the first not repeated: outer rings clockwise on the screen, holes not."""


def trace(foreground: Bools) -> list[list[Ring]]:
    """The polygons of `foreground`, bool [h, w]: each its outer ring, then the rings of its holes."""
    grid = np.pad(foreground, 1)
    y, x, successor = _corners(grid)
    rings = list(_cycles(successor.tolist()))
    if not rings:
        return []
    ring_of = np.empty(y.size, np.int64)
    for number, ring in enumerate(rings):
        ring_of[ring] = number
    areas = np.bincount(ring_of, x * y[successor] - y * x[successor])  # negative against the clock on the screen
    polygons: dict[int, list[Ring]] = {}
    points = np.stack([x, y], axis=1).tolist()
    for ring, outer in zip(rings, _parents(y, x, ring_of, successor, (areas < 0).tolist()), strict=True):
        polygons.setdefault(outer, []).append([points[corner] for corner in ring])  # the outer ring comes first
    return list(polygons.values())


def _corners(grid: Bools) -> tuple[Indices, Indices, Indices]:
    """All corners of the outline by (y, x), and for each the next corner round its ring, foreground on the right."""
    upper_left, upper_right, lower_left, lower_right = grid[:-1, :-1], grid[:-1, 1:], grid[1:, :-1], grid[1:, 1:]
    odd = upper_left ^ upper_right ^ lower_left ^ lower_right
    diagonal = (upper_left == lower_right) & (upper_right == lower_left) & (upper_left != upper_right)
    y, x = np.nonzero(odd | diagonal)
    copies = 1 + diagonal[y, x]
    y, x = np.repeat(y, copies), np.repeat(x, copies)
    twin = np.zeros(y.size, np.int64)  # 1 for the second of a diagonal pair, which ends the stretch to its right
    twin[1:] = (y[1:] == y[:-1]) & (x[1:] == x[:-1])
    below = np.where(upper_left[y, x], twin, 1 - twin)  # of a pair, whether its vertical stretch is the lower one
    downwards = np.lexsort((below, y, x))

    number = np.arange(y.size)
    across = number ^ 1  # the pairings: along rows, where the order is by (y, x), and along columns
    along = np.empty_like(number)
    along[downwards[::2]], along[downwards[1::2]] = downwards[1::2], downwards[::2]
    foreground_below = lower_right[y[::2], x[::2]]  # under the first pixel of every horizontal stretch
    leaves_across = (number % 2 == 0) == np.repeat(foreground_below, 2)  # rightwards above foreground, leftwards under
    return y.astype(np.int64), x.astype(np.int64), np.where(leaves_across, across, along)


def _cycles(successor: list[int]) -> Iterator[list[int]]:
    seen = bytearray(len(successor))
    for first in range(len(successor)):
        if not seen[first]:
            ring, corner = [], first
            while not seen[corner]:
                seen[corner] = 1
                ring.append(corner)
                corner = successor[corner]
            yield ring


def _parents(y: Indices, x: Indices, ring_of: Indices, successor: Indices, holes: list[bool]) -> list[int]:
    """For every ring the outer ring of its polygon: itself, or for a hole the one found by looking to the left.

    Rings come by their first corner, the highest and there the leftmost. The pixel up and left of a hole's first
    corner is foreground of the polygon around it, and so is all to its left up to the next outline: that is the outer
    ring, or that of another hole of the same polygon which began higher up and is known by now.
    """
    vertical = np.flatnonzero(x == x[successor])
    top = np.minimum(y[vertical], y[successor[vertical]])
    length = np.abs(y[vertical] - y[successor[vertical]])
    rows = np.repeat(top - np.cumsum(length) + length, length) + np.arange(length.sum())
    width = int(x.max()) + 1
    keys = rows * width + np.repeat(x[vertical], length)  # every pixel's side that is outline, by its place
    order = np.argsort(keys)
    keys, owners = keys[order], ring_of[np.repeat(vertical, length)][order]
    first = np.unique(ring_of, return_index=True)[1]
    left = owners[np.searchsorted(keys, (y[first] - 1) * width + x[first], side="right") - 1].tolist()
    parent: list[int] = []
    for number, hole in enumerate(holes):
        parent.append(parent[left[number]] if hole else number)
    return parent
