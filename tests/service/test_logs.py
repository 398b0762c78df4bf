"""A log that nobody reads costs lines, and never an answer."""

from __future__ import annotations

import logging
import os
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
    handler.emit(record("nobody reads this"))
    handler.flush()
    os.close(writes)
    assert handler.dropped == 1
