"""TIFF by tifffile, which reads the directories; the samples of a page are those of `tiff_samples`."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.images import orientation, profile, tiff_directory, tiff_layout, tiff_samples
from engine.images.errors import DamagedImageError, ImageError, UnsupportedImageError
from engine.images.limits import Allowance, check_pages, check_size
from engine.images.reading import Reading
from engine.images.samples import Color, Raster, displayed
from engine.images.selection import Choice, Selection, Taken, indices
from engine.images.tiff_layout import Layout

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

COLORS: dict[int, Color] = {0: "grey", 1: "grey", 2: "rgb", 3: "palette", 5: "cmyk", 6: "rgb"}  # by photometric
CHANNELS: dict[Color, int] = {"rgb": 3, "cmyk": 4}
MIN_IS_WHITE = 0
PREMULTIPLIED, ALPHA = 1, 2  # of ExtraSamples; 0 is unspecified
ORIENTATION, COLOR_MAP, COLOR_PROFILE = 274, 320, 34675


def read(data: bytes, allowed: Allowance, selection: Selection) -> Reading:
    """The picture that is selected. Of grey images with more channels one is taken, of colors all."""
    raster, turn, icc, taken = read_raster(data, allowed, selection)
    return Reading(displayed(raster), taken, turn, icc)


def read_raster(data: bytes, allowed: Allowance, selection: Selection) -> tuple[Raster, int, bytes, Taken]:
    """(samples, orientation, color profile or b"", what was taken)."""
    with _opened(data) as (file, layout):
        first = _page(file, layout.first)
        _check(first, allowed)
        in_pages = layout.channels > 1
        channels = layout.channels if in_pages else _grey_channels(first)
        pages = indices("page", selection.page, layout.pages)
        is_color = _color(first) != "grey" and not in_pages
        choice: Choice = None if is_color else (selection.channel or 0)
        chosen = [0] if is_color else indices("channel", choice, channels)
        planes = [(p, c if in_pages else 0, 0 if in_pages else c) for p in pages for c in chosen]
        shown = _page(file, 0 if layout.shared else layout.where[planes[0][0]][planes[0][1]])
        _check(shown, allowed)
        if len(planes) > 1:
            check_pages(len(planes), shown.imagewidth, shown.imagelength, tiff_samples.pixel_bytes(shown), allowed)
        raster = _raster(file, data, layout, planes[0], allowed)
        for plane in planes[1:]:
            beside = allowed.beside(2 * raster.samples.nbytes)
            raster = _greater(raster, _raster(file, data, layout, plane, beside))
        taken = Taken(choice, channels, selection.page or 0, layout.pages)
        return raster, _orientation(shown), _profile(shown) if is_color else b"", taken


def size(data: bytes, allowed: Allowance) -> tuple[int, int]:
    """(width, height) of the first picture as it is displayed."""
    with _opened(data) as (file, layout):
        page = _page(file, layout.first)
        _check(page, allowed)
        sides = page.imagewidth, page.imagelength
        return sides[::-1] if orientation.swaps_sides(_orientation(page)) else sides


@contextmanager
def _opened(data: bytes) -> Iterator[tuple[TiffFile, Layout]]:
    """The file and which of its pages shows what; everything damaged raises DamagedImageError."""
    import tifffile

    logging.getLogger("tifffile").disabled = True  # damaged metadata in somebody's file are not this program's news
    directories = tiff_directory.count_pages(data)
    # what these kinds store where is their makers' own, and found out by reading all of the file
    makers: Any = {"is_lsm": False, "is_scanimage": False, "is_ndpi": False}
    try:
        with tifffile.TiffFile(io.BytesIO(data), _multifile=False, **makers) as file:
            description = file.pages.first.description
            yield file, tiff_layout.read(description if isinstance(description, str) else "", directories)
    except (ImageError, MemoryError):
        raise
    except (
        Exception
    ) as error:  # foreign bytes make tifffile raise TiffFileError, ValueError, IndexError, struct.error, ...
        raise DamagedImageError(f"the TIFF image is truncated or damaged: {error}") from error


def _page(file: TiffFile, number: int | None) -> TiffPage:
    if number is None:
        raise UnsupportedImageError("this plane of the OME image is in another file: send that one")
    page: Any = file.pages[number if number < len(file.pages) else 0]
    return page  # type: ignore[no-any-return]


def _check(page: TiffPage, allowed: Allowance) -> None:
    check_size("TIFF", page.imagewidth, page.imagelength, allowed)
    if _color(page) is None:
        kind = getattr(page.photometric, "name", f"color space {page.photometric}")
        raise UnsupportedImageError(f"TIFF images in {kind} are not read: send RGB or grey")


def _color(page: TiffPage) -> Color | None:
    return COLORS.get(int(page.photometric))


def _alphas(page: TiffPage) -> list[int]:
    """ExtraSamples, one for each channel that is not a color."""
    extra = page.samplesperpixel - CHANNELS.get(_color(page) or "grey", 1)
    found = page.extrasamples if isinstance(page.extrasamples, tuple) else (page.extrasamples,)
    return [int(kind) for kind in found][:extra] + [0] * (extra - len(found))


def _grey_channels(page: TiffPage) -> int:
    """Channels that are stored as samples of a page: all that are not alpha."""
    kinds = _alphas(page)
    return 1 + sum(kind not in (ALPHA, PREMULTIPLIED) for kind in kinds)


def _raster(file: TiffFile, data: bytes, layout: Layout, plane: tuple[int, int, int], allowed: Allowance) -> Raster:
    """The raster at (page, channel of the layout, channel of the samples)."""
    number, sample = layout.where[plane[0]][plane[1]], plane[2]
    page = _page(file, 0 if layout.shared else number)
    _check(page, allowed)
    samples = tiff_samples.read(page, data, file.byteorder, allowed, (number or 0) if layout.shared else 0)
    color = _color(page)
    assert color
    kinds = _alphas(page)
    used = CHANNELS.get(color, 1)
    if samples.shape[2] < used:
        raise DamagedImageError(f"the TIFF image has {samples.shape[2]} channels in place of {used}")
    at = next((i for i, kind in enumerate(kinds) if kind in (ALPHA, PREMULTIPLIED)), None)
    alpha = None if at is None else samples[:, :, used + at]
    colors = samples[:, :, sample : sample + 1] if color == "grey" else samples[:, :, :used]
    return Raster(
        colors,
        int(page.bitspersample),
        color,
        inverted=color == "grey" and page.photometric == MIN_IS_WHITE,
        alpha=alpha,
        premultiplied=at is not None and kinds[at] == PREMULTIPLIED,
        palette=_palette(page) if color == "palette" else None,
    )


def _greater(one: Raster, other: Raster) -> Raster:
    """The maximum projection of two; where the least value is white, of what is shown."""
    if one.samples.shape != other.samples.shape or one.color == "palette" or one.samples.dtype != other.samples.dtype:
        raise UnsupportedImageError("the pages of this TIFF image differ in size or kind: choose one of them")
    greater = np.minimum if one.inverted or one.color == "cmyk" else np.maximum
    return Raster(greater(one.samples, other.samples), one.bits, one.color, one.inverted)


def _palette(page: TiffPage) -> NDArray[np.uint8]:
    """[colors, 3] of a color map, whose 16 bits are halved as browsers and viewers do."""
    colors = page.tags.valueof(COLOR_MAP)
    if not isinstance(colors, np.ndarray) or colors.ndim != 2 or colors.shape[0] != 3:
        raise DamagedImageError("the TIFF image has no color map")
    return (colors.T >> 8).astype(np.uint8)


def _orientation(page: TiffPage) -> int:
    value = page.tags.valueof(ORIENTATION, orientation.UPRIGHT)
    return int(value) if isinstance(value, int) else orientation.UPRIGHT


def _profile(page: TiffPage) -> bytes:
    value = page.tags.valueof(COLOR_PROFILE)
    return value if isinstance(value, bytes) and len(value) <= profile.MAX_BYTES else b""
