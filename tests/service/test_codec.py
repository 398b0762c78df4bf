"""Decoding of everything that may come, encoding of masks."""

from __future__ import annotations

import io
import json
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service import codec, png
from service.problems import NotAnImage, TooManyPixels, UnsupportedType
from tests.service.fakes import damaged, exif, fake_model, file_of, giant, images, photo

LIMIT = 2**20


@pytest.mark.parametrize("kind", images())
def test_decodes_to_the_displayed_size(kind: str) -> None:
    data, (width, height) = images()[kind]
    pixels = codec.decode(data, LIMIT)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (height, width, 3)
    assert pixels.flags.c_contiguous


@pytest.mark.parametrize("kind", ["RGB PNG", "RGBA PNG", "BMP", "WebP", "palette PNG", "animated GIF"])
def test_lossless_kinds_keep_every_pixel(kind: str) -> None:
    np.testing.assert_array_equal(codec.decode(images()[kind][0], LIMIT), np.asarray(photo()))


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_pixels_are_those_of_pillow(subsampling: int, mode: str, progressive: bool) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (37, 51, 3), dtype=np.uint8)
    image = Image.fromarray(noise).convert(mode)
    data = file_of(image, "JPEG", subsampling=subsampling, progressive=progressive)
    with Image.open(io.BytesIO(data)) as read:
        np.testing.assert_array_equal(codec.decode(data, LIMIT), np.asarray(read.convert("RGB")))


@pytest.mark.parametrize("kind", damaged())
def test_refuses_what_is_no_image(kind: str) -> None:
    with pytest.raises(NotAnImage):
        codec.decode(damaged()[kind], LIMIT)


@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_16_bit_grey_is_divided_by_257_and_rounded(byteorder: str) -> None:
    samples = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    file = file_of(Image.fromarray(samples)) if byteorder == "<" else tiff16(samples)
    pixels = codec.decode(file, LIMIT)
    expected = np.rint(samples / 257)
    for channel in range(3):
        np.testing.assert_array_equal(pixels[:, :, channel], expected)


def tiff16(samples: np.ndarray[tuple[int, ...], np.dtype[np.uint16]]) -> bytes:
    """A big-endian TIFF, which Pillow reads but does not write."""
    height, width = samples.shape
    data = samples.astype(">u2").tobytes()
    tags = {256: width, 257: height, 258: 16, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: len(data)}
    entries = b"".join(struct.pack(">HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"MM\0*" + struct.pack(">I", 8 + len(data)) + data + struct.pack(">H", len(tags)) + entries + bytes(4)


def test_32_bit_integers_within_16_bits_are_taken_and_beyond_are_refused() -> None:
    small = Image.fromarray(np.array([[0, 65535], [257, 128]], np.int32))
    assert codec.decode(file_of(small, "TIFF"), LIMIT)[:, :, 0].tolist() == [[0, 255], [1, 0]]
    for value in (-1, 65536):
        with pytest.raises(UnsupportedType, match="16 bits"):
            codec.decode(file_of(Image.fromarray(np.full((2, 2), value, np.int32)), "TIFF"), LIMIT)


def test_floating_point_samples_are_refused() -> None:
    with pytest.raises(UnsupportedType, match="floating-point"):
        codec.decode(file_of(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF"), LIMIT)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    upright = np.asarray(photo())
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, -1),
        7: np.rot90(upright.transpose(1, 0, 2), 2),
        8: np.rot90(upright),
    }[orientation]
    pixels = codec.decode(file_of(photo(), "PNG", exif=exif(orientation)), LIMIT)
    np.testing.assert_array_equal(pixels, turned)
    assert pixels.flags.c_contiguous


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_an_orientation_that_cannot_be_read_is_none(kind: str) -> None:
    data = file_of(photo(), kind, exif=b"Exif\0\0no TIFF header")
    assert codec.decode(data, LIMIT).shape == (13, 21, 3)


@pytest.mark.parametrize(
    "before", [b"", b"\xff\xfe\x00\x04ok", 150 * b"\xff\xfe\x00\x04ok"], ids=["first", "second", "late"]
)
@pytest.mark.parametrize("turned", [False, True])
def test_a_jpeg_is_turned_as_its_xmp_says(before: bytes, turned: bool) -> None:
    plain = file_of(photo(), "JPEG")
    content = b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="%d"/>' % (3 if turned else 1)
    data = plain[:2] + before + b"\xff\xe1" + struct.pack(">H", 2 + len(content)) + content + plain[2:]
    expected = codec.decode(plain, LIMIT)
    np.testing.assert_array_equal(codec.decode(data, LIMIT), expected[::-1, ::-1] if turned else expected)


def test_a_giant_jpeg_is_refused_by_its_header() -> None:
    data = file_of(photo(), "JPEG")
    frame = data.index(b"\xff\xc0")
    with pytest.raises(TooManyPixels):
        codec.decode(data[: frame + 5] + b"\xff\xff\xff\xff" + data[frame + 9 :], LIMIT)


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    """Each of them may cost as much as decoding the whole image, and takes only a few bytes."""
    data = file_of(photo(), "JPEG", progressive=True)
    last = data.rindex(codec.START_OF_SCAN)
    scans = data.count(codec.START_OF_SCAN)
    repeated = data[last:-2] * (codec.SCANS - scans)
    codec.decode(data[:-2] + repeated + data[-2:], LIMIT)
    with pytest.raises(NotAnImage, match="scans"):
        codec.decode(data[:-2] + repeated + data[last:], LIMIT)


def test_a_tiff_of_endless_strips_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = file_of(photo(), "TIFF", tiffinfo={278: 1})  # rows per strip
    codec.decode(data, LIMIT)
    monkeypatch.setattr(codec, "TILES", 12)
    with pytest.raises(NotAnImage, match="tiles"):
        codec.decode(data, LIMIT)


def test_transparency_is_laid_on_white() -> None:
    image = Image.new("RGBA", (3, 1))
    image.putdata([(200, 0, 0, 255), (200, 0, 0, 0), (0, 0, 0, 128)])
    assert codec.decode(file_of(image), LIMIT).tolist() == [[[200, 0, 0], [255, 255, 255], [127, 127, 127]]]


def test_a_transparent_palette_entry_is_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    assert codec.decode(file_of(image, transparency=1), LIMIT).tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_pixels_are_counted_before_decoding() -> None:
    """A header that promises a giant, and nothing like enough data: refused for its size, so no data was looked at."""
    with pytest.raises(TooManyPixels, match="60000 x 60000"):
        codec.decode(giant(60000), LIMIT)


def test_the_limit_counts_sides_rounded_up() -> None:
    thin = file_of(Image.new("L", (1000, 1)))
    codec.decode(thin, 1008 * 16)
    with pytest.raises(TooManyPixels) as caught:
        codec.decode(thin, 1008 * 16 - 1)
    assert caught.value.extra == {"limit": 1008 * 16 - 1}


def read(file: bytes, mode: str = "") -> tuple[str, np.ndarray[Any, Any]]:
    """The file's mode and its pixels as Pillow reads them, or as it converts them to `mode`."""
    with Image.open(io.BytesIO(file)) as image:
        assert image.format == "PNG"
        return image.mode, np.asarray(image.convert(mode) if mode else image)


SIDES = [(1, 1), (3, 5), (64, 7), (5, 64), (9, 17)]


@pytest.mark.parametrize("size", SIDES)
def test_one_bit_png_is_0_and_255(size: tuple[int, int]) -> None:
    mask = np.random.default_rng(0).integers(0, 2, size, dtype=np.uint8)
    file = png.black_and_white(mask)
    assert (read(file)[0], file[24]) == ("1", 1)
    np.testing.assert_array_equal(read(file, "L")[1], mask * 255)


@pytest.mark.parametrize("size", SIDES)
@pytest.mark.parametrize(("most", "bits"), [(0, 1), (1, 1), (2, 2), (3, 2), (4, 4), (15, 4), (16, 8), (255, 8)])
def test_indices_read_as_themselves_by_number_and_by_colour(size: tuple[int, int], most: int, bits: int) -> None:
    mask = np.random.default_rng(0).integers(0, most + 1, size, dtype=np.uint8)
    mask[-1, -1] = most
    file = png.indices(mask)
    assert (read(file)[0], file[24]) == ("L" if bits == 8 else "P", bits)
    for mode in ("", "L"):
        np.testing.assert_array_equal(read(file, mode)[1], mask)
    np.testing.assert_array_equal(read(file, "RGB")[1], mask[:, :, None].repeat(3, axis=2))


def test_few_bits_are_fewer_bytes() -> None:
    y, x = np.mgrid[:512, :512]
    rings = ((np.hypot(x - 200, y - 300) // 60) % 4).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 4, (512, 512), dtype=np.uint8)
    for mask in (rings, noise):
        in_8_bits = png.indices(mask * np.uint8(17))
        assert len(png.black_and_white(mask // 2)) < len(png.indices(mask)) < len(in_8_bits)


def test_one_class_is_0_and_255_and_several_are_indices() -> None:
    mask = np.array([[0, 1, 1]], np.uint8)
    for classes, expected in ((1, [[0, 255, 255]]), (3, [[0, 1, 1]])):
        assert read(codec.to_png(mask, fake_model(classes)), "L")[1].tolist() == expected


def test_npy_is_the_mask_itself() -> None:
    mask = np.array([[0, 1], [1, 1], [0, 0]], np.uint8)
    np.testing.assert_array_equal(np.load(io.BytesIO(codec.to_npy(mask, fake_model()))), mask)


def test_json_counts_pixels_by_class() -> None:
    document = json.loads(codec.to_json(np.array([[0, 1, 1, 1]], np.uint8), fake_model()))
    assert (document["model"], document["width"], document["height"]) == ("fake", 4, 1)
    assert [(c["name"], c["pixels"], c["share"]) for c in document["classes"]] == [
        ("background", 1, 0.25),
        ("class 0", 3, 0.75),
    ]


def test_overlay_paints_only_the_foreground() -> None:
    image = np.full((1, 2, 3), 100, np.uint8)
    drawn = codec.decode(codec.overlay(image, np.array([[0, 1]], np.uint8), fake_model()), LIMIT)
    assert drawn.tolist() == [[[100, 100, 100], [177, 50, 50]]]
