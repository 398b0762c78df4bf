"""What there is once, however many processes serve: models, queue, engines, and the meter of their energy."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from service.core.batcher import Batcher, QueueLimits
from service.core.engine import Engine
from service.core.lifecycle import Lifecycle
from service.core.models import ModelRegistry
from service.settings import Settings
from service.telemetry import energy
from service.telemetry.metrics import Metrics, ModelInfo


@dataclass(frozen=True)
class Resident:
    """The engines of one machine, and all that runs them."""

    models: ModelRegistry
    batcher: Batcher
    lifecycle: Lifecycle
    energy: energy.Monitor | None

    def image_joules(self) -> float | None:
        """Joules per image over the last window with images; None where they cannot be read."""
        return self.energy.image_joules if self.energy else None


def assemble(
    engines: Sequence[Engine],
    settings: Settings,
    metrics: Metrics,
    clock: Callable[[], float] = time.monotonic,
    load: Callable[[], Sequence[Engine]] | None = None,
    ended: Callable[[], None] = lambda: None,
    changed: Callable[[Sequence[Engine]], None] = lambda engines: None,
    began: Callable[[float], None] = lambda time: None,
    turned: Callable[[], None] = lambda: None,
) -> Resident:
    """Not yet started. `load` gives the engines anew, `changed` is then called with them; `ended` is called when the
    queue has, `began` and `turned` as by `Batcher`.
    """
    models = ModelRegistry(engines, metrics, load, changed)
    batcher = Batcher(QueueLimits.of(settings), clock, metrics.observe_turn, began, turned)
    monitor = _monitor(models.default, settings, metrics, batcher)
    metrics.show_models(lambda: [_info(engine) for engine in models.engines])
    return Resident(models, batcher, Lifecycle(models, batcher, settings, monitor, ended), monitor)


def _info(engine: Engine) -> ModelInfo:
    return ModelInfo(engine.model.name, engine.model.family, engine.device, engine.kernel)


def _monitor(engine: Engine, settings: Settings, metrics: Metrics, batcher: Batcher) -> energy.Monitor | None:
    """What reads joules, where they can be read."""
    meter = energy.choose(settings.energy, engine.device, engine.bus)
    if meter is None:
        return None
    monitor = energy.Monitor(meter, lambda: batcher.finished, lambda: batcher.running_s > 0)
    metrics.show_energy(monitor, lambda: batcher.finished)
    return monitor
