"""Masks as people draw and export them: class indices, or a shape in black and white, in colors, or in alpha."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.images import animation, orientation, pillow, png, tiff, tiff_directory
from engine.images.decoder import format_of, named
from engine.images.errors import UnusableMaskError
from engine.images.limits import MAX_PIXELS, Allowance
from engine.images.samples import displayed
from engine.images.selection import FIRST

SHOWN = 8  # values that an error lists
WAY_OUT = (
    "threshold it, above 0 where it numbers objects, and save it as PNG; "
    "class indices are for --classes of train and data check"
)


@dataclass(frozen=True)
class _Drawn:
    """A mask as its file holds it: numbers [h, w] (palette indices, grey, or none), brightness, and alpha."""

    numbers: NDArray[Any] | None
    brightness: NDArray[Any]
    alpha: NDArray[Any] | None
    orientation: int


def read_mask(source: bytes | Path, classes: int = 0, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """uint8 [h, w] as it is displayed: of 0 and 1, or with `classes` above 0 of class indices below that.

    Two classes: every brightness but black is foreground, and there may be only one. Where alpha varies and the colors
    under it do not, the shape is what is not transparent. Indices: a palette's, or grey values, whatever the depth.
    Raises ImageError; UnusableMaskError where the file is sound but holds no such mask.
    """
    with named(source) as data:
        allowed = Allowance(max_pixels)
        drawn = _tiff(data, allowed) if data.startswith(tiff_directory.MAGIC) else _by_pillow(data, allowed)
        mask = _indices(drawn, classes) if classes else _foreground(drawn)
        return np.ascontiguousarray(orientation.turned(mask, drawn.orientation))


def _indices(drawn: _Drawn, classes: int) -> NDArray[np.uint8]:
    if drawn.numbers is None:
        raise UnusableMaskError("the mask is drawn in colors: save class indices, as grey values or with a palette")
    if drawn.alpha is not None and drawn.alpha.min() != drawn.alpha.max():
        raise UnusableMaskError("the mask of class indices is transparent in places: save it without alpha")
    least, greatest = drawn.numbers.min(), drawn.numbers.max()
    if least < 0 or greatest >= classes or (drawn.numbers.dtype.kind == "f" and (drawn.numbers % 1).any()):
        found = least if least < 0 else greatest
        raise UnusableMaskError(f"holds class {found:g}, but the {classes} classes are 0 to {classes - 1}")
    return np.asarray(drawn.numbers, np.uint8)


def _foreground(drawn: _Drawn) -> NDArray[np.uint8]:
    alpha = drawn.alpha
    if alpha is not None and alpha.min() != alpha.max():
        if len(np.unique(drawn.brightness[alpha != 0])) > 1:
            raise UnusableMaskError("both the colors and the alpha of the mask vary: save it without alpha")
        return _shape(alpha, "alpha values")
    return _shape(drawn.brightness, "values")


def _shape(values: NDArray[Any], what: str) -> NDArray[np.uint8]:
    found = np.unique(values)
    if np.count_nonzero(found) > 1:
        listed = ", ".join([*(f"{value:g}" for value in found[:SHOWN]), *(["…"] if len(found) > SHOWN else [])])
        raise UnusableMaskError(f"not a binary mask: it holds {len(found)} {what} ({listed}); {WAY_OUT}")
    return np.asarray(values != 0, np.uint8)


def _tiff(data: bytes, allowed: Allowance) -> _Drawn:
    raster, turn, _, _ = tiff.read_raster(data, allowed, FIRST)
    if raster.color not in ("grey", "palette"):
        grey = _brightness(displayed(raster), 8 * (raster.bits > 8))
        return _Drawn(_equal_channels(raster.samples), grey, raster.alpha, turn)
    numbers = raster.samples[:, :, 0]
    if raster.color == "palette":
        return _Drawn(numbers, _brightness(displayed(raster)), None, turn)
    if raster.inverted and numbers.dtype.kind == "u":
        return _Drawn(numbers, numbers.dtype.type(2**raster.bits - 1) - numbers, raster.alpha, turn)
    return _Drawn(numbers, numbers, raster.alpha, turn)


def _by_pillow(data: bytes, allowed: Allowance) -> _Drawn:
    kind, depth = format_of(data).name, 8
    if kind == "PNG":
        chunks = png.read_chunks(data)
        data, depth = chunks.file(), chunks.bits
    elif kind == "GIF":
        data = animation.gif_blocks(data).file(0)
    with pillow.opened(data, kind.upper(), allowed) as image:
        image.load()
        turn = orientation.of(image)
        alpha = np.asarray(image.convert("RGBA").getchannel("A")) if image.has_transparency_data else None
        if image.mode == "P":
            shown = _brightness(np.asarray(image.convert("RGBA").convert("RGB")))
            return _Drawn(np.asarray(image), shown, alpha, turn)
        if image.mode == "1" or image.mode.startswith("I"):
            numbers = np.asarray(image).astype(np.uint16)
            return _Drawn(numbers, numbers, alpha, turn)
        if image.mode in ("L", "LA"):
            grey = np.asarray(image.getchannel(0))
            step = 255 // (2**depth - 1) if depth < 8 else 1  # Pillow spreads grey of few bits over 0 ... 255
            return _Drawn(grey // np.uint8(step), grey, alpha, turn)
        colors = np.asarray(image.convert("RGB"))
        return _Drawn(_equal_channels(colors), _brightness(colors), alpha, turn)


def _brightness(colors: NDArray[Any], shift: int = 0) -> NDArray[np.uint8]:
    """[h, w] of [h, w, 3], in 8 bits by `shift`: luma, but 0 of black alone."""
    luma = np.asarray(Image.fromarray((colors >> shift).astype(np.uint8)).convert("L"))
    brightness: NDArray[np.uint8] = np.maximum(luma, colors.any(axis=2).astype(np.uint8))
    return brightness


def _equal_channels(samples: NDArray[Any]) -> NDArray[Any] | None:
    """The grey of an image in colors whose channels are equal everywhere."""
    grey: NDArray[Any] = samples[:, :, 0]
    return grey if (samples == grey[:, :, None]).all() else None
