"""Each operation of the specification against loops that write its equation down."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.backends import reference
from engine.format import IMAGE, Layer, Model
from tests.models import random_model

RNG = np.random.default_rng(0)


def ternary(*shape: int) -> NDArray[np.int8]:
    return RNG.integers(-1, 2, shape, dtype=np.int8)


def bits(*shape: int) -> NDArray[np.bool_]:
    return RNG.random(shape) < 0.5


def naive_conv3x3(levels: NDArray[Any], weight: NDArray[np.integer], low: int, step: int) -> NDArray[np.int64]:
    """Sums over the taps of low + step * level, `low` outside the image."""
    height, width, channels = levels.shape
    sums = np.zeros((height, width, len(weight)), np.int64)
    for y, x, o, i, j, c in np.ndindex(height, width, len(weight), 3, 3, channels):
        row, column = y + i - 1, x + j - 1
        inside = 0 <= row < height and 0 <= column < width
        level = int(levels[row, column, c]) if inside else 0
        sums[y, x, o] += int(weight[o, i, j, c]) * (low + step * level)
    return sums


def naive_upconv2x2(x: NDArray[Any], weight: NDArray[np.integer]) -> NDArray[np.int64]:
    height, width, channels = x.shape
    sums = np.zeros((2 * height, 2 * width, len(weight)), np.int64)
    for row, column, o, i, j, c in np.ndindex(height, width, len(weight), 2, 2, channels):
        sums[2 * row + i, 2 * column + j, o] += int(weight[o, i, j, c]) * (1 if x[row, column, c] else -1)
    return sums


def naive_layer(model: Model, layer: Layer, x: Any) -> Any:
    """Output of `layer` for its concatenated inputs, by loops."""
    if layer.op == "pool2x2":
        return np.logical_or.reduce([x[i::2, j::2] for i in range(2) for j in range(2)])
    if layer.op == "head1x1":
        weight, bias = (model.tensors[f"{layer.name}.{part}"].astype(np.int64) for part in ("weight", "bias"))
        return np.array(
            [[[bias[k] + weight[k] @ (2 * bit - 1) for k in range(len(bias))] for bit in row] for row in x * 1]
        )
    if layer.op == "pixels3x3":
        sums = naive_conv3x3(x, model.tensors[f"{layer.name}.weight"], low=0, step=1)
    elif layer.op == "conv3x3":
        sums = naive_conv3x3(x, model.signs(layer), low=-1, step=2)
    else:
        sums = naive_upconv2x2(x, model.signs(layer))
    return sums >= model.tensors[f"{layer.name}.theta"][:, 0]


@pytest.mark.parametrize("masked", [(), ("Down1", "CT2", "Up1", "Up4")], ids=["binary", "mixed"])
def test_a_run_is_its_layers_one_after_another(masked: tuple[str, ...]) -> None:
    model = random_model(width=2, classes=2, masked=masked, seed=3)
    image = RNG.integers(0, 256, (16, 32, 3), dtype=np.uint8)
    result = reference.run(model, image)
    values: dict[str, NDArray[Any]] = {IMAGE: image}
    for layer in model.layers:
        values[layer.name] = naive_layer(model, layer, np.concatenate([values[n] for n in layer.inputs], axis=2))
        ours = result.trace.get(layer.name, result.logits)
        np.testing.assert_array_equal(ours, values[layer.name], layer.name)
        assert ours.dtype == (np.int32 if layer.op == "head1x1" else bool)
    assert list(result.trace) == [layer.name for layer in model.layers[:-1]]


@pytest.mark.parametrize("shape", [(1, 1, 1), (4, 5, 3), (2, 6, 9)])
def test_conv3x3_reads_minus_one_outside(shape: tuple[int, int, int]) -> None:
    x, weight = bits(*shape), ternary(4, 3, 3, shape[2])
    sums = reference.conv3x3(reference.values(x, "sign", border=1), weight)
    np.testing.assert_array_equal(sums, naive_conv3x3(x, weight, low=-1, step=2))


def test_conv3x3_takes_unsigned_levels_as_they_are() -> None:
    x, weight = RNG.integers(0, 4, (4, 3, 5), dtype=np.uint8), ternary(2, 3, 3, 5)
    sums = reference.conv3x3(reference.values(x, "unsigned", border=1), weight)
    np.testing.assert_array_equal(sums, naive_conv3x3(x, weight, low=0, step=1))


def test_pixels3x3_reads_zero_outside_and_holds_the_largest_sums() -> None:
    x = RNG.integers(0, 256, (5, 4, 3), dtype=np.uint8)
    weight = RNG.integers(-32767, 32768, (3, 3, 3, 3)).astype(np.int16)
    x[1:4, :3] = 255
    weight[0] = 32767
    sums = reference.pixels3x3(reference.values(x, "unsigned", border=1), weight)
    np.testing.assert_array_equal(sums, naive_conv3x3(x, weight, low=0, step=1))
    assert sums.max() == 27 * 255 * 32767


def test_upconv2x2_writes_each_tap_to_its_own_pixel() -> None:
    x, weight = bits(3, 2, 5), ternary(4, 2, 2, 5)
    sums = reference.upconv2x2(reference.values(x, "sign"), weight)
    np.testing.assert_array_equal(sums, naive_upconv2x2(x, weight))


def test_head1x1_adds_its_bias() -> None:
    x, bias = bits(3, 4, 7), np.array([5, -(2**30)], np.int32)
    weight = RNG.integers(-32767, 32768, (2, 7)).astype(np.int16)
    logits = reference.head1x1(reference.values(x, "sign"), weight, bias)
    for y, x_, k in np.ndindex(3, 4, 2):
        products = [int(weight[k, c]) * (1 if x[y, x_, c] else -1) for c in range(7)]
        assert logits[y, x_, k] == int(bias[k]) + sum(products)


def test_pooling_is_or_on_bits_and_the_maximum_of_levels() -> None:
    x, levels = bits(4, 6, 3), RNG.integers(0, 4, (4, 6, 3), dtype=np.uint8)
    pooled, largest = reference.pool2x2(x), reference.pool2x2(levels)
    assert pooled.dtype == bool
    for y, x_, c in np.ndindex(2, 3, 3):
        square = np.s_[2 * y : 2 * y + 2, 2 * x_ : 2 * x_ + 2, c]
        assert pooled[y, x_, c] == any(x[square].flat)
        assert largest[y, x_, c] == max(levels[square].flat)


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
