"""From samples as a file holds them to pixels as they are displayed: range, polarity, palette, colours, alpha."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from engine.images.bands import row_bands
from engine.images.errors import UnsupportedImageError

Pixels = NDArray[np.uint8] | NDArray[np.uint16]
"""[h, w, 3]"""

Samples = NDArray[Any]
Color = Literal["grey", "rgb", "palette", "cmyk"]


@dataclass(frozen=True)
class Raster:
    """One page of an image, as it is stored: `samples` [h, w, channels] without alpha, each of `bits` bits.

    With `inverted` grey the least value is white. A premultiplied image holds its colours times alpha.
    """

    samples: Samples
    bits: int
    color: Color = "grey"
    inverted: bool = False
    alpha: Samples | None = None  # [h, w]
    premultiplied: bool = False
    palette: NDArray[np.uint8] | None = None  # [colours, 3]


def displayed(raster: Raster) -> Pixels:
    """Pixels of a raster, C-contiguous; a grey one must have a single channel."""
    if raster.color == "palette":
        assert raster.palette is not None
        full = _looked_up(raster.palette, raster.samples[:, :, :1])[:, :, 0]
    else:
        full = full_range(raster.samples, raster.bits)
    top = full.dtype.type(np.iinfo(full.dtype).max)
    if raster.inverted:
        full = top - full
    if raster.color == "cmyk":
        full = _ink_to_light(full)
    if raster.alpha is not None:
        full = _on_white(full, _same_range(raster.alpha, raster.bits, full.dtype), raster.premultiplied)
    return grey_to_rgb(full) if full.shape[2] == 1 else np.ascontiguousarray(full)


def grey_to_rgb(grey: Samples) -> Pixels:
    """[h, w, 1] as [h, w, 3], by copies, which let other threads run, as `np.repeat` does not."""
    rgb = np.empty((*grey.shape[:2], 3), grey.dtype)
    for color in range(3):
        rgb[:, :, color] = grey[:, :, 0]
    return rgb


def full_range(samples: Samples, bits: int) -> Samples:
    """`samples` as uint8 or uint16 in which the greatest value is white (see the package's rules)."""
    kind = samples.dtype.kind
    if kind == "b":
        white: Samples = samples.astype(np.uint8) * np.uint8(255)
        return white
    if kind == "u" and bits <= 16:
        return _spread(samples, bits)
    if kind in "iu":
        least, greatest = int(samples.min()), int(samples.max())
        if least >= 0 and greatest <= 65535:
            return np.asarray(samples, np.uint8 if bits <= 8 else np.uint16)
        return _map(samples, float(least), float(greatest))
    if kind == "f":
        finite = samples[np.isfinite(samples)]
        if not finite.size:
            raise UnsupportedImageError("no sample of the image is a finite number")
        low, high = float(finite.min()), float(finite.max())
        return _map(samples, 0.0, 1.0) if low >= 0 and high <= 1 else _map(samples, low, high)
    raise UnsupportedImageError(f"samples of the type {samples.dtype} have no brightness: send integers or floats")


def _spread(samples: Samples, bits: int) -> Samples:
    """Unsigned integers of up to 16 bits over all 8 or 16 of them, rounded."""
    to = np.uint8 if bits <= 8 else np.uint16
    if bits in (8, 16):
        return samples.astype(to, copy=False)
    top, most = int(np.iinfo(to).max), 2**bits - 1
    table = (np.arange(most + 1, dtype=np.int64) * top + most // 2) // most
    return _looked_up(table.astype(to), samples)


def _looked_up(table: Samples, samples: Samples) -> Samples:
    """For each of `samples` [h, w, c] its row of `table`, the last where there is none."""
    found = np.empty((*samples.shape, *table.shape[1:]), table.dtype)
    for rows in row_bands(samples):
        found[rows] = table.take(samples[rows], axis=0, mode="clip")
    return found


def _map(samples: Samples, least: float, greatest: float) -> NDArray[np.uint16]:
    """[h, w, c] with `least` at 0 and `greatest` at 65535; what is no number or lies beyond is at the nearer end."""
    mapped = np.empty(samples.shape, np.uint16)
    factor = 65535 / (greatest - least) if greatest > least else 0.0
    for rows in row_bands(samples):
        part = np.nan_to_num(samples[rows].astype(np.float64), nan=least, posinf=greatest, neginf=least)
        mapped[rows] = np.rint(np.clip((part - least) * factor, 0, 65535))
    return mapped


def _same_range(alpha: Samples, bits: int, dtype: np.dtype[Any]) -> Samples:
    """Alpha [h, w, 1] in the range of the colours that it goes with."""
    if alpha.dtype.kind == "f":
        full: Samples = _map(np.clip(alpha, 0, 1)[:, :, None], 0.0, 1.0)
    else:
        full = _spread(alpha[:, :, None], bits) if bits <= 16 else _map(alpha[:, :, None], 0.0, float(2**bits - 1))
    if full.dtype == dtype:
        return full
    return (full >> 8).astype(np.uint8) if dtype == np.uint8 else full.astype(np.uint16) * np.uint16(257)


def _on_white(colors: Samples, alpha: Samples, premultiplied: bool) -> Samples:
    """[h, w, c] laid on white by alpha [h, w, 1], rounded."""
    top = int(np.iinfo(colors.dtype).max)
    laid = np.empty_like(colors)
    for rows in row_bands(colors):
        c, a = colors[rows].astype(np.uint32), alpha[rows].astype(np.uint32)
        if premultiplied:
            laid[rows] = np.minimum(c + (top - a), top)
        else:
            laid[rows] = (c * a + top * (top - a) + top // 2) // top
    return laid


def _ink_to_light(ink: Samples) -> Samples:
    """Cyan, magenta, yellow and black [h, w, 4] as red, green and blue; no inks' profile is looked at."""
    top = int(np.iinfo(ink.dtype).max)
    light = np.empty((*ink.shape[:2], 3), ink.dtype)
    for rows in row_bands(ink):
        part = ink[rows].astype(np.uint32)
        white = top - part[:, :, 3:]
        light[rows] = white - (part[:, :, :3] * white + top // 2) // top
    return light
