"""Compares what this machine runs models on with the reference, bit for bit, for any model on random images.

Where the network's results differ, the first layer at fault is found by running the network up to each layer, under a
head that shows that layer's output as logits.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine import mbu, ops
from engine.backends import registry
from engine.backends.base import Backend, Logits, Mask
from engine.backends.reference import ReferenceBackend
from engine.layer import Layer
from engine.model import ClassInfo, Model
from engine.plan import compile_plan
from engine.preprocess import Pixels

PRODUCTS = 2 * 10**9
"""Of one image with the network's weights: the reference takes seconds for them."""
MAX_SIDE = 256
SHOWN = 4
"""Logits that show a layer: sums of all its channels, with random weights."""
INT32 = 2**31 - 1

Results = tuple[list[Mask], list[Logits]]


def by_reference(model: Model, images: list[Pixels]) -> Results:
    """Masks and logits of `images` by the reference."""
    return _run(model, ReferenceBackend(model), images)


def compare(model: Model, images: list[Pixels], expected: Results, device: str, kernel: str) -> dict[str, Any]:
    """One row: images, logits compared, how many differ, the first layer that differs, milliseconds, ok.

    `expected` is what `by_reference` gives, `device` and `kernel` what `Engine.load` takes. Raises EngineError where
    that cannot run the model.
    """
    backend = _backend(model, device, kernel)
    started = time.perf_counter()
    found = _run(model, backend, images)
    ms = 1e3 * (time.perf_counter() - started)
    wrong = _differences(found, expected)
    row: dict[str, Any] = {"model": model.name, "kernel": device if device != "cpu" else backend.kernel}
    row |= {"images": len(images), "logits": sum(logits.size for logits in found[1]), "wrong": wrong}
    first = first_difference(model, device, kernel, images) if wrong else ""
    return row | {"first": first, "ms": round(ms, 1), "ok": wrong == 0}


def first_difference(model: Model, device: str, kernel: str, images: list[Pixels]) -> str:
    """Name of the first layer whose output differs from the reference's.

    It is the head where none before it does. The first layer of all may stand for the head that shows it.
    """
    for part in truncated(model):
        backend = _backend(part, device, kernel)
        for image in images:  # one by one: a part may pad them to different shapes
            if _differences(_run(part, backend, [image]), by_reference(part, [image])):
                return part.layers[-1].inputs[0]
    return model.layers[-1].name


def truncated(model: Model) -> Iterator[Model]:
    """For every layer but the last what it depends on and itself, below a head that shows its output."""
    rng = np.random.default_rng(0)
    for i, layer in enumerate(model.layers[:-1]):
        wanted, kept = {layer.name}, []
        for earlier in reversed(model.layers[: i + 1]):
            if earlier.name in wanted:
                wanted |= set(earlier.reads)
                kept.append(earlier)
        head, arrays = _showing(model, layer, rng)
        yield replace(
            model,
            layers=(*reversed(kept), head),
            classes=tuple(ClassInfo(str(i), (0, 0, 0)) for i in range(SHOWN)),
            tensors={**model.tensors, **{f"{head.name}.{part}": array for part, array in arrays.items()}},
        )


def random_images(model: Model, seed: int) -> list[Pixels]:
    """Three images of one padded shape, uint8 [h, w, 3]: one that fills it and two of any size that is padded to it.

    They are as large as PRODUCTS and MAX_SIDE allow, but not smaller than one position of the coarsest tensor. Noise
    lies over squares of one color, so that deep layers see more than noise.
    """
    rng, step = np.random.default_rng(seed), model.stride
    work = sum(ops.visits(model.layers, step).values())  # of one such square
    side = step * int(np.clip((PRODUCTS / max(work, 1)) ** 0.5, 1, max(1, MAX_SIDE // step)))
    sizes = [(side, side), *rng.integers(side - step + 1, side + 1, (2, 2))]
    images = []
    for height, width in sizes:
        squares = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3)).repeat(8, axis=0).repeat(8, axis=1)
        noisy = squares[:height, :width] + rng.integers(-40, 41, (height, width, 3))
        images.append(np.ascontiguousarray(np.clip(noisy, 0, 255), np.uint8))
    return images


def _showing(model: Model, layer: Layer, rng: np.random.Generator) -> tuple[Layer, dict[str, NDArray[Any]]]:
    """A head on `layer` at the image's resolution, with its arrays: weights so large that no logit leaves int32."""
    read = model.outputs[layer.name]
    doublings = read.stride.bit_length() - 1
    largest = INT32 // (read.channels * read.largest << 4 * doublings)
    most = int(np.clip(largest, 1, mbu.FIXED_POINT_MAX))
    weight = rng.integers(1, most + 1, (SHOWN, read.channels)) * rng.choice((-1, 1), (SHOWN, read.channels))
    name = model.layers[-1].name
    head = Layer(name, "head", (layer.name,), SHOWN, "int16", 1, doublings=doublings, scale=1.0)
    return head, {"weight": weight.astype(np.int16), "bias": np.zeros(SHOWN, np.int32)}


def _backend(model: Model, device: str, kernel: str) -> Backend:
    return registry.choose(compile_plan(model), device, 0, kernel)[1]


def _run(model: Model, backend: Backend, images: list[Pixels]) -> Results:
    threshold = mbu.integer_threshold(model.threshold, model.layers[-1].scale)
    return backend.run(images, [threshold] * len(images), True)


def _differences(found: Results, expected: Results) -> int:
    """Logits that differ, or pixels of the masks where no logit does."""
    return _unequal(found[1], expected[1]) or _unequal(found[0], expected[0])


def _unequal(found: Sequence[NDArray[Any]], expected: Sequence[NDArray[Any]]) -> int:
    return sum(int(np.count_nonzero(a != b)) for a, b in zip(found, expected, strict=True))
