"""From the start of a server to its end: warm-up, health, draining."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future

from service.core.batcher import Batcher
from service.core.engine import Engine
from service.core.models import ModelRegistry, warm_up_image
from service.core.params import SegmentParams
from service.core.queue import InferenceResult
from service.core.readiness import Readiness, State
from service.logs import log
from service.settings import LAST_SHARE, Settings
from service.telemetry.energy import Monitor


class Lifecycle(Readiness):
    """`start` and `stop` bracket the life of the queue and of what runs beside it; `ended` ends all else."""

    def __init__(
        self,
        models: ModelRegistry,
        batcher: Batcher,
        settings: Settings,
        energy: Monitor | None = None,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        self.settled = threading.Event()  # set once the warm-up is over, well or not
        self._models = models
        self._batcher = batcher
        self._energy = energy
        self._ended = ended
        self._settings = settings
        self._state: State = "loading"

    @property
    def state(self) -> State:
        """See `Readiness`."""
        if not self._batcher.works:
            return "failed"
        hanging = self._state == "ready" and self._batcher.running_s > self._settings.hang_ms / 1000
        return "hanging" if hanging else self._state

    async def require_room(self) -> None:
        """See `Readiness`."""
        self.require_ready()
        self._batcher.require_room()

    def start(self) -> None:
        """Start the worker and warm the engines up; ready when that is done."""
        self._batcher.start()
        if self._energy:
            self._energy.start()
        self._warm_up(iter(self._models.engines))

    def stop(self) -> None:
        """Finish what is queued, within the last share of the setting `drain_ms`, then all else."""
        timeout_s = 0 if self.state == "hanging" else LAST_SHARE * self._settings.drain_ms / 1000
        self._state = "draining"
        if not self._batcher.close(timeout_s):
            log.error("the engine hangs: what was under way is given up")
        if self._energy:
            self._energy.stop()
        self._ended()

    def _warm_up(self, engines: Iterator[Engine], last: Future[InferenceResult] | None = None) -> None:
        """Run one image on every engine, the next when the last is done: the queue may have room for only one."""
        error = last.exception() if last else None
        engine = None if error else next(engines, None)
        if engine is not None:
            image = warm_up_image(engine.model, self._settings.max_pixels)
            warm_up = self._batcher.submit(image, SegmentParams(engine, engine.model.threshold))
            warm_up.add_done_callback(lambda done: self._warm_up(engines, done))
            return
        if error is not None:
            log.error("the engine failed on its first image", exc_info=error.__cause__ or error)
        if self._state == "loading":
            self._state = "failed" if error else "ready"
        self.settled.set()
