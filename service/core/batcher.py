"""The queue before the engines: bounded, refuses early, groups by shape, starves nobody, skips the departed.

An item owns its reply, a `concurrent.futures.Future`: cancelling it is how a client leaves, and the event loop waits
for it without polling. One worker thread feeds all engines; `step` is all that it does, so tests call it themselves.

Order: by arrival, and an image of low priority counts as if it had come LOW_WAITS_S later. The first in this order is
always in the next batch, with all others of its model and padded shape that fit: so no shape and no class starves.
"""

from __future__ import annotations

import bisect
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

from engine.model import Model
from service.codec.pixels import Logits, Mask, Pixels, fitted_pixels
from service.problems import DeadlinePassed, EngineFailure, QueueFull, Unavailable

log = logging.getLogger("mbunet")

FADING = 0.8  # weight of the past against the newest run, in the measured speed
LOW_WAITS_S = 2.0


class Timings(Protocol):
    """Milliseconds that one run of the engine took."""

    @property
    def fit_ms(self) -> float: ...
    @property
    def run_ms(self) -> float: ...


class Engine(Protocol):
    """What the service asks of an engine."""

    @property
    def model(self) -> Model: ...
    @property
    def device(self) -> str: ...
    @property
    def kernel(self) -> str: ...
    def run(
        self, images: Sequence[Pixels], threshold: float | Sequence[float] | None = None
    ) -> tuple[list[Mask], Timings]: ...
    def logits(self, image: Pixels) -> Logits: ...


@dataclass(frozen=True)
class Work:
    """What is to be done with an image, by which engine, until when (a time of the clock), and how urgently."""

    engine: Engine
    threshold: float
    deadline: float = math.inf
    low: bool = False
    wants_logits: bool = False


@dataclass(frozen=True)
class Reply:
    """One image's mask, or its logits, and the seconds it waited and was worked on (those of its whole batch)."""

    mask: Mask | None
    logits: Logits | None
    queue_s: float
    engine_s: float


@dataclass(eq=False)
class Item:
    """One image in the queue. `queued` is the injected clock's."""

    image: Pixels
    work: Work
    queued: float
    reply: Future[Reply] = field(default_factory=Future)

    @property
    def pixels(self) -> int:
        return fitted_pixels(*self.image.shape[:2])

    @property
    def rank(self) -> float:
        return self.queued + LOW_WAITS_S * self.work.low

    @property
    def group(self) -> tuple[int, bool, int, int]:
        """What may share a batch: engine, kind of answer, padded shape (or the one that the model resizes to)."""
        height, width = self.image.shape[:2]
        how = self.work.engine.model.preprocessing
        shape = (how.height, how.width) if how.fit == "resize" else ((height + 15) // 16, (width + 15) // 16)
        return (id(self.work.engine), self.work.wants_logits, *shape)


@dataclass(frozen=True)
class Bounds:
    """Most images and pixels in the queue, and most in one batch (a larger image makes a batch of its own).

    `max_delay_s` is how long an image may wait for company while the engine is free: nothing, unless asked for.
    """

    queue_images: int
    queue_pixels: int
    batch_images: int
    batch_pixels: int
    max_delay_s: float = 0.0


class Batcher:
    """`submit` from any thread, get a future; `start` and `close` bracket the worker thread.

    `observe` is called with the images and the seconds of every batch.
    """

    def __init__(
        self,
        bounds: Bounds,
        clock: Callable[[], float] = time.monotonic,
        observe: Callable[[int, float], None] = lambda images, seconds: None,
    ) -> None:
        self._bounds = bounds
        self._clock = clock
        self._observe = observe
        self._waiting: list[Item] = []  # by rank
        self._pixels = 0  # of all in _waiting
        self._run_seconds = 0.0  # fading sums over the runs so far: their ratio is the speed
        self._run_pixels = 0.0
        self._running_since: float | None = None
        self._closing = False
        self._changed = threading.Condition()
        self._worker = threading.Thread(target=self._work, name="engine", daemon=True)  # a hung engine must not keep us

    def start(self) -> None:
        """Start the worker thread."""
        self._worker.start()

    def close(self, patience_s: float | None = None) -> bool:
        """Refuse what comes from now on, finish what waits, stop the worker: True.

        Where that takes more than `patience_s`, what still waits is refused too, and a run that hangs is left: False.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._worker.join(patience_s)
        with self._changed:
            left, self._waiting, self._pixels = self._waiting, [], 0
        for item in left:
            if item.reply.set_running_or_notify_cancel():
                item.reply.set_exception(Unavailable("the server has shut down"))
        return not self._worker.is_alive()

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

    def submit(self, image: Pixels, work: Work) -> Future[Reply]:
        """Queue one image; raises QueueFull or Unavailable."""
        return self.submit_all([image], work)[0]

    def submit_all(self, images: Sequence[Pixels], work: Work) -> list[Future[Reply]]:
        """Queue all of `images`, or none and raise QueueFull or Unavailable."""
        now = self._clock()
        items = [Item(image, work, now) for image in images]
        pixels = sum(item.pixels for item in items)
        with self._changed:
            self._require_room(len(items), pixels)
            for item in items:
                bisect.insort(self._waiting, item, key=lambda other: other.rank)
            self._pixels += pixels
            self._changed.notify()
        return [item.reply for item in items]

    def step(self) -> int:
        """Serve one batch of what is waiting now; returns how many images it held."""
        batch = self._take()
        if batch:
            started = self._running_since = self._clock()
            self._serve(batch, started)
            seconds = self._clock() - started
            self._running_since = None
            self._run_seconds = FADING * self._run_seconds + seconds
            self._run_pixels = FADING * self._run_pixels + sum(item.pixels for item in batch)
            self._observe(len(batch), seconds)
        return len(batch)

    def seconds_until_due(self) -> float:
        """Seconds until the next batch should be taken: 0 for now, infinite while nothing waits."""
        if not self._waiting:
            return math.inf
        if self._closing or not self._bounds.max_delay_s or self._is_batch_full():
            return 0.0
        oldest = min(item.queued for item in self._waiting)
        return max(0.0, oldest + self._bounds.max_delay_s - self._clock())

    def _is_batch_full(self) -> bool:
        """Whether waiting longer could not make the next batch larger."""
        group = [item for item in self._waiting if item.group == self._waiting[0].group]
        bounds = self._bounds
        return len(group) >= bounds.batch_images or sum(item.pixels for item in group) >= bounds.batch_pixels

    def _work(self) -> None:
        while self._wait():
            self.step()

    def _wait(self) -> bool:
        """Until there is something to do; False when closing and all is done."""
        with self._changed:
            while (due := self.seconds_until_due()) > 0:
                if self._closing:
                    return False
                self._changed.wait(None if due == math.inf else due)
            return True

    def _take(self) -> list[Item]:
        """The first in the queue and those of its group that fit; the late get their problem, the departed go."""
        batch: list[Item] = []
        kept: list[Item] = []
        pixels = 0
        with self._changed:
            for item in self._waiting:
                fits = len(batch) < self._bounds.batch_images and pixels + item.pixels <= self._bounds.batch_pixels
                if batch and not (fits and item.group == batch[0].group):
                    kept.append(item)
                elif self._wanted(item):
                    batch.append(item)
                    pixels += item.pixels
            self._waiting = kept
            self._pixels = sum(item.pixels for item in kept)
        return batch

    def _wanted(self, item: Item) -> bool:
        if not item.reply.set_running_or_notify_cancel():
            return False
        if item.work.deadline <= self._clock():
            item.reply.set_exception(DeadlinePassed("the deadline passed while the image waited for the engine"))
            return False
        return True

    def _serve(self, batch: list[Item], started: float) -> None:
        """Run a batch and answer its items. If that fails they run one by one: only the bad ones fail."""
        try:
            replies = self._run(batch, started)
        except Exception as error:  # whatever the engine raises must not end the worker
            if len(batch) == 1:
                failure = EngineFailure("the engine could not segment this image")
                failure.__cause__ = error
                batch[0].reply.set_exception(failure)
                return
            log.warning("a batch of %d images failed (%r); running them one by one", len(batch), error)
            for item in batch:
                self._serve([item], started)
            return
        for item, reply in zip(batch, replies, strict=True):
            item.reply.set_result(reply)

    def _run(self, batch: list[Item], started: float) -> list[Reply]:
        engine = batch[0].work.engine
        waited = [started - item.queued for item in batch]
        if batch[0].work.wants_logits:
            logits = [engine.logits(item.image) for item in batch]
            seconds = self._clock() - started
            return [Reply(None, some, queue_s, seconds) for some, queue_s in zip(logits, waited, strict=True)]
        masks, timings = engine.run([item.image for item in batch], [item.work.threshold for item in batch])
        seconds = (timings.fit_ms + timings.run_ms) / 1000
        return [Reply(mask, None, queue_s, seconds) for mask, queue_s in zip(masks, waited, strict=True)]

    def _require_room(self, images: int, pixels: int) -> None:
        if self._closing:
            raise Unavailable("the server is shutting down", headers={"Retry-After": "5"})
        if self._is_full(images, pixels):
            self._drop_departed()
        if self._is_full(images, pixels):
            seconds = self._seconds_to_drain()
            raise QueueFull(
                f"{len(self._waiting)} images ({self._pixels} pixels) are waiting; try again in {seconds} s",
                headers={"Retry-After": str(seconds)},
            )

    def _is_full(self, images: int, pixels: int) -> bool:
        too_many = len(self._waiting) + images > self._bounds.queue_images
        return too_many or self._pixels + pixels > self._bounds.queue_pixels

    def _drop_departed(self) -> None:
        self._waiting = [item for item in self._waiting if not item.reply.cancelled()]
        self._pixels = sum(item.pixels for item in self._waiting)

    def _seconds_to_drain(self) -> int:
        """Whole seconds, at least 1, until what waits now is done at the measured speed."""
        return max(1, math.ceil(self._pixels * self._run_seconds / max(self._run_pixels, 1)))
