"""A log that nobody reads costs lines, and never an answer."""

from __future__ import annotations

import logging
import os
import select
from collections.abc import Iterator

import pytest

from service.logs import BoundedLog, JsonLines

LONG = "x" * (1 << 20)  # more than a pipe holds


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def record(message: str) -> logging.LogRecord:
    return logging.LogRecord("mbunet", logging.INFO, "", 0, message, None, None)


def read(descriptor: int, count: int) -> bytes:
    found = b""
    while len(found) < count:
        found += os.read(descriptor, count - len(found))
    return found


def test_what_is_not_read_is_dropped_and_counted_and_what_waits_comes_later(pipe: tuple[int, int]) -> None:
    reads, writes = pipe
    handler = BoundedLog(writes, most=3)
    handler.emit(record(LONG))
    assert read(reads, 1) == b"x"  # the writer has begun with it, and does not return
    for number in range(5):
        handler.emit(record(str(number)))
    assert handler.dropped == 2
    assert read(reads, len(LONG) + 6) == LONG[1:].encode() + b"\n0\n1\n2\n"
    handler.flush()
    assert handler.dropped == 2


def test_what_cannot_be_written_is_counted() -> None:
    reads, writes = os.pipe()
    os.close(reads)
    handler = BoundedLog(writes)
    handler.setFormatter(JsonLines())
    for _ in range(100):
        handler.emit(record("nobody reads this"))
    handler.flush()
    os.close(writes)
    assert handler.dropped == 100


def test_lines_go_together_and_whole() -> None:
    reads, writes = os.pipe2(os.O_DIRECT)  # what one write has written is what one read reads
    handler = BoundedLog(writes)
    lines = [f"{number} {'x' * number}" for number in range(200)]
    for line in lines:
        handler.emit(record(line))
    handler.flush()
    os.close(writes)
    pieces = list(iter(lambda: os.read(reads, select.PIPE_BUF), b""))
    os.close(reads)
    assert b"".join(pieces).decode().split("\n") == [*lines, ""]
    assert all(piece.endswith(b"\n") for piece in pieces)
    assert len(pieces) < len(lines) / 10
