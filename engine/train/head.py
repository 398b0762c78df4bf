"""The last layer: int16 weights in training and evaluation."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from engine import mbu
from engine.layer import Layer
from engine.train import quantize
from engine.train.params import QuantizedParams


class Head(nn.Module):
    """1x1 convolution to logits [n, classes, h, w]: int16 weights on +-1 activations, or full precision."""

    def __init__(self, layer: Layer, channels_in: int, full_precision: bool = False) -> None:
        super().__init__()
        self.full_precision = full_precision
        self.weight = nn.Parameter(torch.empty(layer.channels, channels_in, 1, 1))
        nn.init.normal_(self.weight, std=channels_in**-0.5)
        self.bias = nn.Parameter(torch.zeros(layer.channels))

    def forward(self, x: Tensor) -> Tensor:
        if self.full_precision:
            return functional.conv2d(x, self.weight, self.bias)
        if self.training:
            return functional.conv2d(2 * x - 1, quantize.fixed_point(self.weight, None), self.bias)
        params = self.quantized_params()
        weight = torch.from_numpy(params.weights.transpose(0, 3, 1, 2).astype(np.float64)).to(x.device)
        bias = torch.from_numpy(params.offsets.astype(np.float64)).to(x.device)
        return functional.conv2d(2 * x.double() - 1, weight, bias) * params.scale

    def quantized_params(self) -> QuantizedParams:
        """Weights, bias and scale in fixed point, by `mbu.fixed_point` with one step for all classes."""
        weights, step = mbu.fixed_point(self.weight.detach().cpu().numpy().transpose(0, 2, 3, 1), None)
        scale = float(step.reshape(-1)[0])
        bias = np.rint(self.bias.detach().cpu().double().numpy() / scale).astype(np.int32)
        return QuantizedParams(weights, bias, scale)
