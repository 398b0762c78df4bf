"""The log: one JSON object a line on stderr, one line a request. What becomes of stderr costs lines, never an answer.

A thread of its own writes them: where stderr is a pipe that nobody reads, or a paused terminal, a write never returns.
It writes what comes within a moment together: to wake it for every line would cost more than all else that a line does.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import re
import select
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timezone
from typing import Any

log = logging.getLogger("mbunet")

LINES = 10_000  # that wait to be written; one more is dropped
TOGETHER_S = 0.05  # after a line, in which others may come
FLUSH_S = 1.0  # for what still waits when the process ends
STDERR = 2
# uvicorn's word for a websocket that was answered by a problem document; the access log has its line of it
REFUSED_WEBSOCKET = re.compile("ASGI callable returned without (sending|completing) handshake")

_encode = json.JSONEncoder(default=str).encode


class JsonLines(logging.Formatter):
    """time, level, message; what `extra={"fields": {...}}` gives; and the traceback of an exception."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        time = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {"time": time, "level": record.levelname.lower(), "message": record.getMessage()}
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _encode(line)


class BoundedLog(logging.Handler):
    """Writes lines in the background. Those that find no room, and those that cannot be written, are `dropped`; `note`
    is told how many.
    """

    def __init__(
        self, descriptor: int = STDERR, most: int = LINES, note: Callable[[int], None] = lambda dropped: None
    ) -> None:
        super().__init__()
        self.dropped = 0
        self._note = note
        self._descriptor = descriptor
        self._most = most
        self._lines: queue.SimpleQueue[bytes | threading.Event] = queue.SimpleQueue()  # an event: all before is written
        threading.Thread(target=self._write_all, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        if self._lines.qsize() < self._most:
            self._lines.put(f"{self.format(record)}\n".encode())
        else:
            self._drop()

    def flush(self) -> None:
        """Until all is written, but no longer than FLUSH_S."""
        written = threading.Event()
        self._lines.put(written)
        written.wait(FLUSH_S)

    def _write_all(self) -> None:
        while True:
            taken = [self._lines.get()]
            time.sleep(TOGETHER_S)
            taken += (self._lines.get() for _ in range(self._lines.qsize()))
            for piece in _pieces(line for line in taken if isinstance(line, bytes)):
                self._write(piece)
            for written in taken:
                if isinstance(written, threading.Event):
                    written.set()

    def _write(self, lines: bytes) -> None:
        try:
            while lines:  # not by sys.stderr, whose lock the end of the process would wait for
                lines = lines[os.write(self._descriptor, lines) :]
        except OSError:  # a full disk, a closed pipe
            self._drop(lines.count(b"\n"))

    def _drop(self, lines: int = 1) -> None:
        self.dropped += lines
        self._note(self.dropped)


def _pieces(lines: Iterable[bytes]) -> Iterator[bytes]:
    """All `lines`, as many in one as a pipe takes without those of other processes in between."""
    piece = b""
    for line in lines:
        if len(piece) + len(line) > select.PIPE_BUF:
            yield piece
            piece = b""
        piece += line
    yield piece


def json_lines(descriptor: int = STDERR, note: Callable[[int], None] = lambda dropped: None) -> BoundedLog:
    """What writes the log as JSON lines; `note` as of BoundedLog."""
    handler = BoundedLog(descriptor, note=note)
    handler.addFilter(lambda record: not REFUSED_WEBSOCKET.match(record.getMessage()))
    handler.setFormatter(JsonLines())
    return handler


def configure(note: Callable[[int], None] = lambda dropped: None) -> None:
    """Send this program's log, and uvicorn's warnings, to stderr as JSON lines; `note` as of BoundedLog."""
    logging.basicConfig(level=logging.WARNING, handlers=[json_lines(note=note)], force=True)
    # what no line tells need not be looked up (Python's logging how-to, "Optimization")
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    log.setLevel(logging.INFO)


def dropped() -> int:
    """Lines that were not written, so far."""
    return sum(handler.dropped for handler in logging.getLogger().handlers if isinstance(handler, BoundedLog))
