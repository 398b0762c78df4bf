"""Random training crops: one affine map (scale, rotation, flip) from a mirrored image, then colour."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
Number = TypeVar("Number", np.uint8, np.float32)
Place = tuple[int, int]
"""(row, column) of a pixel that a crop is to show."""

PARTS = ("turns", "flips", "scale", "colors", "negatives")
"""What may happen to a crop."""
GEOMETRY, COLOR = {"turns", "flips", "scale"}, {"colors", "negatives"}
ZOOM = (0.7, 1.4)
LEVELS = np.arange(256, dtype=np.float32) / 255
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
    pixels = Image.fromarray(_taken(image, rows, columns)).transform(
        (size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
    )
    labels = Image.fromarray(_taken(mask, rows, columns)).transform((size, size), Image.Transform.AFFINE, matrix)
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
    return _taken(image, rows, columns), _taken(mask, rows, columns)


def recolor(pixels: Pixels, rng: np.random.Generator, parts: Collection[str] = PARTS) -> Pixels:
    """Random gain and offset per channel and gamma; now and then the negative, the grey image or noise."""
    negative = rng.random() < 0.15 and "negatives" in parts
    if "colors" not in parts:
        return 255 - pixels if negative else pixels
    grey = rng.random() < 0.1
    gamma = np.float32(math.exp(rng.uniform(-0.35, 0.35)))
    gain, gains = np.float32(rng.uniform(0.75, 1.25)), rng.uniform(0.92, 1.08, 3).astype(np.float32)
    offset = np.float32(rng.uniform(-0.08, 0.08))
    noise = rng.normal(0, rng.uniform(0.005, 0.04), pixels.shape) if rng.random() < 0.15 else None
    levels = 1 - LEVELS if negative else LEVELS
    shown = levels[pixels].mean(2, keepdims=True, dtype=np.float32) if grey else levels[:, None]
    curve: NDArray[Any] = shown**gamma * gain * gains + offset
    if noise is None:
        return _in_bytes(curve) if grey else _looked_up(_in_bytes(curve), pixels)
    return _in_bytes((curve if grey else _looked_up(curve, pixels)) + noise.astype(np.float32))


def _in_bytes(x: NDArray[Any]) -> Pixels:
    rounded: Pixels = np.rint(np.clip(x, 0, 1) * 255).astype(np.uint8)
    return rounded


def _looked_up(table: NDArray[Number], pixels: Pixels) -> NDArray[Number]:
    """Of a table [256, 3] what each channel of `pixels` has there: a crop has many more pixels than levels."""
    return np.stack([table[:, k].take(pixels[..., k]) for k in range(3)], axis=2)


def _centre(shape: tuple[int, ...], size: int, rng: np.random.Generator, around: Place | None) -> list[int]:
    """The middle of a crop: where the image fills it, or near the place that it is to show."""
    if around is None:
        return [int(rng.integers(min(size // 2, n // 2), max(n - size // 2, n // 2) + 1)) for n in shape]
    reach = int(size * JITTER)
    return [place + int(rng.integers(-reach, reach + 1)) for place in around]


def _taken(array: Pixels, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> Pixels:
    """array[rows][:, columns]: whole rows first, which is four times as fast as both at once."""
    return array.take(rows, axis=0).take(columns, axis=1)


def _mirrored(start: int, stop: int, length: int) -> NDArray[np.intp]:
    """Indices start … stop - 1 into an axis of `length`, reflected at both ends as often as needed."""
    period = max(2 * (length - 1), 1)
    folded = np.abs(np.arange(start, stop)) % period
    return np.where(folded < length, folded, period - folded)
