"""The last layer: int16 weights and exact doublings in evaluation, their like in training."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from engine import mbu, ops
from engine.layer import Layer
from engine.train import kinds, quantize
from engine.train.params import QuantizedParams

LARGEST_LOGIT = 2**31 - 2
"""Of an int32, with room for the threshold that nothing reaches."""


class Head(nn.Module):
    """1x1 convolution to logits [n, classes, h, w], doubled in size: int16 weights on signs or levels, or floats.

    Levels count in units of the highest, so the weights of any activation have the same range.
    """

    def __init__(
        self, layer: Layer, inputs: ops.Inputs, full_precision: bool = False, ramp: kinds.Ramp = kinds.CENTERED
    ) -> None:
        super().__init__()
        self.layer, self.input, self.full_precision = layer, inputs[0], full_precision
        self.weight = nn.Parameter(torch.empty(layer.channels, inputs[0].channels, 1, 1))
        nn.init.normal_(self.weight, std=inputs[0].channels ** -0.5)
        self.bias = nn.Parameter(torch.zeros(layer.channels))

    def forward(self, x: Tensor) -> Tensor:
        if self.full_precision:
            return self._enlarged(functional.conv2d(x, self.weight, self.bias))
        if self.training:
            weight = quantize.fixed_point(self.weight, None) / self.input.largest
            return self._enlarged(functional.conv2d(self._values(x), weight, self.bias))
        return self._exact(x.double())

    def _values(self, x: Tensor) -> Tensor:
        return 2 * x - 1 if self.input.encoding == "sign" else x

    def _enlarged(self, logits: Tensor) -> Tensor:
        """As `interpolate` would; behind a convolution torch.compile makes that one's gradients zero (2.13, CPU)."""
        for _ in range(self.layer.doublings):
            logits = doubled(doubled(logits.float(), 2), 3) / 16
        return logits

    def _exact(self, x: Tensor) -> Tensor:
        """Integers in float64, which holds them all, and at the end their scale."""
        params = self.quantized_params()
        weight = torch.from_numpy(params.weights.astype(np.float64)).to(x.device)[..., None, None]
        bias = torch.from_numpy(params.arrays["bias"].astype(np.float64)).to(x.device)
        logits = functional.conv2d(self._values(x), weight, bias)
        for _ in range(self.layer.doublings):
            logits = doubled(doubled(logits, 2), 3)
        return logits * params.scale

    def quantized_params(self) -> QuantizedParams:
        """Weights, bias and scale in fixed point, by `engine.mbu`, with one step for all classes.

        The range of int16 is used as far as the doubled logits stay within an int32.
        """
        weight, bias = (part.detach().cpu().numpy() for part in (self.weight[..., 0, 0], self.bias))
        largest, doublings = self.input.largest, self.layer.doublings
        limit = mbu.fixed_point_limit(weight, bias, largest, LARGEST_LOGIT >> 4 * doublings)
        weights, step = mbu.fixed_point(weight, None, limit)
        scale = float(step.reshape(-1)[0]) / largest
        integers = np.rint(bias.astype(np.float64) / scale).astype(np.int32)
        return QuantizedParams(weights, {"bias": integers}, scale / 16**doublings)


def doubled(logits: Tensor, axis: int) -> Tensor:
    """Twice as many values along `axis`, four times as large: 3 * self + neighbor, the edge its own neighbor."""
    size = logits.shape[axis]
    before = torch.cat([logits.narrow(axis, 0, 1), logits.narrow(axis, 0, size - 1)], axis)
    after = torch.cat([logits.narrow(axis, 1, size - 1), logits.narrow(axis, size - 1, 1)], axis)
    return torch.stack([3 * logits + before, 3 * logits + after], axis + 1).flatten(axis, axis + 1)
