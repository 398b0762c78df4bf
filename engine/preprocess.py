"""Fitting an image to the network: contrast, size, and sides that are multiples of its stride. Integers only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterator
from typing import Any, TypeGuard, TypeVar

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

T = TypeVar("T")
Steps = Generator[int, None, T]
"""A long work that stops now and then, so that others get in between; its value is the result.

It yields 0: how many pixels the network will compute until the next stop.
"""


def ordinary(shape: tuple[int, ...]) -> Pixels:
    """Memory like any other, uint8."""
    return np.empty(shape, np.uint8)


def preprocess(image: Image, how: Preprocessing) -> Pixels:
    """`image` [h, w, 3] as the network is to see it: its contrast, then its size; not padded yet."""
    return _finish(steps(image, how))


def steps(image: Image, how: Preprocessing, most: int = sys.maxsize, empty: Empty = ordinary) -> Steps[Pixels]:
    """The same, with a stop wherever about `most` samples have been gone through and there are more.

    What is not `image` itself lies in memory of `empty`.
    """
    if how.resize_mode == "pad":
        return (yield from _in_8_bits(image, how, most, empty))
    pixels = yield from _in_8_bits(image, how, most)
    height, width = image.shape[:2]
    return (yield from _resize(pixels, *size(height, width, how), most, empty))


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
    return _finish(_in_8_bits(image, how))


def postprocess(result: NDArray[Any], shape: tuple[int, ...], how: Preprocessing) -> NDArray[Any]:
    """A mask or logits of a prepared image at the size of the image, `shape` [h, w, ...], that it was prepared from."""
    return _finish(steps_back(result, shape, how))


def steps_back(
    result: NDArray[Any], shape: tuple[int, ...], how: Preprocessing, most: int = sys.maxsize
) -> Steps[NDArray[Any]]:
    """The same, with stops as those of `steps`."""
    if how.resize_mode == "pad":
        return result
    return (yield from _resize_nearest(result, shape[0], shape[1], most))


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


def resize(image: Pixels, height: int, width: int) -> Pixels:
    """Bilinear resize of [h, w, 3] to [height, width, 3], in 16-bit fixed point: the same on every machine."""
    return _finish(_resize(image, height, width))


def resize_nearest(array: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """`array` [h, w, ...] at [height, width, ...] by its nearest values: for masks and logits."""
    return _finish(_resize_nearest(array, height, width))


def _finish(work: Steps[T]) -> T:
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: T = end.value
            return result


def _bands(length: int, each: int, most: int) -> Iterator[tuple[slice, bool]]:
    """`length` times `each` samples in bands of BAND, and whether `most` have been gone through since the last stop."""
    some = max(1, BAND // each)
    between = -(-most // (some * each))  # bands
    for number, first in enumerate(range(0, length, some)):
        yield slice(first, first + some), number > 0 and number % between == 0


def _in_8_bits(image: Image, how: Preprocessing, most: int = sys.maxsize, empty: Empty = ordinary) -> Steps[Pixels]:
    if how.contrast == "stretch":
        table = _stretching((yield from _histogram(image, most)))
    elif is_8_bits(image):
        return image
    else:
        table = (np.arange(65536) + 128) // 257
    return (yield from _look_up(image, table, most, empty))


def _stretching(histogram: NDArray[np.int64]) -> NDArray[np.int64]:
    """The table that stretches the contrast of an image with this histogram."""
    counts = np.cumsum(histogram)
    low = int(np.searchsorted(counts, counts[-1] * 5 // 1000, side="right"))
    high = int(np.searchsorted(counts, counts[-1] - counts[-1] * 5 // 1000, side="left"))
    span = max(high - low, MIN_RANGE)
    return (np.clip(np.arange(len(counts)) - low, 0, span) * 255 + span // 2) // span


def _histogram(image: Image, most: int) -> Steps[NDArray[np.int64]]:
    """How often each value of the image's type occurs."""
    flat = image.reshape(-1)
    counts = np.zeros(np.iinfo(image.dtype).max + 1, np.int64)
    for band, stop in _bands(flat.size, 1, most):
        if stop:
            yield 0
        some = flat[band]
        counts += np.array(_native.histogram(some)) if is_8_bits(some) else np.bincount(some, minlength=len(counts))
    return counts


def _look_up(image: Image, table: NDArray[np.int64], most: int, empty: Empty) -> Steps[Pixels]:
    """The table's entry for every sample; the table has one for each value of the image's type."""
    flat, entries, found = image.reshape(-1), table.astype(np.uint8), empty((image.size,))
    for band, stop in _bands(flat.size, 1, most):
        if stop:
            yield 0
        some = flat[band]
        if is_8_bits(some):
            _native.look_up(some, entries, found[band])
        else:
            found[band] = entries[some]
    return found.reshape(image.shape)


def _resize(image: Pixels, height: int, width: int, most: int = sys.maxsize, empty: Empty = ordinary) -> Steps[Pixels]:
    if image.shape[:2] == (height, width):
        return image
    image, resized = np.ascontiguousarray(image), empty((height, width, 3))
    for band, stop in _bands(height, max(width, image.shape[1]) * 3, most):
        if stop:
            yield 0
        _native.resize(image, resized, band.start, min(band.stop, height))
    return resized


def _resize_nearest(array: NDArray[Any], height: int, width: int, most: int = sys.maxsize) -> Steps[NDArray[Any]]:
    if array.shape[:2] == (height, width):
        return array
    rows = (2 * np.arange(height) + 1) * array.shape[0] // (2 * height)
    columns = (2 * np.arange(width) + 1) * array.shape[1] // (2 * width)
    nearest = np.empty((height, width, *array.shape[2:]), array.dtype)
    for band, stop in _bands(height, nearest[0].size, most):
        if stop:
            yield 0
        array[rows[band]].take(columns, axis=1, out=nearest[band], mode="clip")  # so that numpy needs no copy
    return nearest
