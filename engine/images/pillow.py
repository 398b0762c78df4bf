"""What Pillow reads: opened under our limits, and its damage told in our words."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from engine.images import orientation
from engine.images.errors import DamagedImageError, ImageError, UnsupportedImageError
from engine.images.limits import ROW_BYTES, Allowance, check_pages, check_size
from engine.images.reading import Reading
from engine.images.selection import Selection, Taken, indices

Image.MAX_IMAGE_PIXELS = None  # Pillow warns at a limit of its own and refuses at twice that; ours are in `limits`
RUN_LENGTHS = (1, 2)  # compressions of BMP, which Pillow decodes in Python
MAX_RUN_LENGTHS = 2**22  # bytes of them
FRAME_BYTES = 8  # that a pixel of a frame counts as: drawing one takes as long as decoding so many bytes of samples

warnings.filterwarnings("ignore", module=r"PIL\.")  # damaged metadata in somebody's file are not this program's news


@contextmanager
def opened(data: bytes, kind: str, allowed: Allowance) -> Iterator[Image.Image]:
    """The image of the format `kind` in `data`, its pixels counted but not decoded; all that is damaged raises."""
    try:
        with Image.open(io.BytesIO(data), formats=(kind,)) as image:
            check_size(kind, *image.size, allowed)
            yield image
    except (ImageError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise DamagedImageError(f"the {kind} image is truncated or damaged: its header cannot be read") from None
    except Exception as error:  # foreign bytes make Pillow raise OSError, SyntaxError, ValueError, struct.error, ...
        raise DamagedImageError(f"the {kind} image is truncated or damaged: {error}") from error


def read_frames(
    data: bytes,
    kind: str,
    allowed: Allowance,
    selection: Selection,
    pages: int = 0,
    profile: bytes = b"",
    more: Callable[[int], int] = lambda last: 0,
) -> Reading:
    """An image or an animation of 8 bits a sample, of `pages` frames, by default as many as Pillow says.

    `more` says how many bytes decoding up to a frame takes besides what its pixels do.
    """
    with opened(data, kind, allowed) as image:
        count = pages or int(getattr(image, "n_frames", 1))
        pixels = image.width * image.height
        chosen = indices("page", selection.page, count)
        size = pixels * _bytes_a_pixel(image, kind, selection, profile, count) + ROW_BYTES * image.height
        allowed.claim(size)  # of what has no room for its pixels no more is looked at
        allowed.claim(size + more(chosen[-1]))
        shown = _frames(image, chosen, allowed)
        return Reading(shown, Taken(page=selection.page or 0, pages=count), orientation.of(image), profile)


def _bytes_a_pixel(image: Image.Image, kind: str, selection: Selection, profile: bytes, frames: int) -> int:
    """What drawing takes at its peak: Pillow's own four, and copies."""
    drawn = kind == "GIF" or (kind == "PNG" and frames > 1)  # a frame on those before it, transparent or not
    more = drawn or profile or image.has_transparency_data
    return (18 if more else 12) + 8 * (kind == "WEBP") + 6 * (selection.page == "max")


def displayed_size(data: bytes, kind: str, allowed: Allowance) -> tuple[int, int]:
    """(width, height)"""
    with opened(data, kind, allowed) as image:
        return image.size[::-1] if orientation.swaps_sides(orientation.of(image)) else image.size


def read_bmp(data: bytes, allowed: Allowance, selection: Selection) -> Reading:
    """BMP has one page. Raises UnsupportedImageError for many run lengths."""
    if len(data) > MAX_RUN_LENGTHS and int.from_bytes(data[30:34], "little") in RUN_LENGTHS:
        raise UnsupportedImageError(f"BMP with more than {MAX_RUN_LENGTHS} bytes of run lengths is not read: send PNG")
    return read_frames(data, "BMP", allowed, selection, 1)


def bmp_size(data: bytes, allowed: Allowance) -> tuple[int, int]:
    """(width, height)"""
    return displayed_size(data, "BMP", allowed)


def _frames(image: Image.Image, pages: Sequence[int], allowed: Allowance) -> NDArray[np.uint8]:
    """The one frame of `pages`, or the greatest of them, which are all; drawing one takes all before it."""
    if pages[-1]:
        check_pages(pages[-1] + 1, *image.size, FRAME_BYTES, allowed)
    shown: NDArray[np.uint8] | None = None
    for page in range(pages[-1] + 1):
        if page:
            image.seek(page)
        image.load()
        if page >= pages[0]:
            pixels = _on_white(image)
            shown = pixels if shown is None else np.maximum(shown, pixels)
    assert shown is not None
    return shown


def _on_white(image: Image.Image) -> NDArray[np.uint8]:
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image.getchannel("A"))
        image = white
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
