"""What computes a plan, as the engine sees it. All backends give the same bits."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine.layer import Layer
from engine.preprocess import ordinary

Pixels = NDArray[np.uint8]
Mask = NDArray[np.uint8]
Logits = NDArray[np.int32]


class EngineError(RuntimeError):
    """The engine cannot do what was asked: no such device, model or kernel."""


class Backend(Protocol):
    """What computes: fitted images of one padded shape in, masks and on request logits out."""

    kernel: str
    note: str
    """Why it is this backend, where it was not asked for by name."""

    def run(self, images: list[Pixels], thresholds: list[int], want_logits: bool) -> tuple[list[Mask], list[Logits]]:
        """Masks uint8 [h, w] and logits int32 [h, w, classes] (or none) of uint8 images [h, w, 3]."""

    def explain(self, index: int, layer: Layer) -> tuple[str, str]:
        """(kernel, why) of the network's layer `index`."""

    def empty(self, shape: tuple[int, ...]) -> Pixels:
        """Memory for an image or a mask, with whatever lies there: what `run` reads and writes soonest."""


class ClosedBackend:
    """What is left of an engine after `close`."""

    kernel = "closed"
    note = ""
    empty = staticmethod(ordinary)

    def run(self, images: list[Pixels], thresholds: list[int], want_logits: bool) -> tuple[list[Mask], list[Logits]]:
        """Raises EngineError."""
        raise EngineError("the engine is closed")

    def explain(self, index: int, layer: Layer) -> tuple[str, str]:
        """Raises EngineError."""
        raise EngineError("the engine is closed")
