"""Fitting an image to the network: contrast, size, and sides that are multiples of its stride. Integers only."""

from __future__ import annotations

from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from engine import _native
from engine.model import Preprocessing

Pixels = NDArray[np.uint8]
Image = NDArray[np.uint8] | NDArray[np.uint16]
"""[h, w, 3], as a file holds it: uint16 where that has more than 8 bits a sample."""

MIN_RANGE = 16
"""Narrower grey ranges, in steps of the image's own depth, are not stretched further: they would be mostly noise."""

BAND = 2**20
"""Samples that are worked on at a time, where numpy takes several times their memory for it."""


def preprocess(image: Image, how: Preprocessing) -> Pixels:
    """`image` [h, w, 3] as the network is to see it: its contrast, then its size; not padded yet."""
    pixels = in_8_bits(image, how)
    height, width = image.shape[:2]
    return pixels if how.resize_mode == "pad" else resize(pixels, *size(height, width, how))


def size(height: int, width: int, how: Preprocessing) -> tuple[int, int]:
    """(height, width) that an image of `height` x `width` becomes, before it is padded.

    Where the aspect is kept, the image fills one side of what the model asks for, and the other follows, rounded.
    """
    if how.resize_mode == "resize":
        return how.height, how.width
    if how.resize_mode == "pad":
        return height, width
    if height * how.width >= width * how.height:
        return how.height, max(1, (2 * width * how.height + height) // (2 * height))
    return max(1, (2 * height * how.width + width) // (2 * width)), how.width


def in_8_bits(image: Image, how: Preprocessing) -> Pixels:
    """`image` in the model's contrast. Without one 16 bits are divided by 257, and rounded: 65535 becomes 255."""
    if how.contrast == "stretch":
        return stretch(image)
    return image if is_8_bits(image) else _look_up(image, (np.arange(65536) + 128) // 257)


def postprocess(result: NDArray[Any], shape: tuple[int, ...], how: Preprocessing) -> NDArray[Any]:
    """A mask or logits of a prepared image at the size of the image, `shape` [h, w, ...], that it was prepared from."""
    return result if how.resize_mode == "pad" else resize_nearest(result, *shape[:2])


def is_8_bits(image: Image) -> TypeGuard[Pixels]:
    """Whether an image is uint8."""
    return image.dtype == np.uint8


def stretch(image: Image) -> Pixels:
    """Map the image's own grey range (0.5 to 99.5 % over all channels) to 0 … 255. uint8 or uint16 in, any shape.

    Microscopes and cameras leave images at a tenth of the range; one table of integers per image brings them back, and
    being integers it is the same on every machine. An image times 257 gives the very same as the image itself.
    """
    counts = np.cumsum(_histogram(image))
    low = int(np.searchsorted(counts, counts[-1] * 5 // 1000, side="right"))
    high = int(np.searchsorted(counts, counts[-1] - counts[-1] * 5 // 1000, side="left"))
    span = max(high - low, MIN_RANGE)
    return _look_up(image, (np.clip(np.arange(len(counts)) - low, 0, span) * 255 + span // 2) // span)


def pad(image: Pixels, size: tuple[int, int]) -> Pixels:
    """Replicate the right and bottom edges of [h, w, c] up to `size` (h, w), which `Model.padded` gives."""
    height, width = image.shape[:2]
    return np.pad(image, ((0, size[0] - height), (0, size[1] - width), (0, 0)), mode="edge")


def resize(image: Pixels, height: int, width: int) -> Pixels:
    """Bilinear resize of [h, w, c] to [height, width, c], in 16-bit fixed point: the same on every machine."""
    rows, row_parts = _taps(image.shape[0], height)
    columns, column_parts = _taps(image.shape[1], width)
    below, beside = np.minimum(rows + 1, image.shape[0] - 1), np.minimum(columns + 1, image.shape[1] - 1)
    resized = np.empty((height, width, image.shape[2]), np.uint8)
    some = max(1, BAND // (max(width, image.shape[1]) * image.shape[2]))
    for band in (slice(first, first + some) for first in range(0, height, some)):
        tall = _blend(image[rows[band]], image[below[band]], row_parts[band, None, None])
        resized[band] = _blend(tall[:, columns], tall[:, beside], column_parts[:, None])
    return resized


def resize_nearest(array: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """`array` [h, w, ...] at [height, width, ...] by its nearest values: for masks and logits."""
    rows = (2 * np.arange(height) + 1) * array.shape[0] // (2 * height)
    columns = (2 * np.arange(width) + 1) * array.shape[1] // (2 * width)
    nearest: NDArray[Any] = array[rows[:, None], columns]
    return nearest


def _histogram(image: Image) -> NDArray[np.int64]:
    """How often each value of the image's type occurs."""
    flat = image.reshape(-1)
    if is_8_bits(flat):
        return np.array(_native.histogram(flat))
    counts = np.zeros(65536, np.int64)
    for start in range(0, flat.size, BAND):
        counts += np.bincount(flat[start : start + BAND], minlength=65536)
    return counts


def _look_up(image: Image, table: NDArray[np.int64]) -> Pixels:
    """The table's entry for every sample; the table has one for each value of the image's type."""
    flat, entries, found = image.reshape(-1), table.astype(np.uint8), np.empty(image.size, np.uint8)
    if is_8_bits(flat):
        _native.look_up(flat, entries, found)
    else:
        for start in range(0, flat.size, BAND):
            found[start : start + BAND] = entries[flat[start : start + BAND]]
    return found.reshape(image.shape)


def _taps(old: int, new: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """For each new position the old one at or before it, and what part (of 256) it lies towards the next."""
    centres = np.clip(((2 * np.arange(new) + 1) * old * 256) // (2 * new) - 128, 0, (old - 1) * 256)
    return centres // 256, (centres % 256).astype(np.int32)


def _blend(a: Pixels, b: Pixels, part: NDArray[np.int32]) -> Pixels:
    return ((a * (256 - part) + b * part + 128) // 256).astype(np.uint8)
