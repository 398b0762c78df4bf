"""What a front end and the engine process say to each other: packets on a pair of Unix sockets.

The first byte is the kind. Pixels, masks and logits are no part of a packet, only where they lie in the front end's
arena; what is large otherwise (models) lies in a shared memory whose descriptor the packet carries.

    front end → engine process               engine process → front end
    A  this is my arena (descriptor)         M  these are the models (descriptor; with the first the board's too)
    S  segment these images                  D  done: mask and logits lie where they were wanted
    C  cancel one                            P  a problem in its place, and its cause
    R  is there room?                        G  gone: it was cancelled
    E  nobody here names this engine more    O  an answer: there is room; the metrics
    T  tell your metrics
"""

from __future__ import annotations

import array
import json
import socket
import struct
import traceback
from collections.abc import Sequence
from typing import NamedTuple

from service import problems
from service.problems import Problem

ARENA, SEGMENT, CANCEL, ROOM, RELEASE, METRICS = b"ASCRET"
MODELS, DONE, PROBLEM, GONE, ANSWER = b"MDPGO"

MOST = 1 << 16  # bytes of a packet
MOST_CAUSE = 8000  # characters of a problem's cause
DESCRIPTORS = 2  # at most, that come with one
IN_TIME = int(socket.MSG_NOSIGNAL)  # of the line's SO_SNDTIMEO
AT_ONCE = IN_TIME | int(socket.MSG_DONTWAIT)  # or not at all
CLOSE_ON_EXEC = int(socket.MSG_CMSG_CLOEXEC)
ANCILLARY = socket.CMSG_SPACE(DESCRIPTORS * array.array("i").itemsize)

TICKET = struct.Struct("<BQ")  # kind; the number under which its answer comes
COUNT = struct.Struct("<BQI")  # kind, ticket, images
NUMBER = struct.Struct("<BI")  # kind, number of an engine
TIMES = struct.Struct("<BQdd")  # kind, ticket, seconds in the queue, seconds of the engine
BATCH = struct.Struct("<BIdd??")  # kind, number of the engine, threshold, deadline, wants logits, low priority
IMAGE = struct.Struct("<QQQII")  # ticket, offset of pixels, offset of result, height, width

LOGITS_ALIGNED = 64


class Lost(OSError):  # noqa: N818  (as its base)
    """The other side is gone, or does not take what is sent."""


class Cause(Exception):  # noqa: N818  (of a problem)
    """Why the other process has a problem: its traceback, as text."""


class Placed(NamedTuple):
    """One image of a batch: its number, and where in the arena its pixels lie and its result is wanted."""

    ticket: int
    pixels: int
    result: int
    height: int
    width: int

    def result_bytes(self, classes: int) -> int:
        """Of its mask, and of logits of so many classes; 0 for none."""
        return self.logits_at + 4 * self.height * self.width * classes if classes else self.height * self.width

    @property
    def logits_at(self) -> int:
        """Bytes from the result's beginning to its logits."""
        return -(-self.height * self.width // LOGITS_ALIGNED) * LOGITS_ALIGNED


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of one line: whole packets, in order, and an end that is seen when the other process dies."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(line: socket.socket, packet: bytes, descriptors: Sequence[int] = (), when: int = AT_ONCE) -> None:
    """Send one packet; raises Lost, with EAGAIN where the line has no room for it."""
    try:
        if descriptors:
            socket.send_fds(line, [packet], descriptors, when)
        else:
            line.send(packet, when)
    except OSError as error:
        raise Lost(error.errno, error.strerror) from error


def receive(line: socket.socket) -> tuple[bytes, list[int]]:
    """Wait for the next packet, and what came with it; empty at the end."""
    try:
        packet, ancillary, _, _ = line.recvmsg(MOST, ANCILLARY, CLOSE_ON_EXEC)
    except OSError:
        return b"", []
    if not ancillary:
        return packet, []
    descriptors = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(data)
    return packet, list(descriptors)


def batch(packet: bytes) -> tuple[tuple[int, float, float, bool, bool], list[Placed]]:
    """Number of the engine, threshold, deadline, wants logits, low priority; and the images, of a packet SEGMENT."""
    _, *wanted = BATCH.unpack_from(packet)
    return (*wanted,), [Placed(*image) for image in IMAGE.iter_unpack(packet[BATCH.size :])]


def problem(ticket: int, found: Problem) -> bytes:
    """A packet PROBLEM."""
    cause = "".join(traceback.format_exception(found.__cause__))[-MOST_CAUSE:] if found.__cause__ else ""
    document = [type(found).__name__, found.detail, found.headers, found.extra, cause]
    return TICKET.pack(PROBLEM, ticket) + json.dumps(document).encode()


def problem_of(packet: bytes) -> Problem:
    """What a packet PROBLEM says."""
    kind, detail, headers, extra, cause = json.loads(packet[TICKET.size :])
    raised: type[Problem] = getattr(problems, kind)
    found = raised(detail, headers=headers, **extra)
    found.__cause__ = Cause(cause) if cause else None
    return found
