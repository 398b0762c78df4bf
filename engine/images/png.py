"""PNG by Pillow, with no more of the file than what makes pixels.

Comments, however large, are left out before. Pillow keeps one byte of two of 16-bit colors, so such a file is decoded
twice: once for the high bytes, once for the low ones.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.images import orientation, pillow, profile
from engine.images.bands import row_bands
from engine.images.errors import DamagedImageError
from engine.images.limits import PARTS, Allowance, check_parts, check_sample_bytes, check_size
from engine.images.reading import Reading
from engine.images.samples import Raster, displayed
from engine.images.selection import WHOLE, Selection, indices

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB, GREY_ALPHA, RGBA = 0, 2, 4, 6  # color types
CHANNELS = {RGB: 3, GREY_ALPHA: 2, RGBA: 4}
MADE_OF = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf", b"acTL", b"fcTL", b"fdAT"})  # pixels
XMP = b"XML:com.adobe.xmp\0"  # the one comment that may say how an image is turned
MAX_COMMENT = 2**16  # bytes of it


@dataclass(frozen=True)
class Chunks:
    """A PNG file without what is passed over. `rest` is all that follows the header chunk."""

    width: int
    height: int
    bits: int
    color: int
    interlaced: bool
    rest: bytes
    transparent: bytes
    profile: bytes

    def file(self, bits: int = 0, color: int = 0) -> bytes:
        """The file, by default with bits and color type as they are."""
        kind = (bits, color) if bits else (self.bits, self.color)
        head = struct.pack(">IIBBBBB", self.width, self.height, *kind, 0, 0, self.interlaced)
        return SIGNATURE + _chunk(b"IHDR", head) + self.rest


def read_chunks(data: bytes) -> Chunks:
    """The file's chunks, counted; raises DamagedImageError."""
    kept, at, parts = [], len(SIGNATURE), 0
    header = transparent = icc = b""
    profiles = comments = 0  # only the first of each is inflated
    while at + 8 <= len(data):
        length, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        end = at + 12 + length
        parts += 1
        if parts > PARTS:
            check_parts("PNG", parts, at)
        if parts == 1:
            header = data[at + 4 : end] if name == b"IHDR" else b""
        elif name in MADE_OF:
            kept.append(data[at:end])
        elif name == b"iTXt" and data.startswith(XMP, at + 8):
            comments += 1
            if comments == 1 and _is_brief(data[at + 8 : min(end - 4, at + 8 + MAX_COMMENT)]):
                kept.append(data[at:end])
        if name == b"tRNS":
            transparent = data[at + 8 : end - 4]
        elif name == b"iCCP":
            profiles += 1
            icc = icc if profiles > 1 else _profile(data[at + 8 : min(end - 4, at + 8 + profile.MAX_BYTES)])
        elif name == b"IEND":
            break
        at = end
    if len(header) != 21 or struct.pack(">I", zlib.crc32(header[:17])) != header[17:]:
        raise DamagedImageError("the PNG image's header is damaged")
    width, height, bits, color, _, filters, interlaced = struct.unpack(">IIBBBBB", header[4:17])
    if filters or interlaced > 1:
        raise DamagedImageError("the PNG image's header is damaged")
    return Chunks(width, height, bits, color, bool(interlaced), b"".join(kept), transparent, icc)


def read(data: bytes, allowed: Allowance, selection: Selection) -> Reading:
    """8 bits as Pillow shows them; 16 bits as they are."""
    chunks = read_chunks(data)
    check_size("PNG", chunks.width, chunks.height, allowed)
    if chunks.bits != 16:
        return pillow.read_frames(chunks.file(), "PNG", allowed, selection, profile=chunks.profile)
    indices("page", selection.page, 1)
    raster, turn = _deep(chunks, allowed)
    return Reading(displayed(raster), WHOLE, turn)


def size(data: bytes, allowed: Allowance) -> tuple[int, int]:
    """(width, height)"""
    return pillow.displayed_size(read_chunks(data).file(), "PNG", allowed)


def _deep(chunks: Chunks, allowed: Allowance) -> tuple[Raster, int]:
    """The samples of an image of 16 bits, and its orientation. Those of colors, decoded twice, count twice."""
    count = CHANNELS.get(chunks.color, 1)
    check_sample_bytes("PNG", chunks.width * chunks.height * count * (4 if chunks.color in (RGB, RGBA) else 2), allowed)
    plain = chunks.color == GREY and not chunks.transparent
    allowed.claim(chunks.width * chunks.height * (13 if plain else 32))
    file = chunks.file()
    if chunks.color == GREY:
        grey, turn = _decoded(file, None, allowed)
        samples = grey.astype(np.uint16)[:, :, None]
    elif chunks.color == GREY_ALPHA:  # four bytes a pixel, so the same bytes are those of RGBA with 8 bits
        pairs, turn = _decoded(chunks.file(8, RGBA), None, allowed)
        samples = np.ascontiguousarray(pairs).view(">u2").astype(np.uint16)
    else:
        mode = "RGB" if chunks.color == RGB else "RGBA"
        high, turn = _decoded(file, f"{mode};16B", allowed)
        low, _ = _decoded(file, f"{mode};16L", allowed)
        samples = np.empty(high.shape, np.uint16)
        for rows in row_bands(samples):
            samples[rows] = high[rows].astype(np.uint16) << np.uint16(8) | low[rows]
    alpha = _keyed(samples, chunks.transparent)
    if chunks.color in (GREY_ALPHA, RGBA):
        samples, alpha = samples[:, :, :-1], samples[:, :, -1]
    return Raster(samples, 16, "rgb" if samples.shape[2] == 3 else "grey", alpha=alpha), turn


def _decoded(file: bytes, raw_mode: str | None, allowed: Allowance) -> tuple[NDArray[Any], int]:
    with pillow.opened(file, "PNG", allowed) as image:
        if raw_mode:
            file_image: Any = image
            file_image.tile = [tile._replace(args=raw_mode) for tile in file_image.tile]
        image.load()
        return np.asarray(image), orientation.of(image)


def _keyed(samples: NDArray[Any], transparent: bytes) -> NDArray[np.uint16] | None:
    """Alpha by the one color that is transparent."""
    count = samples.shape[2]
    if len(transparent) != 2 * count:
        return None
    key = np.frombuffer(transparent, ">u2").astype(np.uint16)
    alpha = np.empty(samples.shape[:2], np.uint16)
    for rows in row_bands(samples):
        alpha[rows] = np.where((samples[rows] == key).all(axis=2), np.uint16(0), np.uint16(65535))
    return alpha


def _is_brief(content: bytes) -> bool:
    """Whether an iTXt chunk of XMP has less than MAX_COMMENT bytes, inflated where it is deflated."""
    if len(content) == MAX_COMMENT:
        return False
    is_deflated, rest = content[len(XMP) : len(XMP) + 1] == b"\1", content[len(XMP) + 2 :]
    text = rest.split(b"\0", 2)[-1]  # after a language and a translated keyword
    return not is_deflated or len(_inflated(text, MAX_COMMENT)) < MAX_COMMENT


def _inflated(data: bytes, most: int) -> bytes:
    """So many bytes at most; none where they are damaged."""
    try:
        return zlib.decompressobj().decompress(data, most)
    except zlib.error:
        return b""


def _profile(content: bytes) -> bytes:
    """The profile in an iCCP chunk: a name, a zero, the method 0, and deflated bytes."""
    return _inflated(content.partition(b"\0")[2][1:], profile.MAX_BYTES)


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
