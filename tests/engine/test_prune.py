"""Smaller models give the same bits: every kept channel of every layer, and the logits, borders included."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from engine import check
from engine.backends import reference
from engine.bits import pack
from engine.layer import Layer
from engine.model import Model
from engine.networks import bfcn, multibranch, unet
from engine.prune import Pruned, prune
from tests.models import random_model

MIXED = ("Down2", "Down4", "CT1", "CT3", "Up1", "Up4")
ALWAYS, NEVER = 1, -1


def image(height: int = 48, width: int = 32) -> NDArray[np.uint8]:
    return np.random.default_rng(5).integers(0, 256, (height, width, 3), dtype=np.uint8)


def assert_same(old: Model, small: Pruned, pixels: NDArray[np.uint8]) -> None:
    check.check(small.model)
    assert all(array.flags.c_contiguous for array in small.model.tensors.values())
    before, after = reference.run(old, pixels), reference.run(small.model, pixels)
    for name, bits in after.trace.items():
        np.testing.assert_array_equal(bits, before.trace[name][..., small.kept[name]], name)
    np.testing.assert_array_equal(after.logits, before.logits)


def fix(model: Model, name: str, channels: Sequence[int], value: int) -> None:
    """Make `channels` of a layer constant: ALWAYS or NEVER one."""
    layer = next(layer for layer in model.layers if layer.name == name)
    bound = model.bound(layer)[list(channels)]
    model.tensors[f"{name}.theta"][list(channels), 0] = -bound if value == ALWAYS else bound + 1


def zero(model: Model, name: str, where: tuple[slice | int, ...]) -> None:
    """Set weights of a masked layer, `where` of [channels, rows, columns, inputs], to zero."""
    layer = next(layer for layer in model.layers if layer.name == name)
    signs = model.ternary(layer)
    signs.reshape(layer.channels, side := layer.up * layer.kernel, side, -1)[where] = 0
    inputs = model.input_channels(layer)
    model.tensors[f"{name}.pos"], model.tensors[f"{name}.neg"] = pack(signs > 0, inputs), pack(signs < 0, inputs)
    bound = model.bound(layer)[:, None]
    theta = f"{name}.theta"
    model.tensors[theta] = np.clip(model.tensors[theta], -bound, bound + 1).astype(np.int32)


@pytest.mark.parametrize("masked", [unet.BLOCKS, (), MIXED], ids=["masked", "binary", "mixed"])
@pytest.mark.parametrize("zeros", [0.3, 0.9, 0.98])
def test_random_networks_keep_their_bits(masked: tuple[str, ...], zeros: float) -> None:
    for seed in range(3):
        old = random_model(5, masked=masked, zeros=zeros, seed=seed)
        assert_same(old, prune(old), image())


def test_at_many_zeros_much_goes() -> None:
    old = random_model(8, zeros=0.98)
    small = prune(old)
    assert sum(len(kept) for kept in small.kept.values()) < 0.9 * sum(layer.channels for layer in old.layers)
    assert_same(old, small, image(32, 48))


def chain(*weights: str, channels: int = 4) -> Model:
    """pixels -> 3x3 -> 3x3 -> head, without a constant to begin with."""
    flat = [Layer("first", "stem", ("image",), channels, "int16", 3)]
    for i, kind in enumerate(weights):
        flat.append(Layer(f"conv{i}", "conv", (flat[-1].name,), channels, kind, 3))
    flat.append(Layer("head", "head", (flat[-1].name,), 2, "int16", 1))
    model = random_model(layers=flat, classes=2, zeros=0.2, seed=1)
    for layer in model.layers[:-1]:
        bound = model.bound(layer)
        theta = model.tensors[f"{layer.name}.theta"][:, 0]
        middle = np.where((theta <= -bound) | (theta > bound), 0, theta)
        model.tensors[f"{layer.name}.theta"] = middle[:, None].astype(np.int32)
    return model


@pytest.mark.parametrize("kind", ["masked", "binary"])
def test_a_channel_that_is_never_one_goes_whatever_reads_it(kind: str) -> None:
    old = chain("masked", kind)
    fix(old, "conv0", [2], NEVER)
    small = prune(old)
    assert small.kept["conv0"].tolist() == [0, 1, 3]
    assert_same(old, small, image())


@pytest.mark.parametrize("kind", ["masked", "binary"])
def test_a_channel_that_is_always_one_stays_for_the_border(kind: str) -> None:
    old = chain("masked", kind)
    fix(old, "conv0", [2], ALWAYS)
    small = prune(old)
    assert small.kept["conv0"].tolist() == [0, 1, 2, 3]
    assert_same(old, small, image())


def test_a_channel_that_is_always_one_goes_where_only_centres_read_it() -> None:
    old = chain("masked", "masked")
    fix(old, "conv0", [2], ALWAYS)
    for row in range(3):
        for column in range(3):
            if (row, column) != (1, 1):
                zero(old, "conv1", (slice(None), row, column, 2))
    small = prune(old)
    assert small.kept["conv0"].tolist() == [0, 1, 3]
    assert_same(old, small, image())


def test_the_head_takes_any_constant_into_its_bias() -> None:
    old = chain("masked")
    fix(old, "conv0", [0], ALWAYS)
    fix(old, "conv0", [3], NEVER)
    small = prune(old)
    assert small.kept["conv0"].tolist() == [1, 2]
    assert not np.array_equal(small.model.tensors["head.bias"], old.tensors["head.bias"])
    assert_same(old, small, image())


def test_what_nothing_reads_goes_with_all_that_only_it_has_read() -> None:
    old = chain("masked", "masked", "masked")
    zero(old, "conv2", (slice(None), slice(None), slice(None), 1))
    for reader in (0, 2, 3):
        zero(old, "conv1", (reader, slice(None), slice(None), 3))
    small = prune(old)
    assert small.kept["conv1"].tolist() == [0, 2, 3]
    assert small.kept["conv0"].tolist() == [0, 1, 2]
    assert_same(old, small, image())


def test_a_network_of_constants_keeps_a_channel_in_every_layer() -> None:
    for kind in ("masked", "binary"):
        old = chain("masked", kind)
        fix(old, "conv0", range(4), NEVER)
        small = prune(old)
        assert min(layer.channels for layer in small.model.layers) == 1
        assert_same(old, small, image())


def test_a_transposed_convolution_takes_a_constant_only_with_equal_taps() -> None:
    old = random_model(4, seed=2)
    for value in (ALWAYS, NEVER):
        fix(old, "up1.conv2", [0, 1] if value == ALWAYS else [2, 3], value)
    zero(old, "ct2", (slice(None), slice(None), slice(None), 0))
    zero(old, "ct2", (slice(None), slice(None), slice(None), 2))
    small = prune(old)
    assert not {0, 2} & set(small.kept["up1.conv2"].tolist())
    assert {1, 3} <= set(small.kept["up1.conv2"].tolist())
    assert_same(old, small, image())


def test_the_report_says_what_went() -> None:
    old = chain("masked", "masked")
    fix(old, "conv0", [2], NEVER)
    assert "1 of 14 channels" in prune(old).report(old)


@pytest.mark.parametrize("flat", [unet.layers(2, activation_bits=2), bfcn.layers(2), multibranch.layers(2)])
def test_other_networks_are_left_alone_and_the_report_says_why(flat: list[Layer]) -> None:
    old = random_model(layers=flat)
    small = prune(old)
    assert small.model is old
    assert all(len(small.kept[layer.name]) == layer.channels for layer in old.layers)
    assert "no channel is removed: " in small.report(old)
