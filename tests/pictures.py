"""Image files of every kind: written by Pillow and tifffile, or bit by bit where neither writes them."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image


def file_of(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The bytes of `image` as a file of format `kind`."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def photo(width: int = 21, height: int = 13) -> Image.Image:
    """An RGB image whose left half is red on blue, so that turns and flips show."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2] = (255, 10, 20)
    pixels[: height // 3, width // 2 :] = (0, 0, 200)
    return Image.fromarray(pixels)


def exif(orientation: int) -> bytes:
    made = Image.Exif()
    made[0x0112] = orientation
    return made.tobytes()


def images() -> dict[str, tuple[bytes, tuple[int, int]]]:
    """Odd but sound images: the file and its displayed (width, height)."""
    size = photo().size
    grey16 = Image.fromarray(np.arange(13 * 21, dtype=np.uint16).reshape(13, 21) * 240)
    palette = photo().quantize(4)
    frames = {"save_all": True, "append_images": [photo().rotate(180)], "duration": 100}
    return {
        "RGB PNG": (file_of(photo()), size),
        "1x1": (file_of(photo(1, 1)), (1, 1)),
        "16-bit grey PNG": (file_of(grey16), size),
        "16-bit grey TIFF": (file_of(grey16, "TIFF"), size),
        "palette PNG": (file_of(palette), size),
        "palette PNG with transparency": (file_of(palette, transparency=0), size),
        "CMYK JPEG": (file_of(photo().convert("CMYK"), "JPEG"), size),
        "RGBA PNG": (file_of(photo().convert("RGBA")), size),
        "grey and alpha PNG": (file_of(photo().convert("LA")), size),
        "grey PNG": (file_of(photo().convert("L")), size),
        "1-bit PNG": (file_of(photo().convert("1")), size),
        "EXIF-rotated JPEG": (file_of(photo(), "JPEG", exif=exif(6)), size[::-1]),
        "animated GIF": (file_of(photo(), "GIF", **frames), size),
        "progressive JPEG": (file_of(photo(), "JPEG", progressive=True), size),
        "BMP": (file_of(photo(), "BMP"), size),
        "WebP": (file_of(photo(), "WEBP", lossless=True), size),
    }


def damaged() -> dict[str, bytes]:
    """Bodies that are no sound image."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    png, jpeg, gif = file_of(noise), file_of(noise, "JPEG"), file_of(noise, "GIF")
    return {
        "empty": b"",
        "text": b"this is not an image",
        "truncated PNG": png[: len(png) // 2],
        "truncated JPEG": jpeg[: len(jpeg) // 2],
        "truncated GIF": gif[: len(gif) // 2],
        "PNG header only": png[:33],
        "half a PNG signature": png[:5],
    }


def giant(side: int) -> bytes:
    """A PNG of a few bytes whose header promises side x side pixels."""
    file = bytearray(file_of(photo()))
    file[16:24] = struct.pack(">II", side, side)
    file[29:33] = struct.pack(">I", zlib.crc32(file[12:29]))
    return bytes(file)


def tiff_of(samples: NDArray[Any], **options: Any) -> bytes:
    """`samples` as a TIFF file by tifffile."""
    out = io.BytesIO()
    tifffile.imwrite(out, samples, **options)
    return out.getvalue()


def packed_tiff(samples: NDArray[np.integer[Any]], bits: int, tags: dict[int, int] | None = None) -> bytes:
    """A big-endian TIFF file of one strip, of grey samples [h, w] that are packed in `bits` bits each."""
    height, width = samples.shape
    weights = np.arange(bits - 1, -1, -1)
    rows = ((row[:, None].astype(np.uint64) >> weights.astype(np.uint64)) & np.uint64(1) for row in samples)
    data = b"".join(np.packbits(row.astype(np.uint8)).tobytes() for row in rows)
    return raw_tiff(data, {256: width, 257: height, 258: bits, 278: height} | (tags or {}))


def raw_tiff(data: bytes, tags: dict[int, int]) -> bytes:
    """A big-endian TIFF file of one strip, `data`, of grey samples."""
    given = {259: 1, 262: 1, 273: 8, 277: 1, 279: len(data)} | tags
    entries = b"".join(struct.pack(">HHII", tag, 4, 1, value) for tag, value in sorted(given.items()))
    return b"MM\0*" + struct.pack(">I", 8 + len(data)) + data + struct.pack(">H", len(given)) + entries + bytes(4)


def png_of(samples: NDArray[Any], color: int, bits: int, chunks: bytes = b"", width: int = 0) -> bytes:
    """A PNG file of the color type, from samples [h, w, channels] of 8 or 16 bits, or [h, bytes, 1] and a width."""
    height = len(samples)
    rows = samples.astype(">u2" if bits == 16 else np.uint8).reshape(height, -1)
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    head = struct.pack(">IIBBBBB", width or samples.shape[1], height, bits, color, 0, 0, 0)
    body = png_chunk(b"IHDR", head) + chunks + png_chunk(b"IDAT", zlib.compress(lines, 1)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def png_chunk(name: bytes, content: bytes) -> bytes:
    """One chunk of a PNG file."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """`pixels` turned as EXIF's orientation says, one by one as its specification draws them."""
    swapped = pixels.swapaxes(0, 1)
    return {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: swapped,
        6: np.rot90(pixels, -1),
        7: np.rot90(swapped, 2),
        8: np.rot90(pixels),
    }[orientation]


def ome(channels: int, planes: int, shape: tuple[int, int], order: str = "XYCZT", placed: str = "") -> str:
    """OME-XML of one 8-bit image."""
    height, width = shape
    return (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        f'<Pixels ID="Pixels:0" DimensionOrder="{order}" Type="uint8" SizeX="{width}" SizeY="{height}" '
        f'SizeC="{channels}" SizeZ="{planes}" SizeT="1">{placed or "<TiffData/>"}</Pixels></Image></OME>'
    )
