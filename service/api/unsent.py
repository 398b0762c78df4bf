"""Answers that nobody takes: a connection whose bytes do not move is closed, be it HTTP or a websocket."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Any

LOOKS = 4  # in the time after which a connection is closed
BYTES_ACKED = 120  # where Linux tells it in TCP_INFO


def acknowledged(transport: asyncio.Transport) -> int:
    """Bytes that the other side's system has taken in, so far."""
    info: bytes = transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    return int(struct.unpack_from("Q", info, BYTES_ACKED)[0])


def reset(transport: asyncio.Transport) -> None:
    """Close a connection at once; without SO_LINGER the system would keep for itself what it still has to send."""
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


class UnsentWatch:
    """Resets a connection that has unsent bytes of which none was taken for `stall_s` seconds.

    It belongs to the connection, whichever protocols speak on it, and ends with it. `call_later` is the loop's.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        stall_s: float,
        call_later: Callable[[float, Callable[[], None]], Any],
        taken: Callable[[asyncio.Transport], int] = acknowledged,
        reset: Callable[[asyncio.Transport], None] = reset,
    ) -> None:
        self._transport = transport
        self._pause_s = stall_s / LOOKS
        self._call_later = call_later
        self._taken = taken
        self._reset = reset
        self._last = 0
        self._still = 0  # looks in which nothing moved
        self._next = call_later(self._pause_s, self._look)

    def stop(self) -> None:
        """The connection is lost."""
        self._next.cancel()

    def _look(self) -> None:
        unsent = self._transport.get_write_buffer_size()
        if self._transport.is_closing() and not unsent:
            return
        taken = self._taken(self._transport) if unsent else 0
        self._still = self._still + 1 if unsent and taken == self._last else 0
        self._last = taken
        if self._still == LOOKS:
            self._reset(self._transport)
        else:
            self._next = self._call_later(self._pause_s, self._look)
