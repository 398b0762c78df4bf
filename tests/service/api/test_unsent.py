"""A client that takes nothing of what is sent to it: told by a clock that stands still until it is told to go on."""

from __future__ import annotations

import asyncio
import heapq
import io
import itertools
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast

import httpx
import numpy as np
import pytest
from PIL import Image
from websockets.frames import Frame, Opcode

from service.api.unsent import UnsentWatch
from service.app import create_app
from service.settings import Settings
from tests.pictures import file_of
from tests.service.fakes import PATIENCE, FakeEngine, serving


@dataclass
class Connection:
    """Stands for the transport."""

    unsent: int = 0
    taken: int = 0
    closing: bool = False
    aborted: bool = False

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def is_closing(self) -> bool:
        return self.closing

    def abort(self) -> None:
        self.aborted = True


@dataclass
class Timers:
    """Stands for the event loop."""

    now: float = 0
    waiting: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    def call_later(self, delay: float, call: Callable[[], None]) -> None:
        heapq.heappush(self.waiting, (self.now + delay, next(self.numbers), call))

    def run_until(self, moment: float) -> None:
        while self.waiting and self.waiting[0][0] <= moment:
            self.now, _, call = heapq.heappop(self.waiting)
            call()
        self.now = moment


@pytest.fixture
def timers() -> Timers:
    return Timers()


@pytest.fixture
def watched(timers: Timers) -> Connection:
    connection = Connection()
    transport = cast(asyncio.Transport, connection)
    UnsentWatch(transport, 30, timers.call_later, lambda _: connection.taken, lambda _: connection.abort())
    return connection


def test_what_does_not_move_for_so_long_is_given_up(timers: Timers, watched: Connection) -> None:
    watched.unsent = 1
    timers.run_until(29)
    watched.unsent += 1_000  # more that is not taken changes nothing
    before = watched.aborted
    timers.run_until(45)
    assert (before, watched.aborted) == (False, True)
    assert not timers.waiting


def test_who_takes_a_little_now_and_then_is_served(timers: Timers, watched: Connection) -> None:
    watched.unsent = 10**9
    for now in range(0, 1000, 20):
        watched.taken += 1
        watched.unsent += 1  # faster than it is taken
        timers.run_until(now)
    assert not watched.aborted


def test_who_has_nothing_to_take_may_be_idle_for_ever(timers: Timers, watched: Connection) -> None:
    timers.run_until(1000)
    assert not watched.aborted
    assert timers.waiting


def test_a_closed_connection_is_watched_until_its_last_byte(timers: Timers, watched: Connection) -> None:
    watched.closing, watched.unsent = True, 1
    timers.run_until(20)
    assert timers.waiting
    watched.unsent = 0
    timers.run_until(40)
    assert not timers.waiting
    assert not watched.aborted


# -- for real --------------------------------------------------------------------------------------------------------

LARGE = file_of(Image.new("RGB", (1500, 1500)))  # as probabilities: more than all buffers on the way hold
STALL = Settings(stall_ms=200)


@contextmanager
def lazy(client: httpx.Client) -> Iterator[socket.socket]:
    """A connection to the server whose own system takes very little."""
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.connect(("127.0.0.1", client.base_url.port or 0))
        yield raw


def ends(connection: socket.socket) -> bool:
    """Waits for the other side's reset, and reads nothing."""
    poll = select.poll()
    poll.register(connection, 0)
    return bool(poll.poll(1000 * PATIENCE))


def test_a_request_whose_answer_nobody_reads_is_given_up() -> None:
    with serving(create_app(FakeEngine(), STALL)) as client, lazy(client) as raw:
        head = "POST /segment?format=probability HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
        raw.sendall(f"{head}Content-Length: {len(LARGE)}\r\n\r\n".encode() + LARGE)
        assert ends(raw)


def test_a_websocket_whose_answers_nobody_reads_is_given_up() -> None:
    app = create_app(FakeEngine(), STALL)
    streams = app.state.service.streams
    with serving(app) as client, lazy(client) as raw:
        head = "GET /stream?format=probability HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
        head += "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
        raw.sendall(head.encode())
        assert raw.recv(1 << 16).startswith(b"HTTP/1.1 101 ")
        assert streams.total == 1
        raw.sendall(Frame(Opcode.BINARY, LARGE).serialize(mask=True))
        assert ends(raw)
        while streams.total:
            pass


def test_a_slow_reader_gets_all_of_it() -> None:
    query = "/segment?format=probability"
    with serving(create_app(FakeEngine(), STALL)) as client, client.stream("POST", query, content=LARGE) as answer:
        body = b"".join(answer.iter_raw(1 << 16))
    assert np.load(io.BytesIO(body)).shape == (1500, 1500)
