"""Masks as people save them: the shape where it is, and a word where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from engine.images import DamagedImageError, UnusableMaskError, read_mask
from tests.pictures import exif, file_of, packed_tiff, png_of, tiff_of, upright

H, W = 9, 14
SHAPE = np.random.default_rng(0).integers(0, 2, (H, W)).astype(np.uint8)
CLASSES = np.random.default_rng(1).integers(0, 4, (H, W)).astype(np.uint8)


def painted(color: tuple[int, ...], ground: tuple[int, ...]) -> NDArray[np.uint8]:
    """SHAPE in two colors, uint8 [h, w, channels]."""
    return np.where(SHAPE[:, :, None] == 1, np.array(color), np.array(ground)).astype(np.uint8)


def palette_image(numbers: NDArray[np.uint8], colors: list[int]) -> Image.Image:
    image = Image.fromarray(numbers, "P")
    image.putpalette(colors)
    return image


BINARY: dict[str, bytes] = {
    "0 and 255": file_of(Image.fromarray(SHAPE * 255)),
    "0 and 1": file_of(Image.fromarray(SHAPE)),
    "one bit": file_of(Image.fromarray(SHAPE * 255).convert("1")),
    "16 bits": file_of(Image.fromarray(SHAPE.astype(np.uint16) * 1000)),
    "two colors": file_of(Image.fromarray(painted((200, 30, 30), (0, 0, 0)))),
    "a palette": file_of(palette_image(SHAPE, [0, 0, 0, 128, 0, 0])),
    "a GIF": file_of(palette_image(SHAPE, [0, 0, 0, 255, 255, 255]), "GIF"),
    "a BMP": file_of(Image.fromarray(SHAPE * 255).convert("1"), "BMP"),
    "a lossless WebP": file_of(Image.fromarray(painted((255,) * 3, (0,) * 3)), "WEBP", lossless=True),
    "white in alpha": file_of(Image.fromarray(painted((255, 255, 255, 255), (255, 255, 255, 0)))),
    "black in alpha": file_of(Image.fromarray(painted((0, 0, 0, 255), (0, 0, 0, 0)))),
    "colors under what is transparent": file_of(Image.fromarray(painted((9, 9, 9, 255), (200, 7, 0, 0)))),
    "grey and alpha": file_of(Image.fromarray(painted((255, 255), (255, 0)), "LA")),
    "opaque": file_of(Image.fromarray(painted((255, 255, 255, 255), (0, 0, 0, 255)))),
    "a TIFF": tiff_of(SHAPE * np.uint8(255)),
    "a TIFF whose least is white": tiff_of((1 - SHAPE) * np.uint8(255), photometric="miniswhite"),
    "a TIFF of one bit": packed_tiff(SHAPE, 1),
    "a TIFF of floats": tiff_of(SHAPE.astype(np.float32)),
    "a TIFF in alpha": tiff_of(painted((255,) * 4, (255, 255, 255, 0)), photometric="rgb", extrasamples=["unassalpha"]),
    "nearly black": file_of(Image.fromarray(painted((0, 0, 4), (0, 0, 0)))),
    "a nearly black palette": file_of(palette_image(SHAPE, [0, 0, 0, 1, 0, 0])),
    "a nearly black TIFF of 16 bits": tiff_of(painted((0, 9, 0), (0, 0, 0)).astype(np.uint16), photometric="rgb"),
    "a TIFF in colors": tiff_of(painted((7, 70, 7), (0, 0, 0)), photometric="rgb"),
}


@pytest.mark.parametrize("kind", BINARY)
def test_a_shape_is_found(kind: str) -> None:
    np.testing.assert_array_equal(read_mask(BINARY[kind]), SHAPE)


def two_bits(numbers: NDArray[np.uint8]) -> bytes:
    """A PNG of greys of two bits, four in a byte."""
    bits = np.unpackbits(numbers[:, :, None], axis=2)[:, :, 6:]
    packed = np.packbits(bits.reshape(len(numbers), -1), axis=1)
    return png_of(packed[:, :, None], 0, 2, width=numbers.shape[1])


INDICES: dict[str, bytes] = {
    "grey": file_of(Image.fromarray(CLASSES)),
    "16 bits": file_of(Image.fromarray(CLASSES.astype(np.uint16))),
    "a PNG of two bits": two_bits(CLASSES),
    "a palette": file_of(palette_image(CLASSES, [9, 9, 9, 0, 0, 0, 255, 255, 255, 1, 2, 3])),
    "a palette with a transparent ground": file_of(
        palette_image(CLASSES, [9, 9, 9, 0, 0, 0, 255, 255, 255, 1, 2, 3]), transparency=b"\xff\xff\xff\xff"
    ),
    "equal channels": file_of(Image.fromarray(CLASSES[:, :, None].repeat(3, axis=2))),
    "a TIFF": tiff_of(CLASSES),
    "a TIFF of 16 bits": tiff_of(CLASSES.astype(np.uint16)),
    "a TIFF of 32 bits": tiff_of(CLASSES.astype(np.int32)),
    "a TIFF of floats": tiff_of(CLASSES.astype(np.float32)),
    "a TIFF of two bits": packed_tiff(CLASSES, 2),
}


@pytest.mark.parametrize("kind", INDICES)
def test_indices_are_found(kind: str) -> None:
    np.testing.assert_array_equal(read_mask(INDICES[kind], 4), CLASSES)
    with pytest.raises(UnusableMaskError, match="holds class 3, but the 3 classes are 0 to 2"):
        read_mask(INDICES[kind], 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_mask_is_turned_as_an_image_is(orientation: int) -> None:
    for kind, options in (("PNG", {"exif": exif(orientation)}), ("TIFF", {"tiffinfo": {274: orientation}})):
        file = file_of(Image.fromarray(SHAPE * 255), kind, **options)
        np.testing.assert_array_equal(read_mask(file), upright(SHAPE, orientation))


UNUSABLE: dict[str, tuple[bytes, int, str]] = {
    "many values": (
        file_of(Image.fromarray(CLASSES)),
        0,
        r"not a binary mask: it holds 4 values \(0, 1, 2, 3\); threshold",
    ),
    "very many values": (
        file_of(Image.fromarray(np.arange(H * W, dtype=np.uint8).reshape(H, W))),
        0,
        r"it holds 126 values \(0, 1, 2, 3, 4, 5, 6, 7, …\); threshold it, above 0 where it numbers objects, and save",
    ),
    "many alphas": (
        file_of(Image.fromarray(np.dstack([np.full((H, W), 255, np.uint8), CLASSES]), "LA")),
        0,
        r"holds 4 alpha values \(0, 1, 2, 3\)",
    ),
    "colors and alpha": (
        file_of(Image.fromarray(np.dstack([np.arange(H * W, dtype=np.uint8).reshape(H, W), SHAPE * 255]), "LA")),
        0,
        "both the colors and the alpha",
    ),
    "colors of classes": (
        file_of(Image.fromarray(np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8))),
        4,
        "drawn in colors",
    ),
    "transparent classes": (
        file_of(Image.fromarray(np.dstack([CLASSES, SHAPE * 255]), "LA")),
        4,
        "transparent in places",
    ),
    "broken numbers": (tiff_of(CLASSES.astype(np.float32) / 2), 4, "holds class"),
    "negative numbers": (tiff_of(-CLASSES.astype(np.int16)), 4, "holds class -3"),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_what_is_no_mask_is_told(kind: str, tmp_path: Path) -> None:
    data, classes, says = UNUSABLE[kind]
    file = tmp_path / "mask.png"
    file.write_bytes(data)
    with pytest.raises(UnusableMaskError, match=f"mask.png: .*{says}"):
        read_mask(file, classes)


def test_a_damaged_mask_is_damaged(tmp_path: Path) -> None:
    file = tmp_path / "mask.png"
    file.write_bytes(BINARY["0 and 255"][:60])
    with pytest.raises(DamagedImageError, match=r"mask\.png"):
        read_mask(file)


def test_a_jpeg_mask_that_is_smeared_is_no_mask() -> None:
    soft: Any = Image.fromarray(SHAPE * 255)
    with pytest.raises(UnusableMaskError, match="not a binary mask"):
        read_mask(file_of(soft, "JPEG"))
