"""Masks as PNG: what a reader sees, and how few bytes it takes."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service.codec import png


def read(file: bytes, mode: str = "") -> tuple[str, np.ndarray[Any, Any]]:
    """The file's mode and its pixels as Pillow reads them, or as it converts them to `mode`."""
    with Image.open(io.BytesIO(file)) as image:
        assert image.format == "PNG"
        return image.mode, np.asarray(image.convert(mode) if mode else image)


SIDES = [(1, 1), (3, 5), (64, 7), (5, 64), (9, 17)]


@pytest.mark.parametrize("size", SIDES)
def test_one_bit_png_is_0_and_255(size: tuple[int, int]) -> None:
    mask = np.random.default_rng(0).integers(0, 2, size, dtype=np.uint8)
    file = b"".join(png.black_and_white(mask))
    assert (read(file)[0], file[24]) == ("1", 1)
    np.testing.assert_array_equal(read(file, "L")[1], mask * 255)


@pytest.mark.parametrize("size", SIDES)
@pytest.mark.parametrize(("most", "bits"), [(0, 1), (1, 1), (2, 2), (3, 2), (4, 4), (15, 4), (16, 8), (255, 8)])
def test_indices_read_as_themselves_by_number_and_by_colour(size: tuple[int, int], most: int, bits: int) -> None:
    mask = np.random.default_rng(0).integers(0, most + 1, size, dtype=np.uint8)
    mask[-1, -1] = most
    file = b"".join(png.indices(mask))
    assert (read(file)[0], file[24]) == ("L" if bits == 8 else "P", bits)
    for mode in ("", "L"):
        np.testing.assert_array_equal(read(file, mode)[1], mask)
    np.testing.assert_array_equal(read(file, "RGB")[1], mask[:, :, None].repeat(3, axis=2))


def test_few_bits_are_fewer_bytes() -> None:
    y, x = np.mgrid[:512, :512]
    rings = ((np.hypot(x - 200, y - 300) // 60) % 4).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 4, (512, 512), dtype=np.uint8)
    for mask in (rings, noise):
        files = (png.black_and_white(mask // 2), png.indices(mask), png.indices(mask * np.uint8(17)))
        sizes = [sum(map(len, pieces)) for pieces in files]
        assert sizes == sorted(set(sizes))


def test_large_files_come_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(png, "BAND", 2**16)
    noise = np.random.default_rng(0).integers(0, 256, (700, 600, 3), dtype=np.uint8)
    pieces = list(png.rgb(noise))
    assert len(pieces) > 5
    assert max(map(len, pieces)) < 2**18
    np.testing.assert_array_equal(read(b"".join(pieces))[1], noise)
