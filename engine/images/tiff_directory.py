"""A TIFF file's directories, counted before anything else reads them: pages, entries, and the values of each."""

from __future__ import annotations

import struct

from engine.images.errors import DamagedImageError
from engine.images.limits import DIRECTORY_ENTRIES, PARTS

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two are BigTIFF
BYTES_OF = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Of a value, by its type."""
TEXT_TYPES = (1, 2, 7)  # bytes, of which there may be many
SHARED = 2  # times the file's bytes that all values may take: some writers let pages share them
COLOR_MAP = 320
MAX_COLOR_MAP = 3 * 2**16
OF_PIECES = (273, 279, 324, 325)  # where strips and tiles lie, and their lengths
TAGS = 4096  # of a page


def count_pages(data: bytes) -> int:
    """The pages of the file; raises DamagedImageError for damaged, endless and needlessly long directories."""
    try:
        return _count(data)
    except (struct.error, OverflowError):  # the latter of offsets that no file reaches
        raise DamagedImageError("the TIFF image is truncated: a directory of its lies beyond its end") from None


def _count(data: bytes) -> int:
    order = "<" if data[:1] == b"I" else ">"
    is_big = data[2:4] in (b"+\0", b"\0+")
    number, entry, offset = ("Q", "HHQQ", "Q") if is_big else ("H", "HHII", "I")
    entry_bytes, number_bytes = struct.calcsize(f"={entry}"), struct.calcsize(f"={number}")
    (at,) = struct.unpack_from(order + offset, data, 8 if is_big else 4)
    seen, entries, size = set[int](), 0, 0
    while at:
        if at in seen or at < 8:
            break  # a ring: its pages are those before
        seen.add(at)
        (count,) = struct.unpack_from(order + number, data, at)
        entries += count + 1
        if count > TAGS or entries > DIRECTORY_ENTRIES or len(seen) > PARTS:
            raise DamagedImageError("the TIFF image has more pages or tags than are looked through")
        at += number_bytes
        tags = data[at : at + count * entry_bytes]
        if len(tags) < count * entry_bytes:
            raise DamagedImageError("the TIFF image is truncated: a directory of its lies beyond its end")
        for code, kind, values, _ in struct.iter_unpack(f"{order}{entry}", tags):
            _check_values(code, kind, values)
            size += BYTES_OF.get(kind, 0) * values
        if size > SHARED * len(data):
            raise DamagedImageError("the tags of the TIFF image name more bytes than the file has")
        (at,) = struct.unpack_from(order + offset, data, at + count * entry_bytes)
    if not seen:
        raise DamagedImageError("the TIFF image has no page")
    return len(seen)


def _check_values(code: int, kind: int, values: int) -> None:
    if kind in TEXT_TYPES or values <= PARTS or (code == COLOR_MAP and values <= MAX_COLOR_MAP):
        return
    if code in OF_PIECES:
        raise DamagedImageError(f"the TIFF image is cut into more than {PARTS} parts")
    raise DamagedImageError(f"tag {code} of the TIFF image has {values} values")
