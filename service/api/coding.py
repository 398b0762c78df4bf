"""Bodies that come compressed, as Content-Encoding says: unpacked in bounds, each byte counted before it is there."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator

from starlette.requests import Request

from service.core.budget import Holding
from service.problems import BadEncoding, BodyTooLarge, UnsupportedType

WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}  # as zlib counts them: with the frame of gzip, or its own
PIECE = 1 << 18  # bytes that are unpacked at a time
READ = 1 << 14  # packed bytes that are given at a time: what of them belongs to the next member is given again
MAX_MEMBERS = 1 << 14  # of a body, each of which takes time; bgzip writes one for 64 KiB


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
    total = 0
    memory.grow(2 * PIECE)  # once more when the pieces are joined
    for piece in _pieces(packed, coding):
        total += len(piece)
        if total > most:
            raise BodyTooLarge(f"at most {most} bytes are taken, packed or not", limit=most)
        memory.grow(2 * len(piece))
        pieces.append(piece)
    return pieces


def _pieces(packed: bytes, coding: str) -> Iterator[bytes]:
    """Up to PIECE bytes at a time, of one member after the other: gzip may have several (RFC 1952, 2.2)."""
    source = io.BytesIO(packed)
    most = 1 if coding == "deflate" else MAX_MEMBERS
    for _ in range(most):
        decompressor = zlib.decompressobj(WINDOW_BITS[coding])
        while not decompressor.eof:
            given = decompressor.unconsumed_tail or source.read(READ)
            try:
                piece = decompressor.decompress(given, PIECE)
            except zlib.error as error:
                raise BadEncoding(f"the body is not {coding}: {error}") from None
            if not (given or piece or decompressor.eof):
                raise BadEncoding(f"the body, {coding}, ends before its end")
            if piece:
                yield piece
        source.seek(-len(decompressor.unused_data), io.SEEK_CUR)
        if source.tell() == len(packed):
            return
    raise BadEncoding(f"the body, {coding}, goes on after its end{f', {most} members' * (most > 1)}")
