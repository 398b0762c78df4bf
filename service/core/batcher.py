"""The queue before the engines: bounded, refuses early, starves nobody, skips the cancelled.

An entry owns its recipient, mostly a `concurrent.futures.Future`: cancelling it is how a client leaves, and the event
loop waits for it without polling. One worker thread feeds all engines, a turn at a time: a batch of small images of one
model and padded shape, or one window of a large image. `step` is all that it does, so tests call it themselves. Whose
turn it is: `core.shares`.
"""

from __future__ import annotations

import bisect
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple

from service.codec.pixels import Fitted
from service.core.appointments import Appointments
from service.core.engine import Job
from service.core.params import SegmentParams
from service.core.queue import InferenceResult, Recipient
from service.core.shares import KINDS, Kind, Shares
from service.logs import log
from service.problems import DeadlinePassed, EngineFailure, QueueFull, Unavailable
from service.settings import Settings

BY_RANK, ENTRIES = attrgetter("rank"), attrgetter("entries")
FADING = 0.8  # weight of the past against the newest turn, in the measured speed
DRAINING = {"Retry-After": "5"}


@dataclass(eq=False)
class QueueEntry:
    """One image in the queue."""

    image: Fitted
    params: SegmentParams
    deadline: float  # a time of the clock, as `queued` is
    queued: float
    recipient: Recipient
    rank: int = 0  # its place among its kind: the lowest first (`core.shares`)

    def __post_init__(self) -> None:
        shape = self.params.engine.model.padded(*self.image.shape[:2])
        self.pixels = math.prod(shape)
        self.group = (id(self.params.engine), self.params.encoder.wants_logits, *shape)
        """What may share a batch: engine, kind of answer, the shape that is computed."""

    def answer(self, result: InferenceResult | Exception) -> None:
        """The end of it, unless the client has left."""
        if not self.recipient.set_running_or_notify_cancel():
            return
        if isinstance(result, Exception):
            self.recipient.set_exception(result)
        else:
            self.recipient.set_result(result)


@dataclass
class Batch:
    """Images that an engine runs together: small ones in one turn, or a single large one in several."""

    kind: Kind
    entries: list[QueueEntry]
    started: float = 0.0
    job: Job | None = None

    @property
    def pixels(self) -> int:
        """Those that the engine computes for it, windows' overlap apart."""
        return sum(entry.pixels for entry in self.entries)

    @property
    def params(self) -> SegmentParams:
        """Those of its first entry, with whom all share engine and kind of answer."""
        return self.entries[0].params

    def start(self) -> Job:
        """What the engine makes of it."""
        images, thresholds, params = [], [], self.params
        for entry in self.entries:
            images.append(entry.image)
            thresholds.append(entry.params.threshold)
        return params.engine.start(images, thresholds, params.encoder.wants_logits)

    def answer(self, job: Job) -> None:
        """Give every entry its result of the finished job."""
        seconds, wants_logits = job.ms / 1000, self.params.encoder.wants_logits
        for i, entry in enumerate(self.entries):
            logits = job.logits[i] if wants_logits else None
            entry.answer(InferenceResult(job.masks[i], logits, self.started - entry.queued, seconds))


@dataclass(frozen=True)
class QueueLimits:
    """Most images in the queue, and most images and pixels in one turn of an engine: what has more is large.

    `max_delay_s` is how long an image may wait for company while the engine is free: nothing, unless asked for.
    """

    queue_images: int
    batch_images: int
    batch_pixels: int
    max_delay_s: float = 0.0

    @classmethod
    def of(cls, settings: Settings) -> QueueLimits:
        """Those of the settings."""
        return cls(settings.queue_images, settings.batch_images, settings.batch_pixels, settings.max_delay_ms / 1000)


class Load(NamedTuple):
    """Images that wait and that may come in unasked (none while anybody has been told to come again), when the present
    turn has begun (0 between two), and the seconds that all that is there takes, and a full queue of it.
    """

    waiting: int
    room: int
    turn_since: float
    drain_s: float
    queue_s: float


class Batcher:
    """`submit` from any thread, get a future; `start` and `close` bracket the worker thread.

    `observe` is called with the seconds of every turn and the images of the batch that it ends, 0 where it ends none;
    `began` with the time when a turn has begun, and `turned` when it has ended.
    """

    def __init__(
        self,
        limits: QueueLimits,
        clock: Callable[[], float] = time.monotonic,
        observe: Callable[[int, float], None] = lambda images, seconds: None,
        began: Callable[[float], None] = lambda time: None,
        turned: Callable[[], None] = lambda: None,
    ) -> None:
        self.finished = 0  # images that engines have run
        self._limits = limits
        self._clock = clock
        self._observe = observe
        self._began = began
        self._turned = turned
        self._waiting: dict[Kind, list[QueueEntry]] = {kind: [] for kind in KINDS}  # by rank
        self._begun: dict[Kind, Batch] = {}  # with turns still to run
        self._running: Batch | None = None
        self._shares = Shares()
        self._appointments = Appointments(limits.queue_images)
        self._turn_seconds = 0.0  # fading sums over the turns so far: their ratio is the speed
        self._turn_pixels = 0.0
        self._turn_since: float | None = None
        self._closing = False
        self._ended = False  # the worker, before its time
        self._lock = threading.Lock()
        self._bell = threading.Lock()  # for which the worker waits: free once it has been rung
        self._worker = threading.Thread(target=self._work, name="engine", daemon=True)  # a hung engine must not keep us

    def start(self) -> None:
        """Start the worker thread."""
        self._worker.start()

    def close(self, timeout_s: float | None = None) -> bool:
        """Refuse what comes from now on, finish what waits, stop the worker: True.

        Where that takes more than `timeout_s`, what still waits is refused too, and a run that hangs is left: False.
        """
        with self._lock:
            self._closing = True
            self._ring()
        self._worker.join(timeout_s)
        self._refuse_waiting("the server has shut down")
        return not self._worker.is_alive()

    @property
    def works(self) -> bool:
        """Whether what is submitted will be served: the worker has not ended before its time."""
        return not self._ended

    @property
    def waiting(self) -> int:
        """Images in the queue."""
        return sum(map(len, self._waiting.values()))

    def place(self, image: Fitted, claim: Callable[[int], None]) -> Fitted:
        """See `core.queue.Queue`: the engine reads everywhere."""
        return image

    @property
    def busy(self) -> bool:
        """See `core.queue.Queue`."""
        return self.waiting > 0

    @property
    def running_s(self) -> float:
        """Seconds that the present turn of an engine has taken so far; 0 where none runs."""
        since = self._turn_since
        return 0.0 if since is None else self._clock() - since

    def require_room(self, images: int = 1) -> None:
        """Raise QueueFull or Unavailable unless so many may come in, those apart who were told to come now."""
        with self._lock:
            self._require_open()
            self._drop_cancelled()
            _, queue_s = self._drain_and_queue_s()
            if not self._appointments.admit(self._clock(), self.waiting, images, queue_s):
                self._refuse(images)

    @property
    def load(self) -> Load:
        """How things stand."""
        with self._lock:
            waiting = self.waiting
            room = 0 if self._appointments.any else self._limits.queue_images - waiting
            return Load(waiting, room, self._turn_since or 0.0, *self._drain_and_queue_s())

    def after_s(self) -> int:
        """Seconds after which one who is refused for other reasons should come again, as if the queue were full."""
        with self._lock:
            return self._appoint(1)

    def submit(self, image: Fitted, params: SegmentParams, deadline: float = math.inf) -> Future[InferenceResult]:
        """Queue one image; raises QueueFull or Unavailable."""
        return self.submit_all([image], params, deadline)[0]

    def submit_all(
        self, images: Sequence[Fitted], params: SegmentParams, deadline: float = math.inf
    ) -> list[Future[InferenceResult]]:
        """Queue all of `images`, or none and raise QueueFull or Unavailable."""
        futures = [Future[InferenceResult]() for _ in images]
        self.queue(images, params, deadline, futures)
        return futures

    def queue(
        self, images: Sequence[Fitted], params: SegmentParams, deadline: float, recipients: Sequence[Recipient]
    ) -> None:
        """The same, with these recipients in the place of futures."""
        now = self._clock()
        both = zip(images, recipients, strict=True)
        entries = [QueueEntry(image, params, deadline, now, recipient) for image, recipient in both]
        with self._lock:
            self._require_open()
            if not self._fit_in(len(entries)):
                self._drop_cancelled()
                if not self._fit_in(len(entries)):
                    self._refuse(len(entries))
            for entry in entries:
                kind = Kind(params.low_priority, entry.pixels > self._limits.batch_pixels)
                if not self._is_busy(kind):
                    self._shares.begin(kind)
                entry.rank = self._shares.rank(kind, entry.pixels)
                bisect.insort(self._waiting[kind], entry, key=BY_RANK)
            self._ring()

    def step(self) -> int:
        """Run one turn of what is there now; returns how many images it was for."""
        batch = self._next()
        if batch is None:
            return 0
        self._run(batch)
        return len(batch.entries)

    def seconds_until_due(self) -> float:
        """Seconds until the next turn should begin: 0 for now, infinite while there is nothing to do."""
        if self._begun:
            return 0.0
        if not any(self._waiting.values()):
            return math.inf
        if self._closing or not self._limits.max_delay_s or self._is_batch_full():
            return 0.0
        oldest = min(entry.queued for entries in self._waiting.values() for entry in entries)
        return max(0.0, oldest + self._limits.max_delay_s - self._clock())

    def _fit_in(self, images: int) -> bool:
        return self.waiting + images <= self._limits.queue_images

    def _is_busy(self, kind: Kind) -> bool:
        return bool(self._waiting[kind]) or kind in self._begun

    def _is_batch_full(self) -> bool:
        """Whether waiting longer could not make any batch larger."""
        for kind, entries in self._waiting.items():
            if entries and (kind.large or not self._fits(self._company(entries), entries[0])):
                return True
        return False

    def _company(self, entries: Sequence[QueueEntry]) -> list[QueueEntry]:
        """The first of `entries` and those of its group that fit into one batch, in order."""
        company: list[QueueEntry] = []
        for entry in entries:
            if entry.group == entries[0].group and (not company or self._fits(company, entry)):
                company.append(entry)
        return company

    def _fits(self, batch: Sequence[QueueEntry], entry: QueueEntry) -> bool:
        pixels = (len(batch) + 1) * entry.pixels  # all of a group have as many
        return len(batch) < self._limits.batch_images and pixels <= self._limits.batch_pixels

    def _work(self) -> None:
        try:
            while self._wait():
                self.step()
        except BaseException:  # a fault of this class
            log.critical("the thread of the engines has ended", exc_info=True)
            self._ended = True
            self._turned()
            self._refuse_waiting("the server has failed")

    def _wait(self) -> bool:
        """Until there is something to do; False when closing and all is done."""
        while True:
            with self._lock:
                due = self.seconds_until_due()
                if due <= 0 or self._closing:
                    return due <= 0
            self._bell.acquire(timeout=min(due, threading.TIMEOUT_MAX))

    def _ring(self) -> None:
        """Wake the worker, now or when it next waits. Only with the lock held, so that nobody rings twice."""
        if self._bell.locked():
            self._bell.release()

    def _next(self) -> Batch | None:
        """What has the next turn; the late get their problem, the cancelled go."""
        with self._lock:
            unwanted = self._remove_unwanted(self._clock())
            batch = self._running = self._take()
        for entry in unwanted:  # whose callbacks may want a lock of their own
            entry.answer(DeadlinePassed("the deadline passed while the image waited for the engine"))
        return batch

    def _remove_unwanted(self, now: float) -> list[QueueEntry]:
        """The cancelled and the late, among those that wait or have begun."""
        removed = []
        for entries in (*self._waiting.values(), *map(ENTRIES, self._begun.values())):
            for entry in entries.copy():
                if entry.deadline <= now or entry.recipient.cancelled():
                    entries.remove(entry)
                    removed.append(entry)
        if removed:
            self._begun = {kind: batch for kind, batch in self._begun.items() if batch.entries}
        return removed

    def _take(self) -> Batch | None:
        """What has the next turn: what has begun, or a new batch."""
        kinds = [kind for kind, entries in self._waiting.items() if entries or kind in self._begun]
        if not kinds:
            return None
        kind = self._shares.next(kinds)
        if kind in self._begun:
            return self._begun.pop(kind)
        entries = self._waiting[kind]
        company = [entries[0]] if kind.large else self._company(entries)
        batch = Batch(kind, company, self._clock())
        for entry in batch.entries:
            entries.remove(entry)
        return batch

    def _run(self, batch: Batch) -> None:
        """Run one turn, and answer the entries if it was the last."""
        started = self._turn_since = self._clock()
        self._began(started)
        try:
            batch.job = batch.job or batch.start()
            pixels, done = batch.job.advance(), batch.job.done
            if done:
                batch.answer(batch.job)
        except BaseException as error:  # whatever the engine raises, SystemExit too, must not end the worker
            pixels, done = batch.pixels, True
            self._failed(batch, error)
        seconds = self._clock() - started
        with self._lock:
            self._turn_since = self._running = None
            self._shares.charge(batch.kind, pixels)
            self._turn_seconds = FADING * self._turn_seconds + seconds
            self._turn_pixels = FADING * self._turn_pixels + pixels
            if not done:
                self._begun[batch.kind] = batch
        finished = len(batch.entries) if done else 0
        self.finished += finished
        self._observe(finished, seconds)
        self._turned()

    def _failed(self, batch: Batch, error: BaseException) -> None:
        """Run the images of a batch one by one: only what fails by itself fails."""
        if len(batch.entries) == 1:
            failure = EngineFailure("the engine could not segment this image")
            failure.__cause__ = error
            batch.entries[0].answer(failure)
            return
        log.warning("a batch of %d images failed (%r); running them one by one", len(batch.entries), error)
        for entry in batch.entries:
            single = Batch(batch.kind, [entry], batch.started)
            try:
                single.answer(single.start().finish())
            except BaseException as its_error:
                self._failed(single, its_error)

    def _require_open(self) -> None:
        if self._ended:
            raise Unavailable("the server has failed")
        if self._closing:
            raise Unavailable("the server is shutting down", headers=DRAINING)

    def _refuse(self, images: int) -> None:
        """Raise QueueFull, with the time at which there will be room."""
        seconds = self._appoint(images)
        raise QueueFull(
            f"{self.waiting} images are waiting; try again in {seconds} s", headers={"Retry-After": str(seconds)}
        )

    def _appoint(self, images: int) -> int:
        return self._appointments.make(self._clock(), images, *self._drain_and_queue_s())

    @property
    def _pixel_s(self) -> float:
        """Seconds that an engine takes for a pixel, as measured so far."""
        return self._turn_seconds / max(self._turn_pixels, 1)

    def _drain_and_queue_s(self) -> tuple[float, float]:
        """Seconds that all takes that is there, and a full queue of such images as wait now."""
        if not (self.waiting or self._begun or self._running):
            return 0.0, 0.0
        waiting = [entry.pixels for entries in self._waiting.values() for entry in entries]
        begun = [batch.pixels for batch in (*self._begun.values(), self._running) if batch]
        mean, pixel_s = sum(waiting) / max(len(waiting), 1), self._pixel_s
        return sum(waiting + begun) * pixel_s, self._limits.queue_images * mean * pixel_s

    def _drop_cancelled(self) -> None:
        for entries in self._waiting.values():
            for entry in [entry for entry in entries if entry.recipient.cancelled()]:
                entries.remove(entry)

    def _refuse_waiting(self, reason: str) -> None:
        with self._lock:
            left = [entry for entries in self._waiting.values() for entry in entries]
            left += [entry for batch in self._begun.values() for entry in batch.entries]
            for entries in self._waiting.values():
                entries.clear()
            self._begun.clear()
        for entry in left:
            entry.answer(Unavailable(reason))
