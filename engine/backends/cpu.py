"""Bit-sliced counting on the CPU."""

from __future__ import annotations

import numpy as np

from engine import _native, ops
from engine.backends.base import EngineError, Logits, Mask, Pixels
from engine.backends.native import build
from engine.layer import Layer
from engine.plan import Plan
from engine.preprocess import ordinary


class CpuBackend:
    """Bit-sliced counting on the CPU, by the native session."""

    note = ""
    empty = staticmethod(ordinary)

    def __init__(self, plan: Plan, kernel: str, threads: int) -> None:
        if threads < 1:
            raise EngineError(f"threads must be positive, not {threads}")
        if kernel != "auto" and kernel not in available_kernels():
            raise EngineError(f"no kernel '{kernel}' on this machine; there are auto, {', '.join(available_kernels())}")
        self.session = _native.Session(kernel, threads)
        self.kernel: str = self.session.kernel
        self._classes = plan.model.layers[-1].channels
        build(self.session, plan)

    def run(self, images: list[Pixels], thresholds: list[int], want_logits: bool) -> tuple[list[Mask], list[Logits]]:
        """See `Backend`. The session pads by itself."""
        masks = [np.empty(image.shape[:2], np.uint8) for image in images]
        logits = [np.empty((*image.shape[:2], self._classes), np.int32) for image in images if want_logits]
        self.session.run(images, thresholds, masks, logits)
        return masks, logits

    def explain(self, index: int, layer: Layer) -> tuple[str, str]:
        """See `Backend`."""
        return self.kernel, ops.operation(layer).why


def available_kernels() -> list[str]:
    """Names of the CPU kernels that this machine can run, best first."""
    return list(_native.available_kernels())
