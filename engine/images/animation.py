"""GIF and WebP, files of frames: their parts counted, and what makes no pixels left out."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from engine.images import pillow, vp8l
from engine.images.errors import DamagedImageError
from engine.images.limits import PARTS, Allowance, check_parts, check_size
from engine.images.reading import Reading
from engine.images.selection import Selection, indices

GIF_IMAGE, GIF_EXTENSION, GIF_END = 0x2C, 0x21, b"\x3b"
GRAPHIC_CONTROL = b"\xf9"
WEBP_PARTS = 2**14
ANMF_HEADER = 16
COMPRESSED_ALPHA = 1


@dataclass(frozen=True)
class Blocks:
    """Where in a GIF file lies what makes pixels: the header, then what every frame adds."""

    header: bytes
    frames: list[bytes]
    sizes: list[tuple[int, int]]  # how far to the right and down each of them reaches
    is_whole: bool

    def file(self, last: int) -> bytes:
        """The file up to the frame `last`. Of a truncated one Pillow finds out whether it matters."""
        end = GIF_END if self.is_whole or last < len(self.frames) - 1 else b""
        return self.header + b"".join(self.frames[: last + 1]) + end

    def check_size(self, last: int, allowed: Allowance) -> None:
        """Raise where frames up to `last` are too large: Pillow makes room for each when it comes to it."""
        for number, (width, height) in enumerate(self.sizes[: last + 1]):
            check_size("GIF", width, height, allowed)
            if number and (width > self.sizes[0][0] or height > self.sizes[0][1]):
                raise DamagedImageError(f"frame {number} of the GIF image reaches beyond the image")


def read_gif(data: bytes, allowed: Allowance, selection: Selection) -> Reading:
    """Without comments, for which Pillow takes quadratic time."""
    blocks = gif_blocks(data)
    last = indices("page", selection.page, max(1, len(blocks.frames)))[-1]
    blocks.check_size(last, allowed)
    return pillow.read_frames(blocks.file(last), "GIF", allowed, selection, max(1, len(blocks.frames)))


def gif_size(data: bytes, allowed: Allowance) -> tuple[int, int]:
    """(width, height)"""
    blocks = gif_blocks(data)
    blocks.check_size(0, allowed)
    return pillow.displayed_size(blocks.file(0), "GIF", allowed)


def gif_blocks(data: bytes) -> Blocks:
    """The blocks of a GIF file, counted."""
    at = 13 + _table(data[10:11])
    header, frames, control, parts = data[:at], [], b"", 0
    sizes: list[tuple[int, int]] = []
    canvas = struct.unpack("<2H", data[6:10].ljust(4, b"\0"))
    while at < len(data) and data[at] in (GIF_IMAGE, GIF_EXTENSION):
        start, is_image = at, data[at] == GIF_IMAGE
        at += 11 + _table(data[at + 9 : at + 10]) if is_image else 2
        while at < len(data) and data[at]:  # blocks of up to 255 bytes
            at += data[at] + 1
            parts += 1
            if parts > PARTS:
                check_parts("GIF", parts, at)
        at += 1
        parts += 1
        if is_image:
            left, top, width, height = struct.unpack("<4H", data[start + 1 : start + 9].ljust(8, b"\0"))
            reach = (left + width, top + height)
            sizes.append((max(canvas[0], reach[0]), max(canvas[1], reach[1])) if not sizes else reach)
            frames.append(control + data[start:at])
            control = b""
        elif data[start + 1 : start + 2] == GRAPHIC_CONTROL:
            control = data[start:at]
    check_parts("GIF", parts, len(data))
    return Blocks(header, frames, sizes, at <= len(data))


def _table(flags: bytes) -> int:
    """Bytes of the color table that these flags announce."""
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0


@dataclass(frozen=True)
class Parts:
    """What is counted of a WebP file: its color profile and, of every frame, what is decoded without loss."""

    profile: bytes
    frames: list[list[vp8l.Stream]]

    def streams(self, last: int) -> Iterator[vp8l.Stream]:
        """Of all frames up to `last`."""
        return itertools.chain.from_iterable(self.frames[: last + 1])

    def table_bytes(self, last: int) -> int:
        """That libwebp takes besides pixels, while the frames up to `last` are decoded."""
        return vp8l.table_bytes(self.streams(last))


def read_webp(data: bytes, allowed: Allowance, selection: Selection) -> Reading:
    """By libwebp, in Pillow."""
    parts = webp_parts(data)
    return pillow.read_frames(data, "WEBP", allowed, selection, profile=parts.profile, more=parts.table_bytes)


def webp_size(data: bytes, allowed: Allowance) -> tuple[int, int]:
    """(width, height)"""
    webp_parts(data)
    return pillow.displayed_size(data, "WEBP", allowed)


def webp_parts(data: bytes) -> Parts:
    """The parts of a WebP file, counted; what is in a frame follows it, as for libwebp."""
    at, parts, profile = 12, 0, b""
    frames: list[list[vp8l.Stream]] = []
    alphas: list[int] = []
    while at + 8 <= len(data):
        name, size, start = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little"), at + 8
        parts += 1
        if parts > WEBP_PARTS:
            raise DamagedImageError(f"the WebP image has more than {WEBP_PARTS} parts")
        if name == b"ICCP":
            profile = data[start : start + size]
        elif name == b"ALPH" and data[start : start + 1] and data[start] & 3 == COMPRESSED_ALPHA:
            alphas.append(start + 1)
        elif name == b"VP8L":
            frames.append([vp8l.stream_at(data, start)])
        elif name == b"VP8 ":
            width, height = (
                side & 0x3FFF for side in struct.unpack("<2H", data[start + 6 : start + 10].ljust(4, b"\0"))
            )
            frames.append([vp8l.Stream(data, alpha, width, height) for alpha in alphas])
            alphas = []
        at = start + (ANMF_HEADER if name == b"ANMF" else size + size % 2)
    return Parts(profile, frames)
