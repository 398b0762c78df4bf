"""Bodies that come compressed, as Content-Encoding says: unpacked in bounds, each byte counted before it is there."""

from __future__ import annotations

import zlib

from starlette.requests import Request

from service.core.budget import Holding
from service.problems import BadEncoding, BodyTooLarge, UnsupportedType

WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}  # as zlib counts them: with the frame of gzip, or its own
PIECE = 1 << 18  # bytes that are unpacked at a time


def coding_of(request: Request) -> str:
    """The coding of the body, empty where it has none; raises UnsupportedType."""
    coding = request.headers.get("content-encoding", "").strip().lower()
    if coding not in ("", "identity", *WINDOW_BITS):
        raise UnsupportedType(
            f"Content-Encoding {coding[:100]!r} is not understood: send the body as it is, or as gzip or deflate, once",
            headers={"Accept-Encoding": "gzip, deflate, identity"},
        )
    return "" if coding == "identity" else coding


def unpacked(packed: bytes, coding: str, most: int, memory: Holding) -> list[bytes]:
    """What `packed` holds, in pieces.

    Raises BadEncoding, BodyTooLarge beyond `most` bytes, and MemoryFull or TooCostly.
    """
    pieces: list[bytes] = []
    total, rest = 0, packed
    decompressor = zlib.decompressobj(WINDOW_BITS[coding])
    while not decompressor.eof:
        memory.grow(2 * PIECE)  # once more when the pieces are joined
        try:
            piece = decompressor.decompress(rest, PIECE)
        except zlib.error as error:
            raise BadEncoding(f"the body is not {coding}: {error}") from None
        if not piece and not decompressor.eof:
            raise BadEncoding(f"the body, {coding}, ends before its end")
        rest = decompressor.unconsumed_tail
        total += len(piece)
        if total > most:
            raise BodyTooLarge(f"at most {most} bytes are taken, packed or not", limit=most)
        pieces.append(piece)
    if decompressor.unused_data:
        raise BadEncoding(f"the body, {coding}, goes on after its end")
    return pieces
