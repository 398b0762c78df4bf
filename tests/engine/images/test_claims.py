"""Decoding never takes more memory than it has claimed before: measured by the system, for every kind of file."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from engine import images
from engine.images import jpeg, limits, tiff_samples, vp8l
from engine.images.errors import TooManyPixelsError
from tests import memory, webp
from tests.pictures import exif, file_of, png_chunk, png_of

SIDE = 1024


def tiff(shape: tuple[int, ...], dtype: str, **options: Any) -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, np.ones(shape, dtype), **options)
    return out.getvalue()


def deflated(side: int, channels: int, bits: int, rows: int) -> bytes:
    """A TIFF file of zeros, of any number of bits a sample, in strips of so many rows."""
    strip = zlib.compress(bytes((side * channels * bits + 7) // 8 * rows))
    photometric, extra = (2, channels - 3) if channels > 2 else (1, channels - 1)
    tags = {256: side, 257: side, 258: (bits,) * channels, 259: 8, 262: photometric, 277: channels, 278: rows}
    return tiff_samples._tiff(tags | ({338: (2,) * extra} if extra else {}), [strip] * -(-side // rows))


def many_scans(data: bytes) -> bytes:
    """A progressive JPEG image of as many scans as are taken: its last one again and again."""
    last = data.rindex(jpeg.START_OF_SCAN)
    return data[:-2] + data[last:-2] * (jpeg.SCANS - data.count(jpeg.START_OF_SCAN)) + data[-2:]


def one_scan_each(side: int) -> bytes:
    """A JPEG image that is not progressive, but has a scan for each of its three components."""
    grey = file_of(Image.new("L", (side, side)), "JPEG")
    frame, scan = grey.index(b"\xff\xc0"), grey.index(jpeg.START_OF_SCAN)
    after = frame + 2 + int.from_bytes(grey[frame + 2 : frame + 4], "big")
    components = b"".join(bytes([i, 0x11, 0]) for i in (1, 2, 3))
    head = b"\xff\xc0" + struct.pack(">HBHHB", 17, 8, side, side, 3) + components
    scans = [jpeg.START_OF_SCAN + bytes([0, 8, 1, i, 0, 0, 63, 0]) + grey[scan + 10 : -2] for i in (1, 2, 3)]
    return grey[:frame] + head + grey[after:scan] + b"".join(scans) + jpeg.END


def progressive_in_tiff(side: int) -> bytes:
    """A TIFF image of one strip, a progressive JPEG image."""
    strip = file_of(Image.new("RGB", (side, side)), "JPEG", progressive=True, subsampling=0)
    tags = {256: side, 257: side, 258: (8, 8, 8), 259: 7, 262: 6, 277: 3, 278: side, 530: (1, 1)}
    return tiff_samples._tiff(tags, [strip])


def thin(side: int, color: int) -> bytes:
    """A PNG image as high as a square one has pixels, or as may be."""
    return png_of(np.zeros((min(side * side, limits.MAX_SIDE), 1, color // 2 + 1), np.uint8), color, 8)


def other_primaries() -> bytes:
    """A color profile that is not sRGB's."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    at = int.from_bytes(profile[(tag := profile.find(b"rXYZ")) + 4 : tag + 8], "big")
    profile[at + 8 : at + 12] = (40000).to_bytes(4, "big")
    return bytes(profile)


@dataclass(frozen=True)
class Costly:
    """A file, made when it is asked for, and what is selected of it."""

    make: Callable[[], bytes]
    page: images.Choice = None

    def decode(self, data: bytes, max_pixels: int = images.MAX_PIXELS, **options: Any) -> None:
        """`data` is what `make` gave, or something like it."""
        images.decode(data, max_pixels, images.Selection(page=self.page), **options)


def corpus(side: int = SIDE) -> dict[str, Costly]:
    """Every format with what makes it expand: depth, alpha, floats, profiles, turns, frames."""

    def blank(mode: str, kind: str = "PNG", **options: Any) -> Callable[[], bytes]:
        return lambda: file_of(Image.new(mode, (side, side)), kind, **options)

    def numbers(shape: tuple[int, ...], dtype: str, **options: Any) -> Callable[[], bytes]:
        return lambda: tiff(shape, dtype, **options)

    def codes(group: webp.Bits, cache_bits: int = 0) -> bytes:
        return webp.lossless(side // 4, group, groups, cache_bits)

    fine = min(side, 1600)  # whose transforms are just few enough
    groups = min(vp8l.MAX_GROUPS, (side // 16) ** 2)
    icc: dict[str, Any] = {"icc_profile": other_primaries()}
    frames: dict[str, Any] = {"save_all": True, "append_images": [Image.new("L", (side, side), 200)]}
    again = [Image.new("RGBA", (side, side), (9, 9, 9, 9))]
    opaque = [Image.new("RGB", (side, side), (9 * i, 9, 9)) for i in (1, 2)]
    files = {
        **{f"PNG {mode}": blank(mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")},
        "PNG grey 16": blank("I;16"),
        "PNG key": blank("RGB", transparency=(0, 0, 0)),
        "PNG profile": blank("RGB", **icc),
        "PNG thin": lambda: thin(side, 0),
        "PNG thin alpha": lambda: thin(side, 6),
        "JPEG": blank("RGB", "JPEG"),
        "JPEG turned": blank("RGB", "JPEG", exif=exif(6)),
        "JPEG profile": blank("RGB", "JPEG", **icc),
        "JPEG progressive": blank("RGB", "JPEG", progressive=True, subsampling=0),
        "JPEG scans": lambda: many_scans(blank("RGB", "JPEG", progressive=True, subsampling=0)()),
        "JPEG scans inks": lambda: many_scans(blank("CMYK", "JPEG", progressive=True)()),
        "JPEG one scan each": lambda: one_scan_each(side),
        "JPEG thin": lambda: file_of(Image.new("RGB", (1, min(side * side, 65500))), "JPEG", progressive=True),
        "JPEG cut": lambda: blank("RGB", "JPEG", progressive=True)()[:-2],
        "JPEG inks cut": lambda: blank("CMYK", "JPEG", progressive=True)()[:-2],
        "JPEG inks": blank("CMYK", "JPEG"),
        "WebP": blank("RGB", "WEBP", lossless=True),
        "WebP codes": lambda: codes(webp.ONE_SYMBOL * 5),
        "WebP long codes": lambda: codes(webp.large_codes(0)),
        "WebP longest codes": lambda: codes(webp.large_codes(), webp.LARGEST_CACHE),
        "WebP equal codes": lambda: codes(webp.equal_codes(11) + webp.ONE_SYMBOL * 4, webp.LARGEST_CACHE),
        "WebP unused codes": lambda: webp.lossless(side // 4, webp.large_codes(), 1, webp.LARGEST_CACHE, named=groups),
        "WebP codes of alpha": lambda: webp.alpha(side // 4, webp.large_codes(), groups, webp.LARGEST_CACHE),
        "WebP fine transforms": lambda: webp.lossless(fine, webp.ONE_SYMBOL * 5, 1, 0, webp.fine_transforms(fine)),
        "WebP lossy alpha": blank("RGBA", "WEBP"),
        "WebP profile": blank("RGB", "WEBP", **icc),
        "WebP alpha": blank("RGBA", "WEBP", lossless=True),
        "GIF": blank("P", "GIF", transparency=0),
        "BMP": blank("RGB", "BMP"),
        "TIFF 8": numbers((side, side, 3), "u1", photometric="rgb", compression="zlib"),
        "TIFF 16": numbers((side, side, 4), "u2", photometric="rgb", extrasamples=["unassalpha"]),
        "TIFF float": numbers((side, side, 3), "f4", photometric="rgb"),
        "TIFF double": numbers((side, side), "f8"),
        "TIFF planes": numbers((3, side, side), "u2", photometric="rgb", planarconfig="separate", compression="zlib"),
        "TIFF tiles": numbers((side, side, 3), "u1", photometric="rgb", tile=(512, 512), compression="zlib"),
        "TIFF wide integers": numbers((side, side), "i4"),
        "TIFF alpha": numbers((side, side, 4), "u1", photometric="rgb", extrasamples=["unassalpha"]),
        "TIFF inks": numbers((side, side, 4), "u1", photometric="separated"),
        "TIFF bits": blank("1", "TIFF", compression="group4"),
        "TIFF palette": blank("P", "TIFF", compression="tiff_lzw"),
        "TIFF JPEG": blank("RGB", "TIFF", compression="jpeg"),
        "TIFF LZW": blank("RGBA", "TIFF", compression="tiff_lzw"),
        "TIFF JPEG progressive": lambda: progressive_in_tiff(side),
        "TIFF one LZMA": numbers((side, side), "u1", compression="lzma", rowsperstrip=side),
        "TIFF one Zstandard": numbers((side, side, 3), "u1", photometric="rgb", compression="zstd", rowsperstrip=side),
        "TIFF profile": blank("RGB", "TIFF", compression="tiff_adobe_deflate", **icc),
        "TIFF thin": lambda: file_of(
            Image.new("RGBA", (1, min(side * side, limits.MAX_SIDE))), "TIFF", compression="tiff_lzw"
        ),
        "TIFF turned": blank("RGB", "TIFF", tiffinfo={274: 6}),
        "PNG turned": blank("RGB", exif=exif(6)),
        "WebP turned": blank("RGBA", "WEBP", lossless=True, exif=exif(6)),
        "PNG deep": lambda: png_of(np.ones((side, side, 4), np.uint16), 6, 16),
        "PNG deep grey and alpha": lambda: png_of(np.ones((side, side, 2), np.uint16), 4, 16),
        "PNG deep key": lambda: png_of(np.ones((side, side, 3), np.uint16), 2, 16, png_chunk(b"tRNS", bytes(6))),
        "TIFF 16 deflated": numbers(
            (side, side, 4), "u2", photometric="rgb", extrasamples=["unassalpha"], compression="zlib", predictor=2
        ),
        "TIFF float alpha": numbers(
            (side // 2, side, 4), "f4", photometric="rgb", extrasamples=["unassalpha"], compression="zlib"
        ),
        "TIFF 12": lambda: deflated(side, 2, 12, 16),
        "TIFF 64": lambda: deflated(side, 1, 64, side),
    }
    return {name: Costly(make) for name, make in files.items()} | {
        "GIF second page": Costly(blank("L", "GIF", **frames), 1),
        "PNG frames": Costly(blank("RGB", save_all=True, append_images=opaque, disposal=2), 1),
        "PNG frames projected": Costly(blank("RGB", save_all=True, append_images=opaque, disposal=2), "max"),
        "PNG alpha projected": Costly(blank("RGBA", save_all=True, append_images=again, disposal=2), "max"),
        "GIF kept projected": Costly(blank("RGBA", "GIF", save_all=True, append_images=again, disposal=3), "max"),
        "GIF projected": Costly(blank("L", "GIF", **frames), "max"),
        "WebP frames of codes": Costly(
            lambda: webp.animation(side // 16, webp.large_codes(), groups // 16, 11, 16), "max"
        ),
        "WebP second page": Costly(blank("RGB", "WEBP", lossless=True, **frames), 1),
        "WebP projected": Costly(blank("RGB", "WEBP", lossless=True, **frames), "max"),
        "WebP alpha projected": Costly(blank("RGBA", "WEBP", lossless=True, save_all=True, append_images=again), "max"),
        "TIFF projected": Costly(numbers((4, side, side), "f4", photometric="minisblack"), "max"),
    }


def measure(side: int = SIDE, part: str = "") -> dict[str, tuple[int, int]]:
    """(bytes that decoding took, bytes that it had claimed) of every file, or of those with `part` in their names.

    In a process that does nothing else.
    """
    found = {}
    for name, file in corpus(side).items():
        if part not in name:
            continue
        data = file.make()
        file.decode(data)  # imports and caches are no cost of the file
        claims: list[int] = []
        took = memory.taken(partial(file.decode, data, claim=claims.append))
        found[name] = (took, max(claims) + 4 * len(data))
    return found


@memory.needs_proc
def test_no_file_takes_more_than_it_has_claimed() -> None:
    found = memory.measured(__name__)
    assert len(found) == len(corpus())
    # a fifth, because what allocators and libraries keep differs between machines
    assert memory.exceeding(found, 1.2) == {}
    assert sum(took for took, _ in found.values()) > 100 * SIDE**2  # it is seen at all


def test_a_claim_that_cannot_be_met_is_no_fault_of_the_image() -> None:
    def refuse(size: int) -> None:
        raise MemoryError

    for name, file in corpus().items():
        with pytest.raises(MemoryError):
            file.decode(file.make(), claim=refuse)
        with pytest.raises(TooManyPixelsError):  # comes first
            file.decode(file.make(), 1000, claim=refuse)
        assert name
