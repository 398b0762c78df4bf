"""Decoding of everything that may come."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from service.codec import decode
from service.problems import NotAnImage, TooManyPixels, UnsupportedType
from tests.service.fakes import damaged, exif, file_of, giant, images, photo

LIMIT = 2**20


@pytest.mark.parametrize("kind", images())
def test_decodes_to_the_displayed_size(kind: str) -> None:
    data, (width, height) = images()[kind]
    pixels = decode.decode(data, LIMIT)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (height, width, 3)
    assert pixels.flags.c_contiguous


@pytest.mark.parametrize("kind", ["RGB PNG", "RGBA PNG", "BMP", "WebP", "palette PNG", "animated GIF"])
def test_lossless_kinds_keep_every_pixel(kind: str) -> None:
    np.testing.assert_array_equal(decode.decode(images()[kind][0], LIMIT), np.asarray(photo()))


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_pixels_are_those_of_pillow(subsampling: int, mode: str, progressive: bool) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (37, 51, 3), dtype=np.uint8)
    image = Image.fromarray(noise).convert(mode)
    data = file_of(image, "JPEG", subsampling=subsampling, progressive=progressive)
    with Image.open(io.BytesIO(data)) as read:
        np.testing.assert_array_equal(decode.decode(data, LIMIT), np.asarray(read.convert("RGB")))


@pytest.mark.parametrize("kind", damaged())
def test_refuses_what_is_no_image(kind: str) -> None:
    with pytest.raises(NotAnImage):
        decode.decode(damaged()[kind], LIMIT)


@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_16_bit_grey_is_divided_by_257_and_rounded(byteorder: str) -> None:
    samples = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    file = file_of(Image.fromarray(samples)) if byteorder == "<" else tiff16(samples)
    pixels = decode.decode(file, LIMIT)
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
    assert decode.decode(file_of(small, "TIFF"), LIMIT)[:, :, 0].tolist() == [[0, 255], [1, 0]]
    for value in (-1, 65536):
        with pytest.raises(UnsupportedType, match="16 bits"):
            decode.decode(file_of(Image.fromarray(np.full((2, 2), value, np.int32)), "TIFF"), LIMIT)


def test_floating_point_samples_are_refused() -> None:
    with pytest.raises(UnsupportedType, match="floating-point"):
        decode.decode(file_of(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF"), LIMIT)


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
    pixels = decode.decode(file_of(photo(), "PNG", exif=exif(orientation)), LIMIT)
    np.testing.assert_array_equal(pixels, turned)
    assert pixels.flags.c_contiguous


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_an_orientation_that_cannot_be_read_is_none(kind: str) -> None:
    data = file_of(photo(), kind, exif=b"Exif\0\0no TIFF header")
    assert decode.decode(data, LIMIT).shape == (13, 21, 3)


@pytest.mark.parametrize(
    "before", [b"", b"\xff\xfe\x00\x04ok", 150 * b"\xff\xfe\x00\x04ok"], ids=["first", "second", "late"]
)
@pytest.mark.parametrize("turned", [False, True])
def test_a_jpeg_is_turned_as_its_xmp_says(before: bytes, turned: bool) -> None:
    plain = file_of(photo(), "JPEG")
    content = b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="%d"/>' % (3 if turned else 1)
    data = plain[:2] + before + b"\xff\xe1" + struct.pack(">H", 2 + len(content)) + content + plain[2:]
    expected = decode.decode(plain, LIMIT)
    np.testing.assert_array_equal(decode.decode(data, LIMIT), expected[::-1, ::-1] if turned else expected)


def test_a_giant_jpeg_is_refused_by_its_header() -> None:
    data = file_of(photo(), "JPEG")
    frame = data.index(b"\xff\xc0")
    with pytest.raises(TooManyPixels):
        decode.decode(data[: frame + 5] + b"\xff\xff\xff\xff" + data[frame + 9 :], LIMIT)


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    """Each of them may cost as much as decoding the whole image, and takes only a few bytes."""
    data = file_of(photo(), "JPEG", progressive=True)
    last = data.rindex(decode.START_OF_SCAN)
    scans = data.count(decode.START_OF_SCAN)
    repeated = data[last:-2] * (decode.SCANS - scans)
    decode.decode(data[:-2] + repeated + data[-2:], LIMIT)
    with pytest.raises(NotAnImage, match="scans"):
        decode.decode(data[:-2] + repeated + data[last:], LIMIT)


def test_a_tiff_of_endless_strips_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = file_of(photo(), "TIFF", tiffinfo={278: 1})  # rows per strip
    decode.decode(data, LIMIT)
    monkeypatch.setattr(decode, "TILES", 12)
    with pytest.raises(NotAnImage, match="tiles"):
        decode.decode(data, LIMIT)


def test_transparency_is_laid_on_white() -> None:
    image = Image.new("RGBA", (3, 1))
    image.putdata([(200, 0, 0, 255), (200, 0, 0, 0), (0, 0, 0, 128)])
    assert decode.decode(file_of(image), LIMIT).tolist() == [[[200, 0, 0], [255, 255, 255], [127, 127, 127]]]


def test_a_transparent_palette_entry_is_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    assert decode.decode(file_of(image, transparency=1), LIMIT).tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_pixels_are_counted_before_decoding() -> None:
    """A header that promises a giant, and nothing like enough data: refused for its size, so no data was looked at."""
    with pytest.raises(TooManyPixels, match="60000 x 60000"):
        decode.decode(giant(60000), LIMIT)


def test_the_limit_counts_sides_rounded_up() -> None:
    thin = file_of(Image.new("L", (1000, 1)))
    decode.decode(thin, 1008 * 16)
    with pytest.raises(TooManyPixels) as caught:
        decode.decode(thin, 1008 * 16 - 1)
    assert caught.value.extra == {"limit": 1008 * 16 - 1}
