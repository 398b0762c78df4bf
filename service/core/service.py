"""The parts of one running service, put together: what routes find in the application."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from service.core.batcher import Batcher, QueueLimits
from service.core.budget import Budget, default_size, trim
from service.core.engine import Engine
from service.core.lifecycle import Lifecycle
from service.core.models import ModelRegistry
from service.core.pipeline import Pipeline
from service.core.threads import CodecThreads
from service.settings import Settings
from service.telemetry import energy
from service.telemetry.metrics import Metrics
from service.telemetry.traces import Traces


@dataclass
class OpenStreams:
    """How many websockets are open: `with` it while one is. For the event loop's thread alone."""

    metrics: Metrics
    count: int = 0

    def __enter__(self) -> None:
        self._change(1)

    def __exit__(self, *_: object) -> None:
        self._change(-1)

    def _change(self, by: int) -> None:
        self.count += by
        self.metrics.streams.set(self.count)


@dataclass(frozen=True)
class Service:
    """The models, the way of an image through them, and what is known of both."""

    settings: Settings
    clock: Callable[[], float]
    metrics: Metrics
    models: ModelRegistry
    batcher: Batcher
    threads: CodecThreads
    budget: Budget
    pipeline: Pipeline
    lifecycle: Lifecycle
    energy: energy.Monitor | None
    open_streams: OpenStreams

    @property
    def image_joules(self) -> float | None:
        """Joules per image over the last window with images; None where they cannot be read."""
        return self.energy.image_joules if self.energy else None


def assemble(
    engines: Sequence[Engine],
    settings: Settings,
    clock: Callable[[], float] = time.monotonic,
    load: Callable[[], Sequence[Engine]] | None = None,
    traces: Traces | None = None,
) -> Service:
    """A service of `engines`, not yet started. `load` gives them anew; `traces` takes spans."""
    metrics, threads = Metrics(), CodecThreads()
    models = ModelRegistry(engines, metrics, load)
    batcher = Batcher(QueueLimits.of(settings), clock, metrics.observe_batch)
    metrics.queue_images.set_function(lambda: batcher.waiting)
    monitor = _monitor(models.default.device, settings, metrics, batcher)
    budget = Budget(settings.memory_bytes or default_size(), batcher.after_s, lambda: threads.submit(trim))
    metrics.show_memory(budget.size, lambda: budget.held)
    pipeline = Pipeline(batcher, threads, budget, settings, metrics, traces, clock)
    lifecycle = Lifecycle(models, batcher, threads, settings, monitor, traces)
    return Service(
        settings, clock, metrics, models, batcher, threads, budget, pipeline, lifecycle, monitor, OpenStreams(metrics)
    )


def _monitor(device: str, settings: Settings, metrics: Metrics, batcher: Batcher) -> energy.Monitor | None:
    """What reads joules, where they can be read."""
    meter = energy.choose(settings.energy, device)
    if meter is None:
        return None
    monitor = energy.Monitor(meter, lambda: batcher.finished, lambda: batcher.running_s > 0)
    metrics.show_energy(monitor, lambda: batcher.finished)
    return monitor
