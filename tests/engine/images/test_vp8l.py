"""Tables of lossless WebP: counted for every file that libwebp reads, and refused where there are too many."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from engine import images
from engine.images import DamagedImageError, Selection, UnsupportedImageError, animation, vp8l
from tests import webp
from tests.pictures import file_of, photo, tiff_of

LIMIT = 2**20
LARGEST_GROUP = 568 + 4 * (3 * 630 + 410 + 2704)  # bytes


def noise(*shape: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


ORDINARY: dict[str, Image.Image] = {
    "photo": photo(),
    "large": photo().resize((640, 480), Image.Resampling.BICUBIC),
    "transparent": photo().resize((300, 200)).convert("RGBA").rotate(30),
    "noise": noise(90, 70, 3),
    "palette": Image.fromarray(np.asarray(noise(90, 70)) % 7 * 30),
    "one color": Image.new("RGB", (99, 70)),
}


def count(file: bytes, last: int = 0) -> int:
    return animation.webp_parts(file).table_bytes(last)


@pytest.mark.parametrize("method", [0, 4, 6])
@pytest.mark.parametrize("name", ORDINARY)
def test_tables_of_ordinary_images_count_little(name: str, method: int) -> None:
    for lossless in (True, False):  # alpha may be lossless even so
        file = file_of(ORDINARY[name], "WEBP", lossless=lossless, method=method)
        has_tables = lossless or name == "transparent"
        assert 2**12 * has_tables < count(file) + (not has_tables) < 2**20


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        (webp.lossless(64, webp.large_codes(), 256, 11), 256 * LARGEST_GROUP),
        (webp.lossless(64, webp.large_codes(0), 100), 100 * (LARGEST_GROUP - 4 * (2704 - 654))),
        (webp.lossless(64, webp.large_codes(), 3, 11, named=1500), 4 * LARGEST_GROUP),
        (webp.lossless(64, webp.large_codes(), 3, 11, named=900), 900 * LARGEST_GROUP),
        (webp.lossless(64, webp.large_codes(), 9, 11, webp.fine_transforms(64)), 9 * LARGEST_GROUP),
        (webp.alpha(64, webp.large_codes(), 99, 11), 99 * LARGEST_GROUP),
        (webp.animation(64, webp.large_codes(), 99, 11, 2), 99 * LARGEST_GROUP),
        (file_of(photo(), "WEBP"), 0),
    ],
)
def test_groups_are_counted_as_libwebp_makes_them(file: bytes, expected: int) -> None:
    assert count(file) == expected
    claims: list[int] = []
    shown = images.decode(file, LIMIT, claim=claims.append).pixels
    assert claims[-1] == claims[0] + expected
    assert expected == 0 or shown.min() == shown.max()


def test_more_groups_than_an_encoder_makes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vp8l, "MAX_GROUPS", 200)
    several = webp.animation(32, webp.large_codes(), 64, 11, 4)
    refused: list[tuple[bytes, Selection]] = [
        (webp.lossless(64, webp.ONE_SYMBOL * 5, 201), images.FIRST),
        (webp.lossless(64, webp.ONE_SYMBOL * 5, 1, named=201), images.FIRST),
        (webp.alpha(64, webp.ONE_SYMBOL * 5, 201), images.FIRST),
        (several, Selection(page="max")),
        (several, Selection(page=3)),
    ]
    for file, selection in refused:
        with pytest.raises(UnsupportedImageError, match="more than 200 groups"):
            images.decode(file, LIMIT, selection)
    images.decode(several, LIMIT, Selection(page=2))
    images.decode(webp.lossless(64, webp.ONE_SYMBOL * 5, 200), LIMIT)


def test_more_symbols_than_an_encoder_makes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vp8l, "MAX_SYMBOLS", 20_000)
    images.decode(webp.lossless(64, webp.ONE_SYMBOL * 5, 1, 0, webp.fine_transforms(64)), LIMIT)
    for file in (
        webp.lossless(400, webp.ONE_SYMBOL * 5, 1, 0, webp.fine_transforms(400)),  # in their images
        webp.animation(8, webp.ONE_SYMBOL * 5, 1, 0, 400),  # in reading their codes
    ):
        with pytest.raises(UnsupportedImageError, match="too intricate"):
            images.decode(file, LIMIT, Selection(page="max"))


def stream(*bits: int) -> bytes:
    head = np.packbits(webp.put((0x2F, 8), (7, 14), (7, 14), (0, 4)), bitorder="little").tobytes()
    return webp.riff(webp.chunk(b"VP8L", head + np.packbits(bits, bitorder="little").tobytes() + bytes(64)))


@pytest.mark.parametrize(
    ("file", "match"),
    [
        (stream(*[1, 0, 1] * 2), "twice"),
        (stream(0, *webp.put((1, 1), (12, 4))), "cache"),
        (stream(1, *webp.put((0, 2), (0, 3), (0, 1)), *webp.prefix_code([2, 2, 2])), "full"),
        (stream(1, *webp.put((0, 2), (0, 3), (0, 1)), *webp.prefix_code([9] * 300)), "too many symbols"),
        (webp.riff(webp.chunk(b"VP8L", b"\x2e" + bytes(20))), "header"),
    ],
)
def test_what_libwebp_does_not_read_is_damaged(file: bytes, match: str) -> None:
    with pytest.raises(DamagedImageError, match=match):
        count(file)
    with pytest.raises((OSError, ValueError)), Image.open(io.BytesIO(file)) as image:
        image.load()


MADE: list[Callable[[], bytes]] = [
    lambda: webp.lossless(24, webp.large_codes(0), 4, 0, webp.fine_transforms(24)),
    lambda: file_of(photo(), "WEBP", lossless=True),
    lambda: file_of(ORDINARY["palette"], "WEBP", lossless=True, method=6),
    lambda: file_of(ORDINARY["transparent"].resize((30, 20)), "WEBP"),
]


@pytest.mark.parametrize("make", MADE)
def test_what_libwebp_reads_is_not_damaged(make: Callable[[], bytes]) -> None:
    rng = np.random.default_rng(0)
    file, read = make(), 0
    for _ in range(400):
        changed = bytearray(file)
        changed[rng.integers(20, min(len(file), 200))] ^= 1 << rng.integers(8)
        try:
            with Image.open(io.BytesIO(changed)) as image:
                image.load()
        except (OSError, ValueError):
            continue
        assert count(bytes(changed)) < 2**24
        read += 1
    assert read > 3


def test_tiles_of_a_tiff_count_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("imagecodecs", reason="needs the extra imagecodecs")
    options = {"photometric": "rgb", "tile": (32, 32), "compression": "webp", "compressionargs": {"lossless": True}}
    file = tiff_of(np.asarray(noise(64, 64, 3)), **options)
    claims: list[int] = []
    images.decode(file, LIMIT, claim=claims.append)
    assert claims[-1] - claims[-2] >= 6000
    monkeypatch.setattr(vp8l, "MAX_GROUPS", 3)
    with pytest.raises(UnsupportedImageError, match="more than 3 groups"):
        images.decode(file, LIMIT)
