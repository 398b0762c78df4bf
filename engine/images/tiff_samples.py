"""The samples of one TIFF page: pieces (strips or tiles) decoded, prediction undone, bits unpacked, put together.

Compressions of bytes, fax and JPEG are decoded by libtiff, which Pillow brings: it gets the pieces as strips of an
image of its own, so it writes no more bytes than the page may have. Others are decoded by imagecodecs, if installed.
"""

from __future__ import annotations

import io
import itertools
import re
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from engine.images import animation, jpeg, vp8l
from engine.images.errors import DamagedImageError, UnsupportedImageError
from engine.images.limits import ROW_BYTES, Allowance, check_sample_bytes

if TYPE_CHECKING:
    from tifffile import TiffPage

NONE, JPEG, WEBP = 1, 7, 50001
JPEG_2000 = (33005, 34712)
JPEG_2000_SIZE = b"\xff\x4f\xff\x51"  # the markers that a codestream begins with
FAX = {2: "CCITT", 3: "CCITT group 3", 4: "CCITT group 4"}
BYTES = {5: "LZW", 8: "deflate", 32946: "deflate", 32773: "PackBits", 34925: "LZMA", 50000: "Zstandard"}
BY_IMAGECODECS = {  # what it is, and the function that decodes it
    **dict.fromkeys(JPEG_2000, ("JPEG 2000", "jpeg2k_decode")),
    22610: ("JPEG XR", "jpegxr_decode"),
    34934: ("JPEG XR", "jpegxr_decode"),
    WEBP: ("WebP", "webp_decode"),
    50002: ("JPEG XL", "jpegxl_decode"),
    52546: ("JPEG XL", "jpegxl_decode"),
}
HINT = "pip install -e '.[tiff]' on the machine that reads it, or save it with LZW, deflate or no compression"
CMYK, YCBCR = 5, 6
FORMATS = {1: "u", 2: "i", 3: "f", 4: "u"}  # SampleFormat; 4 is undefined
PICTURE_COLORS = {2: 3, CMYK: 4, YCBCR: 3}
EXTRA = 2  # a channel that is no color: alpha that leaves the colors as they are
NO_PREDICTOR, DIFFERENCES, FLOATING = 1, 2, 3
LONG, UNDEFINED = 4, 7  # types of tags
BAND = 2**22  # bits that are unpacked at a time
BAND_BYTES = 2**22  # that working on some samples at a time takes
BATCH_BYTES = 2**22  # of samples that libtiff decodes at a time
WHOLE_BITS = (8, 16, 32, 64)
ODD_COST = 2  # of other bits: how many times the bytes of their samples they count

Buffer = bytes | memoryview


def read(page: TiffPage, data: bytes, order: str, allowed: Allowance, plane: int = 0) -> NDArray[Any]:
    """Samples [h, w, channels] of a page in their own type; `plane` counts images stored behind each other."""
    kind = _check(page)
    height, width, channels = page.imagelength, page.imagewidth, page.samplesperpixel
    planar = page.planarconfig == 2 and channels > 1
    across, down = (page.tilewidth, page.tilelength) if page.is_tiled else (width, page.rowsperstrip)
    if across < 1 or down < 1:
        raise DamagedImageError("the TIFF image's strips or tiles have no pixels")
    columns, rows = -(-width // across), -(-height // down)
    per_piece = 1 if planar else channels
    row_bytes = (across * per_piece * page.bitspersample + 7) // 8
    tall = rows * columns * down if page.is_tiled else height
    size = tall * row_bytes * (channels if planar else 1)
    check_sample_bytes("TIFF", size if page.bitspersample in WHOLE_BITS else ODD_COST * size, allowed)
    together = min(
        size, max(BATCH_BYTES, min(down, tall) * row_bytes)
    )  # by libtiff, once in Pillow and twice in copies
    whole = max(9 * size // 4 + 9 * height * width, size + 3 * together + 2 * height * width)
    count = rows * columns
    pieces = _pieces(page, data, count * (channels if planar else 1), plane)
    if kind == "none":
        pieces = [piece[: down * row_bytes] for piece in pieces]
    shared = max(0, sum(map(len, pieces)) - len(data))  # several are the same bytes of the file: each is copied
    check_sample_bytes("TIFF", shared, allowed)
    most = whole + min(size, BAND_BYTES) + 2 * shared + ROW_BYTES * height
    allowed.claim(most)
    if int(page.compression) == WEBP:
        parts = (animation.webp_parts(bytes(piece)) for piece in pieces)
        streams = itertools.chain.from_iterable(some.streams(len(some.frames)) for some in parts)
        allowed.claim(most + vp8l.table_bytes(streams))
    groups = [pieces[i * count : (i + 1) * count] for i in range(channels if planar else 1)]
    stacked = [_stack(page, kind, some, (tall, across, per_piece), down, row_bytes, order) for some in groups]
    if page.is_tiled:
        stacked = [_from_tiles(some, (rows, columns), height, width) for some in stacked]
    return np.concatenate(stacked, axis=2) if planar else stacked[0]


def pixel_bytes(page: TiffPage) -> int:
    """Bytes of a pixel's samples, rounded up."""
    bits = page.bitspersample
    return (page.samplesperpixel * (bits if isinstance(bits, int) else max(bits)) + 7) // 8


def _check(page: TiffPage) -> str:
    """How the page is decoded; raises UnsupportedImageError."""
    bits, compression = page.bitspersample, int(page.compression)
    if not isinstance(bits, int) or not isinstance(page.sampleformat, int):
        raise UnsupportedImageError("the channels of this TIFF image differ in their types: send them one by one")
    if page.imagedepth != 1:
        raise UnsupportedImageError("this TIFF image has volumes in place of pages: send its planes as pages")
    if FORMATS.get(page.sampleformat) is None:
        raise UnsupportedImageError("the samples of this TIFF image are complex numbers: send their magnitude")
    if not 1 <= bits <= 64 or (page.sampleformat == 3 and bits not in (16, 32, 64)):
        raise UnsupportedImageError(f"samples of {bits} bits are not read: send 8, 16 or 32")
    if page.sampleformat == 2 and bits not in WHOLE_BITS:
        raise UnsupportedImageError(f"signed samples of {bits} bits are not read: send 8, 16 or 32")
    if page.photometric == YCBCR and compression != JPEG and compression not in BY_IMAGECODECS:
        raise UnsupportedImageError("this TIFF image has YCbCr colors without JPEG: send RGB")
    if compression == JPEG and bits == 8:
        return "jpeg"
    if compression in FAX and bits == 1 and page.samplesperpixel == 1:
        return "fax"
    if compression == NONE or compression in BYTES:
        known = (DIFFERENCES, FLOATING) if page.sampleformat == 3 else (DIFFERENCES,)
        if page.predictor != NO_PREDICTOR and (page.predictor not in known or bits not in WHOLE_BITS):
            raise UnsupportedImageError(f"predictor {page.predictor} with {bits} bits is not read: save it without one")
        return "none" if compression == NONE else "bytes"
    if compression not in BY_IMAGECODECS or bits not in (8, 16):
        raise UnsupportedImageError(
            f"TIFF compression {compression} of {bits} bits is not read: save it with LZW, deflate or none"
        )
    try:
        import imagecodecs  # noqa: F401
    except ImportError:
        name = BY_IMAGECODECS[compression][0]
        raise UnsupportedImageError(f"{name} in TIFF needs the package imagecodecs: {HINT}") from None
    return "imagecodecs"


def _pieces(page: TiffPage, data: bytes, count: int, plane: int) -> list[memoryview]:
    offsets, sizes = list(page.dataoffsets), page.databytecounts
    if plane:  # behind each other, without compression
        offsets = [offset + plane * sum(sizes) for offset in offsets]
    if len(offsets) < count or len(sizes) < count:
        found = min(len(offsets), len(sizes))
        raise DamagedImageError(f"the TIFF image has {found} strips or tiles in place of {count}")
    view = memoryview(data)
    return [view[offset : offset + size] for offset, size in zip(offsets[:count], sizes[:count], strict=True)]


def _stack(
    page: TiffPage,
    kind: str,
    pieces: Sequence[Buffer],
    shape: tuple[int, int, int],
    down: int,
    row_bytes: int,
    order: str,
) -> NDArray[Any]:
    """The pieces one below the other, [rows, across, channels]."""
    tall, across, channels = shape
    if kind == "imagecodecs":
        return _by_imagecodecs(page, pieces, shape, down)
    if kind in ("jpeg", "fax"):
        return _as_pictures(page, kind, pieces, shape, down)
    if kind == "none":
        raw = np.frombuffer(pieces[0] if len(pieces) == 1 else b"".join(pieces), np.uint8)
        if page.fillorder == 2:
            raw = np.packbits(np.unpackbits(raw).reshape(-1, 8)[:, ::-1])
        if raw.size < tall * row_bytes:
            raise DamagedImageError("the TIFF image is truncated: some of its samples lie beyond its end")
        raw = raw[: tall * row_bytes].reshape(tall, row_bytes)
    else:
        tags = {266: page.fillorder} if page.fillorder == 2 else {}
        raw = _by_libtiff(pieces, (tall, row_bytes, 1), 8, down, {259: int(page.compression), 262: 1, **tags})[:, :, 0]
    return _unpacked(page, raw, across, channels, order)


def _unpacked(page: TiffPage, raw: NDArray[np.uint8], across: int, channels: int, order: str) -> NDArray[Any]:
    """Rows of bytes [rows, row_bytes] as samples [rows, across, channels]."""
    bits, rows = page.bitspersample, len(raw)
    if bits not in WHOLE_BITS:
        return _odd_bits(raw, across, channels, bits)
    raw = np.ascontiguousarray(raw)
    if page.predictor == FLOATING:
        sums = np.cumsum(raw.reshape(rows, -1, channels), axis=1, dtype=np.uint8).reshape(rows, bits // 8, -1)
        raw, order = np.ascontiguousarray(sums.swapaxes(1, 2)).reshape(rows, -1), ">"
    samples = raw.view(f"{order}u{bits // 8}").astype(f"u{bits // 8}", copy=False).reshape(rows, across, channels)
    if page.predictor == DIFFERENCES:
        samples = np.cumsum(samples, axis=1, dtype=samples.dtype)
    return samples.view(f"{FORMATS[page.sampleformat]}{bits // 8}")


def _odd_bits(raw: NDArray[np.uint8], across: int, channels: int, bits: int) -> NDArray[Any]:
    """Unsigned samples of any number of bits, the most significant first, rows beginning at whole bytes."""
    to = np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.uint32 if bits <= 32 else np.uint64
    samples = np.zeros((len(raw), across * channels), to)
    step = max(1, BAND // (across * channels * bits))
    for rows in (slice(start, start + step) for start in range(0, len(raw), step)):
        each = np.unpackbits(raw[rows], axis=1, count=across * channels * bits).reshape(-1, across * channels, bits)
        for bit in range(bits):
            samples[rows] = samples[rows] << to(1) | each[:, :, bit]
    return samples.reshape(len(raw), across, channels)


def _from_tiles(stacked: NDArray[Any], grid: tuple[int, int], height: int, width: int) -> NDArray[Any]:
    """[rows, across, channels] of tiles below each other as the image that they lie in."""
    (rows, columns), (_, across, channels) = grid, stacked.shape
    tiles = stacked.reshape(rows, columns, -1, across, channels).swapaxes(1, 2)
    return tiles.reshape(-1, columns * across, channels)[:height, :width]


def _as_pictures(
    page: TiffPage, kind: str, pieces: Sequence[Buffer], shape: tuple[int, int, int], down: int
) -> NDArray[Any]:
    """Pieces that are pictures themselves: JPEG, and fax."""
    channels = shape[2]
    if kind == "jpeg" and any(bytes(piece).count(jpeg.START_OF_SCAN) > jpeg.SCANS for piece in pieces):
        raise DamagedImageError(f"a strip or tile of the TIFF image, JPEG, has more than {jpeg.SCANS} scans")
    extra = EXTRA if channels - PICTURE_COLORS.get(int(page.photometric), 1) == 1 else 0
    if channels not in (1, 3, 4) and not extra:
        raise UnsupportedImageError(f"JPEG in TIFF with {channels} channels is not read: save it with LZW or deflate")
    photometric = max(1, int(page.photometric)) if channels > 1 else 1
    tags: dict[int, Any] = {259: int(page.compression), 262: photometric, 277: channels}
    if kind == "fax":
        tags |= {code: page.tags.valueof(code, 0) for code in (292, 293)} | {266: page.fillorder}
        return _by_libtiff(pieces, shape, 1, down, tags)
    if extra:
        tags[338] = extra
    if page.jpegtables:
        tags[347] = page.jpegtables
    if photometric == YCBCR and page.subsampling:
        tags[530] = tuple(page.subsampling)
    return _by_libtiff(pieces, shape, 8, down, tags)


def _by_libtiff(
    pieces: Sequence[Buffer], shape: tuple[int, int, int], bits: int, down: int, tags: dict[int, Any]
) -> NDArray[np.uint8]:
    """The pieces as strips of `down` rows of an image of this shape [rows, across, channels].

    Some at a time: what Pillow allocates is cleared first, and that lets nothing else run.
    """
    _, across, channels = shape
    decoded = np.empty(shape, np.uint8)
    step = max(1, BATCH_BYTES // (down * across * channels))
    for first in range(0, len(pieces), step):
        rows = decoded[first * down : (first + step) * down]
        rows[...] = _strips(pieces[first : first + step], rows.shape, bits, down, tags)
    return decoded


def _strips(
    pieces: Sequence[Buffer], shape: tuple[int, ...], bits: int, down: int, tags: dict[int, Any]
) -> NDArray[np.uint8]:
    tall, across, channels = shape
    tags = {256: across, 257: tall, 258: (bits,) * channels, 278: down, 284: 1, **tags}
    file = _tiff(tags, pieces)
    try:
        with Image.open(io.BytesIO(file), formats=("TIFF",)) as image:
            decoded = np.asarray(image.convert("RGB") if image.mode == "YCbCr" else image)
    except MemoryError:
        raise
    except UnidentifiedImageError:
        raise DamagedImageError("the TIFF image is truncated or damaged") from None
    except Exception as error:  # foreign bytes make Pillow raise OSError, SyntaxError, ValueError, struct.error, ...
        raise DamagedImageError(f"the TIFF image is truncated or damaged: {error}") from error
    return decoded.astype(np.uint8, copy=False).reshape(shape)


def _tiff(tags: dict[int, Any], pieces: Sequence[Buffer]) -> bytes:
    """A little-endian TIFF file of one page: the strips, its directory, and the values that do not fit in there."""
    ends = list(itertools.accumulate(map(len, pieces), initial=8))
    at = ends[-1] + ends[-1] % 2
    tags = tags | {273: tuple(ends[:-1]), 279: tuple(map(len, pieces))}
    entries, values, values_at = [], [], at + 2 + 12 * len(tags) + 4
    for code, given in sorted(tags.items()):
        numbers = given if isinstance(given, (tuple, bytes)) else (given,)
        content = numbers if isinstance(numbers, bytes) else struct.pack(f"<{len(numbers)}I", *numbers)
        kind = UNDEFINED if isinstance(numbers, bytes) else LONG
        if len(content) > 4:
            values.append(content)
            content, values_at = struct.pack("<I", values_at), values_at + len(content)
        entries.append(struct.pack("<HHI4s", code, kind, len(numbers), content))
    directory = struct.pack("<H", len(tags)) + b"".join(entries) + bytes(4)
    return b"".join([b"II*\0", struct.pack("<I", at), *pieces, bytes(at - ends[-1]), directory, *values])


def _by_imagecodecs(page: TiffPage, pieces: Sequence[Buffer], shape: tuple[int, int, int], down: int) -> NDArray[Any]:
    """Every piece decoded into its own place, so none can grow beyond it."""
    import imagecodecs

    decode = getattr(imagecodecs, BY_IMAGECODECS[int(page.compression)][1])
    stacked = np.zeros(shape, f"{FORMATS[page.sampleformat]}{page.bitspersample // 8}")
    for i, piece in enumerate(pieces):
        out = stacked[i * down : (i + 1) * down]
        if int(page.compression) in JPEG_2000:
            _check_jpeg_2000(bytes(piece), out.shape)
        try:
            decode(piece, out=out if shape[2] > 1 else out[:, :, 0])
        except MemoryError:
            raise
        except Exception as error:  # each codec raises its own
            raise DamagedImageError(f"the TIFF image is truncated or damaged: {error}") from error
    return stacked


def _check_jpeg_2000(piece: bytes, shape: tuple[int, ...]) -> None:
    """Raise DamagedImageError for a picture larger than its place: OpenJPEG makes all of it before that is noticed."""
    for found in re.finditer(JPEG_2000_SIZE, piece, re.DOTALL):
        head = piece[found.end() + 4 : found.end() + 38].ljust(34, b"\0")
        right, bottom, left, top, *_, channels = struct.unpack(">8IH", head)
        if bottom - top > shape[0] or right - left > shape[1] or channels > shape[2]:
            raise DamagedImageError("a strip or tile of the TIFF image, JPEG 2000, is larger than its place")
