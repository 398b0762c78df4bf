"""The engine as the service knows it: what it asks of one, and how it gets one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.model import Model
from service.codec.pixels import Fitted, Logits, Mask
from service.settings import Settings

if TYPE_CHECKING:
    from engine import runtime


class Job(Protocol):
    """Images on their way through an engine, which others may use between two turns."""

    @property
    def done(self) -> bool:
        """Whether there is nothing left to run, so that there are results."""

    @property
    def masks(self) -> list[Mask]:
        """uint8 [h, w] for every image: 0/1 for one class, class indices for several."""

    @property
    def logits(self) -> list[Logits]:
        """int32 [h, w, classes] for every image where they were wanted, to be multiplied by the head's scale."""

    @property
    def ms(self) -> float:
        """Milliseconds of all its turns."""

    def advance(self) -> int:
        """Run the next turn, all images or a window of a large one; returns the pixels that it computed."""

    def finish(self) -> Job:
        """Run all turns."""


class Engine(Protocol):
    """What the service asks of an engine."""

    @property
    def model(self) -> Model:
        """What it runs."""

    @property
    def device(self) -> str:
        """Where: "cpu", "cuda:0", …"""

    @property
    def bus(self) -> str:
        """The PCI address of a GPU; empty where it is none."""

    @property
    def kernel(self) -> str:
        """By what: "avx2", "wgmma", …"""

    def empty(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Memory for an image [h, w, 3] as the network sees it, where it is read soonest. Raises MemoryFull."""

    def start(
        self,
        images: Sequence[Fitted],
        threshold: float | Sequence[float] | None = None,
        want_logits: bool = False,
    ) -> Job:
        """Begin with `images`, [h, w, 3] as the network sees them. A batch gives what single calls give.

        `threshold`, for one class, is the probability from which on a pixel is 1: one for all images or one each; the
        model's own by default.
        """


def load(model: str | Model, settings: Settings) -> runtime.Engine:
    """The engine of a model, a model file or a shipped model, where and how the settings say. Raises EngineError."""
    from engine.runtime import Engine

    return Engine.load(model, settings.device, settings.threads, settings.kernel, settings.batch_pixels)


def load_all(settings: Settings) -> list[runtime.Engine]:
    """An engine for every model of the settings. They are never closed: a queued image may still need one."""
    return [load(name, settings) for name in settings.models]
