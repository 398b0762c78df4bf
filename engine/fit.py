"""Fitting an image to the network: contrast, and sides that are multiples of the network's stride. Integers only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

MIN_RANGE = 16
"""Narrower grey ranges are not stretched further: they would be mostly noise."""


def stretch(image: Pixels) -> Pixels:
    """Map the image's own grey range (0.5 to 99.5 % over all channels) to 0 … 255. uint8 in, uint8 out, any shape.

    Microscopes and cameras leave images at a tenth of the range; one table of 256 integers per image brings them back,
    and being integers it is the same on every machine.
    """
    counts = np.bincount(image.ravel(), minlength=256).cumsum()
    low = int(np.searchsorted(counts, counts[-1] * 5 // 1000, side="right"))
    high = int(np.searchsorted(counts, counts[-1] - counts[-1] * 5 // 1000, side="left"))
    span = max(high - low, MIN_RANGE)
    table = (np.clip(np.arange(256) - low, 0, span) * 255 + span // 2) // span
    return table.astype(np.uint8)[image]


def pad(image: Pixels, multiple: int = 16) -> Pixels:
    """Replicate the right and bottom edges of [h, w, c] until both sides are multiples of `multiple`."""
    height, width = image.shape[:2]
    return np.pad(image, ((0, -height % multiple), (0, -width % multiple), (0, 0)), mode="edge")
