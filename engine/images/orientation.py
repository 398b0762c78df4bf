"""Turning an image as its metadata say."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

T = TypeVar("T", bound=np.generic)

UPRIGHT = 1


def turned(pixels: NDArray[T], orientation: int) -> NDArray[T]:
    """`pixels` [h, w, ...] as an `orientation` of EXIF or TIFF, 1 to 8, wants them shown: perhaps a view."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def swaps_sides(orientation: int) -> bool:
    """Whether height and width change places."""
    return orientation in (5, 6, 7, 8)


def of(image: Image.Image) -> int:
    """What an image's EXIF or XMP says. Damaged metadata say nothing about the pixels: they are shown as they lie."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, UPRIGHT)
    except Exception:  # foreign bytes make Pillow raise OSError, SyntaxError, ValueError, struct.error, ...
        return UPRIGHT
    return orientation if orientation in range(1, 9) else UPRIGHT
