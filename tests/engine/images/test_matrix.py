"""Every combination of depth, color, polarity, order, compression and orientation, against what it must look like."""

from __future__ import annotations

import io
import itertools
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from engine import images
from tests.pictures import exif, file_of, packed_tiff, png_chunk, png_of, raw_tiff, tiff_of, upright

LIMIT = 2**20
H, W = 19, 37
Samples = NDArray[Any]


def noise(kind: str, channels: int, top: int = 65535) -> Samples:
    """Random samples [h, w, channels] of a type; floats from 0 to 1."""
    rng = np.random.default_rng(channels)
    if np.dtype(kind).kind == "f":
        return rng.random((H, W, channels)).astype(kind)
    return rng.integers(0, min(np.iinfo(kind).max, top) + 1, (H, W, channels)).astype(kind)


def shown(samples: Samples, inverted: bool = False) -> Samples:
    """What samples look like: 8 or 16 bits, colors or grey, and where there are 2 or 4 channels, on white."""
    if samples.dtype.kind == "f":
        samples = np.rint(samples.astype(np.float64) * 65535).astype(np.uint16)
    full = samples if samples.dtype == np.uint8 else samples.astype(np.uint16)
    top = int(np.iinfo(full.dtype).max)
    colors = full[:, :, : 3 if samples.shape[2] > 2 else 1].astype(np.int64)
    if inverted:
        colors = top - colors
    if samples.shape[2] in (2, 4):
        alpha = full[:, :, -1:].astype(np.int64)
        colors = (2 * (colors * alpha + top * (top - alpha)) + top) // (2 * top)  # rounded
    return np.broadcast_to(colors.astype(full.dtype), (*full.shape[:2], 3))


def agree(got: Samples, expected: Samples) -> None:
    assert got.dtype == expected.dtype
    assert got.flags.c_contiguous
    np.testing.assert_array_equal(got, expected)


def ways(channels: int) -> Iterator[dict[str, Any]]:
    """How tifffile may write so many channels."""
    colors = ["minisblack", "miniswhite"] if channels < 3 else ["rgb"]
    planar = ["contig", "separate"] if channels > 1 else [None]
    pieces: list[dict[str, Any]] = [{}, {"tile": (16, 32)}, {"rowsperstrip": 5}]
    squeezed: list[dict[str, Any]] = [{}, {"compression": "deflate"}, {"compression": "deflate", "predictor": True}]
    for color, plane, order, piece, big, squeeze in itertools.product(
        colors, planar, "<>", pieces, (False, True), squeezed
    ):
        alpha = {"extrasamples": ["unassalpha"]} if channels in (2, 4) else {}
        yield (
            {"photometric": color, "planarconfig": plane, "byteorder": order, "bigtiff": big} | alpha | piece | squeeze
        )


def kinds() -> list[tuple[str, int]]:
    """(type, channels): alpha only with types that have a range."""
    ranged = itertools.product(("u1", "u2", "f2", "f4", "f8"), (1, 2, 3, 4))
    return [*ranged, *itertools.product(("u4", "i2"), (1, 3))]


@pytest.mark.parametrize(("kind", "channels"), kinds())
def test_tiff(kind: str, channels: int) -> None:
    samples = noise(kind, channels, 32767 if kind == "i2" else 65535)
    for way in ways(channels):
        if "predictor" in way and np.dtype(kind).kind == "f":
            continue  # tifffile does not write it by itself
        stored = samples[:, :, 0] if channels == 1 else samples
        if way["planarconfig"] == "separate":
            stored = np.ascontiguousarray(samples.transpose(2, 0, 1))
        file = tiff_of(stored, **way)
        agree(images.decode(file, LIMIT).pixels, shown(samples, way["photometric"] == "miniswhite"))


def libtiff_files() -> list[tuple[str, str]]:
    """(mode of Pillow, compression) that libtiff writes."""
    of_bytes = ["raw", "tiff_lzw", "packbits", "tiff_deflate", "tiff_adobe_deflate", "zstd", "lzma"]
    modes = ["1", "L", "P", "LA", "RGB", "RGBA", "CMYK", "I;16", "I", "F"]
    fax = [("1", name) for name in ("tiff_ccitt", "group3", "group4")]
    return [*itertools.product(modes, of_bytes), *fax, *(("L", "jpeg"), ("RGB", "jpeg"), ("CMYK", "jpeg"))]


@pytest.mark.parametrize(("mode", "compression"), libtiff_files())
def test_tiff_by_libtiff(mode: str, compression: str) -> None:
    image = picture(mode)
    with Image.open(io.BytesIO(file_of(image, "TIFF", compression=compression))) as read:
        expected = np.asarray(read.convert("RGB")) if compression == "jpeg" else displayed(image)
    for orientation in (1, 6):
        file = file_of(image, "TIFF", compression=compression, tiffinfo={274: orientation})
        agree(images.decode(file, LIMIT).pixels, np.ascontiguousarray(upright(expected, orientation)))


def picture(mode: str) -> Image.Image:
    """Noise as an image of a mode of Pillow."""
    if mode in ("I;16", "I"):
        return Image.fromarray(noise("u2", 1)[:, :, 0].astype(np.uint16 if mode == "I;16" else np.int32))
    if mode == "F":
        return Image.fromarray(noise("f4", 1)[:, :, 0])
    colors = Image.fromarray(noise("u1", 4)).convert("RGBA")
    return colors.convert("RGB").quantize(50) if mode == "P" else colors.convert(mode)


def displayed(image: Image.Image) -> Samples:
    """What such an image looks like, by Pillow; with more than 8 bits, as `shown`."""
    if image.mode in ("I;16", "I", "F"):
        return shown(np.asarray(image)[:, :, None])
    if image.mode in ("LA", "RGBA"):
        return shown(np.asarray(image))
    return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("bits", range(1, 33))
def test_grey_of_any_number_of_bits(bits: int) -> None:
    top = 2**bits - 1
    samples = np.random.default_rng(bits).integers(0, top + 1, (H, W), dtype=np.int64)
    samples[0, :2] = 0, top
    full = 255 if bits <= 8 else 65535
    expected = np.array([[(2 * int(v) * full + top) // (2 * top) for v in row] for row in samples])
    for inverted in (False, True):
        file = packed_tiff(samples, bits, {262: 0 if inverted else 1})
        pixels = images.decode(file, LIMIT).pixels
        assert pixels.dtype == (np.uint8 if bits <= 8 else np.uint16)
        np.testing.assert_array_equal(pixels[:, :, 0], full - expected if inverted else expected)


@pytest.mark.parametrize("kind", ["f2", "f4", "f8"])
def test_the_predictor_of_floats(kind: str) -> None:
    """Every row: the first bytes of all samples, then the second ones, each as a difference from the one before."""
    samples = noise(kind, 1)
    planes = samples[:, :, 0].astype(f">{kind}").view(np.uint8).reshape(H, W, -1).transpose(0, 2, 1).reshape(H, -1)
    rows = np.diff(planes, axis=1, prepend=np.uint8(0))
    tags = {256: W, 257: H, 258: 8 * int(kind[1]), 259: 8, 278: H, 317: 3, 339: 3}
    agree(images.decode(raw_tiff(zlib.compress(rows.tobytes()), tags), LIMIT).pixels, shown(samples))


CODECS = {  # what tifffile calls them, and how they lose nothing
    "jpeg2000": {"level": 0},
    "jpegxl": {"lossless": True},
    "jpegxr": {"level": 1.0},
    "webp": {"lossless": True},
}


@pytest.mark.parametrize("tile", [None, (16, 32)])
@pytest.mark.parametrize(
    ("codec", "kind", "channels"), [(c, k, n) for c in CODECS for k in ("u1", "u2") for n in (1, 3)]
)
def test_tiff_by_imagecodecs(codec: str, kind: str, channels: int, tile: tuple[int, int] | None) -> None:
    pytest.importorskip("imagecodecs", reason="needs the extra imagecodecs")
    if codec == "webp":
        kind, channels = "u1", 3  # all that it knows
    samples = noise(kind, channels)
    photometric = "rgb" if channels == 3 else "minisblack"
    stored = samples if channels == 3 else samples[:, :, 0]
    file = tiff_of(stored, photometric=photometric, tile=tile, compression=codec, compressionargs=CODECS[codec])
    agree(images.decode(file, LIMIT).pixels, shown(samples))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("color", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_png(color: int, channels: int, bits: int) -> None:
    samples = noise(f"u{bits // 8}", channels)
    agree(images.decode(png_of(samples, color, bits), LIMIT).pixels, shown(samples))
    for orientation in range(1, 9):
        file = png_of(samples, color, bits, png_chunk(b"eXIf", exif(orientation).removeprefix(b"Exif\0\0")))
        turned = np.ascontiguousarray(upright(shown(samples), orientation))
        agree(images.decode(file, LIMIT).pixels, turned)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("color", "channels"), [(0, 1), (2, 3)])
def test_the_one_color_of_a_png_that_is_transparent_is_white(color: int, channels: int, bits: int) -> None:
    samples = noise(f"u{bits // 8}", channels)
    key = samples[3, 4].astype(">u2").tobytes()
    expected = shown(samples).copy()
    expected[(samples == samples[3, 4]).all(axis=2)] = np.iinfo(samples.dtype).max
    agree(images.decode(png_of(samples, color, bits, png_chunk(b"tRNS", key)), LIMIT).pixels, expected)


FORMATS = {
    "PNG": ("1", "L", "P", "LA", "RGB", "RGBA", "I;16"),
    "JPEG": ("L", "RGB", "CMYK"),
    "WEBP": ("RGB", "RGBA"),
    "BMP": ("1", "L", "P", "RGB"),
    "GIF": ("L", "P"),
}


@pytest.mark.parametrize(("kind", "mode"), [(kind, mode) for kind, modes in FORMATS.items() for mode in modes])
def test_other_formats(kind: str, mode: str) -> None:
    image = picture(mode)
    options: dict[str, Any] = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    for orientation in range(1, 9):
        if kind in ("PNG", "JPEG", "WEBP"):
            options["exif"] = exif(orientation)
        elif orientation > 1:
            break
        file = file_of(image, kind, **options)
        with Image.open(io.BytesIO(file)) as read:
            expected = np.asarray(read.convert("RGB")) if kind == "JPEG" else displayed(image)
        agree(images.decode(file, LIMIT).pixels, np.ascontiguousarray(upright(expected, orientation)))
        assert images.size(file) == upright(expected, orientation).shape[1::-1]


@pytest.mark.parametrize("kind", ["u1", "u2"])
def test_cmyk_and_palettes_of_tiff(kind: str) -> None:
    samples = noise(kind, 4)
    top = int(np.iinfo(kind).max)
    ink = samples.astype(np.int64)
    white = top - ink[:, :, 3:]
    expected = (white - (2 * ink[:, :, :3] * white + top) // (2 * top)).astype(kind)
    for planar in ("contig", "separate"):
        stored = samples if planar == "contig" else np.ascontiguousarray(samples.transpose(2, 0, 1))
        file = tiff_of(stored, photometric="separated", planarconfig=planar)
        agree(images.decode(file, LIMIT).pixels, expected)
    colors = np.random.default_rng(0).integers(0, 65536, (3, top + 1), dtype=np.uint16)
    file = tiff_of(samples[:, :, 0], photometric="palette", colormap=colors)
    agree(images.decode(file, LIMIT).pixels, (colors.T >> 8).astype(np.uint8)[samples[:, :, 0]])


@pytest.mark.parametrize("kind", ["u1", "u2"])
def test_colors_times_alpha_are_laid_on_white(kind: str) -> None:
    samples = noise(kind, 4)
    top = int(np.iinfo(kind).max)
    wide = samples.astype(np.int64)
    expected = np.minimum(wide[:, :, :3] + top - wide[:, :, 3:], top).astype(kind)
    file = tiff_of(samples, photometric="rgb", extrasamples=["assocalpha"])
    agree(images.decode(file, LIMIT).pixels, expected)
    unspecified = tiff_of(samples, photometric="rgb", extrasamples=["unspecified"])
    agree(images.decode(unspecified, LIMIT).pixels, np.ascontiguousarray(samples[:, :, :3]))


@pytest.mark.parametrize("kind", ["u4", "i4", "i2", "f4"])
def test_samples_without_a_range_of_their_own_are_mapped_by_the_image_s(kind: str) -> None:
    samples = np.linspace(-1000 if kind != "u4" else 10, 30000 if kind == "i2" else 90000, H * W).reshape(H, W)
    stored = samples.astype(kind)
    low, high = int(stored.min()), int(stored.max())
    pixels = images.decode(tiff_of(stored), LIMIT).pixels
    expected = np.rint((stored.astype(np.float64) - low) * (65535 / (high - low)))
    np.testing.assert_array_equal(pixels[:, :, 0], expected)


def test_what_is_no_number_is_the_least_and_infinity_the_greatest() -> None:
    stored = np.array([[np.nan, -np.inf, np.inf, 2.0, 4.0]], np.float32)
    assert images.decode(tiff_of(stored), LIMIT).pixels[0, :, 0].tolist() == [0, 0, 65535, 0, 65535]
    with pytest.raises(images.UnsupportedImageError, match="finite"):
        images.decode(tiff_of(np.full((2, 2), np.nan, np.float32)), LIMIT)
