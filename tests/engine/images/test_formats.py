"""Formats one by one: what each may say of itself, what is passed over, what is refused, and by which name."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from engine import images
from engine.images import (
    DamagedImageError,
    NotAnImageError,
    Selection,
    TooManyPixelsError,
    UnsupportedImageError,
    jpeg,
    limits,
)
from tests import pictures
from tests.pictures import damaged, file_of, giant, photo, png_chunk, png_of

LIMIT = 2**20


def decode(data: bytes, max_pixels: int = LIMIT, **chosen: Any) -> NDArray[Any]:
    return images.decode(data, max_pixels, Selection(**chosen)).pixels


@pytest.mark.parametrize("kind", pictures.images())
def test_decodes_to_the_displayed_size(kind: str) -> None:
    data, (width, height) = pictures.images()[kind]
    pixels = decode(data, LIMIT)
    assert pixels.dtype == (np.uint16 if kind.startswith("16-bit") else np.uint8)
    assert pixels.shape == (height, width, 3)
    assert pixels.flags.c_contiguous
    assert images.size(data) == (width, height)


@pytest.mark.parametrize("kind", ["RGB PNG", "RGBA PNG", "BMP", "WebP", "palette PNG", "animated GIF"])
def test_lossless_kinds_keep_every_pixel(kind: str) -> None:
    np.testing.assert_array_equal(decode(pictures.images()[kind][0], LIMIT), np.asarray(photo()))


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_pixels_are_those_of_pillow(subsampling: int, mode: str, progressive: bool) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (37, 51, 3), dtype=np.uint8)
    image = Image.fromarray(noise).convert(mode)
    data = file_of(image, "JPEG", subsampling=subsampling, progressive=progressive)
    with Image.open(io.BytesIO(data)) as read:
        np.testing.assert_array_equal(decode(data, LIMIT), np.asarray(read.convert("RGB")))


@pytest.mark.parametrize("kind", damaged())
def test_refuses_what_is_no_image(kind: str) -> None:
    with pytest.raises((NotAnImageError, DamagedImageError)):
        decode(damaged()[kind], LIMIT)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_an_orientation_that_cannot_be_read_is_none(kind: str) -> None:
    data = file_of(photo(), kind, exif=b"Exif\0\0no TIFF header")
    assert decode(data, LIMIT).shape == (13, 21, 3)


@pytest.mark.parametrize(
    "before", [b"", b"\xff\xfe\x00\x04ok", 150 * b"\xff\xfe\x00\x04ok"], ids=["first", "second", "late"]
)
@pytest.mark.parametrize("turned", [False, True])
def test_a_jpeg_is_turned_as_its_xmp_says(before: bytes, turned: bool) -> None:
    plain = file_of(photo(), "JPEG")
    content = b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="%d"/>' % (3 if turned else 1)
    data = plain[:2] + before + b"\xff\xe1" + struct.pack(">H", 2 + len(content)) + content + plain[2:]
    expected = decode(plain, LIMIT)
    np.testing.assert_array_equal(decode(data, LIMIT), expected[::-1, ::-1] if turned else expected)


def test_a_giant_jpeg_is_refused_by_its_header() -> None:
    data = file_of(photo(), "JPEG")
    frame = data.index(b"\xff\xc0")
    with pytest.raises(TooManyPixelsError):
        decode(data[: frame + 5] + b"\xff\xff\xff\xff" + data[frame + 9 :], LIMIT)


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    """Each of them may cost as much as decoding the whole image, and takes only a few bytes."""
    data = file_of(photo(), "JPEG", progressive=True)
    last = data.rindex(jpeg.START_OF_SCAN)
    scans = data.count(jpeg.START_OF_SCAN)
    repeated = data[last:-2] * (jpeg.SCANS - scans)
    decode(data[:-2] + repeated + data[-2:], LIMIT)
    with pytest.raises(DamagedImageError, match="scans"):
        decode(data[:-2] + repeated + data[last:], LIMIT)


def test_transparency_is_laid_on_white() -> None:
    image = Image.new("RGBA", (3, 1))
    image.putdata([(200, 0, 0, 255), (200, 0, 0, 0), (0, 0, 0, 128)])
    assert decode(file_of(image), LIMIT).tolist() == [[[200, 0, 0], [255, 255, 255], [127, 127, 127]]]


def test_a_transparent_palette_entry_is_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    assert decode(file_of(image, transparency=1), LIMIT).tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_pixels_are_counted_before_decoding() -> None:
    """A header that promises a giant, and nothing like enough data: refused for its size, so no data was looked at."""
    with pytest.raises(TooManyPixelsError, match="60000 x 60000"):
        decode(giant(60000), LIMIT)


def test_the_limit_counts_the_files_own_pixels() -> None:
    thin = file_of(Image.new("L", (1000, 1)))
    decode(thin, 1000)
    with pytest.raises(TooManyPixelsError) as caught:
        decode(thin, 999)
    assert caught.value.limit == 999


# -- names -----------------------------------------------------------------------------------------------------------


def test_every_refusal_of_a_file_names_it(tmp_path: Path) -> None:
    for kind, data in damaged().items():
        file = tmp_path / f"{kind}.png"
        file.write_bytes(data)
        with pytest.raises(images.ImageError, match=f"{kind}.png: .+"):
            images.decode(file)
    with pytest.raises(images.UnreadableFileError, match=r"absent\.png: cannot be read: No such file"):
        images.decode(tmp_path / "absent.png")


@pytest.mark.parametrize(
    ("begins", "name"),
    [
        (b"\0\0\0\x18ftypheic", "HEIC"),
        (b"\0\0\0\x18ftypavif", "AVIF"),
        (b"\0\0\0\x0cJXL \r\n", "JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n", "JPEG 2000"),
        (bytes(128) + b"DICM", "DICOM"),
        (b"ZISRAWFILE", "CZI"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "PostScript"),
        (b"P5\n3 4\n255\n", "Netpbm"),
        (b"<svg xmlns", "SVG"),
    ],
)
def test_what_is_known_but_not_read_is_named(begins: bytes, name: str) -> None:
    with pytest.raises(UnsupportedImageError, match=f"{name}.*send PNG, JPEG"):
        decode(begins + bytes(100))


# -- PNG -------------------------------------------------------------------------------------------------------------


def test_large_comments_of_a_png_are_passed_over() -> None:
    plain = file_of(photo())
    big = np.random.default_rng(0).bytes(2**21)
    text = b"".join(b"%02x" % byte for byte in big[: 2**20])
    for chunk in (
        png_chunk(b"iTXt", b"Comment\0\0\0\0\0" + text),
        png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + text),
        png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(2**21))),
        png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2**24))),
        png_chunk(b"tEXt", b"Comment\0" + text),
        png_chunk(b"iCCP", b"odd\0\0" + zlib.compress(big)),
        png_chunk(b"iCCP", b"broken\0\0" + big),
    ):
        file = plain[:33] + chunk + plain[33:]
        np.testing.assert_array_equal(decode(file), np.asarray(photo()))
        assert images.size(file) == photo().size


def test_a_png_is_turned_as_its_xmp_says() -> None:
    plain = file_of(photo())
    text = b'<x tiff:Orientation="3"/>'
    for way in (b"\0\0\0\0" + text, b"\1\0\0\0" + zlib.compress(text)):
        xmp = png_chunk(b"iTXt", b"XML:com.adobe.xmp\0" + way)
        np.testing.assert_array_equal(decode(plain[:33] + xmp + plain[33:]), np.asarray(photo())[::-1, ::-1])


def test_a_damaged_png_header_is_refused() -> None:
    file = bytearray(file_of(photo()))
    file[17] ^= 1  # the width, under the same checksum
    with pytest.raises(DamagedImageError, match="header"):
        decode(bytes(file))


# -- JPEG ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_without_its_end_marker_is_read_and_one_cut_short_is_not(mode: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole = file_of(Image.fromarray(noise).convert(mode), "JPEG")
    assert whole.endswith(jpeg.END)
    np.testing.assert_array_equal(decode(whole[:-2]), decode(whole))
    np.testing.assert_array_equal(decode(whole[:-1]), decode(whole))
    for cut in (len(whole) // 2, len(whole) - 100):
        with pytest.raises(DamagedImageError, match="before its end marker"):
            decode(whole[:cut])


def test_what_follows_a_jpeg_does_not_matter() -> None:
    whole = file_of(photo(), "JPEG")
    for rest in (b"\0\0", b"trailing", whole):
        np.testing.assert_array_equal(decode(whole + rest), decode(whole))


@pytest.mark.parametrize(("marker", "bits", "name"), [(0xC3, 8, "lossless"), (0xC1, 12, "12 bits")])
def test_rare_kinds_of_jpeg_are_named(marker: int, bits: int, name: str) -> None:
    data = bytearray(file_of(photo(), "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 1], data[at + 4] = marker, bits
    with pytest.raises(UnsupportedImageError, match=name):
        decode(bytes(data))


# -- color profiles --------------------------------------------------------------------------------------------------


def srgb_profile() -> bytes:
    made: bytes = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return made


def wide_profile() -> bytes:
    """sRGB's profile, with red and green exchanged: primaries that are not sRGB's."""
    return srgb_profile().replace(b"rXYZ", b"oXYZ").replace(b"gXYZ", b"rXYZ").replace(b"oXYZ", b"gXYZ")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_a_wide_gamut_becomes_srgb_and_srgb_stays(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    plain = decode(file_of(photo(), kind, **options))
    np.testing.assert_array_equal(decode(file_of(photo(), kind, icc_profile=srgb_profile(), **options)), plain)
    wide = decode(file_of(photo(), kind, icc_profile=wide_profile(), **options)).astype(int)
    assert np.abs(wide - plain[:, :, [1, 0, 2]]).max() <= 3
    for broken in (wide_profile()[:300], b"nonsense", bytes(200)):
        np.testing.assert_array_equal(decode(file_of(photo(), kind, icc_profile=broken, **options)), plain)


# -- animations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options"), [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {})], ids=["GIF", "WebP", "APNG"]
)
def test_of_an_animation_the_first_frame_counts_or_the_chosen_one(
    kind: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = [Image.new("RGB", (8, 8), (value, 10 * value, 200 - value)) for value in (0, 10, 20)]
    file = file_of(frames[0], kind, save_all=True, append_images=frames[1:], duration=100, **options)
    first = images.decode(file)
    assert str(first.taken) == "page=0/3"
    np.testing.assert_array_equal(first.pixels, np.asarray(frames[0]))
    for page, frame in enumerate(frames):
        np.testing.assert_array_equal(decode(file, page=page), np.asarray(frame))
    assert decode(file, page="max")[0, 0].tolist() == [20, 200, 200]
    with pytest.raises(images.NoSuchPartError, match="page 3 is not there: there are the pages 0 to 2"):
        decode(file, page=3)
    monkeypatch.setattr(limits, "PROJECTED_BYTES", 0)
    with pytest.raises(TooManyPixelsError, match="3 pages"):
        decode(file, page=2)


def test_channels_of_colors_are_red_green_and_blue() -> None:
    decoded = images.decode(file_of(photo()), selection=Selection(channel=2))
    np.testing.assert_array_equal(decoded.pixels, np.asarray(photo())[:, :, 2:].repeat(3, axis=2))
    assert str(decoded.taken) == "channel=2/3"
    np.testing.assert_array_equal(decode(file_of(photo()), channel="max")[:, :, 0], np.asarray(photo()).max(axis=2))
    with pytest.raises(images.NoSuchPartError, match="channel 3"):
        decode(file_of(photo()), channel=3)
    assert str(images.decode(file_of(photo())).taken) == ""


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF"])
def test_an_image_of_one_page_has_no_second(kind: str) -> None:
    file = file_of(photo(), kind)
    np.testing.assert_array_equal(decode(file, page=0), decode(file))
    with pytest.raises(images.NoSuchPartError, match="there is one page, number 0"):
        decode(file, page=1)


# -- counted before a decoder sees it --------------------------------------------------------------------------------


def gif_with(blocks: bytes) -> bytes:
    file = file_of(photo(), "GIF")
    at = file.index(b"\x2c")
    return file[:at] + blocks + file[at:]


def riff(chunks: bytes) -> bytes:
    file = file_of(photo(), "WEBP", lossless=True)
    return b"RIFF" + struct.pack("<I", len(file) - 8 + len(chunks)) + file[8:] + chunks


MANY: dict[str, Callable[[int], bytes]] = {
    "PNG": lambda n: png_of(np.zeros((2, 2, 3)), 2, 8, png_chunk(b"teXt", b"") * n),
    "JPEG": lambda n: file_of(photo(), "JPEG")[:2] + b"\xff\xe5\0\2" * n + file_of(photo(), "JPEG")[2:],
    "GIF": lambda n: gif_with(b"\x21\xfe" + b"\1x" * n + b"\0"),
    "WebP": lambda n: riff(b"XMPX\0\0\0\0" * n),
}


@pytest.mark.parametrize("kind", MANY)
def test_a_file_of_endless_parts_is_refused(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PARTS", 1000)
    for module in ("png", "animation"):
        monkeypatch.setattr(f"engine.images.{module}.PARTS", 1000)
    monkeypatch.setattr(jpeg, "SEGMENTS", 1000)
    monkeypatch.setattr("engine.images.animation.WEBP_PARTS", 1000)
    decode(MANY[kind](900))
    for read in (images.decode, images.size):
        with pytest.raises(DamagedImageError, match="1000"):
            read(MANY[kind](1100))


def test_long_comments_of_a_gif_cost_nothing() -> None:
    comment = b"\x21\xfe" + (b"\xff" + b"c" * 255) * 3000 + b"\0"
    np.testing.assert_array_equal(decode(gif_with(comment)), decode(file_of(photo(), "GIF")))
