"""The queue as a front end knows it: images go to the engine process, futures are answered from there."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import math
import select
import socket
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.images import unlimited
from engine.model import Model
from service.codec.pixels import Fitted
from service.core.appointments import Appointments
from service.core.engine import Job
from service.core.models import Models
from service.core.params import SegmentParams
from service.core.queue import InferenceResult
from service.core.readiness import RETRY
from service.logs import log
from service.problems import MemoryFull, TooManyImages, Unavailable
from service.processes import catalog, messages
from service.processes.arena import Arena, NoPart, Part, part_of
from service.processes.board import BoardView, Notice
from service.processes.messages import Lost
from service.processes.outbox import Outbox

GONE = "the engine's process has ended; another is being started"
SILENT = "the engine's process does not answer"
ANSWER_S = 2.0  # in which a question that needs no engine is answered
LINE_S = 5.0  # in which the supervisor connects a front end to the next engine process


@dataclass(frozen=True, eq=False)
class RemoteEngine:
    """An engine of the engine process, by its number; for requests alone that go there."""

    session: Session
    number: int
    model: Model
    device: str
    bus: str
    kernel: str

    def empty(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Of the memory that it shares with this process."""
        return self.session.empty(shape)

    def start(
        self, images: Sequence[Fitted], threshold: float | Sequence[float] | None = None, want_logits: bool = False
    ) -> Job:
        """Never: it runs in the other process."""
        raise NotImplementedError


class Asked(Future[Any]):
    """What the engine process has been asked for and has not answered yet, and the memory that it uses until then."""

    def __init__(self, session: Session, ticket: int) -> None:
        super().__init__()
        self._session = session
        self._ticket = ticket

    def cancel(self) -> bool:
        """Tell the engine process too."""
        cancelled = not self.cancelled() and super().cancel()
        if cancelled:
            self._session.say(messages.TICKET.pack(messages.CANCEL, self._ticket))
        return cancelled


@dataclass(frozen=True)
class Question:
    """Something that the engine process is asked."""

    asked: Asked

    def answer(self, packet: bytes) -> Any:
        """What its answer says."""
        return packet[messages.TICKET.size :]


@dataclass(frozen=True)
class Image(Question):
    """An image to be segmented, and the parts of the arena that the engine process uses for it meanwhile."""

    pixels: Part
    result: Part
    placed: messages.Placed
    classes: int  # with logits

    def answer(self, packet: bytes) -> InferenceResult:
        """The result, where it lies."""
        _, _, queue_s, engine_s = messages.TIMES.unpack(packet)
        place, placed = np.asarray(self.result), self.placed
        mask = place[: placed.height * placed.width].reshape(placed.height, placed.width)
        logits = None
        if self.classes:
            samples = place[placed.logits_at : placed.result_bytes(self.classes)].view(np.int32)
            logits = samples.reshape(placed.height, placed.width, self.classes)
        return InferenceResult(mask, logits, queue_s, engine_s)


class Session:
    """All that one engine process is asked over one line, until it ends."""

    def __init__(self, line: socket.socket, arena_bytes: int) -> None:
        self.arena = Arena(arena_bytes)
        self._line = line
        self._outbox = Outbox(line)
        self._poll = select.poll()
        self._poll.register(line, select.POLLIN)
        self._tickets = itertools.count()
        self._pending: dict[int, Question] = {}
        self._lock = threading.Lock()
        self._board: BoardView | None = None
        self._lost = False

    @property
    def busy(self) -> bool:
        """Whether the next answer is there."""
        return bool(self._poll.poll(0))

    @property
    def notice(self) -> Notice:
        """What the engine process tells of itself."""
        assert self._board
        return self._board.read()

    def listen(self, serve: Callable[[list[RemoteEngine]], None]) -> None:
        """Take answers until the other side ends. `serve` is called with the engines: at first and anew."""
        try:
            self._outbox.send(bytes([messages.ARENA]), [self.arena.descriptor])
            self.arena.close()
            while True:
                packet, descriptors = messages.receive(self._line)
                if not packet:
                    break
                if packet[0] == messages.MODELS:
                    if len(descriptors) > 1:
                        self._board = BoardView(descriptors[1])
                    serve([self._engine(entry) for entry in catalog.read(descriptors[0])])
                else:
                    self._take(packet)
        except Lost:
            pass
        except Exception:  # what it says makes no sense
            log.exception("the engine's process is given up")
        self._end()

    def segment(
        self, images: Sequence[Fitted], engine: RemoteEngine, params: SegmentParams, deadline: float
    ) -> list[Future[InferenceResult]]:
        """Futures of all `images`; raises Unavailable and MemoryFull."""
        logits, low = params.encoder.wants_logits, params.low_priority
        classes = len(engine.model.classes) if logits else 0
        placed = [self._placed(image, classes) for image in images]
        packet = messages.BATCH.pack(messages.SEGMENT, engine.number, params.threshold, deadline, logits, low)
        packet += b"".join(messages.IMAGE.pack(*one.placed) for one in placed)
        if len(packet) > messages.MOST:
            raise TooManyImages(f"{len(images)} images are too many for one request")
        self._ask(packet, {one.placed.ticket: one for one in placed})
        return [one.asked for one in placed]

    def empty(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Of the memory that the engine process sees too. Raises MemoryFull."""
        return self._part(math.prod(shape)).array(shape)

    def place(self, image: Fitted, claim: Callable[[int], None] = unlimited) -> Fitted:
        """See `core.queue.Queue`."""
        if part_of(image, self.arena):
            return image
        claim(image.nbytes)
        copy = self.empty(image.shape)
        np.copyto(copy, image)
        return copy

    def ask(self, kind: int, *more: int) -> Future[Any]:
        """The answer to a question of this kind; raises Unavailable."""
        ticket = next(self._tickets)
        asked = Asked(self, ticket)
        form = messages.COUNT if more else messages.TICKET
        self._ask(form.pack(kind, ticket, *more), {ticket: Question(asked)})
        return asked

    def say(self, packet: bytes) -> None:
        """Send what needs no answer; who is not there any more need not know."""
        with contextlib.suppress(Lost):
            self._outbox.send(packet)

    def _placed(self, image: Fitted, classes: int) -> Image:
        """An image in the arena, and a part for its result."""
        pixels, (height, width) = part_of(self.place(image), self.arena), image.shape[:2]
        assert pixels
        placed = messages.Placed(next(self._tickets), pixels.offset, 0, height, width)
        result = self._part(placed.result_bytes(classes))
        return Image(Asked(self, placed.ticket), pixels, result, placed._replace(result=result.offset), classes)

    def _part(self, size: int) -> Part:
        try:
            return self.arena.take(size)
        except NoPart as error:
            raise MemoryFull("there is no memory for this image at present", headers=RETRY) from error

    def _ask(self, packet: bytes, pending: Mapping[int, Question]) -> None:
        with self._lock:
            if self._lost:
                raise Unavailable(GONE, headers=RETRY)
            self._pending.update(pending)
        try:
            self._outbox.send(packet)
        except Lost as lost:
            for ticket in pending:
                self._pending.pop(ticket, None)
            raise Unavailable(SILENT if lost.errno == errno.EAGAIN else GONE, headers=RETRY) from None

    def _take(self, packet: bytes) -> None:
        """The last word on something that was asked for."""
        kind, ticket = messages.TICKET.unpack_from(packet)
        pending = self._pending.pop(ticket)
        asked = pending.asked
        if not asked.set_running_or_notify_cancel():
            return
        if kind == messages.PROBLEM:
            asked.set_exception(messages.problem_of(packet))
        else:
            asked.set_result(pending.answer(packet))

    def _engine(self, entry: catalog.Entry) -> RemoteEngine:
        engine = RemoteEngine(self, entry.number, entry.model, entry.device, entry.bus, entry.kernel)
        release = messages.NUMBER.pack(messages.RELEASE, entry.number)
        weakref.finalize(engine, self.say, release).atexit = False
        return engine

    def _end(self) -> None:
        """Nothing more is answered."""
        with self._lock:
            self._lost = True
            unanswered, self._pending = self._pending, {}
        self._outbox.end()
        for pending in unanswered.values():
            if pending.asked.set_running_or_notify_cancel():
                pending.asked.set_exception(Unavailable(GONE, headers=RETRY))


class EngineClient:
    """The queue's face (`core.queue`), and what else a front end asks the engine process.

    `places` are those of the queue that this front end may promise to clients who come again, having been refused for
    want of memory. Its engines are those of `models`. `abandoned` is called where a line has ended and no other comes:
    the engine process has given this front end up, or this one it, and lives on.
    """

    def __init__(
        self, models: Models, arena_bytes: int, places: int, abandoned: Callable[[], None] = lambda: None
    ) -> None:
        self.connected = threading.Event()  # once and for all, by the first engine process
        self._models = models
        self._arena_bytes = arena_bytes
        self._appointments = Appointments(places)
        self._abandoned = abandoned
        self._attached = threading.Event()  # another line than the last
        self._session: Session | None = None
        self._lost_at = math.inf

    def attach(self, line: socket.socket) -> None:
        """From now on an engine process is at the other end of `line`."""
        session, another = Session(line, self._arena_bytes), threading.Event()
        self._attached.set()
        self._attached = another

        def serve(engines: list[RemoteEngine]) -> None:
            self._models.serve(engines)
            self._session = session
            self.connected.set()

        def listen() -> None:
            session.listen(serve)
            if self._session is session:
                self._session, self._lost_at = None, time.monotonic()
            if not another.wait(LINE_S):
                log.error("the line to the engine's process has ended and there is no other for %g s", LINE_S)
                self._abandoned()

        threading.Thread(target=listen, name="engine process", daemon=True).start()

    @property
    def notice(self) -> Notice | None:
        """What the engine process tells of itself; None where there is none."""
        session = self._session
        return session.notice if session else None

    @property
    def absent_s(self) -> float:
        """Seconds for which there has been none."""
        return 0.0 if self._session else max(0.0, time.monotonic() - self._lost_at)

    @property
    def image_joules(self) -> float | None:
        """See `core.resident.Resident`."""
        notice = self.notice
        return notice.joules if notice else None

    def place(self, image: Fitted, claim: Callable[[int], None]) -> Fitted:
        """See `core.queue.Queue`."""
        return self._require_session().place(image, claim)

    @property
    def busy(self) -> bool:
        """See `core.queue.Queue`."""
        session = self._session
        return session is not None and session.busy

    def submit(self, image: Fitted, params: SegmentParams, deadline: float = math.inf) -> Future[InferenceResult]:
        """See `core.queue.Queue`."""
        return self.submit_all([image], params, deadline)[0]

    def submit_all(
        self, images: Sequence[Fitted], params: SegmentParams, deadline: float = math.inf
    ) -> list[Future[InferenceResult]]:
        """See `core.queue.Queue`."""
        engine = params.engine
        assert isinstance(engine, RemoteEngine)
        return engine.session.segment(images, engine, params, deadline)

    async def require_room(self) -> None:
        """Raise QueueFull or Unavailable unless an image may come in, as the engine process says where it may not."""
        notice = self.notice
        if not notice or notice.room < 1:
            await self._answer(messages.ROOM, 1)

    async def exposition(self) -> bytes:
        """The series that the engine process alone knows; none where there is no such process, or none that answers."""
        try:
            told: bytes = await self._answer(messages.METRICS)
        except Unavailable:
            return b""
        return told

    def after_s(self) -> int:
        """See `Batcher`."""
        notice = self.notice
        drain_s, queue_s = (notice.drain_s, notice.queue_s) if notice else (1.0, 1.0)
        return self._appointments.make(time.monotonic(), 1, drain_s, queue_s)

    def _require_session(self) -> Session:
        session = self._session
        if session is None:
            raise Unavailable(GONE, headers=RETRY)
        return session

    async def _answer(self, kind: int, *more: int) -> Any:
        """The answer to a question of this kind; raises Unavailable, also where it takes too long."""
        session = self._require_session()
        try:
            return await asyncio.wait_for(asyncio.wrap_future(session.ask(kind, *more)), ANSWER_S)
        except asyncio.TimeoutError:
            raise Unavailable(SILENT, headers=RETRY) from None
