"""Random training crops: one affine map (scale, rotation, flip) from a mirrored image, then colour."""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]


ZOOM = (0.7, 1.4)


def crop(
    image: Pixels, mask: Pixels, size: int, rng: np.random.Generator, ablate: Collection[str] = ()
) -> tuple[Pixels, Pixels]:
    """A random `size` x `size` crop of image [h, w, 3] and mask [h, w], moved and recolored.

    `ablate` leaves out the one ("geometry") or the other ("color").
    """
    cut = window if "geometry" in ablate else move
    pixels, labels = cut(image, mask, size, rng)
    return (pixels if "color" in ablate else recolor(pixels, rng)), labels


def move(image: Pixels, mask: Pixels, size: int, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
    """A `size` x `size` crop at a random place, scaled, rotated and flipped at random."""
    angle = rng.uniform(0, 2 * math.pi) if rng.random() < 0.5 else math.pi / 2 * rng.integers(4)
    scale = math.exp(rng.uniform(math.log(ZOOM[0]), math.log(ZOOM[1])))
    flip = -1 if rng.random() < 0.5 else 1
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    reach = math.ceil(size / 2 * (abs(cos) + abs(sin))) + 2
    centre = [rng.integers(min(size // 2, n // 2), max(n - size // 2, n // 2) + 1) for n in mask.shape]
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


def window(image: Pixels, mask: Pixels, size: int, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
    """A `size` x `size` crop at a random place, as it is; images smaller than that are mirrored."""
    starts = [rng.integers(max(n - size, 0) + 1) for n in mask.shape]
    rows, columns = (_mirrored(start, start + size, n) for start, n in zip(starts, mask.shape, strict=True))
    at = np.ix_(rows, columns)
    return image[at], mask[at]


def recolor(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Random gain and offset per channel and gamma; now and then the negative, the grey image or noise."""
    x = pixels.astype(np.float32) / 255
    if rng.random() < 0.15:
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


def _mirrored(start: int, stop: int, length: int) -> NDArray[np.intp]:
    """Indices start … stop - 1 into an axis of `length`, reflected at both ends as often as needed."""
    period = max(2 * (length - 1), 1)
    folded = np.abs(np.arange(start, stop)) % period
    return np.where(folded < length, folded, period - folded)
