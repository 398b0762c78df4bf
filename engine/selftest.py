"""Whether every backend of this machine gives the right bits: those of golden files, or the reference's for any model.

Golden files hold what PyTorch computed when a shipped model was exported.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from engine import comparison, runtime
from engine.backends import registry
from engine.format import load
from engine.preprocess import Image
from engine.runtime import Engine, EngineError, available_kernels

GOLDEN = runtime.MODELS / "golden"
"""NAME.safetensors in here belongs to the shipped model NAME: pairs "i.image" uint8 [h, w, 3], "i.logits" int32."""


def run(kernels: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """One row per shipped model and backend: images, logits compared, how many differ, milliseconds, ok.

    `kernels` are CPU kernels by name, GPUs as in "cuda:0", or "reference"; by default all that this machine has. Raises
    EngineError where there is nothing to replay.
    """
    files = sorted(GOLDEN.glob("*.safetensors"))
    if not files:
        raise EngineError(f"no golden files in {GOLDEN.name}/")
    return [replay(file, kernel) for file in files for kernel in kernels or available()]


def run_model(model: str | Path, kernels: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """One row per backend as `comparison.compare` gives, for a model file or a shipped model.

    `kernels` are as in `run`. What cannot run the model says so in the place of the first layer that differs; raises
    EngineError where it was asked for by name, and for a model that there is not.
    """
    loaded, rows = load(runtime.resolve(model)), []
    images = comparison.random_images(loaded, seed=0)
    expected = comparison.by_reference(loaded, images)
    for kernel in kernels or [kernel for kernel in available() if kernel != "reference"]:
        try:
            rows.append(comparison.compare(loaded, images, expected, *_device(kernel)))
        except EngineError as error:
            if kernels:
                raise
            row = {"model": loaded.name, "kernel": kernel, "images": 0, "logits": 0, "wrong": 0}
            rows.append(row | {"first": f"not run: {error}", "ms": 0.0, "ok": True})
    return rows


def available() -> list[str]:
    """What is tested by default."""
    return [*available_kernels(), *(device for device in registry.available() if device != "cpu")]


def replay(golden: Path, kernel: str) -> dict[str, Any]:
    """One row of `run`."""
    pairs, (device, kernel_of_cpu) = read_golden(golden), _device(kernel)
    with Engine.load(golden.stem, device=device, kernel=kernel_of_cpu) as engine:
        started = time.perf_counter()
        wrong = sum(_differences(engine.logits(image), logits) for image, logits in pairs)
        elapsed = 1e3 * (time.perf_counter() - started)
    row: dict[str, Any] = {"model": golden.stem, "kernel": kernel, "images": len(pairs)}
    row |= {"logits": sum(logits.size for _, logits in pairs), "wrong": wrong}
    return row | {"ms": round(elapsed, 1), "ok": wrong == 0}


def read_golden(path: Path) -> list[tuple[Image, NDArray[np.int32]]]:
    """(image uint8 [h, w, 3], logits int32 [h, w, classes]) pairs of a golden file."""
    tensors = load_file(path)
    return [(tensors[f"{i}.image"], tensors[f"{i}.logits"]) for i in range(len(tensors) // 2)]


def write_golden(path: Path, pairs: Iterable[tuple[Image, NDArray[np.int32]]]) -> None:
    """The file that `read_golden` reads."""
    tensors: dict[str, NDArray[Any]] = {}
    for i, (image, logits) in enumerate(pairs):
        tensors[f"{i}.image"] = np.ascontiguousarray(image)
        tensors[f"{i}.logits"] = np.ascontiguousarray(logits)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(save(tensors))


def _device(kernel: str) -> tuple[str, str]:
    """(device, kernel of the CPU) as `Engine.load` takes them, of what `run` takes."""
    is_device = kernel in registry.available() or kernel.startswith("cuda")
    return (kernel, "auto") if is_device else ("cpu", kernel)


def _differences(got: NDArray[np.int32], expected: NDArray[np.int32]) -> int:
    return int(np.count_nonzero(got != expected)) if got.shape == expected.shape else expected.size
