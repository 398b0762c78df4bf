"""JPEG by libjpeg-turbo, straight from the bytes; only its CMYK kinds by way of Pillow."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from engine.images import orientation
from engine.images.errors import DamagedImageError, UnsupportedImageError
from engine.images.limits import Allowance, check_size
from engine.images.reading import Reading
from engine.images.selection import WHOLE, Selection, indices

START = b"\xff\xd8\xff"  # of the image, and of its first segment
END = b"\xff\xd9"
START_OF_SCAN = b"\xff\xda"
SEGMENTS = 4096  # before the first scan; ordinary files have ten, large color profiles and depth maps some hundred
SCANS = 30  # ordinary files have ten at most, and each of a few bytes is a walk over the whole image
FORMATS = ("JPEG", "MPO")  # MPO is several JPEG images in one file, of which the first counts
LOSSLESS = {0xC3, 0xC7, 0xCB, 0xCF}  # and hierarchical: start-of-frame markers
LONE = {0x00, 0x01, *range(0xD0, 0xD9)}  # markers without a segment
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
EXIF, XMP, ICC = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0"
METADATA = {0xE1, 0xE2, 0xED}  # segments that Pillow would look into
UNIT = 32  # pixels across and down that the blocks of all components are multiples of, at most


@dataclass(frozen=True)
class Header:
    """What the segments before the first scan say.

    `kept` means that all coefficients are kept until the last scan, because a scan has a part of them: of their bits
    (progressive), or of the components. `metadata` are where segments lie that say nothing of the pixels.
    """

    width: int
    height: int
    orientation: int
    profile: bytes
    kept: bool
    metadata: list[tuple[int, int]]

    @property
    def pixels(self) -> int:
        """How many there are, those with them that blocks of components fill up to."""
        return -(-self.width // UNIT) * -(-self.height // UNIT) * UNIT**2


def read(data: bytes, allowed: Allowance, selection: Selection) -> Reading:
    """JPEG has one page."""
    indices("page", selection.page, 1)
    header = read_header(data)
    check_size("JPEG", header.width, header.height, allowed)
    if data.count(START_OF_SCAN) > SCANS:
        raise DamagedImageError(f"the JPEG image has more than {SCANS} scans")
    turned_or_converted = 4 * (header.orientation != orientation.UPRIGHT) + 14 * bool(header.profile)
    allowed.claim(header.pixels * ((10 if header.kept else 4) + turned_or_converted))
    return Reading(_decoded(data, header, allowed), WHOLE, header.orientation, header.profile)


def size(data: bytes, allowed: Allowance) -> tuple[int, int]:
    """(width, height)"""
    header = read_header(data)
    check_size("JPEG", header.width, header.height, allowed)
    turned = orientation.swaps_sides(header.orientation)
    return (header.height, header.width) if turned else (header.width, header.height)


def read_header(data: bytes) -> Header:
    """Size and metadata; raises DamagedImageError and UnsupportedImageError."""
    at, size, components, kept = 2, None, b"", False
    exif, xmp, profile, metadata = list[bytes](), b"", list[bytes](), list[tuple[int, int]]()
    for _ in range(SEGMENTS):
        at = data.find(b"\xff", at)  # bytes before a marker are passed over, as libjpeg does
        while data[at : at + 2] == b"\xff\xff":  # padding
            at += 1
        marker, length = data[at : at + 2], int.from_bytes(data[at + 2 : at + 4], "big")
        if at < 0 or len(marker) < 2:
            raise DamagedImageError("the JPEG image ends before its pixels")
        if marker in (START_OF_SCAN, END):
            kept |= data[at + 4 : at + 5] < components
            break
        if marker[1] in LONE:
            at += 2
            continue
        if marker[1] in FRAMES and size is None:
            size, kept = _frame(marker[1], data[at + 4 : at + 10]), marker[1] & 3 == 2
            components = data[at + 9 : at + 10]
        end = at + 2 + length
        if marker[1] == 0xE1 and data.startswith(EXIF, at + 4):
            exif.append(data[at + 4 + len(EXIF) : end])
        elif marker[1] == 0xE1 and data.startswith(XMP, at + 4):
            xmp = data[at + 4 + len(XMP) : end]
        elif marker[1] == 0xE2 and data.startswith(ICC, at + 4):
            profile.append(data[at + 4 + len(ICC) + 2 : end])
        if marker[1] in METADATA:
            metadata.append((at, end))
        at = end
    else:
        raise DamagedImageError(f"the JPEG image has more than {SEGMENTS} segments before its pixels")
    if size is None:
        raise DamagedImageError("the JPEG image's header is damaged: it has no frame")
    turn = orientation.of_metadata(b"".join(exif), xmp)
    return Header(size[0], size[1], turn, b"".join(profile), kept, metadata)


def _frame(marker: int, frame: bytes) -> tuple[int, int]:
    """(width, height) of a start of frame."""
    if marker in LOSSLESS or 0xC5 <= marker <= 0xC7 or marker > 0xCC:
        raise UnsupportedImageError("this is a lossless or hierarchical JPEG image, which is not read: send PNG")
    if frame[:1] and frame[0] != 8:
        raise UnsupportedImageError(f"JPEG images of {frame[0]} bits a sample are not read: send PNG or TIFF")
    if len(frame) < 6:
        raise DamagedImageError("the JPEG image's header is damaged: it ends early")
    return int.from_bytes(frame[3:5], "big"), int.from_bytes(frame[1:3], "big")


def _decoded(data: bytes, header: Header, allowed: Allowance) -> NDArray[np.uint8]:
    pixels = _straight(data, allowed)
    if pixels is None:
        allowed.claim(15 * header.pixels)
    if pixels is None and data.rfind(END) < data.rfind(START_OF_SCAN):
        pixels = _straight(data + END, allowed)
        if pixels is None and not _is_whole(data + END):
            raise DamagedImageError("the JPEG image ends in the middle of its pixels, before its end marker")
        data += END
    return _by_pillow(data, header) if pixels is None else pixels


def _straight(data: bytes, allowed: Allowance) -> NDArray[np.uint8] | None:
    """Pixels by libjpeg-turbo, the same as Pillow's in half the time; None for other colors, and for any damage."""
    try:
        height, width, colors = simplejpeg.decode_jpeg_header(data)[:3]
        if colors not in ("YCbCr", "RGB", "Gray"):
            return None
        pixels = allowed.empty((height, width, 3))
        simplejpeg.decode_jpeg(data, "RGB", buffer=pixels)
    except ValueError:
        return None
    return pixels


def _is_whole(data: bytes) -> bool:
    """Whether an image of inks decodes without a complaint."""
    try:
        simplejpeg.decode_jpeg(data, "CMYK")
    except ValueError:
        return False
    return True


def _by_pillow(data: bytes, header: Header) -> NDArray[np.uint8]:
    """CMYK, and files that libjpeg-turbo decodes with complaints that do not matter."""
    ends = [0, *(end for _, end in header.metadata)]
    starts = [*(start for start, _ in header.metadata), len(data)]
    bare = b"".join(data[end:start] for end, start in zip(ends, starts, strict=True))
    try:
        with Image.open(io.BytesIO(bare), formats=FORMATS) as image:
            return np.asarray(image.convert("RGB"))
    except MemoryError:
        raise
    except UnidentifiedImageError:
        raise DamagedImageError("the JPEG image is truncated or damaged: its header cannot be read") from None
    except Exception as error:  # as in `orientation.of`
        raise DamagedImageError(f"the JPEG image is truncated or damaged: {error}") from error
