"""Random models for tests: any layer list, any channel counts, and bits that really vary."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine import check, ops
from engine.bits import pack
from engine.layer import Layer
from engine.model import ClassInfo, Model, Preprocessing
from engine.networks import unet

CONSTANT = 0.05
"""Share of channels whose bit is always one, and again of those whose bit is always zero."""

Tensors = dict[str, NDArray[Any]]


def random_model(
    width: int = 4,
    classes: int = 1,
    masked: Collection[str] = unet.BLOCKS,
    zeros: float | Mapping[str, float] = 0.5,
    seed: int = 0,
    layers: Sequence[Layer] | None = None,
) -> Model:
    """A valid model with random weights; `zeros` is the share of zeros in masked layers, or that of each.

    The layers are `layers`, or else the U-Net of that `width`, with the blocks in `masked` masked. Thresholds lie in
    the middle of what the sums reach, so bits vary; a few stand at -B and B + 1, the constants.
    """
    rng = np.random.default_rng(seed)
    flat = list(layers if layers is not None else unet.layers(width, classes, masked))
    flat[-1] = replace(flat[-1], scale=2.0**-17)
    model = Model(
        name="random",
        family="mbu-net",
        layers=tuple(flat),
        classes=tuple(ClassInfo(f"class {i}", (i % 256, 100, 200)) for i in range(flat[-1].channels)),
        preprocessing=Preprocessing(),
        threshold=0.5,
        provenance={"seed": seed},
        tensors={},
    )
    for layer in model.layers:
        if layer.weights:
            share = zeros if isinstance(zeros, (int, float)) else zeros.get(layer.name, 0.0)
            model.tensors.update(_tensors(model, layer, share, rng))
    check.check(model)
    return model


def _tensors(model: Model, layer: Layer, zeros: float, rng: np.random.Generator) -> Tensors:
    """Random arrays as the layer's row asks for them."""
    arrays: Tensors = {}
    for part, (dtype, shape) in ops.operation(layer).arrays(layer, model.inputs(layer)).items():
        if part == "weight":
            most = 32767 >> 4 * layer.doublings  # a doubled logit must stay within int32
            arrays[part] = rng.integers(-most, most + 1, shape, dtype=np.int16)
        elif part == "bias":
            most = 65536 >> 4 * layer.doublings
            arrays[part] = rng.integers(-most, most + 1, shape, dtype=np.int32)
        elif part == "pos":
            arrays |= _planes(layer, model.input_channels(layer), zeros, rng)
        elif part == "exponents":
            arrays[part] = rng.integers(0, ops.MAX_EXPONENT + 1, shape, dtype=np.uint8)
        elif part == "residual_signs":
            arrays[part] = rng.choice(np.array([-1, 1], np.int8), shape)
        elif part == "theta":
            arrays[part] = _thresholds(model, layer, arrays, rng)
        assert part == "neg" or arrays[part].dtype == dtype
    return {f"{layer.name}.{part}": array for part, array in arrays.items()}


def _planes(layer: Layer, inputs: tuple[int, ...], zeros: float, rng: np.random.Generator) -> Tensors:
    shape = ops.weight_shape(layer, sum(inputs))
    pos = rng.random(shape) < 0.5
    if layer.weights == "binary":
        return {"pos": pack(pos, inputs)}
    kept = rng.random(shape) >= zeros
    return {"pos": pack(pos & kept, inputs), "neg": pack(~pos & kept, inputs)}


def _thresholds(model: Model, layer: Layer, arrays: Tensors, rng: np.random.Generator) -> NDArray[np.int32]:
    """Thresholds that half of the likely sums reach, but for the constant channels."""
    inputs = model.inputs(layer)
    bound = ops.operation(layer).bound(layer, inputs, arrays)[:, None]  # [channels, 1]
    middle, spread = _likely_sums(layer, inputs, bound, arrays)
    theta = np.rint(middle + 0.5 * spread * rng.standard_normal((layer.channels, layer.thresholds)))
    theta = np.clip(np.sort(theta, axis=1), -bound, bound + 1)
    chance = rng.random((layer.channels, 1))
    return np.where(chance < CONSTANT, -bound, np.where(chance > 1 - CONSTANT, bound + 1, theta)).astype(np.int32)


def _likely_sums(layer: Layer, inputs: ops.Inputs, bound: NDArray[np.int64], arrays: Tensors) -> tuple[Any, Any]:
    """(mean, standard deviation) of each channel's sums over random pixels or bits, float64 [channels, 1]."""
    if layer.weights != "int16":
        return 0.0, np.sqrt(bound * inputs[0].largest)
    weight = arrays["weight"].astype(np.float64).reshape(layer.channels, -1)
    middle = 127.5 * weight.sum(axis=1, keepdims=True)
    return middle, 74.0 * np.sqrt((weight**2).sum(axis=1, keepdims=True))
