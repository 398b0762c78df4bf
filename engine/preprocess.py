"""Fitting an image to the network: contrast, size, and sides that are multiples of its stride. Integers only."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine import _native
from engine.model import Preprocessing

Pixels = NDArray[np.uint8]

MIN_RANGE = 16
"""Narrower grey ranges are not stretched further: they would be mostly noise."""


def preprocess(image: Pixels, how: Preprocessing) -> Pixels:
    """`image` [h, w, 3] as the network is to see it: its contrast, then its size; not padded yet."""
    if how.contrast == "stretch":
        image = stretch(image)
    return resize(image, how.height, how.width) if how.resize_mode == "resize" else image


def postprocess(result: NDArray[Any], shape: tuple[int, ...], how: Preprocessing) -> NDArray[Any]:
    """A mask or logits of a prepared image at the size of the image, `shape` [h, w, ...], that it was prepared from."""
    return resize_nearest(result, *shape[:2]) if how.resize_mode == "resize" else result


def stretch(image: Pixels) -> Pixels:
    """Map the image's own grey range (0.5 to 99.5 % over all channels) to 0 … 255. uint8 in, uint8 out, any shape.

    Microscopes and cameras leave images at a tenth of the range; one table of 256 integers per image brings them back,
    and being integers it is the same on every machine.
    """
    flat, stretched = image.reshape(-1), np.empty(image.size, np.uint8)
    counts = np.cumsum(_native.histogram(flat))
    low = int(np.searchsorted(counts, counts[-1] * 5 // 1000, side="right"))
    high = int(np.searchsorted(counts, counts[-1] - counts[-1] * 5 // 1000, side="left"))
    span = max(high - low, MIN_RANGE)
    table = (np.clip(np.arange(256) - low, 0, span) * 255 + span // 2) // span
    _native.look_up(flat, table.astype(np.uint8), stretched)
    return stretched.reshape(image.shape)


def pad(image: Pixels, size: tuple[int, int]) -> Pixels:
    """Replicate the right and bottom edges of [h, w, c] up to `size` (h, w), which `Model.padded` gives."""
    height, width = image.shape[:2]
    return np.pad(image, ((0, size[0] - height), (0, size[1] - width), (0, 0)), mode="edge")


def resize(image: Pixels, height: int, width: int) -> Pixels:
    """Bilinear resize of [h, w, c] to [height, width, c], in 16-bit fixed point: the same on every machine."""
    rows, row_parts = _taps(image.shape[0], height)
    columns, column_parts = _taps(image.shape[1], width)
    tall = _blend(image[rows], image[np.minimum(rows + 1, image.shape[0] - 1)], row_parts[:, None, None])
    wide = _blend(tall[:, columns], tall[:, np.minimum(columns + 1, image.shape[1] - 1)], column_parts[:, None])
    return wide


def resize_nearest(array: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """`array` [h, w, ...] at [height, width, ...] by its nearest values: for masks and logits."""
    rows = (2 * np.arange(height) + 1) * array.shape[0] // (2 * height)
    columns = (2 * np.arange(width) + 1) * array.shape[1] // (2 * width)
    nearest: NDArray[Any] = array[rows[:, None], columns]
    return nearest


def _taps(old: int, new: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each new position the old one at or before it, and what part (of 256) it lies towards the next."""
    centres = np.clip(((2 * np.arange(new) + 1) * old * 256) // (2 * new) - 128, 0, (old - 1) * 256)
    return centres // 256, centres % 256


def _blend(a: Pixels, b: Pixels, part: NDArray[np.int64]) -> Pixels:
    return ((a * (256 - part) + b * part + 128) // 256).astype(np.uint8)
