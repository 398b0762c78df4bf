"""The specification: every operation of a model in numpy, exact, for one image. All backends must give these bits.

Arrays are [h, w, c]. An activation is kept as its *level*: how many of its channel's thresholds the sum has reached.
With the encoding "sign" level 1 means +1 and level 0 means -1; unsigned levels mean themselves, and so do pixels.
Outside the image every level is 0: -1 for signs, else 0.

Why floating point is exact here: all factors, products and sums are integers below 2^53 in magnitude (the largest are
the head's, below 2^31), so float64 holds every one of them and rounds nothing, in whatever order a matrix product
adds them up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine import ops, preprocess
from engine.backends.base import Logits, Mask, Pixels
from engine.layer import IMAGE, Layer
from engine.model import Model

Levels = NDArray[Any]  # bool [h, w, c] with one threshold per channel, uint8 [h, w, c] with several
Values = NDArray[np.float64]  # integers, [h, w, c]
Sums = NDArray[np.int64]  # [h, w, c]


@dataclass(frozen=True)
class Result:
    """Logits int32 [h, w, classes], and by name the output of every layer but the head: bool [h, w, c] for bits."""

    logits: NDArray[np.int32]
    trace: dict[str, Levels]


def run(model: Model, image: NDArray[np.uint8]) -> Result:
    """Run `model` on one image, uint8 [h, w, 3], already fitted: its sides are what `Model.padded` gives."""
    levels: dict[str, Levels] = {IMAGE: image}
    for layer in model.layers:
        levels[layer.name] = OPERATIONS[layer.op](model, layer, [levels[name] for name in layer.reads])
    logits = levels.pop(model.layers[-1].name)
    del levels[IMAGE]
    return Result(logits.astype(np.int32), levels)


def decide(logits: NDArray[np.int32], threshold: int) -> NDArray[np.uint8]:
    """Mask uint8 [h, w] of logits [h, w, classes].

    One class: 1 where its logit is >= `threshold` (from `mbu.integer_threshold`). Several: the index of the largest
    logit, the lowest of equal ones.
    """
    mask = logits[..., 0] >= threshold if logits.shape[2] == 1 else logits.argmax(axis=2)
    return np.asarray(mask, np.uint8)


# -- the operations, by the names of `engine.ops` ----------------------------------------------------------------------


def stem(model: Model, layer: Layer, read: list[Levels]) -> Levels:
    """Levels of a convolution's sums over pixels 0 … 255, with int16 weights [channels, k, k, 3]."""
    arrays = model.arrays(layer)
    sums = convolve(_values(model, layer, read[:1], layer.kernel // 2), arrays["weight"])
    return activate(sums, arrays["theta"])


def conv(model: Model, layer: Layer, read: list[Levels]) -> Levels:
    """Levels of a convolution of bits: its segments' sums, each doubled as its exponent says, and its residual."""
    arrays = model.arrays(layer)
    factors = 1 << ops.exponents(layer, arrays).astype(np.int64)  # [segments, channels]
    weights = (model.ternary(layer) * factors[:, :, None, None, None, None, None]).sum(axis=0)
    x = _values(model, layer, read[: len(layer.inputs)], layer.kernel // 2)
    up = layer.up
    sums = np.empty((read[0].shape[0] * up, read[0].shape[1] * up, layer.channels), np.int64)
    for i in range(up):
        for j in range(up):
            sums[i::up, j::up] = convolve(x, weights[:, i, j])
    if layer.residual:
        residual = values(read[-1], model.outputs[layer.residual].encoding).astype(np.int64)
        sums += (residual << layer.residual_exponent) * arrays["residual_signs"]
    return activate(sums, arrays["theta"])


def pool(model: Model, layer: Layer, read: list[Levels]) -> Levels:
    """Highest level of every 2x2 square, [h, w, c] -> [h / 2, w / 2, c]; on bits that is OR."""
    height, width, channels = read[0].shape
    pooled: Levels = read[0].reshape(height // 2, 2, width // 2, 2, channels).max(axis=(1, 3))
    return pooled


def gate(model: Model, layer: Layer, read: list[Levels]) -> Levels:
    """The first input's level where the second's bit, of one or of every channel, is set; 0 elsewhere."""
    opened: Levels = read[0] * read[1].astype(read[0].dtype)
    return opened


def head(model: Model, layer: Layer, read: list[Levels]) -> Sums:
    """Logits [h, w, classes]: bias[k] + sum over c of weight[k, c] * x[c], doubled in size as often as it says."""
    arrays = model.arrays(layer)
    weight = arrays["weight"].astype(np.float64)  # [classes, cin]
    logits: Sums = (_values(model, layer, read) @ weight.T).astype(np.int64) + arrays["bias"]
    for _ in range(layer.doublings):
        logits = doubled(doubled(logits, 0), 1)
    return logits


OPERATIONS: dict[str, Callable[[Model, Layer, list[Levels]], Levels]] = {
    "stem": stem,
    "conv": conv,
    "pool": pool,
    "gate": gate,
    "head": head,
}


# -- what they are made of ---------------------------------------------------------------------------------------------


def values(levels: Levels, encoding: str, border: int = 0) -> Values:
    """What levels mean: 2 * level - 1 for "sign", the level itself for "unsigned"; `border` levels 0 around them."""
    padded = np.pad(levels, ((border, border), (border, border), (0, 0))).astype(np.float64)
    return 2 * padded - 1 if encoding == "sign" else padded


def _values(model: Model, layer: Layer, read: list[Levels], border: int = 0) -> Values:
    """The layer's inputs, one channel after another."""
    encodings = [model.outputs[name].encoding for name in layer.inputs]
    return np.concatenate([values(x, e, border) for x, e in zip(read, encodings, strict=True)], axis=2)


def convolve(x: Values, weight: NDArray[np.integer]) -> Sums:
    """sums[y, x, o] = sum over i, j, c of weight[o, i, j, c] * x[y + i, x + j, c].

    `x` [h + k - 1, w + k - 1, cin] has its border, `weight` is [cout, k, k, cin]; the sums are [h, w, cout].
    """
    kernel = weight.shape[1]
    height, width = x.shape[0] - kernel + 1, x.shape[1] - kernel + 1
    sums = np.zeros((height, width, len(weight)))
    for i in range(kernel):
        for j in range(kernel):
            sums += x[i : i + height, j : j + width] @ weight[:, i, j].T.astype(np.float64)
    return sums.astype(np.int64)


def activate(sums: Sums, theta: NDArray[np.int32]) -> Levels:
    """Level of each sum [h, w, c]: the number of its thresholds theta [c, T] that it reaches (>=); one gives bool."""
    reached: NDArray[np.bool_] = sums[..., None] >= theta
    return reached[..., 0] if theta.shape[1] == 1 else reached.sum(axis=3, dtype=np.uint8)


def doubled(logits: Sums, axis: int) -> Sums:
    """Twice as many values along `axis`: 3 * self + neighbor, the edge its own neighbor.

    Times 1/4 that is linear interpolation between centers half a pixel off.
    """
    x = np.moveaxis(logits, axis, 0)
    fine = np.empty((2 * len(x), *x.shape[1:]), np.int64)
    fine[0::2] = 3 * x + np.concatenate([x[:1], x[:-1]])
    fine[1::2] = 3 * x + np.concatenate([x[1:], x[-1:]])
    return np.moveaxis(fine, 0, axis)


class ReferenceBackend:
    """This specification in the place of a fast backend."""

    kernel = "reference"
    note = ""
    empty = staticmethod(preprocess.ordinary)

    def __init__(self, model: Model) -> None:
        self._model = model

    def run(self, images: list[Pixels], thresholds: list[int], want_logits: bool) -> tuple[list[Mask], list[Logits]]:
        """See `Backend`."""
        logits = []
        for image in images:
            height, width = image.shape[:2]
            padded = preprocess.pad(image, self._model.padded(height, width))
            logits.append(run(self._model, padded).logits[:height, :width])
        return [decide(some, t) for some, t in zip(logits, thresholds, strict=True)], logits

    def explain(self, index: int, layer: Layer) -> tuple[str, str]:
        """See `Backend`."""
        return self.kernel, "numpy: the specification"
