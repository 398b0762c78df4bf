"""HTTP connections: uvicorn's protocol on llhttp, which is fast, with the rules and bounds that it lacks."""

from __future__ import annotations

import asyncio
import io
import socket
from functools import partial
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.api.unsent import UnsentWatch

MAX_HEAD = 64 << 10  # bytes, of a request's first line and headers
LOOK_S = 0.1  # between two looks whether a client that has closed its side is there

TOO_LARGE = ("431 Request Header Fields Too Large", f"the first line and headers may take up to {MAX_HEAD} bytes")
NO_PROXY = ("400 Bad Request", "this is no proxy, which CONNECT is for")
NO_HOST = ("400 Bad Request", "a request of HTTP/1.1 has the header Host, once")
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
TCP_CLOSE = 7  # of the states that TCP_INFO tells, on Linux


class Arrived(io.BytesIO):
    """What has come of a body since it was last asked for, as uvicorn handles it. One piece alone is never copied, and
    more of them in linear time.
    """

    def __init__(self, piece: bytes) -> None:
        super().__init__(piece)
        self.seek(0, io.SEEK_END)

    def __iadd__(self, piece: bytes) -> Arrived:
        self.write(piece)
        return self

    def __len__(self) -> int:
        return self.tell()

    def __bytes__(self) -> bytes:
        return self.getvalue()


class BoundedHttp(HttpToolsProtocol):
    """Refuses heads of more than `MAX_HEAD` bytes, finished or not, and such as name no host, or several.

    Trailers count as their head does, and are dropped; no more than `MAX_HEAD` bytes between two pieces of a body, or
    before its end, are neither (names of chunks and trailers that never end).

    Websockets are the only protocol that a connection is upgraded to. A request that asks for another one, as h2c, is
    answered as if it had not (RFC 9110, 7.8), and CONNECT is refused.

    A connection on which nothing is being answered is closed `timeout_keep_alive` seconds after the last request; where
    the next head, or the rest of a body whose request is answered, is arriving, when that takes more than `upload_s`.
    It is closed too after an answer to a client that waits for `100 Continue` and may or may not send its body.

    A client that has closed its side of the connection after its request is answered. One that takes nothing of what is
    sent to it for `stall_s` seconds is hung up on, also when it has made a websocket of the connection.
    """

    def __init__(self, *args: Any, stall_s: float, upload_s: float, **options: Any) -> None:
        super().__init__(*args, **options)
        self._stall_s = stall_s
        self._upload_s = upload_s
        self._arriving = False  # a head
        self._unfinished = False  # a head, or the body behind it
        self._head = 0  # bytes so far
        self._between = 0  # bytes since the last piece of a body, or since a head began

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch = UnsentWatch(transport, self._stall_s, self.loop.call_later)
        self._close_after(self.timeout_keep_alive)

    def connection_lost(self, exc: Exception | None) -> None:
        self._watch.stop()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._unset_keepalive_if_required()
        self._arriving, self._unfinished, self._head, self._between = True, True, 0, 0

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._arriving:
            super().on_header(name, value)
            return
        self._head += len(name) + len(value)
        if self._head > MAX_HEAD:
            raise ValueError  # as below

    def on_headers_complete(self) -> None:
        self._unset_keepalive_if_required()
        self._arriving = False
        self._head = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if self._refusal():
            raise ValueError  # the parser's error, which is answered below
        if not self.parser.should_upgrade() or self._should_upgrade():  # else it is read once more
            super().on_headers_complete()
        self._between = 0

    def on_message_complete(self) -> None:
        self._between, self._unfinished = 0, False
        if self.parser.should_upgrade():
            return
        super().on_message_complete()
        if self._idle():
            self._close_after(self.timeout_keep_alive)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._unfinished and self._idle():
            self._close_after(self._upload_s)

    def on_body(self, body: bytes) -> None:
        if type(self.cycle.body) is bytearray:  # nothing is there
            self.cycle.body, body = Arrived(body), b""  # type: ignore[assignment]
        super().on_body(body)
        self._between = 0

    def send_400_response(self, msg: str) -> None:
        refusal = self._refusal()
        if refusal:
            self._refuse(*refusal)
        else:
            super().send_400_response(msg)

    def data_received(self, data: bytes) -> None:
        self._between += len(data)
        try:
            self._parse(data)
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
        except httptools.HttpParserUpgrade:
            self.handle_websocket_upgrade()
            return
        if self.transport.is_closing():
            return
        if self._arriving and self._idle() and not self.timeout_keep_alive_task:
            self._close_after(self._upload_s)
        self._head += len(data) if self._arriving else 0
        if self._head > MAX_HEAD or self._between > MAX_HEAD:
            self._refuse(*TOO_LARGE)

    def _parse(self, data: bytes) -> None:
        """Feed the parser, which ends a request that asks for another protocol with its head, and takes a body for what
        is said in that protocol. So that head is read once more, without its wish, by a new parser. Raises
        HttpParserError, and HttpParserUpgrade for a websocket.
        """
        rest = memoryview(data)
        while True:
            try:
                self.parser.feed_data(rest)
                return
            except httptools.HttpParserUpgrade as upgrade:
                if self._should_upgrade():
                    raise
                rest = rest[upgrade.args[0] :]
            head = self._plain_head()
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn
            self.parser.feed_data(head)

    def _should_upgrade(self) -> bool:
        """To a websocket, by GET of HTTP/1.1 (RFC 6455, 4.1)."""
        opening = (self.parser.get_method(), self.parser.get_http_version()) == (b"GET", "1.1")
        return opening and super()._should_upgrade()

    def _plain_head(self) -> bytes:
        """The head as it came, but for the header Upgrade."""
        first = b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        lines = [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join([first, *lines, b"", b""])

    def eof_received(self) -> bool:  # type: ignore[override]  # uvicorn never keeps it
        """True, to keep the connection, where a whole request has no answer yet.

        Whoever has gone looks the same as one who only says that this was all. So he is sent something: a system whose
        client has gone answers with a reset.
        """
        cycle = self.cycle
        if cycle is None or cycle.more_body or cycle.response_complete or self.scheme == "https":
            return False
        cycle.keep_alive = False
        if not cycle.response_started and self.parser.get_http_version() != "1.0":
            self.transport.write(CONTINUE)
        self._look()
        return True

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        async def undecided(scope: Any, receive: Any, send: Any) -> None:
            await app(scope, receive, partial(self._send_undecided, cycle, send))

        super()._start_asgi_task(cycle, undecided if cycle.waiting_for_100_continue else app)

    async def _send_undecided(self, cycle: RequestResponseCycle, send: Any, message: Any) -> None:
        """Send an answer to one who may still wait with his body: nobody knows whether it comes (RFC 9110, 10.1.1)."""
        if cycle.waiting_for_100_continue and cycle.more_body and not cycle.body:
            cycle.keep_alive = False
        await send(message)

    def _idle(self) -> bool:
        """Whether nothing is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _close_after(self, seconds: float) -> None:
        """Unless something ends the waiting before."""
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _look(self) -> None:
        """Hang up if the client has gone, again and again until he has his answer."""
        if self.cycle.response_complete or self.transport.is_closing():
            return
        connection: socket.socket = self.transport.get_extra_info("socket")
        if connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == TCP_CLOSE:
            self.transport.abort()
        else:
            self.loop.call_later(LOOK_S, self._look)

    def _refusal(self) -> tuple[str, str] | None:
        """What is wrong with the head so far."""
        if self._head > MAX_HEAD:
            return TOO_LARGE
        if not self._arriving and self.parser.get_method() == b"CONNECT":
            return NO_PROXY
        hosts = sum(name == b"host" for name, _ in self.headers or ())
        lacks = not hosts and not self._arriving and self.parser.get_http_version() != "1.0"
        return NO_HOST if lacks or hosts > 1 else None

    def _refuse(self, status: str, reason: str) -> None:
        head = f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n"
        self.transport.write(f"{head}Content-Length: {len(reason) + 1}\r\n\r\n{reason}\n".encode())
        self.transport.close()
