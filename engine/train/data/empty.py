"""Parts of an image that show the background alone, as somebody may send them by themselves."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.preprocess import Pixels

Mask = NDArray[np.uint8]
"""[h, w]: 0 is background."""

PLACES = 512  # that are kept of an image, evenly chosen
LEAST = 16  # pixels in all directions
MARGIN = 4  # pixels of background between an empty part and an object, whose glow or outline they may have
BLANK = 0.15  # of random parts are of one pixel, so that a crop of them has one color


class EmptyParts:
    """Random empty parts of `items`, (image [h, w, 3], mask) each: the more often the more an image weighs."""

    def __init__(self, items: Sequence[tuple[Pixels, Mask]], weights: NDArray[np.float64]) -> None:
        found = [(image, _places(mask), weight) for (image, mask), weight in zip(items, weights, strict=True)]
        self._items = [(image, places) for image, places, _ in found if len(places)]
        self._weights = np.array([weight for _, places, weight in found if len(places)])

    def __bool__(self) -> bool:
        return bool(self._items)

    def __call__(self, rng: np.random.Generator) -> Pixels:
        """[h, w, 3], of any size down to a pixel."""
        image, places = self._items[int(rng.choice(len(self._items), p=self._weights / self._weights.sum()))]
        row, column, reach = rng.choice(places).tolist()
        blank = rng.random() < BLANK
        down, right = (0 if blank else int(reach * math.sqrt(rng.random())) for _ in range(2))
        return image[row - down : row + down + 1, column - right : column + right + 1]


def largest(mask: Mask) -> tuple[slice, slice] | None:
    """Rows and columns of the largest empty square; None where all are small."""
    reach = _reach(mask)
    row, column = (int(at) for at in np.unravel_index(reach.argmax(), mask.shape))
    most = int(reach[row, column])
    return (slice(row - most, row + most + 1), slice(column - most, column + most + 1)) if most >= LEAST else None


def _places(mask: Mask) -> NDArray[np.intp]:
    """[n, 3]: the middles of empty squares, row and column, and their reach."""
    reach = _reach(mask)
    at = np.flatnonzero(reach >= LEAST)
    at = at[:: -(-len(at) // PLACES) or 1]
    return np.column_stack([*np.unravel_index(at, mask.shape), reach.ravel()[at]])


def _reach(mask: Mask) -> NDArray[np.intp]:
    """How many pixels in all directions from each one are background, less MARGIN; beyond the border there is none."""
    from scipy import ndimage

    distances = ndimage.distance_transform_cdt(np.pad(mask == 0, 1), "chessboard")
    reach: NDArray[np.intp] = distances[1:-1, 1:-1].astype(np.intp) - 1 - MARGIN
    return reach
