"""The specification: every operation of a model in numpy, exact, for one image. All backends must give these bits.

Arrays are [h, w, c]. An activation is kept as its *level*: how many of its channel's thresholds the sum has reached.
With one threshold that is one bit (bool): level 1 means +1 and level 0 means -1. Unsigned levels of several planes
(uint8) mean themselves, and so do pixels. Outside the image every level is 0: -1 for bits, 0 for pixels.

Why floating point is exact here: all factors, products and sums are integers below 2^53 in magnitude (the largest are
the head's, below 2^31), so float64 holds every one of them and rounds nothing, in whatever order a matrix product
adds them up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine import preprocess
from engine.backends.base import Logits, Mask, Pixels
from engine.model import IMAGE, Layer, Model
from engine.plan import Step, compile_plan

Levels = NDArray[Any]  # bool [h, w, c] with one threshold per channel, uint8 [h, w, c] with several
Values = NDArray[np.float64]  # integers, [h, w, c]
Weights = NDArray[np.integer]
Sums = NDArray[np.int64]  # [h, w, c]


@dataclass(frozen=True)
class Result:
    """Logits int32 [h, w, classes], and by name the output of every layer but the head: bool [h, w, c] for bits."""

    logits: NDArray[np.int32]
    trace: dict[str, Levels]


def run(model: Model, image: NDArray[np.uint8]) -> Result:
    """Run `model` on one image, uint8 [h, w, 3], already fitted: both sides are multiples of 16."""
    encodings = {IMAGE: "unsigned"} | {layer.name: layer.encoding for layer in model.layers}
    levels: dict[str, Levels] = {IMAGE: image}
    for layer in model.layers[:-1]:
        if layer.op == "pool2x2":
            levels[layer.name] = pool2x2(levels[layer.inputs[0]])
            continue
        border = 0 if layer.op == "upconv2x2" else 1
        x = np.concatenate([values(levels[name], encodings[name], border) for name in layer.inputs], axis=2)
        sums = OPERATIONS[layer.op](x, _weights(model, layer))
        levels[layer.name] = activate(sums, model.tensors[f"{layer.name}.theta"])
    head = model.layers[-1]
    x = np.concatenate([values(levels[name], encodings[name]) for name in head.inputs], axis=2)
    logits = head1x1(x, _weights(model, head), model.tensors[f"{head.name}.bias"])
    del levels[IMAGE]
    return Result(logits.astype(np.int32), levels)


def decide(logits: NDArray[np.int32], threshold: int) -> NDArray[np.uint8]:
    """Mask uint8 [h, w] of logits [h, w, classes].

    One class: 1 where its logit is >= `threshold` (from `mbu.integer_threshold`). Several: the index of the largest
    logit, the lowest of equal ones.
    """
    mask = logits[..., 0] >= threshold if logits.shape[2] == 1 else logits.argmax(axis=2)
    return np.asarray(mask, np.uint8)


def values(levels: Levels, encoding: str, border: int = 0) -> Values:
    """What levels mean: 2 * level - 1 for "sign", the level itself for "unsigned"; `border` levels 0 around them."""
    padded = np.pad(levels, ((border, border), (border, border), (0, 0))).astype(np.float64)
    return 2 * padded - 1 if encoding == "sign" else padded


def conv3x3(x: Values, weight: Weights) -> Sums:
    """sums[y, x, o] = sum over i, j, c of weight[o, i, j, c] * x[y + i, x + j, c].

    `x` [h + 2, w + 2, cin] has its border, `weight` is [cout, 3, 3, cin]; the sums are [h, w, cout].
    """
    height, width = x.shape[0] - 2, x.shape[1] - 2
    sums = np.zeros((height, width, len(weight)))
    for i in range(3):
        for j in range(3):
            sums += x[i : i + height, j : j + width] @ weight[:, i, j].T.astype(np.float64)
    return sums.astype(np.int64)


def pixels3x3(x: Values, weight: Weights) -> Sums:
    """The same sums as `conv3x3`, over pixels 0 … 255 with a border of 0 and int16 weights."""
    return conv3x3(x, weight)


def upconv2x2(x: Values, weight: Weights) -> Sums:
    """sums[2y + i, 2x + j, o] = sum over c of weight[o, i, j, c] * x[y, x, c]: no two taps meet in one output.

    `x` is [h, w, cin], `weight` [cout, 2, 2, cin]; the sums are [2h, 2w, cout].
    """
    sums = np.empty((2 * x.shape[0], 2 * x.shape[1], len(weight)), np.int64)
    for i in range(2):
        for j in range(2):
            sums[i::2, j::2] = x @ weight[:, i, j].T.astype(np.float64)
    return sums


def head1x1(x: Values, weight: Weights, bias: NDArray[np.int32]) -> Sums:
    """logits[y, x, k] = bias[k] + sum over c of weight[k, c] * x[y, x, c]; weight [classes, cin], bias [classes]."""
    logits: Sums = (x @ weight.T.astype(np.float64)).astype(np.int64) + bias
    return logits


def pool2x2(levels: Levels) -> Levels:
    """Largest level of every 2x2 square, [h, w, c] -> [h / 2, w / 2, c]; on bits that is OR."""
    height, width, channels = levels.shape
    pooled: Levels = levels.reshape(height // 2, 2, width // 2, 2, channels).max(axis=(1, 3))
    return pooled


def activate(sums: Sums, theta: NDArray[np.int32]) -> Levels:
    """Level of each sum [h, w, c]: the number of its thresholds theta [c, T] that it reaches (>=); one gives bool."""
    reached: NDArray[np.bool_] = sums[..., None] >= theta
    return reached[..., 0] if theta.shape[1] == 1 else reached.sum(axis=3, dtype=np.uint8)


OPERATIONS = {"pixels3x3": pixels3x3, "conv3x3": conv3x3, "upconv2x2": upconv2x2}


def _weights(model: Model, layer: Layer) -> Weights:
    """Integer weights of `layer`, the planes taken together: pos - neg."""
    if layer.weights == "int16":
        return model.tensors[f"{layer.name}.weight"]
    return model.signs(layer)


class ReferenceBackend:
    """This specification in the place of a fast backend."""

    kernel = "reference"
    note = ""

    def __init__(self, model: Model) -> None:
        self._model = model

    def run(self, images: list[Pixels], thresholds: list[int], want_logits: bool) -> tuple[list[Mask], list[Logits]]:
        """See `Backend`."""
        stride = compile_plan(self._model).stride
        logits = []
        for image in images:
            height, width = image.shape[:2]
            logits.append(run(self._model, preprocess.pad(image, stride)).logits[:height, :width])
        return [decide(some, t) for some, t in zip(logits, thresholds, strict=True)], logits

    def explain(self, index: int, step: Step) -> tuple[str, str]:
        """See `Backend`."""
        return self.kernel, "numpy: the specification"
