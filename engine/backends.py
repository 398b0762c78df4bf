"""What computes a plan: a native session on the CPU or a GPU, or the numpy reference. All give the same bits."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine import _native, fit, reference
from engine.format import Model
from engine.plan import Plan, Step, compile_plan

log = logging.getLogger("mbunet")

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

    def explain(self, index: int, step: Step) -> tuple[str, str]:
        """(kernel, why) of the plan's step `index`."""


class CpuBackend:
    """Bit-sliced counting on the CPU, by the native session."""

    note = ""

    def __init__(self, model: Model, kernel: str, threads: int) -> None:
        if threads < 1:
            raise EngineError(f"threads must be positive, not {threads}")
        if kernel != "auto" and kernel not in available_kernels():
            raise EngineError(f"no kernel '{kernel}' on this machine; there are auto, {', '.join(available_kernels())}")
        self.session = _native.Session(kernel, threads)
        self.kernel: str = self.session.kernel
        self._classes = model.layers[-1].channels
        _build(self.session, model, compile_plan(model))

    def run(self, images: list[Pixels], thresholds: list[int], want_logits: bool) -> tuple[list[Mask], list[Logits]]:
        """See `Backend`. The session pads by itself."""
        masks = [np.empty(image.shape[:2], np.uint8) for image in images]
        logits = [np.empty((*image.shape[:2], self._classes), np.int32) for image in images if want_logits]
        self.session.run(images, thresholds, masks, logits)
        return masks, logits

    def explain(self, index: int, step: Step) -> tuple[str, str]:
        """See `Backend`."""
        return self.kernel, _EXPLAINED.get(step.layer.op, "bit-sliced counting: only non-zero weights are visited")


class CudaBackend:
    """Binary Tensor Cores of one GPU, by the native session. The session pads by itself."""

    note = ""

    def __init__(self, model: Model, gpu: int) -> None:
        self._classes = model.layers[-1].channels
        with _cuda_errors(f"cuda:{gpu}"):
            self.session = _native.CudaSession(gpu)
            _build(self.session, model, compile_plan(model))
            self.session.load()
            self._kernels = self.session.kernels
        self.kernel = "cuda"
        self._gpu = gpu

    def run(self, images: list[Pixels], thresholds: list[int], want_logits: bool) -> tuple[list[Mask], list[Logits]]:
        """See `Backend`. Raises EngineError where the GPU's memory does not suffice."""
        masks = [np.empty(image.shape[:2], np.uint8) for image in images]
        logits = [np.empty((*image.shape[:2], self._classes), np.int32) for image in images if want_logits]
        with _cuda_errors(f"cuda:{self._gpu}"):
            self.session.run(images, thresholds, masks, logits)
        return masks, logits

    def explain(self, index: int, step: Step) -> tuple[str, str]:
        """See `Backend`."""
        return self._kernels[index], _EXPLAINED.get(step.layer.op, "the products of bits that its architecture has")


class FallingBack:
    """The backend that "auto" chose; what it fails at, out of memory for one, the CPU does instead and the log says so.

    The bits are the same, and the next call is the GPU's again.
    """

    note = ""

    def __init__(self, backend: Backend, model: Model, threads: int) -> None:
        self.kernel = backend.kernel
        self.explain = backend.explain
        self._backend = backend
        self._cpu = functools.cache(lambda: CpuBackend(model, "auto", threads or available_cores()))

    def run(self, images: list[Pixels], thresholds: list[int], want_logits: bool) -> tuple[list[Mask], list[Logits]]:
        """See `Backend`."""
        try:
            return self._backend.run(images, thresholds, want_logits)
        except EngineError as error:
            log.warning("%d images ran on the CPU: %s", len(images), error)
            return self._cpu().run(images, thresholds, want_logits)


class ReferenceBackend:
    """`engine.reference` in the place of a fast backend."""

    kernel = "reference"
    note = ""

    def __init__(self, model: Model) -> None:
        self._model = model

    def run(self, images: list[Pixels], thresholds: list[int], want_logits: bool) -> tuple[list[Mask], list[Logits]]:
        """See `Backend`."""
        stride = compile_plan(self._model).stride
        logits = []
        for image in images:
            height, width = image.shape[:2]
            logits.append(reference.run(self._model, fit.pad(image, stride)).logits[:height, :width])
        return [reference.decide(some, t) for some, t in zip(logits, thresholds, strict=True)], logits

    def explain(self, index: int, step: Step) -> tuple[str, str]:
        """See `Backend`."""
        return self.kernel, "numpy: the specification"


class ClosedBackend:
    """What is left of an engine after `close`."""

    kernel = "closed"
    note = ""

    def run(self, images: list[Pixels], thresholds: list[int], want_logits: bool) -> tuple[list[Mask], list[Logits]]:
        """Raises EngineError."""
        raise EngineError("the engine is closed")

    def explain(self, index: int, step: Step) -> tuple[str, str]:
        """Raises EngineError."""
        raise EngineError("the engine is closed")


def available_kernels() -> list[str]:
    """Names of the CPU kernels that this machine can run, best first."""
    return list(_native.available_kernels())


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_EXPLAINED = {
    "pixels3x3": "int16 fixed point, exact in int32",
    "pool2x2": "OR of four bits",
    "head1x1": "int16 fixed point, exact in int32",
}


@contextmanager
def _cuda_errors(device: str) -> Iterator[None]:
    """What the native session says of a GPU, as an EngineError."""
    try:
        yield
    except _native.CudaError as error:
        raise EngineError(f"{device}: {error}") from error


def _build(session: _native.Session | _native.CudaSession, model: Model, plan: Plan) -> None:
    """Hand `plan` with its weights to a native session."""
    for slot in plan.slots:
        session.add_slot(slot.channels, slot.stride)
    for step in plan.steps:
        layer, inputs, output = step.layer, step.inputs, step.output
        if output is None:
            session.add_head(inputs[0], model.tensors[f"{layer.name}.weight"], model.tensors[f"{layer.name}.bias"])
        elif layer.op == "pool2x2":
            session.add_pool(inputs[0], output, layer.channels)
        else:
            theta = model.tensors[f"{layer.name}.theta"][:, 0].copy()  # one plane has one threshold
            if layer.op == "pixels3x3":
                session.add_pixels(output, model.tensors[f"{layer.name}.weight"], theta)
            else:
                upsamples = layer.op == "upconv2x2"
                session.add_convolution(upsamples, inputs, step.input_channels, output, model.signs(layer), theta)
