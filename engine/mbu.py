"""MBU-Net's idea in one place: masking, cost score, subtractive bit-encoding, threshold folding.

Every function works on plain numpy arrays. Training wraps them in straight-through estimators, the exporter calls
them, and the tests check them against their definitions. Equation and table numbers are those of arXiv 2601.11660.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FIXED_POINT_MAX = 32767
"""Largest magnitude of a first- or last-layer weight (int16, symmetric)."""

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]


# -- masking (section 3.2): which weights become zero --------------------------------------------------------------


def zero_threshold(weights: Floats, zeros: float) -> float:
    """Magnitude t such that masking |w| <= t turns the share `zeros` (0 to 1) of `weights` (any shape) into zeros."""
    count = zero_count(weights.size, zeros)
    if count == 0:
        return -1.0
    magnitudes = np.abs(weights).ravel()
    return float(np.partition(magnitudes, count - 1)[count - 1])


def zero_count(size: int, zeros: float) -> int:
    """How many of `size` weights the share `zeros` (0 to 1) of them are."""
    if not 0.0 <= zeros < 1.0:
        raise ValueError(f"the share of zeros must lie in [0, 1), not {zeros}")
    return round(zeros * size)


def zeros_by_cost(weights: Mapping[str, Floats], products: Mapping[str, float], zeros: float) -> dict[str, float]:
    """Share of zeros for each layer so that `zeros` of all `products` (per image, by layer) are products with zero.

    Masking the weight w of layer l saves products_l / size_l and loses a share of what the layer computes that is
    w^2 / sum(w^2). Keeping most for the products spent means keeping the weights with
    |w| / rms_l > bound * sqrt(products_l), with one bound for all layers, found by bisection.
    """
    if not 0.0 <= zeros < 1.0:
        raise ValueError(f"the share of zeros must lie in [0, 1), not {zeros}")
    total = sum(products.values())
    magnitudes = {}
    for name, latent in weights.items():
        rms = max(float(np.sqrt(np.mean(np.square(latent, dtype=np.float64)))), 1e-30)
        magnitudes[name] = np.sort(np.abs(latent).ravel()) / (rms * np.sqrt(products[name] / total))

    def shares(bound: float) -> dict[str, float]:
        return {name: float(np.searchsorted(m, bound, side="right")) / m.size for name, m in magnitudes.items()}

    low, high = 0.0, max((float(m[-1]) for m in magnitudes.values()), default=0.0)
    for _ in range(40):
        middle = (low + high) / 2
        reached = sum(share * products[name] for name, share in shares(middle).items())
        low, high = (low, middle) if reached >= zeros * total else (middle, high)
    most = {name: 1 - 1 / m.size for name, m in magnitudes.items()}  # a layer keeps one weight at least
    return {name: min(share, most[name]) for name, share in shares(high).items()}


def mask(weights: Floats, threshold: float | Floats) -> NDArray[np.int8]:
    """Masked weights: sign(w) where |w| > threshold, otherwise 0. Same shape as `weights`, int8 in {-1, 0, +1}.

    A `threshold` per channel must broadcast against `weights`.
    """
    return np.where(np.abs(weights) > threshold, binarize(weights), 0).astype(np.int8)


def binarize(weights: Floats) -> NDArray[np.int8]:
    """Binary weights: sign(w) with sign(0) = +1. Same shape as `weights`, int8 in {-1, +1}."""
    return np.where(weights >= 0, 1, -1).astype(np.int8)


# -- weights of two bits, and factors of segments -------------------------------------------------------------------


def two_bits(weights: Floats) -> NDArray[np.int8]:
    """DoReFa's weights of two bits in thirds: 2 * quantize(tanh(w) / (2 max |tanh w|) + 1/2) - 1, times three.

    Same shape as `weights`, int8 in {-3, -1, 1, 3}; ties go up.
    """
    squashed = np.tanh(weights.astype(np.float64))
    largest = np.max(np.abs(squashed)) or 1.0
    return (2 * np.floor(3 * (squashed / (2 * largest) + 0.5) + 0.5) - 3).astype(np.int8)


def split(values: NDArray[np.int8]) -> NDArray[np.int8]:
    """Signs (s1, s0) with 2 * s1 + s0 = `values` in {-3, -1, 0, 1, 3}, int8 [2, ...]; of zero both are zero."""
    high = np.sign(values)
    return np.stack([high, values - 2 * high])


def exponents(factors: Floats, most: int) -> NDArray[np.uint8]:
    """Of factors in (0, 1) the e of 0 ... `most` for which 2^e / 2^most is nearest, in the logarithm; ties go up."""
    nearest = np.floor(np.log2(factors.astype(np.float64)) + most + 0.5)
    return np.clip(nearest, 0, most).astype(np.uint8)


# -- cost score (equation 2): which blocks to mask first ------------------------------------------------------------


def cost_scores(
    operations: Sequence[float], parameters: Sequence[float], w_op: float = 0.5, w_param: float = 0.5
) -> NDArray[np.float64]:
    """Cost of masking each block: w_op * operations / max + w_param * parameters / max (equation 2). Cheapest first.

    A transposed convolution's operations enter at half weight; with that and `w_op = w_param = 0.5` the paper's
    Table A.4 comes out, save for its Down2 entry (.406 printed, .344 computed; the rank is the same).
    """
    ops = np.asarray(operations, dtype=np.float64)
    params = np.asarray(parameters, dtype=np.float64)
    scores: NDArray[np.float64] = w_op * ops / ops.max() + w_param * params / params.max()
    return scores


# -- subtractive bit-encoding (section 3.3): w = pos - neg ----------------------------------------------------------


def encode(weights: NDArray[np.int8]) -> tuple[Bools, Bools]:
    """Bit planes (pos, neg) of ternary `weights`, both of its shape: w = pos - neg, never both set."""
    return weights > 0, weights < 0


def dot(bits: Bools, pos: Bools, neg: Bools) -> int:
    """Dot product of the activations 2 * bits - 1 with pos - neg, by bit counts (equation 3, without its stray n).

    2 * (popc(bits & pos) - popc(bits & neg)) - (|pos| - |neg|); all three arrays have one shape.
    """
    hits = np.count_nonzero(bits & pos) - np.count_nonzero(bits & neg)
    return 2 * int(hits) - int(np.count_nonzero(pos)) + int(np.count_nonzero(neg))


# -- threshold folding: scale, bias, batch norm and sign become one integer comparison --------------------------------


@dataclass(frozen=True)
class BatchNorm:
    """Batch normalisation of x = scale * acc + bias, every field float64 [channels]; `eps` is added to `var`."""

    gamma: NDArray[np.float64]
    beta: NDArray[np.float64]
    mean: NDArray[np.float64]
    var: NDArray[np.float64]
    scale: NDArray[np.float64]
    bias: NDArray[np.float64]
    eps: float = 1e-5

    def __call__(self, acc: NDArray[np.int64]) -> NDArray[np.float64]:
        """The normalised value of one integer accumulator per channel, int64 [channels] -> float64 [channels].

        Every step is monotone in `acc` in floating point too, which is what makes a single threshold exact.
        """
        x = self.scale * acc.astype(np.float64) + self.bias
        return self.gamma * ((x - self.mean) / np.sqrt(self.var + self.eps)) + self.beta


SIGN = (0.0,)
"""What the batch norm must reach for a sign to be +1."""


def level_targets(planes: int) -> tuple[float, ...]:
    """What the batch norm must reach for each unsigned level of `planes` bits: the middle between it and the one below.

    A level l stands for l / (2^p - 1), as DoReFa's quantize_k rounds [0, 1]; ties go up.
    """
    steps = (1 << planes) - 1
    return tuple((2 * j - 1) / (2 * steps) for j in range(1, steps + 1))


def fold(norm: BatchNorm, bound: NDArray[np.int64], targets: Sequence[float] = SIGN) -> tuple[NDArray[np.int32], Bools]:
    """Fold `norm` and the activation into (theta int32 [channels, T], flip bool [channels]).

    The level is the number of `acc >= theta`, one theta for each of the T ascending `targets`. `bound` (int64
    [channels]) is B with |acc| <= B. Where `flip` is set (gamma < 0) the channel's weights and the sign of its residual
    must be negated, so acc means the negated sum there and the comparison is >= for every channel. theta is the
    smallest integer in [-B, B + 1] at which the batch norm reaches its target: -B is "always", B + 1 "never".

    * gamma > 0: the batch norm rises with acc; theta is where it reaches the target (ties go up: sign(0) = +1).
    * gamma < 0: it falls with acc, so it rises with the negated acc.
    * gamma = 0: it is the constant beta, and so is the level, whatever acc is.
    """
    if np.any(norm.scale <= 0):
        raise ValueError("scale must be positive: a negative one would turn the comparison round")
    flip = norm.gamma < 0
    direction = np.where(flip, -1, 1).astype(np.int64)
    return np.stack([_reached_at(norm, direction, bound, target) for target in targets], axis=1), flip


def _reached_at(
    norm: BatchNorm, direction: NDArray[np.int64], bound: NDArray[np.int64], target: float
) -> NDArray[np.int32]:
    """By bisection the smallest integer in [-B, B + 1] at which `norm` of direction * integer is >= `target`."""
    low, high = -bound.astype(np.int64), bound.astype(np.int64) + 1
    while np.any(low < high):
        middle = (low + high) // 2
        fires = norm(direction * middle) >= target
        open_ = low < high
        high = np.where(open_ & fires, middle, high)
        low = np.where(open_ & ~fires, middle + 1, low)
    return low.astype(np.int32)


# -- the two layers that stay in fixed point --------------------------------------------------------------------------


def fixed_point(
    weights: Floats, axis: tuple[int, ...] | None, limit: int = FIXED_POINT_MAX
) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """Round `weights` to int16 so that the largest magnitude along `axis` becomes `limit` (32767).

    Returns (integers of the same shape, float64 step with `axis` kept): weights ~ integers * step. All-zero groups
    get step 1. `axis=None` uses one step for the whole array.
    """
    largest = np.max(np.abs(weights.astype(np.float64)), axis=axis, keepdims=True)
    step = np.where(largest > 0, largest / limit, 1.0)
    return np.rint(weights / step).astype(np.int16), step


def fixed_point_limit(weights: Floats, bias: Floats, inputs: int, largest: int) -> int:
    """Largest magnitude for `fixed_point`, at most int16's, at which no logit can exceed `largest`.

    `weights` [classes, channels] are one step of int16 apart, the `bias` [classes] the same; a channel of the input
    reaches `inputs`. Rounding adds at most half to every integer.
    """
    magnitude = float(np.max(np.abs(weights)))
    total = inputs * (np.abs(weights).sum(axis=1, dtype=np.float64) + np.abs(bias))
    room = largest - 1 - (weights.shape[1] * inputs + 1) / 2
    return int(min(FIXED_POINT_MAX, max(1.0, room * magnitude / max(float(total.max()), 1e-300))))


def probabilities(logits: Floats) -> NDArray[np.float64]:
    """Of real logits [..., classes]: a sigmoid with one class, shared out among several (softmax)."""
    if logits.shape[-1] == 1:
        sigmoid: NDArray[np.float64] = 0.5 * (1 + np.tanh(0.5 * logits.astype(np.float64)))
        return sigmoid
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    shares: NDArray[np.float64] = powers / powers.sum(-1, keepdims=True)
    return shares


@functools.lru_cache(maxsize=64)  # after a run, with every cache cold, it took .2 ms
def integer_threshold(probability: float, scale: float) -> int:
    """Smallest integer logit whose probability sigmoid(scale * logit) reaches `probability`, clipped to int32.

    Computed in float64; the comparison itself is between integers, equal on every backend.
    """
    if not 0.0 <= probability <= 1.0:
        raise ValueError(f"a probability threshold lies in [0, 1], not {probability}")
    limits = np.iinfo(np.int32)
    if probability == 0.0:
        return int(limits.min)
    if probability == 1.0:
        return int(limits.max)
    logit = np.log(probability) - np.log1p(-probability)
    return int(np.clip(np.ceil(logit / scale), limits.min, limits.max))
