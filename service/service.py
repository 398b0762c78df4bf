"""One running service: image in, mask out, in four stages, and the state that /readyz tells."""

from __future__ import annotations

import asyncio
import math
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from service import codec
from service.batcher import Batcher, Bounds, Engine, Reply, log
from service.codec import Encoder
from service.metrics import Metrics
from service.problems import BadParameter, Unavailable
from service.settings import Settings

State = Literal["loading", "ready", "draining", "failed"]
T = TypeVar("T")

WARM_UP_SIDE = 256  # pixels
RETRY = {"Retry-After": "1"}


@dataclass(frozen=True)
class Answer:
    """The encoded mask, and the seconds of every stage."""

    body: bytes
    seconds: dict[str, float]


class Service:
    """Engine, queue, codec threads and metrics of one application; `start` and `stop` bracket its life."""

    def __init__(self, engine: Engine, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self.engine = engine
        self.model = engine.model
        self.settings = settings
        self.clock = clock
        self.metrics = Metrics()
        self.metrics.model_info.labels(self.model.name, self.model.family, engine.device, engine.kernel).set(1)
        bounds = Bounds(settings.queue_images, settings.queue_pixels, settings.batch_images, settings.batch_pixels)
        self.batcher = Batcher(engine, bounds, clock)
        self.state: State = "loading"
        self.settled = threading.Event()  # set once the warm-up is over, well or not
        self._pool = ThreadPoolExecutor(os.cpu_count(), "codec")

    async def segment(self, data: bytes, threshold: float, encoder: Encoder, deadline: float) -> Answer:
        """The whole way of one image. Raises problems; cancelling it withdraws the image from the queue."""
        times = [self.clock()]
        image = await self._off_the_loop(lambda: codec.decode(data, self.settings.max_pixels))
        times.append(self.clock())
        reply = await asyncio.wrap_future(self.batcher.submit(image, threshold, deadline))
        times.append(self.clock())
        body = await self._off_the_loop(lambda: encoder.encode(reply.mask, self.model))
        times.append(self.clock())
        seconds = {"decode": times[1] - times[0], "queue": reply.queue_s, "engine": reply.engine_s}
        seconds["encode"] = times[3] - times[2]
        self.metrics.observe(seconds)
        return Answer(body, seconds)

    def threshold(self, asked: float | None) -> float:
        """The probability above which a pixel is foreground; raises BadParameter where a model knows none."""
        if asked is not None and len(self.model.classes) > 1:
            raise BadParameter(f"model {self.model.name} has several classes and takes no threshold")
        return self.model.threshold if asked is None else asked

    def seconds_allowed(self, timeout_ms: int | None) -> float:
        """Seconds that a request may take; raises BadParameter where `timeout_ms` exceeds the server's limit."""
        limit = self.settings.timeout_ms
        if timeout_ms is not None and timeout_ms > limit:
            raise BadParameter(f"timeout_ms: at most {limit} is taken, not {timeout_ms}", limit=limit)
        return (limit if timeout_ms is None else timeout_ms) / 1000

    def require_ready(self) -> None:
        """Raise Unavailable or QueueFull if an image would be refused now: better before its upload than after."""
        if self.state != "ready":
            raise Unavailable(f"the server is {self.state}", headers=RETRY)
        self.batcher.require_room()

    def start(self) -> None:
        """Start the worker and warm it up; ready when that is done."""
        self.batcher.start()
        black = np.zeros((WARM_UP_SIDE, WARM_UP_SIDE, 3), np.uint8)
        self.batcher.submit(black, self.model.threshold, math.inf).add_done_callback(self._warmed_up)

    def stop(self) -> None:
        """Finish what is queued, then stop all threads."""
        self.state = "draining"
        self.batcher.close()
        self._pool.shutdown()

    def _warmed_up(self, warm_up: Future[Reply]) -> None:
        error = warm_up.exception()
        if error is not None:
            log.error("the engine failed on its first image", exc_info=error.__cause__ or error)
        if self.state == "loading":
            self.state = "failed" if error else "ready"
        self.settled.set()

    async def _off_the_loop(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)
