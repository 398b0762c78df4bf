"""Each operation of the specification against loops that write its equation down."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engine import ops
from engine.backends import reference
from engine.layer import IMAGE, Layer
from engine.model import Model
from tests.models import random_model
from tests.random_networks import WRITTEN, random_layers

RNG = np.random.default_rng(0)


def value(model: Model, name: str, levels: NDArray[Any], place: tuple[int, int, int]) -> int:
    """What a level means, those outside the image included."""
    row, column, channel = place
    inside = 0 <= row < levels.shape[0] and 0 <= column < levels.shape[1]
    level = int(levels[row, column, channel]) if inside else 0
    return 2 * level - 1 if model.outputs[name].encoding == "sign" else level


def naive_conv(model: Model, layer: Layer, levels: dict[str, NDArray[Any]]) -> NDArray[np.int64]:
    """The definition of the sum: segments, each 2 ** exponent times, over all inputs and taps, and the residual."""
    weights, arrays = model.ternary(layer), model.arrays(layer)
    exponents = arrays.get("exponents", np.zeros(weights.shape[:2], np.uint8))
    height, width = levels[layer.inputs[0]].shape[:2]
    sums = np.zeros((height * layer.up, width * layer.up, layer.channels), np.int64)
    for y, x, o in np.ndindex(*sums.shape):
        row, i = divmod(y, layer.up)
        column, j = divmod(x, layer.up)
        first = 0
        for name in layer.inputs:
            for k, m, c in np.ndindex(layer.kernel, layer.kernel, levels[name].shape[2]):
                place = (row + k - layer.kernel // 2, column + m - layer.kernel // 2, c)
                for s in range(layer.segments):
                    weight = int(weights[s, o, i, j, k, m, first + c])
                    sums[y, x, o] += weight * 2 ** int(exponents[s, o]) * value(model, name, levels[name], place)
            first += levels[name].shape[2]
        if layer.residual:
            added = value(model, layer.residual, levels[layer.residual], (y, x, o))
            sums[y, x, o] += int(arrays["residual_signs"][o]) * 2**layer.residual_exponent * added
    return sums


def naive_stem(model: Model, layer: Layer, levels: dict[str, NDArray[Any]]) -> NDArray[np.int64]:
    image, weight = levels[IMAGE], model.arrays(layer)["weight"]
    sums = np.zeros((*image.shape[:2], layer.channels), np.int64)
    for y, x, o, i, j, c in np.ndindex(*sums.shape, 3, 3, 3):
        sums[y, x, o] += int(weight[o, i, j, c]) * value(model, IMAGE, image, (y + i - 1, x + j - 1, c))
    return sums


def naive_head(model: Model, layer: Layer, levels: dict[str, NDArray[Any]]) -> NDArray[np.int64]:
    arrays, (name,) = model.arrays(layer), layer.inputs
    logits = np.zeros((*levels[name].shape[:2], layer.channels), np.int64)
    for y, x, k in np.ndindex(*logits.shape):
        products = [
            int(weight) * value(model, name, levels[name], (y, x, c)) for c, weight in enumerate(arrays["weight"][k])
        ]
        logits[y, x, k] = int(arrays["bias"][k]) + sum(products)
    for _ in range(layer.doublings):
        logits = naive_doubled(logits)
    return logits


def naive_doubled(coarse: NDArray[np.int64]) -> NDArray[np.int64]:
    """Per axis 3 * self + neighbor, the neighbor being the one on the output's side, inside the image."""
    height, width, classes = coarse.shape
    fine = np.zeros((2 * height, 2 * width, classes), np.int64)
    for y, x, k in np.ndindex(*fine.shape):
        rows = [y // 2] * 3 + [min(max(y // 2 + (1 if y % 2 else -1), 0), height - 1)]
        columns = [x // 2] * 3 + [min(max(x // 2 + (1 if x % 2 else -1), 0), width - 1)]
        fine[y, x, k] = sum(int(coarse[row, column, k]) for row in rows for column in columns)
    return fine


def naive_layer(model: Model, layer: Layer, levels: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """Output of `layer`, by loops."""
    x = levels[layer.inputs[0]]
    if layer.op == "pool":
        highest: NDArray[Any] = np.maximum.reduce([x[i::2, j::2] for i in range(2) for j in range(2)])
        return highest
    if layer.op == "gate":
        return np.where(levels[layer.inputs[1]] != 0, x, 0).astype(x.dtype)
    if layer.op == "head":
        return naive_head(model, layer, levels)
    sums = (naive_stem if layer.op == "stem" else naive_conv)(model, layer, levels)
    theta = model.arrays(layer)["theta"]
    found = np.zeros(sums.shape, np.uint8)
    for threshold in theta.T:
        found += sums >= threshold
    return found


def assert_naive(model: Model, image: NDArray[np.uint8]) -> None:
    result = reference.run(model, image)
    levels: dict[str, NDArray[Any]] = {IMAGE: image}
    for layer in model.layers:
        levels[layer.name] = naive_layer(model, layer, levels)
        ours = result.trace.get(layer.name, result.logits)
        np.testing.assert_array_equal(ours, levels[layer.name], layer.name)
        assert ours.dtype == (np.int32 if layer.op == "head" else bool if layer.planes == 1 else np.uint8)
        assert layer.op == "head" or levels[layer.name].max() < 1 << layer.planes
    assert list(result.trace) == [layer.name for layer in model.layers[:-1]]


def random_pixels(height: int, width: int) -> NDArray[np.uint8]:
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("masked", [(), ("Down1", "CT2", "Up1", "Up4")], ids=["binary", "mixed"])
def test_a_run_is_its_layers_one_after_another(masked: tuple[str, ...]) -> None:
    assert_naive(random_model(width=1, classes=2, masked=masked, seed=3), random_pixels(16, 16))


@pytest.mark.parametrize("seed", range(16))
def test_random_networks_are_their_layers_one_after_another(seed: int) -> None:
    model = random_model(layers=random_layers(seed, channels=3, deepest=2), seed=seed)
    assert_naive(model, random_pixels(*model.padded(5, 3)))


def test_the_random_networks_have_everything() -> None:
    """What the test above rests on: each operation and each option occurs in its networks."""
    flat = [layer for seed in range(16) for layer in random_layers(seed, channels=3, deepest=2)]
    assert {layer.op for layer in flat} == set(ops.OPERATIONS)
    convolutions = [layer for layer in flat if layer.op == "conv"]
    assert {(layer.kernel, layer.up) for layer in convolutions} == {(1, 1), (3, 1), (1, 2), (3, 2)}
    assert {layer.segments for layer in convolutions} == {1, 2, 3}
    assert {(layer.planes, layer.encoding) for layer in convolutions} == set(WRITTEN)
    assert {bool(layer.residual) for layer in convolutions} == {True, False}
    assert {len(layer.inputs) for layer in convolutions} == {1, 2}
    assert {layer.doublings for layer in flat} >= {0, 1, 2}


def test_the_stem_holds_the_largest_sums() -> None:
    x = np.full((5, 4, 3), 255, np.uint8)
    weight = np.full((1, 3, 3, 3), 32767, np.int16)
    assert reference.convolve(reference.values(x, "unsigned", border=1), weight).max() == 27 * 255 * 32767


def test_a_sum_equal_to_the_threshold_is_a_one() -> None:
    sums = np.array([[[2, 2, 2]]])
    fired = reference.activate(sums, np.array([[1], [2], [3]], np.int32))
    assert fired.dtype == bool
    assert fired.tolist() == [[[True, True, False]]]


def test_several_thresholds_give_levels() -> None:
    sums = np.arange(-1, 5).reshape(1, 6, 1)
    levels = reference.activate(sums, np.array([[0, 2, 4]], np.int32))
    assert levels[0, :, 0].tolist() == [0, 1, 1, 2, 2, 3]


def test_decide_compares_one_logit_and_takes_the_lowest_of_equal_ones() -> None:
    one = np.array([[[-1], [4], [5]]], np.int32)
    assert reference.decide(one, 5).tolist() == [[0, 0, 1]]
    several = np.array([[[3, 3, 1], [0, 2, 2], [-5, -6, -4]]], np.int32)
    decided = reference.decide(several, 0)
    assert decided.tolist() == [[0, 1, 2]]
    assert decided.dtype == np.uint8
