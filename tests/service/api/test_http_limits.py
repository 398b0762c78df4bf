"""Connections as they come off the wire: heads in pieces, too large, wrong, several at once."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from unittest.mock import Mock

import pytest

from service.api.http_limits import CONTINUE, MAX_HEAD, BoundedHttp
from service.app import create_app
from service.problems import QueueFull
from service.settings import Settings
from tests.pictures import file_of, photo
from tests.service.fakes import PATIENCE, FakeEngine, serving

BODY = file_of(photo())
POST = b"POST /segment HTTP/%s\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with serving(create_app([FakeEngine()], Settings())) as client:
        yield client.base_url.port or 0


def exchange(port: int, *pieces: bytes) -> bytes:
    """All that the server answers to `pieces`, until it hangs up."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        for piece in pieces:
            connection.sendall(piece)
        return received(connection)


def received(connection: socket.socket, end: bytes = b"") -> bytes:
    """What comes until it ends in `end`; by default, until the server hangs up."""
    answer = b""
    while piece := connection.recv(1 << 16):
        answer += piece
        if end and answer.endswith(end):
            break
    return answer


def test_a_head_may_come_byte_by_byte(port: int) -> None:
    head = b"GET /healthz HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n"
    assert exchange(port, *(head[i : i + 1] for i in range(len(head)))).startswith(b"HTTP/1.1 200 ")


def test_a_large_head_is_taken_and_a_larger_one_refused(port: int) -> None:
    start, end = b"GET /healthz HTTP/1.1\r\nHost: here\r\nX-Large: ", b"\r\nConnection: close\r\n\r\n"
    assert exchange(port, start + b"x" * (MAX_HEAD - 200) + end).startswith(b"HTTP/1.1 200 ")
    answer = exchange(port, start, b"x" * (MAX_HEAD + 1 - len(start)))  # what is left unread would reset the connection
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert answer.endswith(b"up to 65536 bytes\n")


def test_a_large_head_in_one_piece_is_refused(port: int) -> None:
    lines = b"".join(b"X-%d: %s\r\n" % (i, b"x" * 1000) for i in range(70))
    answer = exchange(port, b"GET /healthz HTTP/1.1\r\nHost: here\r\n" + lines + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b" 200 " not in answer


def test_a_first_line_without_end_is_refused(port: int) -> None:
    assert exchange(port, b"GET /", b"x" * (MAX_HEAD - 4)).startswith(b"HTTP/1.1 431 ")


def test_a_second_requests_head_is_bounded_too(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n")
        assert received(connection, b'"alive"}').startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"GET /" + b"x" * (MAX_HEAD - 4))
        assert received(connection).startswith(b"HTTP/1.1 431 ")


def test_bodies_do_not_count(port: int) -> None:
    body = b"x" * (3 * MAX_HEAD)
    head = b"POST /segment HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    answer = exchange(port, head % len(body), body)
    assert answer.startswith(b"HTTP/1.1 4")
    assert b" 431 " not in answer


def test_a_length_of_thousands_of_digits_is_no_fault_of_the_server(port: int) -> None:
    head = b"POST /segment HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %s\r\n\r\n%s"
    assert exchange(port, head % (b"0" * 5000 + b"%d" % len(BODY), BODY)).startswith(b"HTTP/1.1 200 ")
    for length in (b"9" * 5000, b"%d" % 2**64):
        assert exchange(port, head % (length, b"")).startswith(b"HTTP/1.1 400 ")
    assert exchange(port, head % (b"%d" % (2**64 - 1), b"")).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("size", [1, 2, 100])
def test_a_body_may_come_in_small_chunks(port: int, size: int) -> None:
    head = b"POST /segment HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"
    pieces = [BODY[first : first + size] for first in range(0, len(BODY), size)]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    assert exchange(port, head + chunks + b"0\r\n\r\n" + GET).count(b"HTTP/1.1 200 ") == 2


def test_pieces_of_a_body_are_added_where_the_others_are() -> None:
    protocol = BoundedHttp.__new__(BoundedHttp)
    protocol.parser = Mock(should_upgrade=lambda: False)
    protocol.cycle = Mock(body=bytearray(), response_complete=False)
    piece = bytes(range(100))
    protocol.on_body(piece)
    body: object = protocol.cycle.body
    assert bytes(protocol.cycle.body) is piece
    for _ in range(100):
        protocol.on_body(b"x")
        assert protocol.cycle.body is body  # so many small ones take linear time
    assert bytes(protocol.cycle.body) == piece + 100 * b"x"
    assert len(protocol.cycle.body) == 200


def test_what_is_no_http_is_refused(port: int) -> None:
    assert exchange(port, b"\x16\x03\x01 hello\r\n\r\n").startswith(b"HTTP/1.1 400 ")


def test_a_proxys_request_line_names_the_host(port: int) -> None:
    lines = b"GET http://here/healthz HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n"
    assert exchange(port, lines).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("hosts", [b"", b"Host: here\r\nHost: there\r\n"], ids=["none", "two"])
def test_a_request_names_its_host_once(port: int, hosts: bytes) -> None:
    answer = exchange(port, b"GET /healthz HTTP/1.1\r\n" + hosts + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"the header Host, once" in answer
    assert exchange(port, b"GET /healthz HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200 ")


# -- clients that close their side -----------------------------------------------------------------------------------


def test_who_says_that_this_was_all_is_answered(port: int) -> None:
    for version, interim in ((b"1.1", CONTINUE), (b"1.0", b"")):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(POST % (version, len(BODY)) + BODY)
            connection.shutdown(socket.SHUT_WR)
            answer = received(connection)
        assert answer.removeprefix(interim).startswith(b"HTTP/1.1 200 ")


def test_who_is_gone_leaves_the_queue() -> None:
    engine = FakeEngine()
    app = create_app(engine, Settings())
    with serving(app) as client:
        engine.gate.clear()
        engine.entered.clear()
        batcher = app.state.service.batcher
        for waiting in (0, 1):  # the first is in the engine, the second waits for it
            connection = socket.create_connection(("127.0.0.1", client.base_url.port or 0), timeout=30)
            connection.sendall(POST % (b"1.1", len(BODY)) + BODY)
            assert waiting or engine.entered.wait(PATIENCE)
        while not batcher.waiting:
            pass
        connection.close()
        while batcher.waiting:
            with suppress(QueueFull):
                batcher.require_room(64)  # which drops the cancelled
        assert len(engine.batches) == 2  # the warm-up, and the first
        engine.gate.set()


def test_an_upload_that_ends_early_is_given_up(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(POST % (b"1.1", len(BODY)) + BODY[:-1])
        connection.shutdown(socket.SHUT_WR)
        assert received(connection) == b""


CHUNKED = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_trailers_are_dropped(port: int) -> None:
    trailers = CHUNKED + b"1\r\nx\r\n0\r\nX-Sum: 1\r\nHost: there\r\n\r\n"
    after = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    assert exchange(port, trailers + after).count(b"HTTP/1.1 200 ") == 2


@pytest.mark.parametrize(
    "tail",
    [b"0\r\n" + b"a:b\r\n" * (MAX_HEAD // 2), b"0\r\na:" + b"b" * 3 * MAX_HEAD, b"1;" + b"x" * 3 * MAX_HEAD],
    ids=["many", "long", "extension"],
)
def test_trailers_and_names_of_chunks_without_end_are_refused(port: int, tail: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(CHUNKED)
        assert received(connection, b'"alive"}').startswith(b"HTTP/1.1 200 ")
        sent = 0
        with suppress(OSError):  # what is left unread resets the connection
            for _ in range(1000):
                connection.sendall(tail)
                sent += len(tail)
        assert sent < 1000 * len(tail)


# -- other protocols -------------------------------------------------------------------------------------------------

GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"  # as of curl --http2
LENGTH = b"Content-Length: %d\r\n\r\n%s"


def asking(method: bytes, upgrade: bytes, body: bytes) -> bytes:
    """A request to /segment with the headers `upgrade` and a body."""
    head = b"%s /segment HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n" % method
    return head + upgrade + LENGTH % (len(body), body)


@pytest.mark.parametrize(
    "upgrade",
    [
        H2C,
        b"Upgrade: foo\r\nConnection: Upgrade\r\n",
        b"Upgrade: websocket\r\nConnection: Upgrade\r\n",  # of a POST
        b"Upgrade: websocket\r\nConnection: Upgrade\r\nConnection: keep-alive\r\n",
    ],
)
@pytest.mark.parametrize("size", [1, 100, 1 << 20], ids="{}-byte pieces".format)
def test_who_asks_for_another_protocol_is_answered_in_this_one(port: int, upgrade: bytes, size: int) -> None:
    request = 2 * asking(b"POST", upgrade, BODY) + GET
    answers = exchange(port, *(request[i : i + size] for i in range(0, len(request), size)))
    assert answers.count(b"HTTP/1.1 200 ") == answers.count(b"HTTP/1.1 ") == 3
    assert answers.count(b"image/png") == 2


def test_a_body_in_chunks_stays_with_its_request_too(port: int) -> None:
    head = b"POST /segment HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n" + H2C
    chunks = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
    assert exchange(port, head + chunks + GET).count(b"HTTP/1.1 200 ") == 2


@pytest.mark.parametrize("method", [b"POST", b"GET"])
def test_a_body_is_no_request(port: int, method: bytes) -> None:
    body = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
    request = asking(method, H2C, body)
    for first in (len(request), len(request) - len(body)):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(request[:first])
            connection.sendall(request[first:])
            connection.shutdown(socket.SHUT_WR)
            answer = received(connection).removeprefix(CONTINUE)
        assert answer.startswith(b"HTTP/1.1 4")
        assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("target", [b"localhost:22", b"/segment"])
def test_there_is_no_tunnel(port: int, target: bytes) -> None:
    head = b"CONNECT %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (target, len(GET))
    answer = exchange(port, head + GET)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.endswith(b"no proxy, which CONNECT is for\n")


def test_http_1_0_opens_no_websocket(port: int) -> None:
    opening = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    opening += b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
    answers = [exchange(port, b"GET /stream HTTP/%s\r\nHost: localhost\r\n%s\r\n" % (b"1.0", opening))]
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(b"GET /stream HTTP/1.1\r\nHost: localhost\r\n%s\r\n" % opening)
        answers.append(received(connection, b"\r\n\r\n"))
    assert [answer[:13] for answer in answers] == [b"HTTP/1.1 404 ", b"HTTP/1.1 101 "]


def test_many_such_requests_at_once_are_answered_one_by_one(port: int) -> None:
    one = b"GET /healthz HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    assert exchange(port, 1200 * one + GET).count(b"HTTP/1.1 200 ") == 1201  # more than calls may be in one another


# -- refusals before the body, and what nobody finishes --------------------------------------------------------------

SHORT = 200  # ms
REFUSED = b"POST /segment%s HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\nContent-Length: 100\r\n%s\r\n"
EXPECT = b"Expect: 100-continue\r\n"


@pytest.fixture(scope="module")
def short_upload() -> Iterator[int]:
    with serving(create_app([FakeEngine()], Settings(upload_ms=SHORT))) as client:
        yield client.base_url.port or 0


@pytest.fixture(scope="module")
def short_keep_alive() -> Iterator[int]:
    with serving(create_app([FakeEngine()], Settings(keep_alive_ms=SHORT))) as client:
        yield client.base_url.port or 0


@pytest.mark.parametrize(
    ("status", "query", "kind", "key"),
    [(401, b"", b"image/png", "secret"), (415, b"", b"text/plain", ""), (422, b"?threshold=2", b"image/png", "")],
)
def test_who_waits_for_100_is_refused_with_a_close(status: int, query: bytes, kind: bytes, key: str) -> None:
    with serving(create_app(FakeEngine(), Settings(api_key=key))) as client:
        answer = exchange(client.base_url.port or 0, REFUSED % (query, kind, EXPECT))
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nconnection: close\r\n" in answer.lower()
    assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("kind", [b"text/plain", b"image/png"])
def test_who_does_not_wait_for_100_goes_on(port: int, kind: bytes) -> None:
    answers = exchange(port, REFUSED % (b"", kind, EXPECT) + bytes(100) + GET).replace(CONTINUE, b"")
    first, second = answers.split(b"HTTP/1.1 ")[1:]
    assert first.startswith(b"4")
    assert b"connection: close" not in first.lower()
    assert second.startswith(b"200 ")


def test_who_waits_for_100_gets_it_and_goes_on(port: int) -> None:
    head = b"POST /segment HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: %d\r\n" % len(BODY)
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(head + EXPECT + b"\r\n")
        assert received(connection, CONTINUE) == CONTINUE
        connection.sendall(BODY + GET)
        assert received(connection).count(b"HTTP/1.1 200 ") == 2


def test_a_refused_body_is_read_past(port: int) -> None:
    answers = exchange(port, REFUSED % (b"", b"text/plain", b""), bytes(50), bytes(50), GET)
    assert [one[:3] for one in answers.split(b"HTTP/1.1 ")] == [b"", b"415", b"200"]


@pytest.mark.parametrize("more", [b"", bytes(50)], ids=["silence", "a part"])
def test_a_refused_body_that_does_not_come_ends_the_connection(short_upload: int, more: bytes) -> None:
    with socket.create_connection(("127.0.0.1", short_upload), timeout=PATIENCE) as connection:
        connection.sendall(REFUSED % (b"", b"text/plain", b""))
        assert received(connection, b"}").startswith(b"HTTP/1.1 415 ")
        connection.sendall(more)
        assert received(connection) == b""


@pytest.mark.parametrize("before", [b"", GET.replace(b"close", b"keep-alive")], ids=["first", "second"])
def test_a_head_that_does_not_come_ends_the_connection(short_upload: int, before: bytes) -> None:
    answer = exchange(short_upload, before, GET[:-2])
    assert answer.count(b"HTTP/1.1 200 ") == bool(before)


def test_a_connection_that_says_nothing_is_closed(short_keep_alive: int) -> None:
    assert exchange(short_keep_alive) == b""


def test_a_connection_is_closed_after_a_refused_body_too(short_keep_alive: int) -> None:
    with socket.create_connection(("127.0.0.1", short_keep_alive), timeout=PATIENCE) as connection:
        connection.sendall(REFUSED % (b"", b"text/plain", b""))
        assert received(connection, b"}").startswith(b"HTTP/1.1 415 ")
        connection.sendall(bytes(100))
        assert received(connection) == b""


def test_what_comes_slowly_behind_a_request_does_not_end_its_answer() -> None:
    engine = FakeEngine()
    with serving(create_app(engine, Settings(upload_ms=SHORT))) as client:
        port = client.base_url.port or 0
        engine.gate.clear()
        engine.entered.clear()
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
            connection.sendall(POST % (b"1.1", len(BODY)) + BODY + GET[:-2])
            assert engine.entered.wait(PATIENCE)
            assert exchange(port, GET[:-2]) == b""  # so long it would take
            engine.gate.set()
            assert received(connection).startswith(b"HTTP/1.1 200 ")
