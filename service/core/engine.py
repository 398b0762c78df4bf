"""The engine as the service knows it: what it asks of one, and how it gets one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from engine.model import Model
from service.codec.pixels import Logits, Mask, Pixels
from service.settings import Settings

if TYPE_CHECKING:
    from engine import runtime


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
    def run_logits(self, images: Sequence[Pixels]) -> tuple[list[Logits], Timings]: ...


def load(model: str, settings: Settings) -> runtime.Engine:
    """The engine of a model file or a shipped model, where and how the settings say. Raises EngineError."""
    from engine.runtime import Engine

    return Engine.load(model, settings.device, settings.threads, settings.kernel)


def load_all(settings: Settings) -> list[runtime.Engine]:
    """An engine for every model of the settings. They are never closed: a queued image may still need one."""
    return [load(name.strip(), settings) for name in settings.model.split(",")]
