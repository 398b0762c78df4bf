"""What a decode may cost: everything that a file says of itself is counted here before a decoder sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.images.errors import DamagedImageError, TooManyPixelsError

MAX_PIXELS = 2**28
"""Of an image, unless the caller says less."""

PIXEL_BYTES = 8
"""Samples of an image may take as many bytes as the limit of pixels, times this."""

PARTS = 2**17
"""Chunks, blocks, strips, tiles of one file, each a call of some decoder. Where they carry at least PART_BYTES bytes on
average there may be more: their number follows from the size of the file."""

PART_BYTES = 128

DIRECTORY_ENTRIES = 2**20
"""Of all pages of a TIFF file."""

PROJECTED_BYTES = 16
"""Samples of all pages that are decoded for one picture (a projection, a later frame of an animation) may take as many
bytes as the limit of pixels, times this; a pixel counts as LEAST_BYTES at least."""

LEAST_BYTES = 2

LEAST_PAGE = 2**13
"""Pixels that each of these pages counts as at least: it takes as long to open one."""

MAX_SIDE = 2**20
"""Pixels: rows cost time each, in which nothing else runs."""

ROW_BYTES = 32
"""That images take a row, besides its pixels: Pillow points at every row of every copy, and fills rows of 8 bits up."""


def unlimited(size: int) -> None:
    """Takes any claim."""


def fresh(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Memory of nobody's."""
    return np.empty(shape, np.uint8)


@dataclass(frozen=True)
class Allowance:
    """How many pixels an image may have, and who is told, before it is taken, how many bytes its decoding takes.

    What is claimed is all bytes at the peak, the result included, as measured for every kind of file; the last claim
    counts. A claim that cannot be met raises MemoryError, which is no fault of the image. `empty` gives the memory for
    pixels of 8 bits where a decoder can write into any.
    """

    max_pixels: int = MAX_PIXELS
    claim: Callable[[int], None] = unlimited
    empty: Callable[[tuple[int, ...]], NDArray[np.uint8]] = fresh

    def beside(self, size: int) -> Allowance:
        """The same for something that is decoded while `size` bytes are held."""
        return Allowance(self.max_pixels, lambda more: self.claim(size + more), self.empty)


def check_size(kind: str, width: int, height: int, allowed: Allowance) -> None:
    """Raise TooManyPixelsError, or DamagedImageError where there are none."""
    if width < 1 or height < 1:
        raise DamagedImageError(f"the {kind} image has no pixels: it is {width} x {height}")
    if max(width, height) > MAX_SIDE:
        raise TooManyPixelsError(
            f"{width} x {height} is too long a side; the limit of one is {MAX_SIDE} pixels", limit=MAX_SIDE
        )
    if width * height > allowed.max_pixels:
        raise TooManyPixelsError(
            f"{width} x {height} is {width * height} pixels; the limit is {allowed.max_pixels}",
            limit=allowed.max_pixels,
        )


def check_sample_bytes(kind: str, size: int, allowed: Allowance) -> None:
    """Raise TooManyPixelsError for samples of so many bytes (pixels of many channels, or padded in tiles)."""
    if size > PIXEL_BYTES * allowed.max_pixels:
        raise TooManyPixelsError(
            f"the samples of the {kind} image take {size} bytes; with {allowed.max_pixels} pixels as the limit, "
            f"{PIXEL_BYTES * allowed.max_pixels} bytes are taken",
            limit=allowed.max_pixels,
        )


def check_pages(count: int, width: int, height: int, pixel_bytes: int, allowed: Allowance) -> None:
    """Raise TooManyPixelsError where so many pages of this size are too much work for one picture."""
    most = PROJECTED_BYTES * allowed.max_pixels // max(LEAST_BYTES, pixel_bytes)
    if count * max(LEAST_PAGE, width * height) > most:
        raise TooManyPixelsError(
            f"{count} pages of {width} x {height} would be decoded for one picture; the limit is {most} pixels in all",
            limit=allowed.max_pixels,
        )


def check_parts(kind: str, parts: int, size: int) -> None:
    """Raise DamagedImageError for a file of `size` bytes that is chopped into needlessly many parts."""
    if parts > PARTS and parts * PART_BYTES > size:
        raise DamagedImageError(f"the {kind} image is cut into more than {PARTS} parts")
