"""Masks as polygons whose corners are pixel corners: filling them gives the mask back, pixel for pixel.

At a corner of the outline one horizontal and one vertical stretch of it meet. So along every row line the corners,
taken in order, are the ends of the horizontal stretches, two by two; along every column line those of the vertical
ones. Following both pairings in turn walks round the rings. Where two pixels touch only diagonally the corner counts
twice, once for each pixel: foreground hangs together by its sides (four neighbours), background also by its corners.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Indices = NDArray[np.int64]
Ring = Indices
"""Corners [x, y], [n, 2], x to the right and y down, the first not repeated: outer rings clockwise, holes not."""

MAX_CORNERS = 2**20


class TooManyCornersError(ValueError):
    pass


def trace(foreground: Bools, most: int) -> Iterator[list[Ring]]:
    """The polygons of `foreground`, bool [h, w]: each its outer ring, then the rings of its holes.

    Raises TooManyCornersError before it traces what has more than `most`.
    """
    grid = np.pad(foreground, 1)
    y, x, successor = _corners(grid, most)
    if not y.size:
        return
    walk, begins = _cycles(successor)
    ring_of = np.empty(y.size, np.int64)
    ring_of[walk] = np.repeat(np.arange(begins.size), np.diff(begins, append=y.size))
    areas = np.bincount(ring_of, x * y[successor] - y * x[successor])  # negative against the clock on the screen
    parents = _parents(grid, y, x, ring_of, successor, areas < 0)
    points = np.stack([x, y], axis=1)[walk]
    ends = np.append(begins[1:], y.size)
    order = np.argsort(parents, kind="stable")  # the outer ring comes first
    sizes = np.bincount(parents)
    at = 0
    for size in sizes[sizes > 0].tolist():
        yield [points[begins[ring] : ends[ring]] for ring in order[at : at + size].tolist()]
        at += size


def _corners(grid: Bools, most: int) -> tuple[Indices, Indices, Indices]:
    """All corners of the outline by (y, x), and for each the next corner round its ring, foreground on the right."""
    upper_left, upper_right, lower_left, lower_right = grid[:-1, :-1], grid[:-1, 1:], grid[1:, :-1], grid[1:, 1:]
    odd = upper_left ^ upper_right ^ lower_left ^ lower_right
    diagonal = (upper_left == lower_right) & (upper_right == lower_left) & (upper_left != upper_right)
    if np.count_nonzero(odd) + 2 * np.count_nonzero(diagonal) > most:
        raise TooManyCornersError
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


def _cycles(successor: Indices) -> tuple[Indices, Indices]:
    """All corners, ring after ring, and where in this order every ring begins.

    Arrays all the way: a list for each of many rings would be gone through by the garbage collector again and again.
    """
    following = successor.data
    seen = bytearray(len(successor))
    walk, begins = array("q"), array("q")
    for first in range(len(successor)):
        if not seen[first]:
            begins.append(len(walk))
            corner = first
            while not seen[corner]:
                seen[corner] = 1
                walk.append(corner)
                corner = following[corner]
    return np.frombuffer(walk, np.int64), np.frombuffer(begins, np.int64)


def _parents(grid: Bools, y: Indices, x: Indices, ring_of: Indices, successor: Indices, holes: Bools) -> Indices:
    """For every ring the outer ring of its polygon: itself, or for a hole the one found by looking to the left.

    Rings come by their first corner, the highest and there the leftmost. The pixel up and left of a hole's first
    corner is foreground of the polygon around it, and so is all to its left up to the next outline: that is the outer
    ring, or that of another hole of the same polygon which began higher up and is known by now.
    """
    parent = np.arange(len(holes))
    if not holes.any():
        return parent
    first = np.unique(ring_of, return_index=True)[1][holes]
    row, column = y[first] - 1, x[first]
    outline = _next_to_the_left(grid, row, column)
    vertical = np.flatnonzero(x == x[successor])
    top = np.minimum(y[vertical], y[successor[vertical]])
    keys = x[vertical] * len(grid) + top  # of every vertical stretch, which is the one at a row if it is the last above
    order = np.argsort(keys)
    place = np.searchsorted(keys[order], outline * len(grid) + row, side="right") - 1
    for hole, left in zip(np.flatnonzero(holes), ring_of[vertical[order[place]]], strict=True):
        parent[hole] = parent[left]
    return parent


def _next_to_the_left(grid: Bools, rows: Indices, columns: Indices) -> Indices:
    """In each of these rows of pixels, the column line of the outline that is at or next before the given one."""
    found = np.empty_like(columns)
    order = np.argsort(rows, kind="stable")
    begins = np.flatnonzero(np.diff(rows[order], prepend=-1))
    for queries in np.split(order, begins[1:]):
        line = grid[rows[queries[0]] + 1]  # which has a border of one
        changes = np.flatnonzero(line[1:] != line[:-1])
        found[queries] = changes[np.searchsorted(changes, columns[queries], side="right") - 1]
    return found
