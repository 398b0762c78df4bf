"""Probabilities that mean what they say: one temperature in the head's scale, fitted on validation images.

Dividing all logits by one positive number moves no pixel over the threshold 1/2, so masks and bits stay as they are
(Guo et al. 2017, On Calibration of Modern Neural Networks).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from engine.model import Model
from engine.train.data.dataset import VOID

PIXELS = 20_000  # of an image at most, evenly spread
RANGE = 5.0  # temperatures from e^-RANGE to e^RANGE

LabeledLogits = tuple[NDArray[np.float64], NDArray[np.integer]]
"""(real logits [pixels, classes], class indices [pixels]) of one image."""


def subsample(logits: NDArray[np.floating], mask: NDArray[np.uint8]) -> LabeledLogits:
    """Evenly spread pixels of real logits [h, w, classes] and a mask [h, w], less those that are VOID."""
    step = -(-mask.size // PIXELS)
    labels = mask.reshape(-1)[::step]
    return logits.reshape(mask.size, -1)[::step][labels != VOID].astype(np.float64), labels[labels != VOID]


def temperature(labeled: Iterable[LabeledLogits]) -> float:
    """The T > 0 whose logits / T explain the masks best: least mean negative log likelihood, every pixel alike."""
    items = list(labeled)
    logits, labels = (np.concatenate([item[i] for item in items]) for i in (0, 1))
    return float(np.exp(_least(lambda t: _loss(logits / np.exp(t), labels), -RANGE, RANGE)))


def with_temperature(model: Model, t: float) -> Model:
    """`model` with its logits divided by `t`; nothing but the head's scale changes."""
    head = model.layers[-1]
    return replace(model, layers=(*model.layers[:-1], replace(head, scale=head.scale / t)))


def _loss(logits: NDArray[np.float64], labels: NDArray[np.integer]) -> float:
    if logits.shape[1] == 1:
        signed = np.where(labels != 0, -logits[:, 0], logits[:, 0])
        return float(np.logaddexp(0, signed).mean())
    top = logits.max(1)
    total = top + np.log(np.exp(logits - top[:, None]).sum(1))
    return float((total - logits[np.arange(len(labels)), labels]).mean())


def _least(loss: Callable[[float], float], low: float, high: float, rounds: int = 40) -> float:
    """Where a loss with one valley is least, by golden section."""
    ratio = (5**0.5 - 1) / 2
    a, b = high - ratio * (high - low), low + ratio * (high - low)
    at_a, at_b = loss(a), loss(b)
    for _ in range(rounds):
        if at_a < at_b:
            high, b, at_b = b, a, at_a
            a = high - ratio * (high - low)
            at_a = loss(a)
        else:
            low, a, at_a = a, b, at_b
            b = low + ratio * (high - low)
            at_b = loss(b)
    return (low + high) / 2
