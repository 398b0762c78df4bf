"""The queue before the engines: bounded, refuses early, groups by shape, starves nobody, skips the cancelled.

An entry owns its result, a `concurrent.futures.Future`: cancelling it is how a client leaves, and the event loop waits
for it without polling. One worker thread feeds all engines; `step` is all that it does, so tests call it themselves.

Order: by arrival, and an image of low priority counts as if it had come LOW_WAITS_S later. The first in this order is
always in the next batch, with all others of its model and padded shape that fit: so no shape and no class starves.
"""

from __future__ import annotations

import bisect
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from engine.images import rounded_pixels
from service.codec.pixels import Logits, Mask, Pixels
from service.core.params import SegmentParams
from service.logs import log
from service.problems import DeadlinePassed, EngineFailure, QueueFull, Unavailable
from service.settings import Settings

FADING = 0.8  # weight of the past against the newest run, in the measured speed
LOW_WAITS_S = 2.0


@dataclass(frozen=True)
class InferenceResult:
    """One image's mask, or its logits, and the seconds it waited and was worked on (those of its whole batch)."""

    mask: Mask | None
    logits: Logits | None
    queue_s: float
    engine_s: float


@dataclass(eq=False)
class QueueEntry:
    """One image in the queue."""

    image: Pixels
    params: SegmentParams
    deadline: float  # a time of the clock, as `queued` is
    queued: float
    result: Future[InferenceResult] = field(default_factory=Future)

    @property
    def pixels(self) -> int:
        """Those that the engine computes."""
        return rounded_pixels(*self.image.shape[:2])

    @property
    def rank(self) -> float:
        """The lowest is the next to run."""
        return self.queued + LOW_WAITS_S * self.params.low_priority

    @property
    def group(self) -> tuple[int, bool, int, int]:
        """What may share a batch: engine, kind of answer, padded shape (or the one that the model resizes to)."""
        height, width = self.image.shape[:2]
        model = self.params.engine.model
        how = model.preprocessing
        shape = (how.height, how.width) if how.resize_mode == "resize" else model.padded(height, width)
        return (id(self.params.engine), self.params.encoder.wants_logits, *shape)


@dataclass(frozen=True)
class QueueLimits:
    """Most images and pixels in the queue, and most in one batch (a larger image makes a batch of its own).

    `max_delay_s` is how long an image may wait for company while the engine is free: nothing, unless asked for.
    """

    queue_images: int
    queue_pixels: int
    batch_images: int
    batch_pixels: int
    max_delay_s: float = 0.0

    @classmethod
    def of(cls, settings: Settings) -> QueueLimits:
        """Those of the settings."""
        return cls(
            *(settings.queue_images, settings.queue_pixels, settings.batch_images, settings.batch_pixels),
            settings.max_delay_ms / 1000,
        )


class Batcher:
    """`submit` from any thread, get a future; `start` and `close` bracket the worker thread.

    `observe` is called with the images and the seconds of every batch.
    """

    def __init__(
        self,
        limits: QueueLimits,
        clock: Callable[[], float] = time.monotonic,
        observe: Callable[[int, float], None] = lambda images, seconds: None,
    ) -> None:
        self.finished = 0  # images that engines have run
        self._limits = limits
        self._clock = clock
        self._observe = observe
        self._waiting: list[QueueEntry] = []  # by rank
        self._pixels = 0  # of all in _waiting
        self._run_seconds = 0.0  # fading sums over the runs so far: their ratio is the speed
        self._run_pixels = 0.0
        self._running_since: float | None = None
        self._closing = False
        self._ended = False  # the worker, before its time
        self._changed = threading.Condition()
        self._worker = threading.Thread(target=self._work, name="engine", daemon=True)  # a hung engine must not keep us

    def start(self) -> None:
        """Start the worker thread."""
        self._worker.start()

    def close(self, timeout_s: float | None = None) -> bool:
        """Refuse what comes from now on, finish what waits, stop the worker: True.

        Where that takes more than `timeout_s`, what still waits is refused too, and a run that hangs is left: False.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
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
        return len(self._waiting)

    @property
    def running_s(self) -> float:
        """Seconds that the present run of an engine has taken so far; 0 where none runs."""
        since = self._running_since
        return 0.0 if since is None else self._clock() - since

    def require_room(self, images: int = 1, pixels: int = 0) -> None:
        """Raise QueueFull or Unavailable if so much could not be submitted now."""
        with self._changed:
            self._require_room(images, pixels)

    def submit(self, image: Pixels, params: SegmentParams, deadline: float = math.inf) -> Future[InferenceResult]:
        """Queue one image; raises QueueFull or Unavailable."""
        return self.submit_all([image], params, deadline)[0]

    def submit_all(
        self, images: Sequence[Pixels], params: SegmentParams, deadline: float = math.inf
    ) -> list[Future[InferenceResult]]:
        """Queue all of `images`, or none and raise QueueFull or Unavailable."""
        now = self._clock()
        entries = [QueueEntry(image, params, deadline, now) for image in images]
        pixels = sum(entry.pixels for entry in entries)
        with self._changed:
            self._require_room(len(entries), pixels)
            for entry in entries:
                bisect.insort(self._waiting, entry, key=lambda other: other.rank)
            self._pixels += pixels
            self._changed.notify()
        return [entry.result for entry in entries]

    def step(self) -> int:
        """Serve one batch of what is waiting now; returns how many images it held."""
        batch = self._take()
        if batch:
            started = self._running_since = self._clock()
            self._serve(batch, started)
            seconds = self._clock() - started
            self._running_since = None
            self._run_seconds = FADING * self._run_seconds + seconds
            self._run_pixels = FADING * self._run_pixels + sum(entry.pixels for entry in batch)
            self.finished += len(batch)
            self._observe(len(batch), seconds)
        return len(batch)

    def seconds_until_due(self) -> float:
        """Seconds until the next batch should be taken: 0 for now, infinite while nothing waits."""
        if not self._waiting:
            return math.inf
        if self._closing or not self._limits.max_delay_s or self._is_batch_full():
            return 0.0
        oldest = min(entry.queued for entry in self._waiting)
        return max(0.0, oldest + self._limits.max_delay_s - self._clock())

    def _is_batch_full(self) -> bool:
        """Whether waiting longer could not make the next batch larger."""
        group = [entry for entry in self._waiting if entry.group == self._waiting[0].group]
        limits = self._limits
        return len(group) >= limits.batch_images or sum(entry.pixels for entry in group) >= limits.batch_pixels

    def _work(self) -> None:
        try:
            while self._wait():
                self.step()
        except BaseException:  # a fault of this class
            log.critical("the thread of the engines has ended", exc_info=True)
            self._ended = True
            self._refuse_waiting("the server has failed")

    def _refuse_waiting(self, reason: str) -> None:
        with self._changed:
            left, self._waiting, self._pixels = self._waiting, [], 0
        for entry in left:
            if entry.result.set_running_or_notify_cancel():
                entry.result.set_exception(Unavailable(reason))

    def _wait(self) -> bool:
        """Until there is something to do; False when closing and all is done."""
        with self._changed:
            while (due := self.seconds_until_due()) > 0:
                if self._closing:
                    return False
                self._changed.wait(None if due == math.inf else due)
            return True

    def _take(self) -> list[QueueEntry]:
        """The first in the queue and those of its group that fit; the late get their problem, the cancelled go."""
        batch: list[QueueEntry] = []
        kept: list[QueueEntry] = []
        pixels = 0
        with self._changed:
            for entry in self._waiting:
                fits = len(batch) < self._limits.batch_images and pixels + entry.pixels <= self._limits.batch_pixels
                if batch and not (fits and entry.group == batch[0].group):
                    kept.append(entry)
                elif self._wanted(entry):
                    batch.append(entry)
                    pixels += entry.pixels
            self._waiting = kept
            self._pixels = sum(entry.pixels for entry in kept)
        return batch

    def _wanted(self, entry: QueueEntry) -> bool:
        if not entry.result.set_running_or_notify_cancel():
            return False
        if entry.deadline <= self._clock():
            entry.result.set_exception(DeadlinePassed("the deadline passed while the image waited for the engine"))
            return False
        return True

    def _serve(self, batch: list[QueueEntry], started: float) -> None:
        """Run a batch and answer its entries. If that fails they run one by one: only the bad ones fail."""
        try:
            results = self._run(batch, started)
        except BaseException as error:  # whatever the engine raises, SystemExit too, must not end the worker
            if len(batch) == 1:
                failure = EngineFailure("the engine could not segment this image")
                failure.__cause__ = error
                batch[0].result.set_exception(failure)
                return
            log.warning("a batch of %d images failed (%r); running them one by one", len(batch), error)
            for entry in batch:
                self._serve([entry], started)
            return
        for entry, result in zip(batch, results, strict=True):
            entry.result.set_result(result)

    def _run(self, batch: list[QueueEntry], started: float) -> list[InferenceResult]:
        engine, images = batch[0].params.engine, [entry.image for entry in batch]
        masks: Sequence[Mask | None] = [None] * len(batch)
        logits: Sequence[Logits | None] = [None] * len(batch)
        if batch[0].params.encoder.wants_logits:
            logits, timings = engine.run_logits(images)
        else:
            masks, timings = engine.run(images, [entry.params.threshold for entry in batch])
        seconds = (timings.fit_ms + timings.run_ms) / 1000
        return [
            InferenceResult(mask, some, started - entry.queued, seconds)
            for entry, mask, some in zip(batch, masks, logits, strict=True)
        ]

    def _require_room(self, images: int, pixels: int) -> None:
        if self._ended:
            raise Unavailable("the server has failed")
        if self._closing:
            raise Unavailable("the server is shutting down", headers={"Retry-After": "5"})
        if self._is_full(images, pixels):
            self._drop_cancelled()
        if self._is_full(images, pixels):
            seconds = self._seconds_to_drain()
            raise QueueFull(
                f"{len(self._waiting)} images ({self._pixels} pixels) are waiting; try again in {seconds} s",
                headers={"Retry-After": str(seconds)},
            )

    def _is_full(self, images: int, pixels: int) -> bool:
        too_many = len(self._waiting) + images > self._limits.queue_images
        return too_many or self._pixels + pixels > self._limits.queue_pixels

    def _drop_cancelled(self) -> None:
        self._waiting = [entry for entry in self._waiting if not entry.result.cancelled()]
        self._pixels = sum(entry.pixels for entry in self._waiting)

    def _seconds_to_drain(self) -> int:
        """Whole seconds, at least 1, until what waits now is done at the measured speed."""
        return max(1, math.ceil(self._pixels * self._run_seconds / max(self._run_pixels, 1)))
