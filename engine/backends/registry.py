"""Which device runs a model: the choice of the user, or what this machine has."""

from __future__ import annotations

import logging
import re

from engine import _native, cores
from engine.backends.base import Backend, EngineError
from engine.backends.cpu import CpuBackend
from engine.backends.cuda import CudaBackend
from engine.backends.fallback import FallbackBackend
from engine.backends.reference import ReferenceBackend
from engine.plan import Plan

log = logging.getLogger("mbunet")

NAMES = "auto, cpu, cuda, cuda:INDEX, reference"


def available() -> list[str]:
    """Devices that this machine and this installation have, as `Engine.load` takes them."""
    return [*(f"cuda:{i}" for i in range(len(gpus()))), "cpu", "reference"]


def gpus() -> list[_native.Gpu]:
    """The GPUs that the driver offers; none where there is no driver, or the installation has no CUDA."""
    try:
        return _native.gpus()
    except _native.CudaError:
        return []


def bus(device: str) -> str:
    """The PCI address of the GPU that a device's full name means, as in 0000:3b:00.0; empty for what is no GPU.

    So the board is known to whatever counts otherwise than CUDA does, by slots or with those that CUDA_VISIBLE_DEVICES
    hides.
    """
    kind, _, index = device.partition(":")
    return gpus()[int(index)].bus if kind == "cuda" else ""


def choose(plan: Plan, device: str, threads: int, kernel: str) -> tuple[str, Backend]:
    """The device's full name and the backend that runs `plan` on it. Raises EngineError.

    "auto" is the first GPU; it is the CPU where the user named a CPU kernel or where no GPU can be used: the log and
    `Engine.describe` say why. What that GPU fails at later, the CPU does, and the log says so.
    """
    if threads < 0:  # even where a GPU would need none: "auto" may fall back to the CPU
        raise EngineError(f"threads must not be negative, as {threads} is")
    if device == "auto":
        return _choose_automatically(plan, threads, kernel)
    if device == "cpu":
        return device, CpuBackend(plan, kernel, threads or cores.available())
    if device == "reference":
        return device, ReferenceBackend(plan.model)
    if re.fullmatch(r"cuda(:\d{1,3})?", device):
        if kernel != "auto":
            raise EngineError(f"kernel '{kernel}' is one of the CPU's, and the device is {device}")
        index = int(device.partition(":")[2] or 0)
        return f"cuda:{index}", CudaBackend(plan, index)
    raise EngineError(f"no device '{device}'; there are {NAMES}")


def _choose_automatically(plan: Plan, threads: int, kernel: str) -> tuple[str, Backend]:
    why = f"kernel '{kernel}' was asked for"
    if kernel == "auto":
        try:
            device, backend = choose(plan, "cuda:0", threads, kernel)
            return device, FallbackBackend(backend, plan, threads)
        except EngineError as error:
            why = str(error)
            log.log(logging.WARNING if gpus() else logging.INFO, "the engine runs on the CPU: %s", error)
    name, backend = choose(plan, "cpu", threads, kernel)
    backend.note = f"; auto chose the CPU: {why}"
    return name, backend
