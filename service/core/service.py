"""The parts of one running service, put together: what routes find in the application."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from service.core import resident
from service.core.allocator import trim
from service.core.batcher import Batcher
from service.core.budget import Budget, default_size
from service.core.engine import Engine
from service.core.lifecycle import Lifecycle
from service.core.models import ModelRegistry, Models
from service.core.pipeline import Pipeline
from service.core.readiness import Readiness
from service.core.tally import Tally
from service.core.threads import CodecThreads
from service.settings import Settings
from service.telemetry.metrics import Metrics
from service.telemetry.traces import Traces


@dataclass(frozen=True)
class Service:
    """The models, the way of an image through them, and what is known of both."""

    settings: Settings
    clock: Callable[[], float]
    metrics: Metrics
    models: Models
    threads: CodecThreads
    budget: Budget
    streams: Tally  # websockets open
    pipeline: Pipeline
    lifecycle: Readiness
    image_joules: Callable[[], float | None]  # over the last window with images, where they can be read

    async def exposition(self) -> bytes:
        """All series in Prometheus' text format."""
        return self.metrics.text()


@dataclass(frozen=True)
class WholeService(Service):
    """All in one process."""

    models: ModelRegistry
    lifecycle: Lifecycle
    batcher: Batcher


def assemble(
    engines: Sequence[Engine],
    settings: Settings,
    clock: Callable[[], float] = time.monotonic,
    load: Callable[[], Sequence[Engine]] | None = None,
    traces: Traces | None = None,
) -> WholeService:
    """A service of `engines` in this process, not yet started. `load` gives them anew; `traces` takes spans."""

    def ended() -> None:
        if traces:
            traces.stop()
        threads.stop()

    metrics, threads, streams = Metrics(), CodecThreads(), Tally()
    its = resident.assemble(engines, settings, metrics, clock, load, ended)
    batcher = its.batcher
    budget = Budget(settings.memory_bytes or default_size(), batcher.after_s, lambda: threads.submit(trim))
    metrics.show_process()
    metrics.show_load(lambda: batcher.waiting, lambda: budget.held, budget.size, lambda: streams.total)
    pipeline = Pipeline(batcher, threads, budget, settings, metrics, traces, clock)
    return WholeService(
        settings,
        clock,
        metrics,
        its.models,
        threads,
        budget,
        streams,
        pipeline,
        its.lifecycle,
        its.image_joules,
        batcher,
    )
