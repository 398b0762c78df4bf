"""What waits for a line: all of it arrives, in order, and who takes nothing is given up."""

from __future__ import annotations

import itertools
import logging
import os
import socket
from collections.abc import Iterator

import pytest

from service.processes import memory, messages, outbox
from service.processes.messages import Lost
from service.processes.outbox import Outbox

PACKETS = [f"packet {number}".encode() for number in range(5000)]


@pytest.fixture
def line() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = messages.pair()
    with ours, theirs:
        yield ours, theirs


def all_of(line: socket.socket) -> list[bytes]:
    """What comes until the end."""
    return list(iter(lambda: messages.receive(line)[0], b""))


def sent_until_lost(sending: Outbox) -> int:
    """Packets that could be said."""
    for sent in itertools.count():
        try:
            sending.send(b"packet")
        except Lost:
            return sent
    raise AssertionError


def test_what_a_line_does_not_hold_waits_and_arrives_in_order(line: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = line
    sending = Outbox(ours)
    for packet in PACKETS:
        sending.send(packet)
    assert [messages.receive(theirs)[0] for _ in PACKETS] == PACKETS
    sending.send(b"later")
    assert messages.receive(theirs)[0] == b"later"


def test_descriptors_that_wait_are_kept_open(line: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = line
    sending, before = Outbox(ours), len(os.listdir("/proc/self/fd"))
    for packet in PACKETS:
        sending.send(packet)
    descriptor = memory.create(7)
    sending.send(b"memory", [descriptor])
    os.close(descriptor)
    for _ in PACKETS:
        messages.receive(theirs)
    packet, (received,) = messages.receive(theirs)
    assert packet == b"memory"
    assert os.fstat(received).st_size == 7
    os.close(received)
    while len(os.listdir("/proc/self/fd")) > before:
        pass


def test_who_takes_nothing_in_time_is_given_up(
    line: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ours, theirs = line
    monkeypatch.setattr(outbox, "MOST_BYTES", 1 << 40)
    sent_until_lost(Outbox(ours, taken_s=0.01))
    assert set(all_of(theirs)) == {b"packet"}
    assert messages.receive(ours)[0] == b""
    assert [record.getMessage()[:35] for record in caplog.records] == ["a process that takes nothing is giv"]


@pytest.mark.parametrize("taken_s", [0.0, 1000.0])
def test_what_waits_is_bounded(
    line: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch, taken_s: float
) -> None:
    ours, theirs = line
    monkeypatch.setattr(outbox, "MOST_BYTES", 10 * (outbox.PACKET_BYTES + len(b"packet")))
    sending = Outbox(ours, taken_s)
    sent = sent_until_lost(sending)
    if taken_s:  # given up
        assert set(all_of(theirs)) == {b"packet"}
    else:
        assert [messages.receive(theirs)[0] for _ in range(sent)] == [b"packet"] * sent
        sending.send(b"later")
        assert messages.receive(theirs)[0] == b"later"


def test_who_is_dead_is_lost_at_once(
    line: tuple[socket.socket, socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    ours, theirs = line
    sending = Outbox(ours, 1000.0)
    for packet in PACKETS:
        sending.send(packet)
    theirs.close()
    assert messages.receive(ours)[0] == b""
    sent_until_lost(sending)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
