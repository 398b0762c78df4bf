"""Websockets: uvicorn's protocol, whose messages count in the budget while they arrive and must not take for ever."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from contextlib import ExitStack
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode

from service.core.budget import Budget
from service.problems import Problem

BUDGET = "budget"  # where an application's lifespan leaves it
COPIES = 3  # of a message's bytes when its last one is there: as they came, whole, and unmasked
KEPT = 2  # messages that may wait: one for its answer, one behind it
MAX_FRAGMENTS = 2**14  # of a message, each of which takes memory of its own


class BoundedWebSocket(WebSocketsSansIOProtocol):
    """Closes with 1013 where there is no memory for a message, with 1008 where one takes more than `upload_s` seconds,
    with 1009 where it comes in too many fragments.

    What is arriving counts, and so do the last messages that came, which may wait. Nothing is read while what is sent
    is not taken: a ping is answered, and who reads no pong sends no further ping. Who is gone without a word takes no
    ping, either: the system ends a connection whose bytes nobody has taken for `stall_ms`.
    """

    def __init__(self, *args: Any, upload_s: float, stall_ms: int, **options: Any) -> None:
        super().__init__(*args, **options)
        self._upload_s = upload_s
        self._stall_ms = stall_ms
        self._came: deque[int] = deque(maxlen=KEPT)  # bytes
        self._late: asyncio.TimerHandle | None = None
        self._leave = ExitStack()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        connection: socket.socket = transport.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, self._stall_ms)
        budget: Budget = self.app_state[BUDGET]
        self._memory = self._leave.enter_context(budget.holding())
        self._leave.callback(self._watch, False)

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave.close()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.handshake_exc and not self.transport.is_closing():  # of which uvicorn takes no notice
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()
        if not self.writable.is_set() and self.transport.is_reading():
            self.transport.pause_reading()
        self._watch(bool(self.conn.reader.buffer or self.frames))
        if len(self.frames) > MAX_FRAGMENTS:
            self._fail(CloseCode.MESSAGE_TOO_BIG, f"more than {MAX_FRAGMENTS} fragments")
        arriving = len(self.conn.reader.buffer) + sum(map(len, self.frames))
        try:
            self._memory.hold(COPIES * arriving + sum(self._came))
        except Problem as problem:
            self._fail(CloseCode.TRY_AGAIN_LATER, problem.title)

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.read_paused:
            self.transport.resume_reading()

    def send_receive_event_to_app(self) -> None:
        self._came.append(sum(map(len, self.frames)))
        super().send_receive_event_to_app()

    def _watch(self, arriving: bool) -> None:
        """Whether something arrives says whether it may be late."""
        if self._late and not arriving:
            self._late.cancel()
            self._late = None
        elif arriving and not self._late:
            self._late = self.loop.call_later(self._upload_s, self._fail, CloseCode.POLICY_VIOLATION, "too slow")

    def _fail(self, code: CloseCode, reason: str) -> None:
        """Say why, and read past the rest for a while: a close with unread bytes would take the word back."""
        if self.close_sent:
            return
        self.close_sent = True
        self.frames = []
        self.conn.fail(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.close_timer = self.loop.call_later(self.close_timeout, self.transport.close)
