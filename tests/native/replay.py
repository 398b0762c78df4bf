"""Builds and feeds replay.cpp, the session without Python: for emulated machines, sanitizers and programs like it."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine import ops
from engine.model import Model
from engine.plan import Step, compile_plan
from tests.cases import Case
from tests.native import compiling
from tests.native.sources import NATIVE, sources

OPS = ("stem", "conv", "pool", "gate", "head")  # as enum Op numbers them

PORTABLE = "-DMBUNET_PORTABLE"
"""Compiles the portable kernels alone (csrc/cpu/kernels/probe.cpp)."""

Logits = NDArray[np.int32]


def build(compiler: str, machine: str, out: Path, flags: Sequence[str] = ()) -> None:
    """Compile the CPU session with the kernels of `machine` ("x86_64", "aarch64" or none) and replay.cpp to `out`."""
    lists = ("shared_sources", "cpu_sources", *([f"{machine}_sources"] if machine else []))
    own = flags if machine else [*flags, PORTABLE]
    command = [compiler, "-std=c++20", "-O2", "-Wall", "-Wextra", "-pthread", *own]
    compiling.build(command, [*sources(*lists), NATIVE / "replay.cpp"], out)


def replay(command: Sequence[str], kernel: str, threads: int, cases: Sequence[Case]) -> list[list[Logits]]:
    """Logits int32 [h, w, classes] of every image of every case, all images of a case having one padded shape."""
    data = encode(kernel, threads, cases)
    answer = subprocess.run(list(command), input=data, stdout=subprocess.PIPE, check=True).stdout
    flat = np.frombuffer(answer, np.int32)
    results = []
    for case in cases:
        logits = []
        for height, width in case.sizes:
            size = height * width * case.classes
            logits.append(flat[:size].reshape(height, width, case.classes))
            flat = flat[size:]
        results.append(logits)
    assert not flat.size
    return results


def encode(kernel: str, threads: int, cases: Sequence[Case]) -> bytes:
    """What a replaying program reads (protocol.hpp)."""
    name = kernel.encode()
    return ints(len(name)) + name + ints(threads) + b"".join(map(_case, cases))


def ints(*values: int) -> bytes:
    """Little-endian int32."""
    return struct.pack(f"<{len(values)}i", *values)


def _case(case: Case) -> bytes:
    plan = compile_plan(case.model)
    data = ints(len(plan.tensors))
    for tensor, life in zip(plan.tensors, plan.lifetimes, strict=True):
        signed = tensor.encoding == "sign"
        data += ints(tensor.channels, tensor.stride, tensor.planes, signed, life.first, life.last)
    data += ints(len(plan.steps)) + b"".join(_step(case.model, step) for step in plan.steps)
    data += ints(len(case.images))
    return data + b"".join(ints(*image.shape[:2]) + image.tobytes() for image in case.images)


def _step(model: Model, step: Step) -> bytes:
    layer, arrays = step.layer, model.arrays(step.layer)
    data = ints(OPS.index(layer.op), -1 if step.output is None else step.output, len(step.inputs), *step.inputs)
    if layer.op == "head":
        data += ints(layer.channels, layer.doublings) + arrays["weight"].tobytes() + arrays["bias"].tobytes()
    elif layer.op == "stem":
        data += arrays["weight"].tobytes() + arrays["theta"].tobytes()
    elif layer.op == "conv":
        data += ints(layer.kernel, layer.up, layer.segments)
        data += ops.exponents(layer, arrays).tobytes() + model.ternary(layer).tobytes()
        data += ints(-1 if step.residual is None else step.residual, layer.residual_exponent)
        data += arrays["residual_signs"].tobytes() if layer.residual else b""
        data += arrays["theta"].tobytes()
    return data
