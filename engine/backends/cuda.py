"""Binary Tensor Cores of one GPU."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from engine import _native, ops
from engine.backends.base import EngineError, Logits, Mask, Pixels
from engine.backends.native import build
from engine.layer import Layer
from engine.plan import Plan
from engine.preprocess import ordinary


class CudaBackend:
    """Binary Tensor Cores of one GPU, by the native session. The session pads by itself."""

    note = ""

    def __init__(self, plan: Plan, gpu: int) -> None:
        self._classes = plan.model.layers[-1].channels
        with _cuda_errors(f"cuda:{gpu}"):
            self.session = _native.CudaSession(gpu)
            build(self.session, plan)
            self.session.load()
            self._kernels = self.session.kernels
        self.kernel = "cuda"
        self._gpu = gpu

    def run(self, images: list[Pixels], thresholds: list[int], want_logits: bool) -> tuple[list[Mask], list[Logits]]:
        """See `Backend`. Raises EngineError where the GPU's memory does not suffice."""
        masks = [self.empty(image.shape[:2]) for image in images]
        logits = [np.empty((*image.shape[:2], self._classes), np.int32) for image in images if want_logits]
        with _cuda_errors(f"cuda:{self._gpu}"):
            self.session.run(images, thresholds, masks, logits)
        return masks, logits

    def empty(self, shape: tuple[int, ...]) -> Pixels:
        """See `Backend`: pinned, which the GPU copies from and to by itself, while there is some."""
        memory = self.session.host_memory(math.prod(shape))
        return ordinary(shape) if memory is None else memory.reshape(shape)

    def explain(self, index: int, layer: Layer) -> tuple[str, str]:
        """See `Backend`."""
        row = ops.operation(layer)
        return self._kernels[index], "the products of bits that its architecture has" if row.has_bits else row.why


@contextmanager
def _cuda_errors(device: str) -> Iterator[None]:
    """What the native session says of a GPU, as an EngineError."""
    try:
        yield
    except _native.CudaError as error:
        raise EngineError(f"{device}: {error}") from error
