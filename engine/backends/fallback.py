"""What "auto" does where a GPU fails."""

from __future__ import annotations

import functools
import logging

from engine import cores
from engine.backends.base import Backend, EngineError, Logits, Mask, Pixels
from engine.backends.cpu import CpuBackend
from engine.plan import Plan

log = logging.getLogger("mbunet")


class FallbackBackend:
    """The backend that "auto" chose; what it fails at, out of memory for one, the CPU does instead and the log says so.

    The bits are the same, and the next call is the GPU's again.
    """

    note = ""

    def __init__(self, backend: Backend, plan: Plan, threads: int) -> None:
        self.kernel = backend.kernel
        self.explain = backend.explain
        self.empty = backend.empty
        self._backend = backend
        self._cpu = functools.cache(lambda: CpuBackend(plan, "auto", threads or cores.available()))

    def run(self, images: list[Pixels], thresholds: list[int], want_logits: bool) -> tuple[list[Mask], list[Logits]]:
        """See `Backend`."""
        try:
            return self._backend.run(images, thresholds, want_logits)
        except EngineError as error:
            log.warning("%d images ran on the CPU: %s", len(images), error)
            return self._cpu().run(images, thresholds, want_logits)
