"""The queue before the engine: bounded, refuses early, batches what is there, skips the departed. No timer.

An item owns its reply, a `concurrent.futures.Future`: cancelling it is how a client leaves, and the event loop waits
for it without polling. One worker thread feeds the engine; `step` is all that it does, so tests call it themselves.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

from engine.format import Model
from service.codec import Mask, Pixels, fitted_pixels
from service.problems import DeadlinePassed, EngineFailure, QueueFull, Unavailable

log = logging.getLogger("mbunet")

FADING = 0.8  # weight of the past against the newest run, in the measured speed


class Timings(Protocol):
    """Milliseconds that one run of the engine took."""

    @property
    def fit_ms(self) -> float: ...
    @property
    def run_ms(self) -> float: ...


class Engine(Protocol):
    """What the service asks of the engine."""

    @property
    def model(self) -> Model: ...
    @property
    def device(self) -> str: ...
    @property
    def kernel(self) -> str: ...
    def run(
        self, images: Sequence[Pixels], threshold: float | Sequence[float] | None = None
    ) -> tuple[list[Mask], Timings]: ...


@dataclass(frozen=True)
class Reply:
    """One image's mask, and the seconds it waited and was worked on (those of its whole batch)."""

    mask: Mask
    queue_s: float
    engine_s: float


@dataclass(eq=False)
class Item:
    """One image in the queue. Times are the injected clock's."""

    image: Pixels
    threshold: float
    deadline: float
    queued: float
    reply: Future[Reply] = field(default_factory=Future)

    @property
    def pixels(self) -> int:
        return fitted_pixels(*self.image.shape[:2])


@dataclass(frozen=True)
class Bounds:
    """Most images and pixels in the queue, and most in one batch (a larger image makes a batch of its own)."""

    queue_images: int
    queue_pixels: int
    batch_images: int
    batch_pixels: int


class Batcher:
    """`submit` from any thread, get a future; `start` and `close` bracket the worker thread."""

    def __init__(self, engine: Engine, bounds: Bounds, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._bounds = bounds
        self._clock = clock
        self._waiting: deque[Item] = deque()
        self._pixels = 0  # of all in _waiting
        self._run_seconds = 0.0  # fading sums over the runs so far: their ratio is the speed
        self._run_pixels = 0.0
        self._closing = False
        self._changed = threading.Condition()
        self._worker = threading.Thread(target=self._work, name="engine", daemon=True)

    def start(self) -> None:
        """Start the worker thread."""
        self._worker.start()

    def close(self) -> None:
        """Refuse what comes from now on, finish what waits, stop the worker."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._worker.join()

    def require_room(self, images: int = 1, pixels: int = 0) -> None:
        """Raise QueueFull or Unavailable if so much could not be submitted now."""
        with self._changed:
            self._require_room(images, pixels)

    def submit(self, image: Pixels, threshold: float, deadline: float = math.inf) -> Future[Reply]:
        """Queue one image; raises QueueFull or Unavailable. `deadline` is a time of the clock."""
        item = Item(image, threshold, deadline, self._clock())
        with self._changed:
            self._require_room(1, item.pixels)
            self._waiting.append(item)
            self._pixels += item.pixels
            self._changed.notify()
        return item.reply

    def step(self) -> int:
        """Serve one batch of what is waiting now; returns how many images it held."""
        batch = self._take()
        if batch:
            started = self._clock()
            self._serve(batch, started)
            self._run_seconds = FADING * self._run_seconds + self._clock() - started
            self._run_pixels = FADING * self._run_pixels + sum(item.pixels for item in batch)
        return len(batch)

    def _work(self) -> None:
        while self._wait():
            self.step()

    def _wait(self) -> bool:
        """Until there is something to do; False when closing and all is done."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._waiting) or self._closing)
            return bool(self._waiting)

    def _take(self) -> list[Item]:
        """The oldest items that fit one batch; the late get their problem, the departed are dropped."""
        batch: list[Item] = []
        pixels = 0
        with self._changed:
            while self._waiting and len(batch) < self._bounds.batch_images:
                item = self._waiting[0]
                if batch and pixels + item.pixels > self._bounds.batch_pixels:
                    break
                self._waiting.popleft()
                self._pixels -= item.pixels
                if self._wanted(item):
                    batch.append(item)
                    pixels += item.pixels
        return batch

    def _wanted(self, item: Item) -> bool:
        if not item.reply.set_running_or_notify_cancel():
            return False
        if item.deadline <= self._clock():
            item.reply.set_exception(DeadlinePassed("the deadline passed while the image waited for the engine"))
            return False
        return True

    def _serve(self, batch: list[Item], started: float) -> None:
        """Run a batch and answer its items. If that fails they run one by one: only the bad ones fail."""
        try:
            masks, timings = self._engine.run([item.image for item in batch], [item.threshold for item in batch])
            engine_s = (timings.fit_ms + timings.run_ms) / 1000
            replies = [Reply(mask, started - item.queued, engine_s) for item, mask in zip(batch, masks, strict=True)]
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
        self._waiting = deque(item for item in self._waiting if not item.reply.cancelled())
        self._pixels = sum(item.pixels for item in self._waiting)

    def _seconds_to_drain(self) -> int:
        """Whole seconds, at least 1, until what waits now is done at the measured speed."""
        return max(1, math.ceil(self._pixels * self._run_seconds / max(self._run_pixels, 1)))
