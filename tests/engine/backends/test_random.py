"""Networks that nobody would build: every operation in every form, on every CPU kernel, with ==.

`make test-networks` draws many thousands more.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from engine import ops
from engine.backends import reference
from engine.backends.cpu import CpuBackend, available_kernels
from engine.model import Model
from engine.networks import bfcn, multibranch, unet
from engine.plan import compile_plan
from engine.runtime import Engine
from tests.cases import RANDOM, same
from tests.models import random_model
from tests.random_networks import WRITTEN

FAMILIES = {
    "MBU-Net W1A2": unet.layers(3, masked=("Down1", "Up4"), activation_bits=2),
    "BFCN W1A2": bfcn.layers(3, classes=3),
    "BFCN W1A2 masked": bfcn.layers(3, weights="masked"),
    "BFCN W2A2": bfcn.layers(3, weight_bits=2),
    "multi-branch": multibranch.layers(3),
    "multi-branch, binary, one branch": multibranch.layers(3, weights="binary", branches=1, gates="position"),
    "multi-branch W1A2": multibranch.layers(3, activation_bits=2, gates="channel"),
}


@pytest.mark.parametrize("kernel", ["avx512vnni", "avx512", "avx2", "neon", "portable"])
def test_random_networks_equal_the_reference(kernel: str) -> None:
    if kernel not in available_kernels():
        pytest.skip(f"this machine cannot run the {kernel} kernels")
    for case in RANDOM:
        backend, images, expected = CpuBackend(compile_plan(case.model), kernel, 2), case.images, case.expected()
        for poison in (0x00, 0xFF):
            backend.session.poison(poison)
            masks, logits = backend.run(images, [0] * len(images), want_logits=True)
            assert same(logits, expected), case.name
            decided = [reference.decide(some, 0) for some in expected]
            assert all(np.array_equal(a, b) for a, b in zip(masks, decided, strict=True)), case.name


def test_the_random_networks_have_everything() -> None:
    """What the test above rests on: every path of the list builder and of the counting kernels is taken, often."""
    seen: Counter[object] = Counter()
    for case in RANDOM:
        model = case.model
        for layer in model.layers:
            seen[layer.op, layer.planes, layer.encoding] += 1
            if layer.op == "head":
                seen["doublings", layer.doublings] += 1
            if layer.op == "conv":
                read = model.inputs(layer)[0]
                seen["conv", layer.kernel, layer.up] += 1
                seen["reads", read.planes, read.encoding, layer.weights, layer.segments > 1, bool(layer.residual)] += 1
                seen["writes", layer.planes, layer.weights, len(layer.inputs)] += 1
    assert all(seen[(op, *written)] >= 3 for op in ("stem", "conv", "pool", "gate") for written in WRITTEN)
    assert all(seen["doublings", n] >= 3 for n in range(ops.MAX_DOUBLINGS + 1))
    assert all(seen["conv", kernel, up] >= 20 for kernel in (1, 3) for up in (1, 2))
    for written in WRITTEN:
        for weights in ("binary", "masked"):
            for several in (False, True):
                for residual in (False, True):
                    assert seen[("reads", *written, weights, several, residual)] >= 2
            for planes in (1, 2):
                assert all(seen["writes", planes, weights, inputs] >= 5 for inputs in (1, 2))


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_runs_in_windows_and_in_batches(name: str) -> None:
    """As the reference does, whole or in windows, alone or with others."""
    model = random_model(layers=FAMILIES[name], zeros=0.6, seed=3)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((150, 67), (160, 80), (33, 20))]
    with Engine.load(model, "cpu", 2) as whole, Engine.load(model, "cpu", 2, tile_pixels=1) as cut:
        expected = [reference_logits(model, image) for image in images]
        assert same([whole.logits(image) for image in images], expected)
        assert cut.tiling.cuts(150, 67)
        assert same([cut.logits(image) for image in images], expected)
        together, _ = whole.run(images)
        assert all(np.array_equal(a, whole.run([b])[0][0]) for a, b in zip(together, images, strict=True))


def reference_logits(model: Model, image: NDArray[np.uint8]) -> NDArray[np.int32]:
    with Engine.load(model, "reference") as engine:
        return engine.logits(image)
