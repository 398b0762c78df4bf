"""One running service: image in, mask out, in four stages, and the state that /readyz tells."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from service.codec import decode
from service.codec.encoders import Encoder, Result
from service.codec.pixels import Pixels, fitted_pixels
from service.core.batcher import Batcher, Bounds, Engine, Reply, Work, log
from service.problems import BadParameter, NotFound, Problem, TooManyPixels, Unavailable
from service.settings import LAST_SHARE, Settings
from service.telemetry import energy
from service.telemetry.metrics import Metrics
from service.telemetry.traces import Traces

State = Literal["loading", "ready", "draining", "failed", "hanging"]
T = TypeVar("T")

WARM_UP_SIDE = 256  # pixels
RETRY = {"Retry-After": "1"}


@dataclass(frozen=True)
class Wish:
    """What a client wants of its images, checked: by which engine, in which form, within how many seconds."""

    engine: Engine
    threshold: float
    encoder: Encoder
    seconds: float
    low: bool = False

    def work(self, now: float) -> Work:
        """The same for the queue, begun at `now`."""
        return Work(self.engine, self.threshold, now + self.seconds, self.low, self.encoder.wants_logits)


@dataclass(frozen=True)
class Answer:
    """The encoded mask, and the seconds of every stage."""

    body: bytes
    seconds: dict[str, float]


class Service:
    """Engines, queue, codec threads and metrics of one application; `start` and `stop` bracket its life.

    `load` gives the engines anew, for `reload`; `traces` takes spans.
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        settings: Settings,
        clock: Callable[[], float] = time.monotonic,
        load: Callable[[], Sequence[Engine]] | None = None,
        traces: Traces | None = None,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.metrics = Metrics()
        self.engines = self._by_name(engines)
        bounds = Bounds(
            *(settings.queue_images, settings.queue_pixels, settings.batch_images, settings.batch_pixels),
            settings.max_delay_ms / 1000,
        )
        self.batcher = Batcher(bounds, clock, self._observe_batch)
        self.metrics.queue_images.set_function(lambda: self.batcher.waiting)
        self.settled = threading.Event()  # set once the warm-up is over, well or not
        self.energy = self._monitor()
        self._state: State = "loading"
        self._load = load
        self._traces = traces
        self._finished = 0  # images that engines have run
        self._pool = ThreadPoolExecutor(os.cpu_count(), "codec", _yield_to_engine)

    @property
    def state(self) -> State:
        """Whether requests are taken ("ready"), or why not."""
        hanging = self._state == "ready" and self.batcher.running_s > self.settings.hang_ms / 1000
        return "hanging" if hanging else self._state

    @property
    def image_joules(self) -> float | None:
        """Joules per image over the last window with images; None where they cannot be read."""
        return self.energy.image_joules if self.energy else None

    async def segment(self, data: bytes, wish: Wish) -> Answer:
        """The whole way of one image. Raises problems; cancelling it withdraws the image from the queue."""
        admitted = self._pool.submit(self._admit, data, wish.work(self.clock()), self.clock())
        try:
            image, queued, decode_s = await asyncio.wrap_future(admitted)
        except asyncio.CancelledError:
            admitted.add_done_callback(_withdraw)
            raise
        return await self._finish(image, queued, wish, decode_s)

    async def segment_all(self, bodies: Sequence[bytes], wish: Wish) -> list[Answer | Problem]:
        """As `segment`, for many: admitted whole, or QueueFull; then each has its answer or its own problem."""
        work = wish.work(self.clock())
        decoded: list[tuple[Pixels, float] | Problem] = []
        pixels = 0
        for data in bodies:  # one after the other: the sum is known before it is too much
            started = self.clock()
            try:
                image = await self._decode(data)
            except Problem as problem:
                decoded.append(problem)
                continue
            decoded.append((image, self.clock() - started))
            pixels += fitted_pixels(*image.shape[:2])
            if pixels > self.settings.queue_pixels:
                limit = self.settings.queue_pixels
                raise TooManyPixels(f"the images of one request may have {limit} pixels in all", limit=limit)
        sound = [entry[0] for entry in decoded if not isinstance(entry, Problem)]
        replies = iter(self.batcher.submit_all(sound, work))
        return await asyncio.gather(*(self._settle(entry, replies, wish) for entry in decoded))

    async def run(self, images: Sequence[Pixels], work: Work) -> list[Reply]:
        """Only the queue and the engine: all of `images` or none."""
        replies = await asyncio.gather(*map(asyncio.wrap_future, self.batcher.submit_all(images, work)))
        for reply in replies:
            self._observe({"queue": reply.queue_s, "engine": reply.engine_s})
        return replies

    def engine(self, name: str | None) -> Engine:
        """The engine of the model `name`, or of the first; raises NotFound."""
        engines = self.engines
        if name is None:
            return next(iter(engines.values()))
        if name not in engines:
            raise NotFound(f"there is no model of this name; there is {', '.join(engines)}")
        return engines[name]

    def threshold(self, engine: Engine, asked: float | None) -> float:
        """The probability above which a pixel is foreground; raises BadParameter where a model knows none."""
        model = engine.model
        if asked is not None and len(model.classes) > 1:
            raise BadParameter(f"model {model.name} has several classes and takes no threshold")
        return model.threshold if asked is None else asked

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
        """Start the worker and warm the engines up; ready when that is done."""
        self.batcher.start()
        if self.energy:
            self.energy.start()
        self._warm_up(iter(list(self.engines.values())))

    def stop(self) -> None:
        """Finish what is queued, within the last share of the setting `drain_ms`, then stop all threads."""
        patience_s = 0 if self.state == "hanging" else LAST_SHARE * self.settings.drain_ms / 1000
        self._state = "draining"
        if not self.batcher.close(patience_s):
            log.error("the engine hangs: what was under way is given up")
        if self.energy:
            self.energy.stop()
        if self._traces:
            self._traces.stop()
        self._pool.shutdown(wait=False)

    def reload(self) -> bool:
        """Load the models anew and serve them; what is queued runs on the old ones. On failure those stay: False."""
        try:
            engines = self._load() if self._load else list(self.engines.values())
            for engine in engines:
                engine.run([_black()], [engine.model.threshold])
            self.engines = self._by_name(engines)
        except Exception:  # a broken model file must not end a working server
            log.exception("the models could not be loaded anew; the old ones stay")
            self.metrics.reloads.labels("failed").inc()
            return False
        self.metrics.reloads.labels("ok").inc()
        log.info("serving %s", ", ".join(self.engines))
        return True

    def _by_name(self, engines: Sequence[Engine]) -> dict[str, Engine]:
        named = {engine.model.name: engine for engine in engines}
        if len(named) < len(engines):
            raise ValueError(f"two of the models have one name: {', '.join(engine.model.name for engine in engines)}")
        self.metrics.model_info.clear()
        for name, engine in named.items():
            self.metrics.model_info.labels(name, engine.model.family, engine.device, engine.kernel).set(1)
        return named

    def _monitor(self) -> energy.Monitor | None:
        meter = energy.choose(self.settings.energy, self.engine(None).device)
        if meter is None:
            return None
        busy: Callable[[], bool] = lambda: self.batcher.running_s > 0  # noqa: E731
        monitor = energy.Monitor(meter, lambda: self._finished, busy)
        self.metrics.show_energy(monitor, lambda: self._finished)
        return monitor

    def _observe_batch(self, images: int, seconds: float) -> None:
        self._finished += images
        self.metrics.observe_batch(images, seconds)

    def _warm_up(self, engines: Iterator[Engine], last: Future[Reply] | None = None) -> None:
        """Run one image on every engine, the next when the last is done: the queue may have room for only one."""
        error = last.exception() if last else None
        engine = None if error else next(engines, None)
        if engine is not None:
            warm_up = self.batcher.submit(_black(), Work(engine, engine.model.threshold))
            warm_up.add_done_callback(lambda done: self._warm_up(engines, done))
            return
        if error is not None:
            log.error("the engine failed on its first image", exc_info=error.__cause__ or error)
        if self._state == "loading":
            self._state = "failed" if error else "ready"
        self.settled.set()

    async def _settle(
        self, entry: tuple[Pixels, float] | Problem, replies: Iterator[Future[Reply]], wish: Wish
    ) -> Answer | Problem:
        if isinstance(entry, Problem):
            return entry
        try:
            return await self._finish(entry[0], next(replies), wish, entry[1])
        except Problem as problem:
            return problem

    async def _finish(self, image: Pixels, queued: Future[Reply], wish: Wish, decode_s: float) -> Answer:
        seconds = {"decode": decode_s}

        def encode() -> bytes:
            reply, started = queued.result(), self.clock()
            body = wish.encoder.encode(Result(wish.engine.model, image, reply.mask, reply.logits))
            seconds.update(queue=reply.queue_s, engine=reply.engine_s, encode=self.clock() - started)
            return body

        body = await asyncio.wrap_future(self._after(queued, encode, wish.encoder.brief))
        self._observe(seconds)
        return Answer(body, seconds)

    def _observe(self, seconds: dict[str, float]) -> None:
        """One image is done, after so many seconds by stage."""
        self.metrics.observe(seconds)
        if self._traces:
            self._traces.stages(seconds)

    def _admit(self, data: bytes, work: Work, started: float) -> tuple[Pixels, Future[Reply], float]:
        """(pixels, their place in the queue, seconds that decoding took): queued without a detour over the loop."""
        image = decode.decode(data, self.settings.max_pixels)
        decode_s = self.clock() - started
        return image, self.batcher.submit(image, work), decode_s

    def _after(self, first: Future[Reply], work: Callable[[], T], brief: bool) -> Future[T]:
        """The result of `work`, begun once `first` is done, well or not: without a detour over the loop.

        It is done in the pool, or where `brief` and no image waits for the engine, at once in the engine's own thread:
        waking another takes longer than it does. Cancelling it cancels `first`.
        """
        last: Future[T] = Future()
        caller = threading.get_ident()  # the loop's thread, which must not be held up if `first` is done already

        def finish() -> None:
            if last.set_running_or_notify_cancel():
                try:
                    last.set_result(work())
                except BaseException as error:
                    last.set_exception(error)

        def begin(_: Future[Reply]) -> None:
            if brief and not self.batcher.waiting and threading.get_ident() != caller:
                finish()
            else:
                self._pool.submit(finish)

        first.add_done_callback(begin)
        last.add_done_callback(lambda _: first.cancel())
        return last

    async def _decode(self, data: bytes) -> Pixels:
        return await self.off_the_loop(lambda: decode.decode(data, self.settings.max_pixels))

    async def off_the_loop(self, work: Callable[[], T]) -> T:
        """The result of `work`, done in the bounded pool of threads."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


def _withdraw(admitted: Future[tuple[Pixels, Future[Reply], float]]) -> None:
    """The client has left while its image was decoded: nobody waits for what is queued."""
    if not admitted.cancelled() and admitted.exception() is None:
        admitted.result()[1].cancel()


def _yield_to_engine() -> None:
    """Let this thread wake without preempting another, where the system has such a class and permits it.

    The engine's threads wait for each other at the end of every layer, so one that is preempted stops them all. A
    decoder that waits its turn costs nothing.
    """
    with contextlib.suppress(AttributeError, OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _black() -> Pixels:
    return np.zeros((WARM_UP_SIDE, WARM_UP_SIDE, 3), np.uint8)
