"""What one process says to another: whole packets, in order, and never a wait for who says them.

A line holds some 280 packets. What it does not take at once waits here for a thread that ends when nothing waits.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import threading
from collections import deque
from collections.abc import Sequence

from service.logs import log
from service.processes import messages
from service.processes.messages import Lost

MOST_BYTES = 16 << 20  # that wait: the answers to a hundred thousand images
PACKET_BYTES = 100  # of memory for a packet, beside its own
TAKEN_S = 30.0  # after which a front end that takes nothing is given up


class Outbox:
    """`send` over `line`, from any thread. One who takes nothing for `taken_s` seconds, or for whom too much waits, is
    given up: the line ends. With 0 he never is, and what is too much is refused.
    """

    def __init__(self, line: socket.socket, taken_s: float = 0.0) -> None:
        seconds = int(taken_s)
        timeout = struct.pack("@ll", seconds, int(1e6 * (taken_s - seconds)))
        line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
        self._line = line
        self._gives_up = taken_s > 0
        self._waiting: deque[tuple[bytes, list[int]]] = deque()
        self._bytes = 0
        self._sending = False  # by the thread
        self._ended = False
        self._lock = threading.RLock()  # the garbage collector may say something in the middle of anything

    def send(self, packet: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send one packet, at once or later; raises Lost where the other side is gone, or takes too little."""
        with self._lock:
            if self._ended:
                raise Lost(errno.EPIPE, "the line has ended")
            if not self._sending and self._sent(packet, descriptors):
                return
            size = len(packet) + PACKET_BYTES
            if self._bytes + size > MOST_BYTES:
                if self._gives_up:
                    self._give_up()
                raise Lost(errno.EAGAIN, "too much waits")
            self._bytes += size
            self._waiting.append((packet, [os.dup(descriptor) for descriptor in descriptors]))
            if not self._sending:
                self._sending = True
                threading.Thread(target=self._send_waiting, name="outbox", daemon=True).start()

    def end(self) -> None:
        """Nothing more is sent, and both sides' readers see the end."""
        self._ended = True
        with contextlib.suppress(OSError):  # not closed: another thread may be about to write, and its number be taken
            self._line.shutdown(socket.SHUT_RDWR)

    def _sent(self, packet: bytes, descriptors: Sequence[int], when: int = messages.AT_ONCE) -> bool:
        """Whether it could be; raises Lost where nothing will be any more."""
        try:
            messages.send(self._line, packet, descriptors, when)
        except Lost as lost:
            if lost.errno != errno.EAGAIN:
                self.end()
                raise
            return False
        return True

    def _send_waiting(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._sending = False
                    return
                packet, descriptors = self._waiting.popleft()
                self._bytes -= len(packet) + PACKET_BYTES
            with contextlib.suppress(Lost):
                if not self._sent(packet, descriptors, messages.IN_TIME):
                    self._give_up()
            for descriptor in descriptors:
                os.close(descriptor)

    def _give_up(self) -> None:
        if not self._ended:
            log.error("a process that takes nothing is given up; %d packets wait for it", len(self._waiting))
            self.end()
