"""Random training crops: one affine map (scale, rotation, flip) from a mirrored image, then colour."""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
Place = tuple[int, int]
"""(row, column) of a pixel that a crop is to show."""

PARTS = ("turns", "flips", "scale", "colors", "negatives")
"""What may happen to a crop."""
GEOMETRY, COLOR = {"turns", "flips", "scale"}, {"colors", "negatives"}
ZOOM = (0.7, 1.4)
JITTER = 0.25  # of a crop's side: how far a place that it is to show lies from its middle, at most


def crop(
    image: Pixels,
    mask: Pixels,
    size: int,
    rng: np.random.Generator,
    around: Place | None = None,
    parts: Collection[str] = PARTS,
) -> tuple[Pixels, Pixels]:
    """A random `size` x `size` crop of image [h, w, 3] and mask [h, w], moved and recolored by `parts` of PARTS.

    It shows the place `around`, where one is given.
    """
    if GEOMETRY & set(parts):
        pixels, labels = move(image, mask, size, rng, around, parts)
    else:
        pixels, labels = window(image, mask, size, rng, around)
    return recolor(pixels, rng, parts), labels


def move(
    image: Pixels,
    mask: Pixels,
    size: int,
    rng: np.random.Generator,
    around: Place | None = None,
    parts: Collection[str] = PARTS,
) -> tuple[Pixels, Pixels]:
    """A `size` x `size` crop at a random place, scaled, rotated and flipped at random."""
    angle = rng.uniform(0, 2 * math.pi) if rng.random() < 0.5 else math.pi / 2 * rng.integers(4)
    scale = math.exp(rng.uniform(math.log(ZOOM[0]), math.log(ZOOM[1])))
    flip = -1 if rng.random() < 0.5 else 1
    angle = angle if "turns" in parts else 0.0
    scale = scale if "scale" in parts else 1.0
    flip = flip if "flips" in parts else 1
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    reach = math.ceil(size / 2 * (abs(cos) + abs(sin))) + 2
    centre = _centre(mask.shape, size, rng, around)
    rows, columns = (_mirrored(c - reach, c + reach, n) for c, n in zip(centre, mask.shape, strict=True))
    half = size / 2
    first_row = (flip * cos, sin, reach - flip * half * cos - half * sin)
    matrix = (*first_row, -flip * sin, cos, reach + flip * half * sin - half * cos)
    window = np.ix_(rows, columns)
    pixels = Image.fromarray(image[window]).transform(
        (size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
    )
    labels = Image.fromarray(mask[window]).transform((size, size), Image.Transform.AFFINE, matrix)
    return np.asarray(pixels), np.asarray(labels)


def window(
    image: Pixels, mask: Pixels, size: int, rng: np.random.Generator, around: Place | None = None
) -> tuple[Pixels, Pixels]:
    """A `size` x `size` crop at a random place, as it is; images smaller than that are mirrored."""
    if around is None:
        starts = [int(rng.integers(max(n - size, 0) + 1)) for n in mask.shape]
    else:
        starts = [centre - size // 2 for centre in _centre(mask.shape, size, rng, around)]
    rows, columns = (_mirrored(start, start + size, n) for start, n in zip(starts, mask.shape, strict=True))
    at = np.ix_(rows, columns)
    return image[at], mask[at]


def recolor(pixels: Pixels, rng: np.random.Generator, parts: Collection[str] = PARTS) -> Pixels:
    """Random gain and offset per channel and gamma; now and then the negative, the grey image or noise."""
    negative = rng.random() < 0.15
    if "colors" not in parts:
        return 255 - pixels if negative and "negatives" in parts else pixels
    x = pixels.astype(np.float32) / 255
    if negative and "negatives" in parts:
        x = 1 - x
    if rng.random() < 0.1:
        x = np.repeat(x.mean(2, keepdims=True), 3, axis=2)
    x = x ** np.float32(math.exp(rng.uniform(-0.35, 0.35)))
    x = x * np.float32(rng.uniform(0.75, 1.25)) * rng.uniform(0.92, 1.08, 3).astype(np.float32)
    x = x + np.float32(rng.uniform(-0.08, 0.08))
    if rng.random() < 0.15:
        x = x + rng.normal(0, rng.uniform(0.005, 0.04), x.shape).astype(np.float32)
    recolored: Pixels = np.rint(np.clip(x, 0, 1) * 255).astype(np.uint8)
    return recolored


def _centre(shape: tuple[int, ...], size: int, rng: np.random.Generator, around: Place | None) -> list[int]:
    """The middle of a crop: where the image fills it, or near the place that it is to show."""
    if around is None:
        return [int(rng.integers(min(size // 2, n // 2), max(n - size // 2, n // 2) + 1)) for n in shape]
    reach = int(size * JITTER)
    return [place + int(rng.integers(-reach, reach + 1)) for place in around]


def _mirrored(start: int, stop: int, length: int) -> NDArray[np.intp]:
    """Indices start … stop - 1 into an axis of `length`, reflected at both ends as often as needed."""
    period = max(2 * (length - 1), 1)
    folded = np.abs(np.arange(start, stop)) % period
    return np.where(folded < length, folded, period - folded)
