"""Bytes or a file to pixels: which reader it is for, and what is the same for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.images import animation, foreign, jpeg, orientation, pillow, png, profile, tiff, tiff_directory
from engine.images.errors import ImageError, UnreadableFileError
from engine.images.limits import MAX_PIXELS, Allowance, fresh, unlimited
from engine.images.reading import Reading
from engine.images.samples import Pixels, grey_to_rgb
from engine.images.selection import FIRST, Choice, Selection, Taken, indices

COLORS = 3
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".gif")


@dataclass(frozen=True)
class Decoded:
    """An image as it is displayed: `pixels` [h, w, 3], RGB, C-contiguous, uint8, or uint16 of files with more bits."""

    pixels: Pixels
    taken: Taken


@dataclass(frozen=True)
class Format:
    """Whose bytes begin with one of `magic` (and go on, 8 bytes later, with `form`), and who reads them."""

    name: str
    magic: tuple[bytes, ...]
    read: Callable[[bytes, Allowance, Selection], Reading]
    size: Callable[[bytes, Allowance], tuple[int, int]]
    form: bytes = b""


FORMATS = (
    Format("JPEG", (jpeg.START,), jpeg.read, jpeg.size),
    Format("PNG", (png.SIGNATURE,), png.read, png.size),
    Format("TIFF", tiff_directory.MAGIC, tiff.read, tiff.size),
    Format("WebP", (b"RIFF",), animation.read_webp, animation.webp_size, b"WEBP"),
    Format("GIF", (b"GIF87a", b"GIF89a"), animation.read_gif, animation.gif_size),
    Format("BMP", (b"BM",), pillow.read_bmp, pillow.bmp_size),
)


def decode(
    source: bytes | Path,
    max_pixels: int = MAX_PIXELS,
    selection: Selection = FIRST,
    claim: Callable[[int], None] = unlimited,
    empty: Callable[[tuple[int, ...]], NDArray[np.uint8]] = fresh,
) -> Decoded:
    """The image in a file's bytes, or in a file.

    `claim` is told, before anything is decoded, the bytes that this takes at its peak (`limits.Allowance`). Raises
    ImageError: see `errors` for the kinds. Running out of memory is a MemoryError, no fault of the image. The pixels of
    a JPEG that lies upright in the file are in memory that `empty` has given.
    """
    with named(source) as data:
        reading = format_of(data).read(data, Allowance(max_pixels, claim, empty), selection)
        pixels = profile.to_srgb(reading.pixels, reading.profile)
        taken = reading.taken
        if selection.channel is not None and taken.channel is None:
            pixels = of_colors(pixels, selection.channel)
            taken = Taken(selection.channel, COLORS, taken.page, taken.pages)
        return Decoded(np.ascontiguousarray(orientation.turned(pixels, reading.orientation)), taken)


def of_colors(pixels: Pixels, channel: Choice) -> Pixels:
    """Red, green or blue (0, 1, 2) of an image in colors, or the greatest of them, as grey; raises NoSuchPartError."""
    return grey_to_rgb(pixels[:, :, indices("channel", channel, COLORS)].max(axis=2, keepdims=True))


def size(source: bytes | Path, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(width, height) of an image as it is displayed, from its header. Raises ImageError."""
    with named(source) as data:
        return format_of(data).size(data, Allowance(max_pixels))


def format_of(data: bytes) -> Format:
    """By the first bytes alone; raises NotAnImageError and UnsupportedImageError."""
    for known in FORMATS:
        if data.startswith(known.magic) and data.startswith(known.form, 8):
            return known
    raise foreign.refusal(data)


def is_named_image(path: Path) -> bool:
    """Whether a file has the name of an image; companions that Macs write (`._NAME`) have not."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


@contextmanager
def named(source: bytes | Path) -> Iterator[bytes]:
    """The bytes of `source`; every ImageError raised meanwhile names the file."""
    try:
        yield _bytes_of(source)
    except ImageError as error:
        error.source = source if isinstance(source, Path) else None
        raise


def _bytes_of(source: bytes | Path) -> bytes:
    if not isinstance(source, Path):
        return source
    try:
        return source.read_bytes()
    except OSError as error:
        raise UnreadableFileError(f"cannot be read: {error.strerror or error}") from error
