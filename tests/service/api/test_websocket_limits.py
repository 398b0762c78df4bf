"""Messages that are not there yet: counted in the budget, and given up where they take too long."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx
import pytest
from fastapi import FastAPI
from websockets.frames import Close, CloseCode, Frame, Opcode

from service.api.websocket_limits import COPIES, MAX_FRAGMENTS, BoundedWebSocket
from service.app import create_app
from service.server import options
from service.settings import Settings
from tests.service import fakes
from tests.service.api.test_stream import head, streaming
from tests.service.fakes import PATIENCE, FakeEngine, serving
from tests.service.test_app import assert_lives_on

HANDSHAKE = "GET /stream HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
HANDSHAKE += "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
PART = 500_000
MEMORY = 4 * COPIES * PART  # of which three quarters are for large requests


@contextmanager
def half_a_message(client: httpx.Client) -> Iterator[socket.socket]:
    """A websocket on which a message has begun to arrive."""
    with socket.create_connection((client.base_url.host, client.base_url.port or 0), PATIENCE) as raw:
        raw.sendall(HANDSHAKE.encode())
        assert raw.recv(1 << 16).startswith(b"HTTP/1.1 101 ")
        raw.sendall(Frame(Opcode.BINARY, bytes(2 * PART)).serialize(mask=True)[:PART])
        yield raw


def closed(raw: socket.socket) -> Close:
    """With what the server closes, which it must."""
    received = raw.recv(1 << 16)
    assert received[0] & 15 == Opcode.CLOSE
    return Close.parse(received[2:])


def held(app: FastAPI) -> int:
    size: int = app.state.service.budget.held
    return size


def test_what_arrives_is_counted_and_refused_where_there_is_no_memory() -> None:
    app = create_app(FakeEngine(), Settings(memory_bytes=MEMORY))
    with serving(app) as client:
        with ExitStack() as stack:
            for number in range(1, 4):
                stack.enter_context(half_a_message(client))
                while held(app) < 0.99 * number * COPIES * PART:
                    pass
            with half_a_message(client) as raw:
                assert closed(raw).code == CloseCode.TRY_AGAIN_LATER
            assert held(app) <= 0.75 * MEMORY
            assert_lives_on(client)
        while held(app):
            pass


def test_a_message_that_takes_too_long_is_given_up() -> None:
    app = create_app(FakeEngine(), Settings(upload_ms=50))
    with serving(app) as client:
        with half_a_message(client) as raw:
            assert closed(raw).code == CloseCode.POLICY_VIOLATION
        while held(app):
            pass


def test_a_stream_that_is_idle_is_not_late() -> None:
    with serving(create_app(FakeEngine(), Settings(upload_ms=50))) as client, streaming(client) as socket:
        for number in range(3):
            socket.send(b"no image")
            assert head(socket)["frame"] == number
            with half_a_message(client) as raw:  # its time runs out, and so would that of the other
                closed(raw)


@contextmanager
def opened(client: httpx.Client, received: int = 1 << 16) -> Iterator[socket.socket]:
    """A websocket whose client has room for so many bytes that it does not read."""
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, received)
        raw.settimeout(PATIENCE)
        raw.connect((client.base_url.host, client.base_url.port or 0))
        raw.sendall(HANDSHAKE.encode())
        assert raw.recv(1 << 16).startswith(b"HTTP/1.1 101 ")
        yield raw


def test_fragments_are_counted_and_may_be_late_also_where_they_are_empty() -> None:
    first, more = (Frame(opcode, b"", fin=False).serialize(mask=True) for opcode in (Opcode.BINARY, Opcode.CONT))
    with serving(create_app(FakeEngine(), Settings())) as client, opened(client) as raw:
        raw.sendall(first + more * (MAX_FRAGMENTS + 1))
        assert closed(raw).code == CloseCode.MESSAGE_TOO_BIG
    with serving(create_app(FakeEngine(), Settings(upload_ms=50))) as client, opened(client) as raw:
        raw.sendall(first)
        assert closed(raw).code == CloseCode.POLICY_VIOLATION


def test_a_ping_is_answered_when_it_has_come_through_and_a_dead_client_is_the_systems_affair(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    timeouts: list[int] = []

    def connection_made(made: BoundedWebSocket, transport: asyncio.BaseTransport) -> None:
        original(made, transport)
        connection: socket.socket = transport.get_extra_info("socket")
        timeouts.append(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))

    original = BoundedWebSocket.connection_made
    monkeypatch.setattr(BoundedWebSocket, "connection_made", connection_made)
    monkeypatch.setattr(fakes, "options", lambda settings: options(settings) | {"ws_ping_interval": 0.01})
    with serving(create_app(FakeEngine(), Settings(stall_ms=7000))) as client, opened(client) as raw:
        for _ in range(3):  # though none is answered
            assert raw.recv(6)[0] & 15 == Opcode.PING
    assert timeouts == [7000]


def test_who_reads_no_pong_sends_no_further_ping() -> None:
    pings = Frame(Opcode.PING, bytes(125)).serialize(mask=True) * 1000
    with serving(create_app(FakeEngine(), Settings())) as client, opened(client, 4096) as raw:
        raw.setblocking(False)
        sent, full, rest = 0, 0, pings
        while full < 5:  # the server's buffers and the system's take a few MB
            try:
                taken = raw.send(rest)
                sent, full, rest = sent + taken, 0, rest[taken:] or pings
            except BlockingIOError:
                full += 1
                assert_lives_on(client)
            assert sent < 2**26
        raw.settimeout(PATIENCE)
        read = 0
        while read < 2**22:  # and goes on when they are read
            read += len(raw.recv(1 << 16))


@pytest.mark.parametrize(
    ("line", "answer"), [("Content-Length: 5", b""), (f"Cookie: {'x' * 9000}", b"HTTP/1.1 431 ")], ids=["body", "long"]
)
def test_an_opening_that_cannot_be_read_ends_the_connection(client: httpx.Client, line: str, answer: bytes) -> None:
    with socket.create_connection((client.base_url.host, client.base_url.port or 0), PATIENCE) as raw:
        raw.sendall(HANDSHAKE.encode()[:-2] + f"{line}\r\n\r\n".encode())
        assert raw.recv(13) == answer
