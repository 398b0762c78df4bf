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
    def fit_ms(self) -> float:
        """Making the images what the network takes."""

    @property
    def run_ms(self) -> float:
        """The network itself."""


class Engine(Protocol):
    """What the service asks of an engine."""

    @property
    def model(self) -> Model:
        """What it runs."""

    @property
    def device(self) -> str:
        """Where: "cpu", "cuda:0", …"""

    @property
    def kernel(self) -> str:
        """By what: "avx2", "wgmma", …"""

    def run(
        self, images: Sequence[Pixels], threshold: float | Sequence[float] | None = None
    ) -> tuple[list[Mask], Timings]:
        """A mask uint8 [h, w] for every image, uint8 [h, w, 3]: 0/1 for one class, class indices for several.

        `threshold`, for one class, is the probability from which on a pixel is 1: one for all images or one each; the
        model's own by default. A batch gives what single calls give.
        """

    def run_logits(self, images: Sequence[Pixels]) -> tuple[list[Logits], Timings]:
        """Logits int32 [h, w, classes] for every image, to be multiplied by the head's scale."""


def load(model: str, settings: Settings) -> runtime.Engine:
    """The engine of a model file or a shipped model, where and how the settings say. Raises EngineError."""
    from engine.runtime import Engine

    return Engine.load(model, settings.device, settings.threads, settings.kernel)


def load_all(settings: Settings) -> list[runtime.Engine]:
    """An engine for every model of the settings. They are never closed: a queued image may still need one."""
    return [load(name.strip(), settings) for name in settings.model.split(",")]
