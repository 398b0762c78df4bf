"""The engine process's side: its queue served to front ends, each by a thread that reads and whoever has an answer."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from service.codec.encoders import ENCODERS
from service.codec.pixels import Fitted, Logits, Mask
from service.core.engine import Engine
from service.core.params import SegmentParams
from service.core.queue import InferenceResult
from service.core.resident import Resident
from service.core.threads import yield_to_engine
from service.logs import log
from service.problems import EngineFailure, Problem
from service.processes import memory, messages
from service.processes.board import STATES, Board
from service.processes.catalog import Catalog
from service.processes.messages import Lost, Placed
from service.processes.outbox import TAKEN_S, Outbox

MASKS, LOGITS = ENCODERS["png"], ENCODERS["probability"]  # one that wants no logits, and one that does


class Host:
    """Serves what is resident, once it is `open`, to all front ends.

    `metrics` gives the series that this process alone knows.
    """

    resident: Resident

    def __init__(self, metrics: Callable[[], bytes]) -> None:
        self.metrics = metrics
        self.board = Board()
        self._front_ends: set[FrontEnd] = set()
        self._lock = threading.Condition()

    def open(self, resident: Resident) -> None:
        """Serve this."""
        self.resident = resident
        self._catalog = Catalog(resident.models.engines)

    def wait(self, timeout_s: float) -> None:
        """Until all front ends have ended."""
        with self._lock:
            self._lock.wait_for(lambda: not self._front_ends, timeout_s)

    def serve(self, line: socket.socket) -> None:
        """One front end more, until it ends."""
        front_end = FrontEnd(self, line)
        with self._lock:
            self._front_ends.add(front_end)
            front_end.show(self._catalog, [self.board.descriptor])
        front_end.start()

    def forget(self, front_end: FrontEnd) -> None:
        """It has ended."""
        with self._lock:
            self._front_ends.discard(front_end)
            self._lock.notify_all()

    def changed(self, engines: Sequence[Engine]) -> None:
        """These are served from now on."""
        with self._lock:
            self._catalog = Catalog(engines)
            for front_end in self._front_ends:
                front_end.show(self._catalog)

    def began(self, time: float) -> None:
        """Write on the board that a turn of an engine has begun."""
        notice = self.board.notice
        notice.turn_since, notice.waiting = time, self.resident.batcher.waiting

    def publish(self) -> None:
        """Write the board anew."""
        notice, load, joules = self.board.notice, self.resident.batcher.load, self.resident.image_joules()
        state = self.resident.lifecycle.state
        notice.state = STATES.index("ready" if state == "hanging" else state)  # how long a turn takes, all can see
        notice.waiting, notice.room, notice.turn_since, notice.drain_s, notice.queue_s = load
        notice.image_joules = np.nan if joules is None else joules


class FrontEnd(threading.Thread):
    """One front end: what it has asked for and not got yet, and the engines that it can name."""

    def __init__(self, host: Host, line: socket.socket) -> None:
        super().__init__(name="front end", daemon=True)
        self._host = host
        self._line = line
        self._outbox = Outbox(line, TAKEN_S)
        self._engines: dict[int, Engine] = {}
        self.asked: dict[int, AskedImage] = {}  # by their tickets
        self._arena: NDArray[np.uint8] = np.empty(0, np.uint8)
        self._handlers: dict[int, Callable[..., None]] = {
            messages.ARENA: self._take_arena,
            messages.SEGMENT: self._segment,
            messages.CANCEL: self._cancel,
            messages.ROOM: self._tell_room,
            messages.RELEASE: self._release,
            messages.METRICS: self._tell_metrics,
        }

    def run(self) -> None:
        """Read until the other side is gone; then nobody waits for what it has asked for.

        Where all cores are busy, several requests are there when this thread gets one.
        """
        yield_to_engine()
        try:
            while True:
                packet, descriptors = messages.receive(self._line)
                if not packet:
                    break
                self._handlers[packet[0]](packet, *descriptors)
        except Exception:  # what it says makes no sense
            log.exception("a front end is given up")
        finally:
            self._host.forget(self)
            self._outbox.end()
            for recipient in list(self.asked.values()):
                recipient.cancel()

    def show(self, catalog: Catalog, descriptors: Sequence[int] = ()) -> None:
        """These models are served from now on; the old ones can still be named."""
        self._engines |= catalog.engines
        self.say(bytes([messages.MODELS]), [catalog.descriptor, *descriptors])

    def _take_arena(self, _: bytes, descriptor: int) -> None:
        self._arena = np.frombuffer(memory.adopt(descriptor), np.uint8)

    def _segment(self, packet: bytes) -> None:
        (number, threshold, deadline, wants_logits, low_priority), placed = messages.batch(packet)
        engine, batcher = self._engines[number], self._host.resident.batcher
        params = SegmentParams(engine, threshold, LOGITS if wants_logits else MASKS, low_priority=low_priority)
        classes = len(engine.model.classes) if wants_logits else 0
        images, recipients = [], []
        for image in placed:
            pixels, mask, logits = self._arrays(image, classes)
            images.append(pixels)
            recipients.append(AskedImage(self, image.ticket, mask, logits))
            self.asked[image.ticket] = recipients[-1]
        try:
            batcher.queue(images, params, deadline, recipients)
        except Problem as refused:
            for recipient in recipients:
                recipient.refuse(refused)
        self._host.board.notice.waiting = batcher.waiting

    def _arrays(self, image: Placed, classes: int) -> tuple[Fitted, Mask, Logits | None]:
        """Its pixels, and where its mask is wanted and its logits of so many classes, None for none: in the arena.

        Raises TypeError where that has not so many bytes.
        """
        size, logits = (image.height, image.width), None
        pixels = np.ndarray((*size, 3), np.uint8, self._arena, image.pixels)
        mask = np.ndarray(size, np.uint8, self._arena, image.result)
        if classes:
            logits = np.ndarray((*size, classes), np.int32, self._arena, image.result + image.logits_at)
        return pixels, mask, logits

    def _cancel(self, packet: bytes) -> None:
        recipient = self.asked.get(messages.TICKET.unpack(packet)[1])
        if recipient:
            recipient.cancel()

    def _tell_room(self, packet: bytes) -> None:
        _, ticket, images = messages.COUNT.unpack(packet)
        try:
            self._host.resident.batcher.require_room(images)
        except Problem as refused:
            self.say(messages.problem(ticket, refused))
        else:
            self.say(messages.TICKET.pack(messages.ANSWER, ticket))
        self._host.publish()

    def _release(self, packet: bytes) -> None:
        self._engines.pop(messages.NUMBER.unpack(packet)[1], None)

    def _tell_metrics(self, packet: bytes) -> None:
        ticket = messages.TICKET.unpack(packet)[1]
        self.say(messages.TICKET.pack(messages.ANSWER, ticket) + self._host.metrics())

    def say(self, packet: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send it; who is not there any more, or is given up, need not know."""
        with contextlib.suppress(Lost):
            self._outbox.send(packet, descriptors)


class AskedImage:
    """One that a front end has asked for, and where its mask and its logits are wanted: a `core.queue.Recipient`.

    Whoever takes it out of all that is `asked` has the last word: the engine's thread, or who cancels it.
    """

    __slots__ = ("_front_end", "_logits", "_mask", "_ticket")

    def __init__(self, front_end: FrontEnd, ticket: int, mask: Mask, logits: Logits | None) -> None:
        self._front_end = front_end
        self._ticket = ticket
        self._mask = mask
        self._logits = logits

    def cancel(self) -> None:
        """Nobody waits for it any more."""
        if self.set_running_or_notify_cancel():
            self._front_end.say(messages.TICKET.pack(messages.GONE, self._ticket))

    def refuse(self, problem: Problem) -> None:
        """It was not let in."""
        if self.set_running_or_notify_cancel():
            self.set_exception(problem)

    def cancelled(self) -> bool:
        """See `core.queue.Recipient`."""
        return self._ticket not in self._front_end.asked

    def set_running_or_notify_cancel(self) -> bool:
        """See `core.queue.Recipient`."""
        return self._front_end.asked.pop(self._ticket, None) is not None

    def set_result(self, result: InferenceResult) -> None:
        """See `core.queue.Recipient`."""
        self._mask[...] = result.mask
        if self._logits is not None and result.logits is not None:
            self._logits[...] = result.logits
        self._front_end.say(messages.TIMES.pack(messages.DONE, self._ticket, result.queue_s, result.engine_s))

    def set_exception(self, exception: BaseException | None) -> None:
        """See `core.queue.Recipient`."""
        assert exception
        self._front_end.say(messages.problem(self._ticket, _problem(exception)))


def _problem(error: BaseException) -> Problem:
    """What the client is told; the cause is for the log of the front end, which knows the request."""
    if isinstance(error, Problem):
        return error
    failure = EngineFailure("the engine could not segment this image")
    failure.__cause__ = error
    return failure
