"""The engine process's side: its queue served to front ends, each by a thread that reads and whoever has an answer."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from service.codec.encoders import ENCODERS
from service.codec.pixels import Logits, Mask
from service.core.engine import Engine
from service.core.params import SegmentParams
from service.core.queue import InferenceResult
from service.core.resident import Resident
from service.logs import log
from service.problems import EngineFailure, Problem
from service.processes import memory, messages
from service.processes.board import STATES, Board
from service.processes.catalog import Catalog
from service.processes.messages import Lost, Placed

SAMPLES = {1: np.uint8, 2: np.uint16}  # by their bytes
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
        self._engines: dict[int, Engine] = {}
        self._asked: dict[int, Future[InferenceResult]] = {}
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
        """Read until the other side is gone; then nobody waits for what it has asked for."""
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
            with contextlib.suppress(OSError):  # not closed: the engine's thread may be about to write
                self._line.shutdown(socket.SHUT_RDWR)
            for future in list(self._asked.values()):
                future.cancel()

    def show(self, catalog: Catalog, descriptors: Sequence[int] = ()) -> None:
        """These models are served from now on; the old ones can still be named."""
        self._engines |= catalog.engines
        self._say(bytes([messages.MODELS]), [catalog.descriptor, *descriptors])

    def _take_arena(self, _: bytes, descriptor: int) -> None:
        self._arena = np.frombuffer(memory.adopt(descriptor), np.uint8)

    def _segment(self, packet: bytes) -> None:
        (number, threshold, deadline, wants_logits, low_priority), placed = messages.batch(packet)
        engine, batcher = self._engines[number], self._host.resident.batcher
        params = SegmentParams(engine, threshold, LOGITS if wants_logits else MASKS, low_priority=low_priority)
        classes = len(engine.model.classes) if wants_logits else 0
        images, results = [], []
        for image in placed:
            images.append(self._pixels(image))
            results.append(self._result(image, classes))
        try:
            futures = batcher.submit_all(images, params, deadline)
        except Problem as refused:
            for image in placed:
                self._say(messages.problem(image.ticket, refused))
            return
        self._host.board.notice.waiting = batcher.waiting
        for image, result, future in zip(placed, results, futures, strict=True):
            self._asked[image.ticket] = future
            future.add_done_callback(partial(self._answer, image.ticket, *result))

    def _pixels(self, image: Placed) -> NDArray[np.uint8] | NDArray[np.uint16]:
        return self._array(image.pixels, (image.height, image.width, 3), SAMPLES[image.sample_bytes])

    def _result(self, image: Placed, classes: int) -> tuple[Mask, Logits | None]:
        """Where its mask is wanted, and its logits of so many classes, None for none."""
        size = (image.height, image.width)
        mask = self._array(image.result, size)
        return mask, self._array(image.result + image.logits_at, (*size, classes), np.int32) if classes else None

    def _array(self, offset: int, shape: tuple[int, ...], dtype: DTypeLike = np.uint8) -> NDArray[Any]:
        """What lies there in the arena; raises TypeError where it has not so many bytes."""
        return np.ndarray(shape, dtype, self._arena, offset)

    def _answer(self, ticket: int, mask: Mask, logits: Logits | None, future: Future[InferenceResult]) -> None:
        """The last word on one image: from the engine's thread, or from whoever has cancelled it."""
        del self._asked[ticket]
        try:
            result = future.result()
        except CancelledError:
            self._say(messages.TICKET.pack(messages.GONE, ticket))
            return
        except BaseException as error:
            self._say(messages.problem(ticket, _problem(error)))
            return
        mask[...] = result.mask
        if logits is not None and result.logits is not None:
            logits[...] = result.logits
        self._say(messages.TIMES.pack(messages.DONE, ticket, result.queue_s, result.engine_s))

    def _cancel(self, packet: bytes) -> None:
        future = self._asked.get(messages.TICKET.unpack(packet)[1])
        if future:
            future.cancel()

    def _tell_room(self, packet: bytes) -> None:
        _, ticket, images = messages.COUNT.unpack(packet)
        try:
            self._host.resident.batcher.require_room(images)
        except Problem as refused:
            self._say(messages.problem(ticket, refused))
        else:
            self._say(messages.TICKET.pack(messages.ANSWER, ticket))
        self._host.publish()

    def _release(self, packet: bytes) -> None:
        self._engines.pop(messages.NUMBER.unpack(packet)[1], None)

    def _tell_metrics(self, packet: bytes) -> None:
        ticket = messages.TICKET.unpack(packet)[1]
        self._say(messages.TICKET.pack(messages.ANSWER, ticket) + self._host.metrics())

    def _say(self, packet: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send it; a front end that takes nothing any more is given up."""
        try:
            messages.send(self._line, packet, descriptors)
        except Lost:
            with contextlib.suppress(OSError):
                self._line.shutdown(socket.SHUT_RDWR)


def _problem(error: BaseException) -> Problem:
    """What the client is told; the cause stays here, in the log."""
    if not isinstance(error, Problem) or error.__cause__ is not None:
        log.error("an image failed", exc_info=error.__cause__ or error)
    return error if isinstance(error, Problem) else EngineFailure("the engine could not segment this image")
