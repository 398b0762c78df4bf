"""What computes a plan: the native session on the CPU, or the numpy reference. All give the same bits."""

from __future__ import annotations

import os
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine import _native, fit, reference
from engine.format import Model
from engine.plan import Plan, compile_plan

Pixels = NDArray[np.uint8]
Mask = NDArray[np.uint8]
Logits = NDArray[np.int32]


class EngineError(RuntimeError):
    """The engine cannot do what was asked: no such device, model or kernel."""


class Backend(Protocol):
    """What computes: fitted images of one padded shape in, masks and on request logits out."""

    kernel: str

    def run(self, images: list[Pixels], thresholds: list[int], want_logits: bool) -> tuple[list[Mask], list[Logits]]:
        """Masks uint8 [h, w] and logits int32 [h, w, classes] (or none) of uint8 images [h, w, 3]."""


class CpuBackend:
    """Bit-sliced counting on the CPU, by the native session."""

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


class ReferenceBackend:
    """`engine.reference` in the place of a fast backend."""

    kernel = "reference"

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


class ClosedBackend:
    """What is left of an engine after `close`."""

    kernel = "closed"

    def run(self, images: list[Pixels], thresholds: list[int], want_logits: bool) -> tuple[list[Mask], list[Logits]]:
        """Raises EngineError."""
        raise EngineError("the engine is closed")


def available_kernels() -> list[str]:
    """Names of the CPU kernels that this machine can run, best first."""
    return list(_native.available_kernels())


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _build(session: _native.Session, model: Model, plan: Plan) -> None:
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
