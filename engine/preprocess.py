"""Fitting an image to the network: contrast, size, and sides that are multiples of its stride. Integers only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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

Empty = Callable[[tuple[int, ...]], Pixels]
"""As `Backend.empty`: memory for what is made here, uint8 of a shape."""


def ordinary(shape: tuple[int, ...]) -> Pixels:
    """Memory like any other, uint8."""
    return np.empty(shape, np.uint8)


def preprocess(image: Image, how: Preprocessing, empty: Empty = ordinary) -> Pixels:
    """`image` [h, w, 3] as the network is to see it: its contrast, then its size; not padded yet.

    Where that is another than `image` itself, it lies in memory of `empty`.
    """
    height, width = image.shape[:2]
    wanted = size(height, width, how)
    if wanted == (height, width):
        return in_8_bits(image, how, empty)
    return resize(in_8_bits(image, how), *wanted, empty)


def keeps(how: Preprocessing) -> bool:
    """Whether every image of 8 bits stays as it is."""
    return how.contrast == "none" and how.resize_mode == "pad"


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


def in_8_bits(image: Image, how: Preprocessing, empty: Empty = ordinary) -> Pixels:
    """`image` in the model's contrast. Without one 16 bits are divided by 257, and rounded: 65535 becomes 255."""
    if how.contrast == "stretch":
        table = _stretching(_histogram(image))
    elif is_8_bits(image):
        return image
    else:
        table = (np.arange(65536) + 128) // 257
    return _look_up(image, table, empty)


def postprocess(result: NDArray[Any], shape: Sequence[int], how: Preprocessing) -> NDArray[Any]:
    """A mask or logits of a prepared image at the size of the image, `shape` [h, w, ...], that it was prepared from."""
    return result if how.resize_mode == "pad" else resize_nearest(result, shape[0], shape[1])


def is_8_bits(image: Image) -> TypeGuard[Pixels]:
    """Whether an image is uint8."""
    return image.dtype == np.uint8


def stretch(image: Image) -> Pixels:
    """Map the image's own grey range (0.5 to 99.5 % over all channels) to 0 … 255. uint8 or uint16 in, any shape.

    Microscopes and cameras leave images at a tenth of the range; one table of integers per image brings them back, and
    being integers it is the same on every machine. An image times 257 gives the very same as the image itself.
    """
    return in_8_bits(image, Preprocessing(contrast="stretch"))


def pad(image: Pixels, size: tuple[int, int]) -> Pixels:
    """Replicate the right and bottom edges of [h, w, c] up to `size` (h, w), which `Model.padded` gives."""
    height, width = image.shape[:2]
    return np.pad(image, ((0, size[0] - height), (0, size[1] - width), (0, 0)), mode="edge")


def resize(image: Pixels, height: int, width: int, empty: Empty = ordinary) -> Pixels:
    """Bilinear resize of [h, w, 3] to [height, width, 3], in 16-bit fixed point: the same on every machine."""
    if image.shape[:2] == (height, width):
        return image
    image, resized = np.ascontiguousarray(image), empty((height, width, 3))
    _native.resize(image, resized)
    return resized


def resize_nearest(array: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """`array` [h, w, ...] at [height, width, ...] by its nearest values: for masks and logits."""
    if array.shape[:2] == (height, width):
        return array
    rows = (2 * np.arange(height) + 1) * array.shape[0] // (2 * height)
    columns = (2 * np.arange(width) + 1) * array.shape[1] // (2 * width)
    nearest = np.empty((height, width, *array.shape[2:]), array.dtype)
    for band in _bands(height, max(nearest[0].size, array[0].size)):
        array[rows[band]].take(columns, axis=1, out=nearest[band], mode="clip")  # so that numpy needs no copy
    return nearest


def _bands(length: int, each: int) -> Iterator[slice]:
    """`length` times `each` samples in bands of BAND."""
    some = max(1, BAND // each)
    for first in range(0, length, some):
        yield slice(first, first + some)


def _stretching(histogram: NDArray[np.int64]) -> NDArray[np.int64]:
    """The table that stretches the contrast of an image with this histogram."""
    counts = np.cumsum(histogram)
    low = int(np.searchsorted(counts, counts[-1] * 5 // 1000, side="right"))
    high = int(np.searchsorted(counts, counts[-1] - counts[-1] * 5 // 1000, side="left"))
    span = max(high - low, MIN_RANGE)
    return (np.clip(np.arange(len(counts)) - low, 0, span) * 255 + span // 2) // span


def _histogram(image: Image) -> NDArray[np.int64]:
    """How often each value of the image's type occurs."""
    flat = image.reshape(-1)
    if is_8_bits(flat):
        return np.array(_native.histogram(flat))
    counts = np.zeros(65536, np.int64)
    for band in _bands(flat.size, 1):
        counts += np.bincount(flat[band], minlength=len(counts))
    return counts


def _look_up(image: Image, table: NDArray[np.int64], empty: Empty) -> Pixels:
    """The table's entry for every sample; the table has one for each value of the image's type."""
    found = empty(image.shape)
    flat, entries, out = image.reshape(-1), table.astype(np.uint8), found.reshape(-1)
    if is_8_bits(flat):
        _native.look_up(flat, entries, out)
    else:
        for band in _bands(flat.size, 1):
            out[band] = entries[flat[band]]
    return found
