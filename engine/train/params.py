"""What training hands over: a layer's integers, by `engine.mbu` and `engine.ops` alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine import mbu, ops
from engine.train import kinds, quantize

if TYPE_CHECKING:
    from engine.train.convolution import BitConv

Sums = NDArray[np.int64]


@dataclass(frozen=True)
class QuantizedParams:
    """One layer as every backend computes it.

    `weights` are those of a bit convolution, shaped as `ops.weight_shape` says, or the int16 ones of stem and head,
    shaped as in a model; where gamma < 0 they are negated. `arrays` are the layer's others in a model, by their part of
    the name. The head's logits are `scale` times its integers.
    """

    weights: NDArray[np.int16]
    arrays: dict[str, NDArray[Any]]
    scale: float = 1.0


def of_convolution(conv: BitConv) -> QuantizedParams:
    """The integers of a convolution, the first layer's too; raises ValueError for one in full precision."""
    layer = conv.layer
    weights, step = _weights(conv)
    factors = exponents(conv)
    norm = _batch_norm(conv, step, merged(weights, factors))
    targets = mbu.SIGN if layer.encoding == "sign" else mbu.level_targets(layer.planes)
    theta, flip = mbu.fold(norm, bound(conv, weights, factors), targets)
    weights = np.where(flip[:, None, None, None, None, None], -weights, weights)
    arrays: dict[str, NDArray[Any]] = {"theta": theta}
    if layer.segments > 1:
        arrays["exponents"] = factors
    if layer.residual:
        arrays["residual_signs"] = np.where(flip, -1, 1).astype(np.int8)
    return QuantizedParams(weights[0, :, 0, 0] if layer.op == "stem" else weights, arrays)


def exponents(conv: BitConv) -> NDArray[np.uint8]:
    """How often each segment of each channel is doubled, uint8 [segments, channels]."""
    if conv.factors is not None:
        return mbu.exponents(_array(torch.sigmoid(conv.factors)), ops.MAX_EXPONENT)
    bits = np.arange(conv.layer.segments, dtype=np.uint8)[::-1]  # of one segment 0; of a weight's two bits 1 and 0
    return np.repeat(bits[:, None], conv.layer.channels, axis=1)


def merged(weights: NDArray[np.int16], factors: NDArray[np.uint8]) -> Sums:
    """The segments' weights, each doubled as its exponent says, added up: int64 [channels, up, up, k, k, inputs]."""
    doubled = weights.astype(np.int64) << factors.astype(np.int64)[:, :, None, None, None, None, None]
    sums: Sums = doubled.sum(axis=0)
    return sums


def bound(conv: BitConv, weights: NDArray[np.int16], factors: NDArray[np.uint8]) -> Sums:
    """Largest magnitude B of each channel's sum, by the operation's row; of baselines' weights as of bits."""
    layer = conv.layer
    if layer.op == "stem":
        return ops.operation(layer).bound(layer, conv.inputs, {"weight": weights[0, :, 0, 0]})
    return ops.largest_sums(layer, conv.inputs, np.abs(weights.astype(np.int64)).sum(axis=(4, 5, 6)), factors)


def bits_constant(conv: BitConv, whole: Sums, signs: NDArray[np.integer] | int = 1) -> Sums:
    """c, int64 [channels], with acc = 2 * sums - c, where signs enter as 0 and 1; `whole` are the merged weights."""
    residual = signs * np.full(len(whole), 1 << conv.layer.residual_exponent, np.int64) if conv.layer.residual else 0
    total: Sums = whole.sum(axis=(1, 2, 3, 4, 5)) + residual
    return total


def _weights(conv: BitConv) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """(weights int16, as `ops.weight_shape`, step float64 [channels]): what enters the sums is weights * step."""
    latent, step = by_segment(conv, _array(conv.weight)), np.ones(conv.layer.channels)
    if conv.kind == "float":
        raise ValueError("a layer in full precision has no integers")
    if conv.kind == "int16" or conv.kind in kinds.MULTIBIT:
        weights, steps = mbu.fixed_point(latent, (0, 2, 3, 4, 5, 6), conv.limit)
        return weights, steps.reshape(-1)
    if conv.kind in kinds.TWO_BIT:
        kept = np.abs(mbu.mask(latent[0], float(conv.threshold)))
        return mbu.split(mbu.two_bits(latent[0]) * kept).astype(np.int16), step
    if conv.kind == "binary":
        return mbu.binarize(latent).astype(np.int16), step
    if conv.scale is not None:
        scale = conv.scale.detach().cpu().clamp(min=quantize.SMALLEST_SCALE)
        threshold = (scale / 3).numpy()[:, None, None, None, None, None]
        return mbu.mask(latent, threshold).astype(np.int16), scale.double().numpy() * (2 / 3)
    weights = mbu.mask(latent, float(conv.threshold)).astype(np.int16)
    if conv.support is not None:
        weights *= by_segment(conv, _array(conv.support.expand_as(conv.weight))).astype(np.int16)
    return weights, step


def by_segment(conv: BitConv, latent: NDArray[Any]) -> NDArray[Any]:
    """An array like the latent weights, shaped as `ops.weight_shape` says, of as many segments as are learned."""
    layer = conv.layer
    segments, up, kernel = kinds.latents(layer), layer.up, layer.kernel
    if conv.transposed:  # [inputs, segments * channels, up, up]
        return np.moveaxis(latent, 0, -1).reshape(segments, layer.channels, up, up, 1, 1, -1)
    return np.moveaxis(latent.reshape(segments, layer.channels, up, up, -1, kernel, kernel), 4, -1)


def _batch_norm(conv: BitConv, step: NDArray[np.float64], whole: Sums) -> mbu.BatchNorm:
    """Batch norm of the integer sums and, of levels, the ramp behind it."""
    scale, bias = _seen(conv, step, whole)
    norm = conv.norm
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gamma, beta = (_array(part).astype(np.float64) for part in (norm.weight, norm.bias))
    if conv.layer.encoding != "sign":
        gamma, beta = gamma * conv.ramp.scale, beta * conv.ramp.scale + conv.ramp.shift
    mean, var = (_array(part).astype(np.float64) for part in (norm.running_mean, norm.running_var))
    return mbu.BatchNorm(gamma, beta, mean, var, scale, bias, norm.eps)


def sums_seen(conv: BitConv) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(scale, bias) of each channel: batch norm sees scale * acc + bias of the sums `acc` of its integers."""
    weights, step = _weights(conv)
    return _seen(conv, step, merged(weights, exponents(conv)))


def _seen(conv: BitConv, step: NDArray[np.float64], whole: Sums) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if conv.reads_bits:
        return 0.5 * step, 0.5 * step * bits_constant(conv, whole)
    return step / 255 if conv.layer.op == "stem" else step, np.zeros_like(step)


def _array(tensor: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = tensor.detach().cpu().numpy()
    return array
