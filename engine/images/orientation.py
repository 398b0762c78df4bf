"""Turning an image as its metadata say."""

from __future__ import annotations

import re
import struct
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

T = TypeVar("T", bound=np.generic)

UPRIGHT = 1
TAG, NUMBERS = 274, {3: "H", 4: "I"}  # of EXIF, and types that it may have
IN_XMP = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')


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
    xmp = image.info.get("XML:com.adobe.xmp") or image.info.get("xmp") or b""
    return of_metadata(image.info.get("exif") or b"", xmp.encode() if isinstance(xmp, str) else xmp)


def of_metadata(exif: bytes, xmp: bytes) -> int:
    """What EXIF says, or XMP where it says nothing.

    Read here, because Pillow before 13 copies what every tag names, and many tags can name the same bytes.
    """
    found = _of_exif(re.sub(b"^(Exif\0\0){1,2}", b"", exif))
    if found is None:
        match = IN_XMP.search(xmp)
        found = int(match[1]) if match else UPRIGHT
    return found if found in range(1, 9) else UPRIGHT


def _of_exif(tiff: bytes) -> int | None:
    """The tag in the first directory, if it is there."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    try:
        if order:
            (at,) = struct.unpack_from(f"{order}I", tiff, 4)
            (count,) = struct.unpack_from(f"{order}H", tiff, at)
            for entry in range(at + 2, at + 2 + 12 * count, 12):
                tag, kind = struct.unpack_from(f"{order}HH", tiff, entry)
                if tag == TAG and kind in NUMBERS:
                    return int(struct.unpack_from(f"{order}{NUMBERS[kind]}", tiff, entry + 8)[0])
    except struct.error:
        pass
    return None
