"""Small files that name much: what they name is counted before anybody works on it, or never looked at."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine import images
from engine.images import DamagedImageError, Selection, TooManyPixelsError, UnsupportedImageError, jpeg, tiff_layout
from engine.images import png as png_reader
from tests.engine.images.test_formats import wide_profile
from tests.pictures import file_of, photo, png_chunk, png_of

LIMIT = 2**20
ASCII, SHORT, LONG = 2, 3, 4


def tiff(blob: bytes, tags: list[tuple[int, int, int, int]], pages: int = 1) -> bytes:
    """Pages of the same tags (code, type, count, value or place); `blob` lies at 8."""
    out = b"II*\0" + struct.pack("<I", 8 + len(blob)) + blob
    for page in range(pages):
        out += struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
        out += struct.pack("<I", len(out) + 4 if page < pages - 1 else 0)
    return out


def grey(width: int, height: int, compression: int = 1) -> list[tuple[int, int, int, int]]:
    """Tags of a grey picture in one strip, but for where that lies."""
    values = {256: width, 257: height, 258: 8, 259: compression, 262: 1, 277: 1}
    return [(code, LONG, 1, value) for code, value in values.items()]


def gif(*frames: tuple[int, int, int, int]) -> bytes:
    """A canvas of one pixel and frames (left, top, width, height), of one pixel each."""
    head = b"GIF89a" + struct.pack("<HH", 1, 1) + b"\x80\0\0" + bytes(6)
    return head + b"".join(b"," + struct.pack("<4H", *frame) + b"\0\2\2\x4c\1\0" for frame in frames) + b";"


def bmp(side: int, runs: bytes) -> bytes:
    """Eight bits a pixel, by run lengths."""
    head = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(runs), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 1078 + len(runs), 0, 0, 1078) + head + bytes(1024) + runs


def test_tags_of_exif_that_name_the_same_bytes_are_not_copied() -> None:
    tags = [(300 + i, 7, 2**16 - 2**15, 100) for i in range(1000)] + [(274, 3, 1, 6)]
    described = (b"Exif\0\0" + tiff(b"", sorted(tags))).ljust(60_000)
    cmyk = Image.new("CMYK", (3, 2))
    files = [
        file_of(photo(3, 2), "JPEG", exif=described),
        file_of(cmyk, "JPEG", exif=described),
        file_of(photo(3, 2), "WEBP", lossless=True, exif=described),
        png_of(np.zeros((2, 3, 3)), 2, 8, png_chunk(b"eXIf", described[6:])),
    ]
    for file in files:
        tracemalloc.start()
        assert images.decode(file, LIMIT).pixels.shape == (3, 2, 3)  # it is turned
        assert images.size(file) == (2, 3)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert most < 2**20


def test_a_side_has_a_limit_of_its_own() -> None:
    for width, height in ((1, 2**20 + 1), (2**20 + 1, 1)):
        for file in (png_of(np.zeros((height, width, 1), np.uint8), 0, 8), tiff(bytes(8), grey(width, height))):
            for read in (images.decode, images.size):
                with pytest.raises(TooManyPixelsError, match="limit of one is 1048576 pixels"):
                    read(file, 2**25)


def test_of_many_profiles_and_comments_one_each_is_inflated(monkeypatch: pytest.MonkeyPatch) -> None:
    inflated = []

    def counted(data: bytes, most: int) -> bytes:
        inflated.append(most)
        return zlib.decompressobj().decompress(data, most)

    monkeypatch.setattr(png_reader, "_inflated", counted)
    comment = png_chunk(b"iTXt", png_reader.XMP + b"\1\0\0\0" + zlib.compress(bytes(60_000)))
    profile = png_chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(60_000)))
    images.decode(png_of(np.zeros((2, 2, 3)), 2, 8, (comment + profile) * 50), LIMIT)
    assert len(inflated) == 2


def test_colors_of_16_bits_which_are_decoded_twice_count_twice() -> None:
    images.decode(png_of(np.ones((8, 8, 4), np.uint16), 6, 16), 128)
    with pytest.raises(TooManyPixelsError, match="bytes"):
        images.decode(png_of(np.ones((8, 9, 4), np.uint16), 6, 16), 128)


def test_frames_of_a_gif_are_counted_before_there_is_room_for_them() -> None:
    for frame in ((0, 0, 60_000, 60_000), (60_000, 60_000, 1, 1)):
        for read in (images.decode, images.size):
            with pytest.raises(TooManyPixelsError):
                read(gif(frame), LIMIT)
        with pytest.raises(TooManyPixelsError):
            images.decode(gif((0, 0, 1, 1), frame), LIMIT, Selection(page=1))
    with pytest.raises(DamagedImageError, match="frame 1"):
        images.decode(gif((0, 0, 1, 1), (0, 0, 2, 1)), LIMIT, Selection(page=1))
    assert images.decode(gif((0, 0, 1, 1), (0, 0, 2, 1)), LIMIT).pixels.shape == (1, 1, 3)


def test_a_page_counts_however_small_it_is() -> None:
    tags = [*grey(1, 1), (273, LONG, 1, 8), (279, LONG, 1, 1)]
    least = 3 * images.limits.LEAST_PAGE * images.limits.LEAST_BYTES // images.limits.PROJECTED_BYTES
    images.decode(tiff(b"\1\0", tags, 3), least, Selection(page="max"))
    with pytest.raises(TooManyPixelsError, match="4 pages"):
        images.decode(tiff(b"\1\0", tags, 4), least, Selection(page="max"))


def test_long_run_lengths_of_a_bmp_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert images.decode(bmp(4, b"\4\0\0\0" * 4 + b"\0\1"), LIMIT).pixels.shape == (4, 4, 3)
    monkeypatch.setattr("engine.images.pillow.MAX_RUN_LENGTHS", 1200)
    with pytest.raises(UnsupportedImageError, match="1200 bytes"):
        images.decode(bmp(16, b"\1\0" * 256 + b"\0\1"), LIMIT)


def test_a_profile_of_processing_elements_is_passed_over() -> None:
    assert images.profile.has_other_primaries(wide_profile())
    assert not images.profile.has_other_primaries(wide_profile() + b"mpet")


@pytest.mark.parametrize(
    "description",
    [
        '<OME><Image><Pixels SizeC="1" SizeZ="1" SizeT="1" DimensionOrder="XYCZT">'
        + '<TiffData IFD="0" PlaneCount="100000"/>' * 20_000
        + "</Pixels></Image></OME>",
        '{"shape": [' + ",".join(["9" * 4000] * 900) + '], "axes": "' + "".join(map(chr, range(900, 1800))) + '"}',
    ],
    ids=["OME", "tifffile"],
)
def test_notes_of_endless_planes_are_passed_over(description: str) -> None:
    assert tiff_layout.read(description, 100_000) == tiff_layout.plain(100_000)


def test_tags_that_share_their_bytes_name_no_more_than_the_file_has() -> None:
    place = [(273, LONG, 1, 8), (279, LONG, 1, 1)]
    texts = [(270, ASCII, 1000, 8)]
    images.decode(tiff(bytes(1000), [*grey(1, 1), *place, *texts]), LIMIT)
    with pytest.raises(DamagedImageError, match="name more bytes"):
        images.decode(tiff(bytes(1000), [*grey(1, 1), *place, *texts * 3]), LIMIT)


@pytest.mark.parametrize("compression", [1, 8], ids=["none", "deflate"])
def test_strips_that_share_their_bytes_are_counted(compression: int) -> None:
    strip = (zlib.compress(bytes(4)) if compression == 8 else bytes(4)) + bytes(2**16)
    places, sizes = struct.pack("<9I", *[8 + 72] * 9), struct.pack("<9I", *[len(strip)] * 9)
    at = [(278, LONG, 1, 1), (273, LONG, 9, 8), (279, LONG, 9, 8 + 36)]
    file = tiff(places + sizes + strip, [*grey(4, 9, compression), *at])
    claims: list[int] = []
    pixels: Any = images.decode(file, LIMIT, claim=claims.append).pixels
    assert pixels.shape == (9, 4, 3)
    assert max(claims) >= (0 if compression == 1 else 2 * 8 * len(strip))
    if compression == 8:
        with pytest.raises(TooManyPixelsError, match="bytes"):
            images.decode(file, 2**15)


def test_scans_of_jpeg_in_tiff_are_counted() -> None:
    picture = file_of(photo(), "JPEG", progressive=True, subsampling=0)
    last, count = picture.rindex(jpeg.START_OF_SCAN), picture.count(jpeg.START_OF_SCAN)
    width, height = photo().size
    for scans in (jpeg.SCANS, jpeg.SCANS + 1):
        strip = struct.pack("<3H", 8, 8, 8) + picture[:-2] + picture[last:-2] * (scans - count) + picture[-2:]
        tags = [*grey(width, height, 7), (273, LONG, 1, 14), (279, LONG, 1, len(strip) - 6), (278, LONG, 1, height)]
        colors = {
            258: (258, SHORT, 3, 8),
            262: (262, SHORT, 1, 6),
            277: (277, SHORT, 1, 3),
            530: (530, SHORT, 2, 0x10001),
        }
        file = tiff(strip, [tag for tag in tags if tag[0] not in colors] + list(colors.values()))
        if scans == jpeg.SCANS:
            assert images.decode(file, LIMIT).pixels.shape == (height, width, 3)
        else:
            with pytest.raises(DamagedImageError, match="scans"):
                images.decode(file, LIMIT)
